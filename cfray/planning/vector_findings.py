"""What a sample shows of vectors that the operator should know before a run.

Whether they are rounded, how they are written, how many are empty, and whether a source collection
has none where another field looks like one.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.convert import Conversion, Converted
from cfray.conversion.fields import Fields
from cfray.conversion.metadata_keys import metadata_key
from cfray.job.mapping import Path, SourceShape, VectorField, dotted, primary_vectors
from cfray.job.spec import JobSpec
from cfray.planning.sample import Sample
from cfray.planning.vector_hints import vector_hints
from cfray.records.record import VARIANT, variant_numbers
from cfray.records.vector_forms import UnreadableVectorError
from cfray.records.vector_texts import loses_digits
from cfray.records.vector_values import decoded, is_vector_type
from cfray.sources.base import Description

#: Up to here float32 holds every integer (IEEE 754: 24 bits of significand).
_EXACT = 2**24
#: Vectors of a batch whose digits are looked at.
_LOOKED_AT = 20


def vector_notes(job: JobSpec, shape: SourceShape, sample: list[Fields]) -> list[str]:
    """Say what becomes of the source's primary vectors, where it is not what they are."""
    keys = {
        field: metadata_key(field.path, Conversion(job, shape).entered)
        for field in primary_vectors(job.mapping, shape)
    }
    types = {field: shape.types[key] for field, key in keys.items() if key in shape.types}
    paths = [dotted(field.path) for field in types]
    if job.embedding.policy == "regenerate":
        replaced = (
            f"the source's vectors ({', '.join(paths)}) are replaced by the model's; "
            f"mapping.vectors: {{old: {''.join(paths[:1])}}} in place of mapping.vector would "
            "carry them along"
        )
        return [replaced] if paths else []
    notes: dict[str, None] = {}
    for field, type_name in types.items():
        if "double" in type_name:
            notes[f"vectors of type {type_name} are rounded to float32"] = None
        elif any(_has_large_integers(column) for column in _columns_of(field, sample)):
            notes[
                f"vectors of {dotted(field.path)} have integers that float32 cannot hold: they are "
                "rounded to it"
            ] = None
        else:
            notes |= dict.fromkeys(_written_notes(field, sample))
    return list(notes)


def _columns_of(field: VectorField, sample: list[Fields]) -> list[pa.Array]:
    columns = [fields.columns[field.path] for fields in sample if field.path in fields.columns]
    return [column.filter(column.is_valid()) for column in columns]


def _has_large_integers(column: pa.Array) -> bool:
    """Tell whether a column of integers has one that another integer would be rounded to, too."""
    if not (is_vector_type(column.type) and pa.types.is_integer(column.type.value_type)):
        return False
    numbers = pc.drop_null(pc.list_flatten(column)).to_numpy(zero_copy_only=False)
    large = numbers[(numbers > _EXACT) | (numbers < -_EXACT)].tolist()
    return any(int(np.float32(number)) != number for number in large)


def _written_notes(field: VectorField, sample: list[Fields]) -> list[str]:
    """Say of vectors without a number type how they are read, and whether rounding changes them."""
    columns = [column for column in _columns_of(field, sample) if not is_vector_type(column.type)]
    read = [
        np.asarray(numbers, np.float64)
        for column in columns
        for numbers in decoded(column.slice(0, _LOOKED_AT), field.form)
        if numbers is not None and not isinstance(numbers, UnreadableVectorError)
    ]
    if not read:
        return []
    name, notes = dotted(field.path), []
    if any(_is_written_otherwise(column) for column in columns):
        notes.append(f"{name}: the vectors are kept, not how they are written (as: {field.form})")
    if loses_digits(np.concatenate(read[:_LOOKED_AT])):
        notes.append(f"vectors of {name} have more digits than float32: they are rounded to it")
    return notes


def _is_written_otherwise(column: pa.Array) -> bool:
    """Tell whether a column holds vectors as something else than lists of numbers."""
    return bool(not column.type.equals(VARIANT) or variant_numbers(column).null_count)


def missing_notes(
    job: JobSpec, description: Description, counts: Counter[str], sampled: int, metric: str
) -> list[str]:
    """Say how many vectors are empty, and whether zero vectors disturb the metric."""
    notes = []
    if counts["empty_vectors"]:
        notes.append(
            f"{counts['empty_vectors']:,} of {sampled:,} sampled records have an empty vector: "
            "they count as records without a vector (embedding.missing_vector: "
            f"{job.embedding.missing_vector})"
        )
    if counts["other_width_vectors"]:
        notes.append(
            f"{counts['other_width_vectors']:,} of {sampled:,} sampled records have a vector of "
            "another width: custom_metadata keeps it (other_widths: keep), and they count "
            f"as records without one (embedding.missing_vector: {job.embedding.missing_vector})"
        )
    with_vectors = [
        bool(collection.vectors) or collection.dimension is not None
        for collection in description.collections
        if collection.rows
    ]
    some_have_none = any(with_vectors) and not all(with_vectors)
    if (
        metric == "l2"
        and job.embedding.missing_vector == "zero"
        and (counts["missing_vectors"] or some_have_none)
    ):
        notes.append(
            "metric l2 with missing_vector: zero: rows without a vector will rank among the best "
            "hits, for the zero vector is near to many queries"
        )
    return notes


def vector_warnings(
    job: JobSpec,
    shape: SourceShape,
    sample: Sample,
    fields: list[Fields],
    converted: list[Converted],
) -> list[str]:
    """Warn of source collections without the primary vector where another field looks like one.

    Args:
        job: the job file.
        shape: of the source.
        sample: of its records.
        fields: of the sample's batches.
        converted: the sample's batches.
    """
    if job.embedding.policy == "regenerate":
        return []
    rules = [field.path for field in primary_vectors(job.mapping, shape)]
    mapped_paths = {path for _, path in job.mapping.rules()} | {*rules, *shape.vectors.values()}
    warnings: dict[str, None] = {}
    for collection in dict.fromkeys(sample.collections):
        numbers = [n for n, name in enumerate(sample.collections) if name == collection]
        batches = [(fields[n], converted[n]) for n in numbers]
        records = sum(len(batch.missing) for _, batch in batches)
        missing = sum(int(batch.missing.sum()) for _, batch in batches)
        looks = {
            dotted(path): (count, f"{dotted(path)} is a vector, which lands in x_vector_{name}")
            for name, path in shape.vectors.items()
            if path not in rules
            and (count := sum(_count_instead(path, *batch) for batch in batches))
        }
        if records and missing == records:
            hints = vector_hints([item for item, _ in batches], mapped_paths)
            looks |= {rule: (records, look) for look, rule in hints}
        for rule, (count, look) in looks.items():
            where = f" of source collection {collection}" if collection else ""
            several = [*map(dotted, rules), rule] if shape.dimension > 1 else [rule]
            warnings[
                f"NO PRIMARY VECTOR in {count:,} of {records:,} sampled records{where} "
                f"({' or '.join(map(dotted, rules))}); {look}. To make it the primary vector, "
                f"write mapping.vector: {rule if several == [rule] else _listed(several)}"
            ] = None
    return list(warnings)


def _listed(rules: list[str]) -> str:
    return f"[{', '.join(rules)}]"


def _count_instead(path: Path, fields: Fields, converted: Converted) -> int:
    """Count the records that have a vector at a path, and no primary vector."""
    column = fields.columns.get(path)
    if column is None:
        return 0
    is_present = column.is_valid().to_numpy(zero_copy_only=False)[converted.rows]
    return int((is_present & converted.missing).sum())
