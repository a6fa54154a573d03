"""Work out the shape of a source: what a sample says of it, and every worker must agree on.

Which vector is the primary vector and how wide it is, which vectors travel beside it, the type of
each field, and the tag of the ids.  A mapping that names a field that no record has is refused
here.  Once a run has begun its shape never changes; it is saved with the plan.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from cfray.conversion import identity
from cfray.conversion.custom_metadata import metadata_key
from cfray.conversion.fields import Fields
from cfray.errors import ConfigError
from cfray.job.mapping import Key, Path, SourceShape, as_path, dotted
from cfray.job.spec import JobSpec
from cfray.planning.field_paths import check_paths
from cfray.planning.vector_columns import (
    check_widths,
    choose_primary,
    further_vectors,
    typed_columns,
)
from cfray.records import values, vectors
from cfray.records.record import variant_numbers, variant_types
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
    types = typed_columns(batches)
    primary = choose_primary(types) if job.mapping.vector is None else as_path(job.mapping.vector)
    if job.embedding.policy != "regenerate":  # which does not read the source's vectors
        check_widths(description, primary)
    further = further_vectors(job, types, primary, schema)
    paths = {path for _, path in job.mapping.rules()} | set(further.values()) | {primary}
    sample = [Fields(batch, paths) for batch in batches]
    return SourceShape(
        kind=job.source.kind,
        url=job.source.address,
        dimension=_dimension(job, sample, primary),
        fixed=schema is not None,
        types=_type_names(sample),
        vectors=further,
        id_tag=_id_tag(job, sample),
        vector=primary,
        blank_is_null=description.blank_is_null,
    )


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
            names = counts.setdefault(metadata_key(path, fields), Counter())
            if path in fields.variants:
                kinds = variant_types(column).to_pylist()
                names.update(kind for kind in kinds if kind not in (None, "null"))
            elif not names:
                names[values.type_name(column.type)] += 1
        for path, column in fields.structs.items():
            counts.setdefault(dotted(path), Counter())[str(column.type)] += 1
    return {key: names.most_common(1)[0][0] for key, names in sorted(counts.items()) if names}


def _dimension(job: JobSpec, sample: list[Fields], path: Path) -> int:
    """Find the width of the primary vector.

    Raises:
        ConfigError: a vector is mapped and no record of the sample has a vector, or none has the
            width that the job file says.
    """
    embedding = job.embedding
    if embedding.policy == "regenerate":
        return 1  # the narrowest column; the source's vectors are not read
    widths = _widths(sample, path)
    if widths and embedding.dimension and embedding.dimension not in widths:
        most_common = widths.most_common(1)[0][0]
        raise ConfigError(
            f"embedding.dimension is {embedding.dimension}, and the vectors of the sample "
            f"({dotted(path)}) have {most_common} numbers",
            "leave embedding.dimension out: it is for a source without vectors; "
            "embedding.reduce makes vectors narrower",
        )
    if embedding.dimension and embedding.policy == "keep":
        return embedding.dimension
    if widths:
        return widths.most_common(1)[0][0]
    if embedding.policy == "remap":
        raise ConfigError(
            "embedding.policy is remap, and no record of the sample has a vector at "
            f"{dotted(path)}",
            "correct mapping.vector, or use policy: regenerate",
        )
    if job.mapping.vector is not None:
        raise ConfigError(
            f"mapping.vector: no record of the sample has a vector at {dotted(path)}",
            "correct mapping.vector, or set embedding.dimension to the vectors' width",
        )
    return 1


def _widths(sample: list[Fields], path: Path) -> Counter[int]:
    """Count the records of the sample by the width that their batch's vectors have."""
    widths: Counter[int] = Counter()
    for fields in sample:
        column = fields.columns.get(path)
        if column is None:
            continue
        width = vectors.width_of(variant_numbers(column) if path in fields.variants else column)
        if width:
            widths[width] += max(1, fields.rows)
    return widths
