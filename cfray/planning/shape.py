"""Work out the shape of a source: what a sample says of it, and every worker must agree on.

Which vector is the primary vector and how wide it is, which vectors travel beside it, the type of
each field, and the tag of the ids.  A mapping that names a field that no record has is refused
here.  Once a run has begun its shape never changes; it is saved with the plan.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from cfray.conversion import identity
from cfray.conversion.fields import Fields
from cfray.errors import ConfigError
from cfray.job.mapping import (
    FRAME_KINDS,
    Key,
    SourceShape,
    VectorField,
    dotted,
    rule_paths,
    vector_fields,
)
from cfray.job.spec import JobSpec
from cfray.planning.field_paths import check_paths
from cfray.planning.references import check_references
from cfray.planning.vector_columns import (
    check_column_names,
    check_widths,
    choose_primary,
    first_reason,
    further_vectors,
    typed_columns,
    vectors_of_frames,
)
from cfray.records import vectors
from cfray.records.record import variant_types
from cfray.sources.base import Description


def work_out_shape(
    job: JobSpec, description: Description, batches: list[pa.RecordBatch]
) -> SourceShape:
    """Work out what every worker must agree on.

    Args:
        job: the job file.
        description: what the source says of itself.
        batches: a sample of its records.

    Raises:
        ConfigError: the mapping names a field that no record has, the source has several vectors
            and the mapping names none, its collections have vectors of different widths, or the
            sample has another width than ``embedding.dimension``.
    """
    schema = description.schema
    if schema is not None:
        batches = [_empty_batch(schema), *batches]
    check_paths(job, batches, fixed=schema is not None)
    check_references(job, description)
    types = typed_columns(batches)
    chosen = choose_primary(types) if job.mapping.vector is None else ("vector",)
    primary = vector_fields(job.mapping, chosen)
    if job.embedding.policy != "regenerate":  # which does not read the source's vectors
        check_widths(description, primary)
    paths = job.mapping.paths | {field.path for field in primary}
    sample = [Fields(batch, paths) for batch in batches]
    further = further_vectors(job, types, primary, sample)
    if job.source.kind in FRAME_KINDS and schema is not None:
        further = vectors_of_frames(schema)
    check_column_names(job.embedding.columns, further.paths)
    if not set(further.paths.values()) <= paths:
        sample = [Fields(batch, paths | set(further.paths.values())) for batch in batches]
    return SourceShape(
        kind=job.source.kind,
        url=job.source.address,
        dimension=_dimension(job, sample, primary),
        fixed=schema is not None,
        types=_type_names(sample),
        frame_types=description.frame_types,
        vectors=further.paths,
        id_tag=_id_tag(job, sample),
        vector=primary[0].path,
        blank_is_null=description.blank_is_null,
        vector_types=further.types,
        references=_declared_references(job, description.references),
        collection_references={
            collection.name: references
            for collection in description.collections
            if (references := _declared_references(job, collection.references))
            and references.items() - description.references.items()
        },
    )


def _declared_references(job: JobSpec, declared: dict[str, str]) -> dict[str, str]:
    """Keep of the references that a source declares those that a rule reads."""
    rules = (rule for shape in job.mapping.shapes for rule in shape.relationships)
    paths = {dotted(path) for rule in rules for path in rule_paths(rule.to)}
    return {path: name for path, name in declared.items() if path in paths}


def _empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """Make a batch without rows; ``Schema.empty_table`` cannot where a struct holds a UUID."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, item.type) for item in schema], schema=schema)


def _id_tag(job: JobSpec, sample: list[Fields]) -> str:
    """Find the tag that the ids of most batches have."""
    if isinstance(job.mapping.id, Key):
        return "j"
    tags = Counter(
        identity.declared_tag(fields, job.mapping.id) for fields in sample if fields.rows
    )
    return tags.most_common(1)[0][0] if tags else "s"


def _type_names(sample: list[Fields]) -> dict[str, str]:
    """Name the type of each key: the schema's, or the type that most values of the sample have."""
    counts: dict[str, Counter[str]] = {}
    for fields in sample:
        for path, column in fields.columns.items():
            if path in fields.file_paths:
                continue
            names = counts.setdefault(fields.metadata_key(path), Counter())
            if path in fields.variants:
                kinds = variant_types(column).to_pylist()
                names.update(kind for kind in kinds if kind not in (None, "null"))
            elif not names:
                names[fields.type_name(path)] += 1
        for path, column in fields.structs.items():
            counts.setdefault(fields.metadata_key(path), Counter())[str(column.type)] += 1
    return {key: names.most_common(1)[0][0] for key, names in sorted(counts.items()) if names}


def _dimension(job: JobSpec, sample: list[Fields], primary: list[VectorField]) -> int:
    """Find the width of the primary vector.

    Raises:
        ConfigError: a vector is mapped and no record of the sample has a vector, or none has the
            width that the job file says.
    """
    embedding = job.embedding
    if embedding.policy == "regenerate":
        return 1  # the narrowest column; the source's vectors are not read
    widths = _widths(sample, primary)
    names = " or ".join(dotted(field.path) for field in primary)
    if widths and embedding.dimension and embedding.dimension not in widths:
        most_common = widths.most_common(1)[0][0]
        raise ConfigError(
            f"embedding.dimension is {embedding.dimension}, and the vectors of the sample "
            f"({names}) have {most_common} numbers",
            "leave embedding.dimension out: it is for a source without vectors; "
            "embedding.reduce makes vectors narrower",
        )
    if embedding.dimension and embedding.policy == "keep":
        return embedding.dimension
    if widths:
        return widths.most_common(1)[0][0]
    if embedding.policy == "keep" and job.mapping.vector is None:
        return 1
    raise _no_vector(job, sample, primary, names)


def _no_vector(
    job: JobSpec, sample: list[Fields], primary: list[VectorField], names: str
) -> ConfigError:
    """Say that no record of the sample has a vector that can be read, and why."""
    reasons = (
        first_reason(fields.columns[field.path], field.form)
        for field in primary
        for fields in sample
        if field.path in fields.columns
    )
    reason = next(filter(None, reasons), "")
    if reason:
        return ConfigError(
            f"mapping.vector: no vector of the sample can be read at {names}: {reason}",
            "correct mapping.vector: the field, or how its vectors are written ({path: ..., as: "
            "...}); nothing was created",
        )
    if job.embedding.policy == "remap":
        return ConfigError(
            f"embedding.policy is remap, and no record of the sample has a vector at {names}",
            "correct mapping.vector, or use policy: regenerate",
        )
    return ConfigError(
        f"mapping.vector: no record of the sample has a vector at {names}",
        "correct mapping.vector, or set embedding.dimension to the vectors' width",
    )


def _widths(sample: list[Fields], primary: list[VectorField]) -> Counter[int]:
    """Count the records of the sample by the width of their vector."""
    widths: Counter[int] = Counter()
    for fields in sample:
        is_open = np.ones(fields.rows, np.bool_)
        for field in primary:
            column = fields.columns.get(field.path)
            if column is None:
                continue
            counts = vectors.widths_of(column.filter(pa.array(is_open)), field.form)
            if not counts and (width := vectors.width_of(column, field.form)):
                counts[width] = 1  # a fixed-size list says its width without a vector
            widths.update(counts)
            if len(primary) > 1 and counts:
                width = counts.most_common(1)[0][0]
                is_open &= vectors.read_vectors(column, width, field.form).missing
    return widths
