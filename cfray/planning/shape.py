"""Layout: what the plan's sample says about a source, and every worker must agree on.

Which vector is the primary one and how wide it is, which others travel beside
it, the type of each field; and that the mapping names only fields that exist.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from cfray.conversion import identity
from cfray.conversion.custom_metadata import metadata_key
from cfray.errors import ConfigError
from cfray.job.mapping import Fields, Key, Path, SourceShape, as_path, dotted
from cfray.job.spec import JobSpec
from cfray.records import values, vectors
from cfray.records.record import is_variant, parsed, variant_numbers, variant_texts, variant_types
from cfray.records.types import SPARSE
from cfray.sources.base import Description, Metric

#: Rules that may be absent from every record; a missing id, vector or text is a mistake in the job
#: file.
_REQUIRED = ("id", "vector", "text_content")
#: The column of a store's named vectors (``vectors.<name>``).
_NAMED = "vectors"


def work_out_shape(
    job: JobSpec, described: Description, batches: list[pa.RecordBatch]
) -> SourceShape:
    """Work out what every worker needs to agree on.

    Raises:
        ConfigError: the mapping names a field nobody has, several vectors and no primary one,
            collections of different widths.
    """
    fixed = described.schema is not None
    if described.schema is not None:
        batches = [
            described.schema.empty_table().to_batches()[0]
            if described.schema.empty_table().to_batches()
            else _empty(described.schema),
            *batches,
        ]
    _check_paths(job, batches, fixed=fixed)
    typed = _typed_columns(batches)
    primary = as_path(job.mapping.vector) if job.mapping.vector is not None else _primary(typed)
    if job.embedding.policy != "regenerate":  # its vectors are not read at all
        _check_widths(described, primary)
    further = _further_vectors(job, typed, primary, described.schema)
    reach = {path for _, path in job.mapping.rules()} | set(further.values()) | {primary}
    sample = [Fields(batch, reach) for batch in batches]
    types = _types(sample)
    tags = Counter(
        tag
        for fields in sample
        if fields.rows
        for tag in [identity.declared_tag(fields, job.mapping.id)]
    )
    tag = "j" if isinstance(job.mapping.id, Key) else (tags.most_common(1)[0][0] if tags else "s")
    return SourceShape(
        job.source.kind,
        job.source.place,
        _dimension(job, sample, primary),
        fixed,
        types,
        further,
        tag,
        primary,
    )


def _typed_columns(batches: list[pa.RecordBatch]) -> dict[Path, pa.DataType]:
    """List the columns that have an Arrow type of their own.

    The store's vectors under their names.
    """
    found: dict[Path, pa.DataType] = {}
    for batch in batches:
        for item in batch.schema:
            if item.name == _NAMED and pa.types.is_struct(item.type) and not is_variant(item):
                for child in item.type:
                    found.setdefault((_NAMED, child.name), child.type)
            elif not is_variant(item):
                found.setdefault((item.name,), item.type)
    return found


def _primary(typed: dict[Path, pa.DataType]) -> Path:
    """Choose the primary vector where the job file does not.

    ``vector``, or the only named dense one.

    Raises:
        ConfigError: there are several.
    """
    named = [
        path
        for path, kind in typed.items()
        if path[0] == _NAMED and pa.types.is_fixed_size_list(kind) and _dense(kind)
    ]
    if ("vector",) in typed or not named:
        return ("vector",)
    if len(named) > 1:
        told = ", ".join(f"{dotted(path)} ({typed[path].list_size} wide)" for path in named)
        raise ConfigError(
            f"the source has several vectors: {told}",
            f"choose the primary one (mapping.vector: {dotted(named[0])}); the others land in x_vector_<name>",
        )
    return named[0]


def _dense(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind.value_type))


def _check_widths(described: Description, primary: Path) -> None:
    """Refuse source collections whose primary vectors have different widths: a dataset has one.

    Raises:
        ConfigError: names them.
    """
    widths: dict[int, list[str]] = {}
    for one in described.collections:
        width = (
            one.dimension
            if primary == ("vector",)
            else one.vectors.get(primary[-1], (None, None))[0]
        )
        if width:
            widths.setdefault(width, []).append(one.name)
    if len(widths) > 1:
        told = "; ".join(
            f"{width} in {', '.join(names[:5])}" for width, names in sorted(widths.items())
        )
        raise ConfigError(
            f"the source collections have {dotted(primary)} of different widths: {told}",
            "a dataset has one width: name the collections of one width in source.collections, and give the others a job of their own",
        )


def metric_of(described: Description, primary: Path) -> Metric | None:
    """Give the distance of the primary vector; None where the collections do not agree on one."""
    found = {
        one.metric if primary == ("vector",) else one.vectors.get(primary[-1], (0, None))[1]
        for one in described.collections
    }
    return found.pop() if len(found) == 1 else None


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
            known |= set(leaves((item.name,), item, column))
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
        raise ConfigError(
            f"{where}: the source has no field {dotted(paths[0])}{hint}",
            "correct the mapping in the job file; nothing was created",
        )


def leaves(path: Path, item: pa.Field, column: pa.Array) -> Iterator[Path]:
    """List a column's paths; an object's keys are looked up in its values."""
    yield path
    if is_variant(item):
        kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
        objects = [
            parsed(text) for kind, text in zip(kinds, texts, strict=True) if kind == "struct"
        ]
        yield from _object_leaves(path, objects)
    elif pa.types.is_struct(item.type) and not item.type.equals(SPARSE):
        for child in item.type:
            yield from leaves((*path, child.name), child, pa.array([], child.type))


def _object_leaves(path: Path, objects: list[object]) -> Iterator[Path]:
    for key in {key for item in objects if isinstance(item, dict) for key in item}:
        yield (*path, key)
        yield from _object_leaves(
            (*path, key), [item[key] for item in objects if isinstance(item, dict) and key in item]
        )


def _further_vectors(
    job: JobSpec, typed: dict[Path, pa.DataType], primary: Path, schema: pa.Schema | None
) -> dict[str, Path]:
    """Name the vectors beside the primary one.

    Those the mapping names, and every vector column that no rule takes.
    """
    further = {name: as_path(rule) for name, rule in job.mapping.vectors.items()}
    for name, path in further.items():
        if (
            schema is not None
            and len(path) == 1
            and path[0] in schema.names
            and not vectors.is_vector_type(schema.field(path[0]).type)
        ):
            raise ConfigError(
                f"mapping.vectors.{name}: {path[0]} is of type {schema.field(path[0]).type}, not a list of numbers",
                f"for CSV, declare it: source.types: {{{path[0]}: list<double>}}",
            )
    used = {path for _, path in job.mapping.rules()} | {primary, *further.values()}
    for path, kind in typed.items():
        if path not in used and _is_further(kind, named=path[0] == _NAMED):
            name = re.sub(r"[^A-Za-z0-9_]", "_", path[-1])
            further[name if name not in further else f"{name}_{len(further)}"] = path
    narrow = typed.get(primary)
    if narrow is not None and pa.types.is_fixed_size_list(narrow) and _carried(narrow.value_type):
        wide = pa.types.is_float32(narrow.value_type) or pa.types.is_float64(narrow.value_type)
        if not wide:
            further.setdefault(re.sub(r"[^A-Za-z0-9_]", "_", primary[-1]), primary)
    return further


def _is_further(kind: pa.DataType, *, named: bool) -> bool:
    """Tell a vector column: a fixed-size list of numbers.

    Among a store's named ones sparse and multi-vectors, too.
    """
    if pa.types.is_fixed_size_list(kind):
        return vectors.is_vector_type(kind) and _carried(kind.value_type)
    return named and (
        kind.equals(SPARSE)
        or (pa.types.is_list(kind) and pa.types.is_fixed_size_list(kind.value_type))
    )


def _carried(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_int8(kind) or pa.types.is_uint8(kind))


def _types(sample: list[Fields]) -> dict[str, str]:
    """Record the type of each key: the schema's, or the one most values of the sample have."""
    seen: dict[str, Counter[str]] = {}
    for fields in sample:
        for path, column in fields.columns.items():
            names = seen.setdefault(metadata_key(path, fields), Counter())
            if path in fields.variants:
                names.update(
                    kind for kind in variant_types(column).to_pylist() if kind not in (None, "null")
                )
            elif not names:
                names[values.type_name(column.type)] += 1
        for path, column in fields.opened.items():
            seen.setdefault(dotted(path), Counter())[str(column.type)] += 1
    return {key: names.most_common(1)[0][0] for key, names in sorted(seen.items()) if names}


def _dimension(job: JobSpec, sample: list[Fields], path: Path) -> int:
    """Find the width of the primary vector.

    Raises:
        ConfigError: a vector is mapped and no record of the sample has one.
    """
    if job.embedding.policy == "regenerate":
        return 1  # nobody reads them
    widths: Counter[int] = Counter()
    for fields in sample:
        column = fields.columns.get(path)
        if column is None:
            continue
        width = vectors.width_of(variant_numbers(column) if path in fields.variants else column)
        if width:
            widths[width] += max(1, fields.rows)
    if widths:
        return widths.most_common(1)[0][0]
    if job.embedding.policy == "remap":
        raise ConfigError(
            f"embedding.policy is remap, and no record of the sample has a vector at {dotted(path)}",
            "correct mapping.vector, or use policy: regenerate",
        )
    if job.embedding.dimension:
        return job.embedding.dimension
    if job.mapping.vector is not None:
        raise ConfigError(
            f"mapping.vector: no record of the sample has a vector at {dotted(path)}",
            "correct mapping.vector, or set embedding.dimension to the vectors' width",
        )
    return 1
