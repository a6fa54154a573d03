"""The primary vectors of one batch: of several fields, the first that is present in each record.

A store whose collections call their vectors differently gives each record's vector from another
field.  Which field that was is remembered, for the other fields of the record must not be lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.fields import Fields
from cfray.conversion.list_items import Mask
from cfray.job.mapping import Path, SourceShape, VectorField, primary_vectors
from cfray.job.spec import JobSpec
from cfray.records import vectors
from cfray.records.record import variant_types


@dataclass(frozen=True, slots=True)
class PrimaryVectors:
    """The primary vectors of one batch.

    Attributes:
        vectors: of the records, in the width that the source has.
        shown: path -> rows whose field the vector column shows; None for all rows.
        absent: path -> rows in which the field is null or missing.
        other_width: rows without a vector because theirs has another width; None where no row is.
    """

    vectors: vectors.Vectors
    shown: dict[Path, Mask | None] = field(default_factory=dict)
    absent: dict[Path, Mask] = field(default_factory=dict)
    other_width: Mask | None = None


def read_primary(fields: Fields, job: JobSpec, shape: SourceShape) -> PrimaryVectors:
    """Read the primary vectors of a batch.

    An empty list stays in custom_metadata, for the vector in its place says nothing of it.  So does
    a vector behind the first one that a record has.
    """
    first: PrimaryVectors | None = None
    lacking: dict[Path, Mask] = {}
    for rule in primary_vectors(job.mapping, shape):
        column = fields.columns.get(rule.path)
        if column is None or _is_ignored(column, fields, rule, job, shape):
            lacking[rule.path] = np.ones(fields.rows, np.bool_)
            continue
        read = vectors.read_vectors(column, shape.read_dimension, rule.form)
        if read.empty is not None and fields.blank_is_null:
            read = _without_blanks(read, column)
        absent = read.missing if read.empty is None else read.missing & ~read.empty
        shown = None if read.empty is None else ~read.empty
        other_rows: Mask | None = None
        if rule.keeps_other_widths and read.misfits:
            read, other_rows = _without_misfits(read)
            shown = _and(shown, ~other_rows)
        further = PrimaryVectors(read, {rule.path: shown}, {rule.path: absent}, other_rows)
        first = further if first is None else _first_present(first, further, rule.path)
    if first is not None:
        return replace(first, absent=first.absent | lacking) if lacking else first
    empty = np.zeros((fields.rows, shape.read_dimension), np.float32)
    return PrimaryVectors(vectors.Vectors(empty, np.ones(fields.rows, np.bool_), {}))


def _without_misfits(read: vectors.Vectors) -> tuple[vectors.Vectors, Mask]:
    """Take vectors of another width for missing ones; give their rows, too."""
    is_misfit = np.zeros(len(read.missing), np.bool_)
    is_misfit[list(read.misfits)] = True
    faults = {row: reason for row, reason in read.faults.items() if row not in read.misfits}
    without = replace(read, missing=read.missing | is_misfit, faults=faults, misfits=frozenset())
    return without, is_misfit


def _without_blanks(read: vectors.Vectors, column: pa.Array) -> vectors.Vectors:
    """Take an empty text for a null, where the format cannot write a null."""
    assert read.empty is not None
    if not pa.types.is_string(column.type):
        return read
    is_blank = pc.fill_null(pc.equal(column, ""), fill_value=False)
    empty = read.empty & ~is_blank.to_numpy(zero_copy_only=False)
    return replace(read, empty=empty if empty.any() else None)


def _first_present(first: PrimaryVectors, further: PrimaryVectors, path: Path) -> PrimaryVectors:
    """Take the vectors of a further field where no field before it has any."""
    before, read = first.vectors, further.vectors
    is_open = before.missing
    empty = None
    if before.empty is not None or read.empty is not None:
        empties = [item.empty for item in (before, read) if item.empty is not None]
        empty = np.logical_or.reduce(empties) & is_open & read.missing
    joined = vectors.Vectors(
        np.where(is_open[:, None], read.values, before.values),
        is_open & read.missing,
        before.faults | {row: text for row, text in read.faults.items() if is_open[row]},
        empty,
    )
    shown: dict[Path, Mask | None] = {
        other: _and(rows, ~first.absent[other]) for other, rows in first.shown.items()
    }
    shown[path] = is_open & ~read.missing
    masks = [item.other_width for item in (first, further) if item.other_width is not None]
    other_width = np.logical_or.reduce(masks) & joined.missing if masks else None
    return PrimaryVectors(joined, shown, first.absent | further.absent, other_width)


def _and(rows: Mask | None, other: Mask) -> Mask:
    return other if rows is None else rows & other


def _is_ignored(
    column: pa.Array, fields: Fields, rule: VectorField, job: JobSpec, shape: SourceShape
) -> bool:
    """Tell whether the column of the primary vector is not read as vectors.

    A model replaces it, or it is a text that happens to be called ``vector``: no rule names it, and
    the sample held no vector.
    """
    embedding = job.embedding
    if embedding.policy == "regenerate":
        return True
    if job.mapping.vector is not None or shape.read_dimension != (embedding.dimension or 1):
        return False
    if rule.path in fields.variants:
        is_text = pc.is_in(variant_types(column), value_set=pa.array(["string", "null"]))
        return bool(pc.all(pc.or_(is_text, column.is_null())).as_py())
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))
