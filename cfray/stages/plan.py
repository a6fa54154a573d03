"""Plan: divide the source, look at a sample, and say what would happen; write nothing.

The durable half (``Plan``) is saved once and reused on resume, so that shard
numbers never move.  The other half (``Forecast``) is for the operator: how each
field will land, what would be lossy, what the sample would quarantine.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from cfray import filesystems, identity, records, values, vectors
from cfray.errors import ConfigError, SourceError
from cfray.forecast import Forecast
from cfray.jobspec import JobSpec
from cfray.ledger import Plan
from cfray.mapping import Fields, Key, Layout, Path, as_path, dotted
from cfray.records import Reject
from cfray.sources.base import Context, Description, Shard
from cfray.stages.foresight import foresee
from cfray.stages.leftovers import metadata_key

#: Records looked at: at most this many from each of the first, the middle and the last shard.
SAMPLE_ROWS = 1_000
#: Rules that may be absent from every record; a missing id, vector or text is a mistake in the job file.
_REQUIRED = ("id", "vector", "text_content")


def make_plan(job: JobSpec) -> tuple[Plan, Forecast]:
    """Divide the source and forecast the run.

    Raises:
        ConfigError: a path of the mapping that no record has, no dimension, something lossy under ``strict``.
        SourceError: the source cannot be read.
    """
    context = Context(max_record=job.limits.max_document)
    with job.source.session() as session:
        shards = sorted(job.source.shards(context), key=lambda shard: shard.id)
        described = job.source.describe(context, shards)
        begin = time.perf_counter()
        batches, rejects = _sample(job, shards, context)
        reading = time.perf_counter() - begin
    layout = _layout(job, described, batches)
    forecast = foresee(job, described, layout, batches, rejects)
    rows = described.rows
    if described.size and forecast.sampled:
        seconds = (reading + forecast.seconds) / forecast.sampled * 1.5  # what writing and hashing add to reading and mapping
        forecast.seconds = 8 + seconds * (rows or 0) / (os.cpu_count() or 1)  # 8 s: Ray's own start
    if job.strict and forecast.lossy:
        raise ConfigError(
            "strict is true and this run would lose something: " + "; ".join(forecast.lossy), "map or leave out these fields, or set strict: false"
        )
    notes = (*described.notes, *forecast.notes)
    return Plan(shards, layout, described.consistency, rows, described.exact, described.size, notes=notes, session=session), forecast


def _sample(job: JobSpec, shards: list[Shard], context: Context) -> tuple[list[pa.RecordBatch], list[Reject]]:
    """Read some records of the first, the middle and the last shard."""
    batches: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    small = Context(session=context.session, scratch=context.scratch, max_record=context.max_record, batch_bytes=1024 * 1024)
    for number in sorted({0, len(shards) // 2, len(shards) - 1}) if shards else []:
        seen = 0
        for item in job.source.read(shards[number], small):
            if isinstance(item, Reject):
                rejects.append(item)
                seen += 1
            else:
                batches.append(item.slice(0, SAMPLE_ROWS - seen))
                seen += batches[-1].num_rows
            if seen >= SAMPLE_ROWS:
                break
    if not any(batch.num_rows for batch in batches) and not rejects:
        raise SourceError("the source holds no record", "correct source in the job file")
    return batches, rejects


def _layout(job: JobSpec, described: Description, batches: list[pa.RecordBatch]) -> Layout:
    """Work out what every worker needs to agree on."""
    fixed = described.schema is not None
    if described.schema is not None:
        batches = [
            described.schema.empty_table().to_batches()[0] if described.schema.empty_table().to_batches() else _empty(described.schema),
            *batches,
        ]
    _check_paths(job, batches, fixed=fixed)
    further = _further_vectors(job, described.schema)
    reach = {path for _, path in job.mapping.rules()} | set(further.values())
    sample = [Fields(batch, reach) for batch in batches]
    types = _types(sample, described.schema is not None)
    tags = Counter(tag for fields in sample if fields.rows for tag in [identity.declared_tag(fields, job.mapping.id)])
    tag = "j" if isinstance(job.mapping.id, Key) else (tags.most_common(1)[0][0] if tags else "s")
    url = filesystems.without_credentials(str(getattr(job.source, "uri", "")))
    return Layout(job.source.kind, url, _dimension(job, sample), fixed, types, further, tag)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], item.type) for item in schema], schema=schema)


def _check_paths(job: JobSpec, batches: list[pa.RecordBatch], *, fixed: bool) -> None:
    """Refuse a mapping that names a field nobody has.

    Raises:
        ConfigError: names the key, the path and the nearest field there is.
    """
    default = {"id"} if "id" not in job.mapping.model_fields_set else set()
    known: set[Path] = set()
    for batch in batches:
        for item, column in zip(batch.schema, batch.columns, strict=True):
            known |= set(_leaves((item.name,), item, column))
    missing: dict[str, list[Path]] = {}
    for key, path in job.mapping.rules():
        if not any(other[: len(path)] == path for other in known):
            missing.setdefault(key, []).append(path)
    for key, paths in missing.items():
        rule = getattr(job.mapping, key.split(".", maxsplit=1)[0], None)
        if isinstance(rule, list) and key != "relationships.to" and len(paths) < len(rule):
            continue  # a fallback that nobody needs is no mistake
        if not fixed and key not in _REQUIRED:
            continue
        names = sorted(dotted(other) for other in known)
        near = difflib.get_close_matches(dotted(paths[0]), names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(names[:20])}"
        where = f"mapping.{key}" + (" (its default)" if key in default else "")
        raise ConfigError(f"{where}: the source has no field {dotted(paths[0])}{hint}", "correct the mapping in the job file; nothing was created")


def _leaves(path: Path, item: pa.Field, column: pa.Array) -> Iterator[Path]:
    """List a column's paths; an object's keys are looked up in its values."""
    yield path
    if records.is_variant(item):
        kinds, texts = records.variant_types(column).to_pylist(), records.variant_texts(column).to_pylist()
        objects = [records.parsed(text) for kind, text in zip(kinds, texts, strict=True) if kind == "struct"]
        yield from _object_leaves(path, objects)
    elif pa.types.is_struct(item.type):
        for child in item.type:
            yield from _leaves((*path, child.name), child, pa.array([], child.type))


def _object_leaves(path: Path, objects: list[object]) -> Iterator[Path]:
    for key in {key for item in objects if isinstance(item, dict) for key in item}:
        yield (*path, key)
        yield from _object_leaves((*path, key), [item[key] for item in objects if isinstance(item, dict) and key in item])


def _further_vectors(job: JobSpec, schema: pa.Schema | None) -> dict[str, Path]:
    """Name the vectors beside the primary one: those the mapping names, and every fixed-size list of numbers no rule takes."""
    further = {name: as_path(rule) for name, rule in job.mapping.vectors.items()}
    primary = as_path(job.mapping.vector) if job.mapping.vector is not None else ("vector",)
    for name, path in further.items():
        if schema is not None and len(path) == 1 and path[0] in schema.names and not vectors.is_vector_type(schema.field(path[0]).type):
            raise ConfigError(
                f"mapping.vectors.{name}: {path[0]} is of type {schema.field(path[0]).type}, not a list of numbers",
                f"for CSV, declare it: source.types: {{{path[0]}: list<double>}}",
            )
    used = {path for _, path in job.mapping.rules()} | {primary, *further.values()}
    for item in schema or []:
        path = (item.name,)
        if pa.types.is_fixed_size_list(item.type) and vectors.is_vector_type(item.type) and path not in used and _carried(item.type.value_type):
            name = re.sub(r"[^A-Za-z0-9_]", "_", item.name)
            further[name if name not in further else f"{name}_{len(further)}"] = path
    if schema is not None:
        narrow = next((item for item in schema if (item.name,) == primary and pa.types.is_fixed_size_list(item.type)), None)
        if (
            narrow is not None
            and not pa.types.is_float32(narrow.type.value_type)
            and not pa.types.is_float64(narrow.type.value_type)
            and _carried(narrow.type.value_type)
        ):
            further.setdefault(re.sub(r"[^A-Za-z0-9_]", "_", narrow.name), primary)
    return further


def _carried(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_int8(kind) or pa.types.is_uint8(kind))


def _types(sample: list[Fields], fixed: bool) -> dict[str, str]:
    """Record the type of each key: the schema's, or the one most values of the sample have."""
    seen: dict[str, Counter[str]] = {}
    for fields in sample:
        for path, column in fields.columns.items():
            names = seen.setdefault(metadata_key(path, fields), Counter())
            if path in fields.variants:
                names.update(kind for kind in records.variant_types(column).to_pylist() if kind not in (None, "null"))
            elif fixed and not names:
                names[values.type_name(column.type)] += 1
        for path, column in fields.opened.items():
            seen.setdefault(dotted(path), Counter())[str(column.type)] += 1
    return {key: names.most_common(1)[0][0] for key, names in sorted(seen.items()) if names}


def _dimension(job: JobSpec, sample: list[Fields]) -> int:
    """Find the width of the primary vector.

    Raises:
        ConfigError: a vector is mapped and no record of the sample has one.
    """
    rule = job.mapping.vector
    path = as_path(rule) if rule is not None else ("vector",)
    widths: Counter[int] = Counter()
    for fields in sample:
        column = fields.columns.get(path)
        if column is None:
            continue
        width = vectors.width_of(records.variant_numbers(column) if path in fields.variants else column)
        if width:
            widths[width] += max(1, fields.rows)
    if widths:
        return widths.most_common(1)[0][0]
    if job.embedding.dimension:
        return job.embedding.dimension
    if rule is not None:
        raise ConfigError(
            f"mapping.vector: no record of the sample has a vector at {dotted(path)}",
            "correct mapping.vector, or set embedding.dimension to the vectors' width",
        )
    return 1
