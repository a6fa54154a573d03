"""Vectors of a source, read into a float32 matrix, with the reasons why rows do not fit.

A vector is refused for a wrong width, for an item that is no number, and for NaN or infinity.
Wider floats are rounded to float32 (the plan says so), narrower floats are widened exactly.  A
missing vector stays missing here, and an empty list counts as missing: the job file decides what
becomes of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import VARIANT, variant_numbers, variant_types
from cfray.records.vector_forms import BYTE_FORMS, UnreadableVectorError, VectorForm
from cfray.records.vector_values import decoded, is_vector_type, storage_of

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of one batch.

    Attributes:
        values: ``(n, d)`` float32; rows that are missing or refused are zero.
        missing: ``(n,)`` true where the source has no vector, or an empty one.
        faults: row -> why its vector was refused.
        empty: ``(n,)`` true where the source has an empty list, an empty text or the text of a
            null; None where no row has.
        misfits: the faults for another width.
    """

    values: Floats
    missing: Mask
    faults: dict[int, str]
    empty: Mask | None = None
    misfits: frozenset[int] = frozenset()


def read_vectors(column: pa.Array, dimension: int, form: VectorForm = "auto") -> Vectors:
    """Read a column of vectors in any of the forms of ``vector_texts``.

    Args:
        column: of n records; it may hold variants.
        dimension: width d that a vector must have.
        form: of the values.
    """
    column = storage_of(column)
    if column.type.equals(VARIANT):
        return _read_variants(column, dimension, form)
    if form in BYTE_FORMS or not is_vector_type(column.type):
        return _read_cells(column, dimension, form)
    rows = len(column)
    missing = np.zeros(rows, np.bool_)
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        # null lists take up space, too
        numbers = column.values.slice(column.offset * width, rows * width)
        return _read_lists(numbers, np.full(rows, width), missing, dimension)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    return _read_lists(column.flatten(), lengths, missing, dimension)


def _read_lists(
    numbers: pa.Array, lengths: npt.NDArray[np.int64], missing: Mask, dimension: int
) -> Vectors:
    """Read lists whose numbers stand in a row.

    Args:
        numbers: of all lists.
        lengths: how many numbers each row takes up.
        missing: rows without a list.
        dimension: width that a vector must have.
    """
    fits = lengths == dimension
    faults: dict[int, str] = {}
    empty: Mask | None = None
    if not fits.all():
        is_empty = ~missing & (lengths == 0)
        if is_empty.any():
            empty, missing = is_empty, missing | is_empty
        faults = {
            row: f"vector has {lengths[row]} numbers, the target's have {dimension}"
            for row in np.flatnonzero(~missing & ~fits).tolist()
        }
    misfits = frozenset(faults)
    rows_with_null: npt.NDArray[np.int64] = np.empty(0, np.int64)
    if numbers.null_count:
        row_of_number = np.repeat(np.arange(len(lengths)), lengths)
        rows_with_null = np.unique(row_of_number[numbers.is_null().to_numpy(zero_copy_only=False)])
        numbers = pc.fill_null(numbers, 0)
    flat = numbers.to_numpy(zero_copy_only=False)
    if fits.all():
        values = flat.reshape(len(lengths), dimension)
    else:
        values = np.zeros((len(lengths), dimension), flat.dtype)
        values[fits] = flat[np.repeat(fits, lengths)].reshape(-1, dimension)
    for row in rows_with_null.tolist():
        if not missing[row]:
            faults.setdefault(row, "vector holds a null where a number should be")
    read = _round_and_check(values, missing, faults)
    if empty is None and not misfits:
        return read
    return replace(read, empty=empty, misfits=misfits)


