"""Vectors of a source, read into a float32 matrix, with the reasons why rows do not fit.

A vector is refused for a wrong width, for an item that is no number, and for NaN or infinity.
Wider floats are rounded to float32 (the plan says so), narrower floats are widened exactly.  A
missing vector stays missing here: the job file decides what becomes of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of one batch.

    Attributes:
        values: ``(n, d)`` float32; rows that are missing or refused are zero.
        missing: ``(n,)`` true where the source has no vector.
        faults: row -> why its vector was refused.
    """

    values: Floats
    missing: Mask
    faults: dict[int, str]


def is_vector_type(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be a dense vector."""
    lists = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return bool(
        lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
    )


def read_vectors(column: pa.Array, dimension: int) -> Vectors:
    """Read a column of lists of numbers, or of JSON texts of such lists.

    Args:
        column: of n records.
        dimension: width d that a vector must have.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _read_texts(column, dimension)
    rows = len(column)
    missing = np.zeros(rows, np.bool_)
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
    if not is_vector_type(column.type):
        reason = f"vector is not a list of numbers (its column is of type {column.type})"
        faults = dict.fromkeys(np.flatnonzero(~missing).tolist(), reason)
        return Vectors(np.zeros((rows, dimension), np.float32), missing, faults)
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
    faults = {
        row: f"vector has {lengths[row]} numbers, the target's have {dimension}"
        for row in np.flatnonzero(~missing & ~fits).tolist()
    }
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
    return _round_and_check(values, missing, faults)


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


def _read_texts(column: pa.Array, dimension: int) -> Vectors:
    """Parse texts such as ``[0.1, 0.2]`` (CSV, pgvector); an empty text is a missing vector."""
    count = len(column)
    values = np.zeros((count, dimension), np.float32)
    missing = np.zeros(count, np.bool_)
    faults: dict[int, str] = {}
    for row, text in enumerate(column.to_pylist()):
        if text is None or not text.strip():
            missing[row] = True
            continue
        numbers = _parse_numbers(text)
        if numbers is None:
            faults[row] = "vector is not a list of numbers"
        elif len(numbers) != dimension:
            faults[row] = f"vector has {len(numbers)} numbers, the target's have {dimension}"
        else:
            with np.errstate(over="ignore"):
                values[row] = numbers
    return _round_and_check(values, missing, faults)


def _parse_numbers(text: str) -> list[float] | None:
    """Parse a JSON list of numbers; None where the text is anything else."""
    try:
        numbers = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            # reads NaN and Infinity, too, which are refused with a reason that names them
            numbers = json.loads(text)
        except ValueError:
            return None
    if not isinstance(numbers, list) or any(type(number) not in (int, float) for number in numbers):
        return None
    return numbers


def width_of(column: pa.Array) -> int | None:
    """Give the width that most vectors of a column have; None if it holds no vector."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        lists = [_parse_numbers(text) for text in column.drop_null().to_pylist()]
        widths = [len(numbers) for numbers in lists if numbers]
    elif is_vector_type(column.type):
        widths = [width for width in pc.list_value_length(column).drop_null().to_pylist() if width]
    else:
        return None
    return max(set(widths), key=widths.count) if widths else None


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