def _round_and_check(
    values: npt.NDArray[np.generic], missing: Mask, faults: dict[int, str]
) -> Vectors:
    """Round to float32, and refuse NaN and infinity.

    A finite float64 beyond the range of float32 becomes infinite and is refused.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        floats = np.ascontiguousarray(values, np.float32)
        total = float(np.add.reduce(floats, axis=None))
    # The total is finite unless a number is not, or the sum itself overflows.
    if not np.isfinite(total):
        for row in np.flatnonzero(~np.isfinite(floats).all(axis=1)).tolist():
            if not missing[row]:
                faults.setdefault(row, "vector holds NaN or an infinite number")
    is_zero = missing.copy()
    is_zero[list(faults)] = True
    if is_zero.any():
        floats = np.where(is_zero[:, None], np.float32(0), floats)
    return Vectors(floats, missing, faults)


def _read_variants(column: pa.StructArray, dimension: int, form: VectorForm) -> Vectors:
    """Read variants: lists of numbers at once, anything else value by value."""
    numbers, kinds = variant_numbers(column), variant_types(column)
    is_other = pc.and_(
        pc.fill_null(pc.not_equal(kinds, "null"), fill_value=False), numbers.is_null()
    )
    if form in BYTE_FORMS:
        is_other = pc.fill_null(pc.not_equal(kinds, "null"), fill_value=False)
    read = read_vectors(numbers, dimension)
    rows = np.flatnonzero(is_other.to_numpy(zero_copy_only=False))
    if not len(rows):
        return read
    single_cells = _read_cells(column.take(pa.array(rows)), dimension, form)
    vectors, missing = read.values.copy(), read.missing.copy()
    vectors[rows], missing[rows] = single_cells.values, single_cells.missing
    faults = {row: reason for row, reason in read.faults.items() if not is_other[row].as_py()}
    faults |= {int(rows[row]): reason for row, reason in single_cells.faults.items()}
    empty = None
    if single_cells.empty is not None:
        empty = np.zeros(len(column), np.bool_)
        empty[rows] = single_cells.empty
    misfits = {row for row in read.misfits if row in faults}
    misfits |= {int(rows[row]) for row in single_cells.misfits}
    return Vectors(vectors, missing, faults, empty, frozenset(misfits))


def _read_cells(column: pa.Array, dimension: int, form: VectorForm) -> Vectors:
    """Read texts, bytes, objects and nested lists value by value."""
    count = len(column)
    values = np.zeros((count, dimension), np.float32)
    missing, empty = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    faults: dict[int, str] = {}
    misfits: set[int] = set()
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False).copy()
    for row, numbers in enumerate(decoded(column, form)):
        if missing[row]:
            continue
        if numbers is None:
            missing[row] = empty[row] = True
        elif isinstance(numbers, UnreadableVectorError):
            faults[row] = str(numbers)
        elif len(numbers) != dimension:
            faults[row] = f"vector has {len(numbers)} numbers, the target's have {dimension}"
            misfits.add(row)
        else:
            with np.errstate(over="ignore"):
                values[row] = numbers
    read = replace(_round_and_check(values, missing, faults), misfits=frozenset(misfits))
    return replace(read, empty=empty) if empty.any() else read


def width_of(column: pa.Array, form: VectorForm = "auto") -> int | None:
    """Give the width that most vectors of a column have; None if it holds no vector."""
    column = storage_of(column)
    if pa.types.is_fixed_size_list(column.type) and is_vector_type(column.type):
        return None if form in BYTE_FORMS else int(column.type.list_size)
    widths = widths_of(column, form)
    return max(widths, key=lambda width: (widths[width], width)) if widths else None


def widths_of(column: pa.Array, form: VectorForm = "auto") -> Counter[int]:
    """Count the vectors of a column by their width; empty ones and what is no vector not at all."""
    column = storage_of(column)
    if is_vector_type(column.type) and form not in BYTE_FORMS:
        lengths = pc.list_value_length(column.drop_null()).to_pylist()
        return Counter(length for length in lengths if length)
    if column.type.equals(VARIANT) and form not in BYTE_FORMS:
        # lists of numbers need not be written as text to be counted
        numbers = variant_numbers(column)
        is_other = numbers.is_null()
        if pc.any(pc.invert(is_other)).as_py():
            return widths_of(numbers, form) + widths_of(column.filter(is_other), form)
    return Counter(
        len(numbers)
        for numbers in decoded(column, form)
        if numbers is not None and not isinstance(numbers, UnreadableVectorError)
    )


def matrix(column: pa.FixedSizeListArray) -> Floats:
    """Give the vectors of a column as ``(n, d)`` float32; a null is zero."""
    width = column.type.list_size
    values: Floats = (
        column.values.slice(column.offset * width, len(column) * width)
        .to_numpy(zero_copy_only=False)
        .reshape(-1, width)
    )
    if column.null_count:
        is_null = column.is_null().to_numpy(zero_copy_only=False)
        values = np.where(is_null[:, None], np.float32(0), values)
    return values


def has_number(vectors: Floats) -> Mask:
    """Tell which of ``(n, d)`` vectors have another number than zero: a vector of zeros is none."""
    mask: Mask = np.any(vectors, axis=1)
    return mask


def vector_lists(values: Floats, is_null: Mask, kind: pa.DataType) -> pa.FixedSizeListArray:
    """Lay out ``(n, d)`` vectors as a column of this number type, float16 or float32."""
    number_type = np.float16 if pa.types.is_float16(kind) else np.float32
    flat = np.ascontiguousarray(values, number_type).reshape(-1)
    mask = pa.array(is_null) if is_null.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind), values.shape[1], mask=mask)


def cosines(left: Floats, right: Floats) -> Floats:
    """Compare each row of one matrix with the same row of the other.

    Args:
        left: ``(n, d)`` float32.
        right: ``(n, d)`` float32.

    Returns:
        ``(n,)`` float32, from -1 to 1; 0 where a row is all zeros, NaN where it holds a NaN.
    """
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    similarities: Floats = (left * right).sum(axis=1) / np.maximum(lengths, 1e-30)
    return similarities


def unit(values: Floats, *, like: Floats) -> Floats:
    """Bring vectors to length 1 where the vectors that they were cut from had length 1.

    Args:
        values: ``(n, d)`` float32.
        like: ``(n, e)`` float32, the vectors before they were cut.
    """
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    length_error = np.abs(np.linalg.norm(like, axis=1, keepdims=True) - 1)
    # fp32, bf16 and the rounding of a store leave a length within 1e-3 of 1
    is_unit = (length_error < 1e-3) & (lengths > 0)
    return np.where(is_unit, values / np.maximum(lengths, 1e-12), values).astype(np.float32)
