"""Vectors as a source holds them, made one float32 matrix, with the rows that do not fit named.

A vector is refused for a wrong width, for something that is no number and for
NaN or infinity.  Wider floats are rounded to float32 (the plan says so),
narrower ones widened exactly.  A missing vector stays missing here: what
becomes of it is the job file's decision.
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
        missing: ``(n,)`` true where the source has none.
        faults: row number -> why its vector was refused.
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
    """Make ``(n, dimension)`` float32 of a column of lists of numbers.

    Or of JSON texts of such lists.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _from_texts(column, dimension)
    count = len(column)
    missing = (
        column.is_null().to_numpy(zero_copy_only=False)
        if column.null_count
        else np.zeros(count, np.bool_)
    )
    if not is_vector_type(column.type):
        reason = f"vector is not a list of numbers (its column is of type {column.type})"
        return Vectors(
            np.zeros((count, dimension), np.float32),
            missing,
            {int(row): reason for row in np.flatnonzero(~missing)},
        )
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(count, column.type.list_size)
        flat = column.values.slice(
            column.offset * column.type.list_size, count * column.type.list_size
        )
    else:
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        flat = column.flatten()
    return _from_lists(
        flat, lengths, missing, dimension, padded=pa.types.is_fixed_size_list(column.type)
    )


def _from_lists(
    flat: pa.Array, lengths: npt.NDArray[np.int64], missing: Mask, dimension: int, *, padded: bool
) -> Vectors:
    """Lay out lists whose elements stand one after the other in ``flat``; ``padded``.

    Missing rows take space too.
    """
    count = len(lengths)
    taken = lengths if padded else np.where(missing, 0, lengths)
    faults = {
        int(row): f"vector has {taken[row]} numbers, the target's have {dimension}"
        for row in np.flatnonzero(~missing & (taken != dimension))
    }
    holes: npt.NDArray[np.int64] = np.empty(0, np.int64)
    if flat.null_count:
        owner = np.repeat(np.arange(count), taken)
        holes = np.unique(owner[flat.is_null().to_numpy(zero_copy_only=False)])
        flat = pc.fill_null(flat, 0)
    numbers = flat.to_numpy(zero_copy_only=False)
    if not faults and bool((taken == dimension).all()):
        values = numbers.reshape(count, dimension)
    else:
        values = np.zeros((count, dimension), numbers.dtype)
        fits = taken == dimension
        values[fits] = numbers[np.repeat(fits, taken)].reshape(-1, dimension)
    for row in holes:
        if not missing[row]:
            faults.setdefault(int(row), "vector holds a null where a number should be")
    return _checked(values, missing, faults)


def _checked(values: npt.NDArray[np.generic], missing: Mask, faults: dict[int, str]) -> Vectors:
    """Round to float32 and refuse NaN and infinity.

    (a finite float64 beyond float32 becomes infinite and is refused).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        floats = np.ascontiguousarray(values, np.float32)
        total = float(
            np.add.reduce(floats, axis=None)
        )  # finite unless a row is not, or the sum overflows: then look closer
    if not np.isfinite(total):
        for row in np.flatnonzero(~np.isfinite(floats).all(axis=1)):
            if not missing[row]:
                faults.setdefault(int(row), "vector holds NaN or an infinite number")
    bad = missing.copy()
    bad[list(faults)] = True
    if bad.any():
        floats = np.where(bad[:, None], np.float32(0), floats)
    return Vectors(floats, missing, faults)


def _from_texts(column: pa.Array, dimension: int) -> Vectors:
    """Parse texts such as ``[0.1, 0.2]`` (CSV, pgvector); an empty text is a missing vector."""
    count = len(column)
    values = np.zeros((count, dimension), np.float32)
    missing = np.zeros(count, np.bool_)
    faults: dict[int, str] = {}
    for row, text in enumerate(column.to_pylist()):
        if text is None or not text.strip():
            missing[row] = True
            continue
        numbers = _parsed(text)
        if numbers is None:
            faults[row] = "vector is not a list of numbers"
        elif len(numbers) != dimension:
            faults[row] = f"vector has {len(numbers)} numbers, the target's have {dimension}"
        else:
            with np.errstate(over="ignore"):
                values[row] = numbers
    return _checked(values, missing, faults)


def _parsed(text: str) -> list[float] | None:
    try:
        numbers = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            numbers = json.loads(text)  # NaN and Infinity: refused with their own reason
        except ValueError:
            return None
    if not isinstance(numbers, list) or any(type(number) not in (int, float) for number in numbers):
        return None
    return numbers


def width_of(column: pa.Array) -> int | None:
    """Give the width most vectors of a sample have; None if it holds none."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        widths = [
            len(numbers) for text in column.drop_null().to_pylist() if (numbers := _parsed(text))
        ]
    elif is_vector_type(column.type):
        widths = [width for width in pc.list_value_length(column).drop_null().to_pylist() if width]
    else:
        return None
    return max(set(widths), key=widths.count) if widths else None


def matrix(column: pa.FixedSizeListArray) -> Floats:
    """Give ``(n, d)`` float32 of a vector column; nulls are zero."""
    width = column.type.list_size
    values: Floats = (
        column.values.slice(column.offset * width, len(column) * width)
        .to_numpy(zero_copy_only=False)
        .reshape(-1, width)
    )
    if column.null_count:
        values = np.where(
            column.is_null().to_numpy(zero_copy_only=False)[:, None], np.float32(0), values
        )
    return values


def vector_lists(values: Floats, hidden: Mask, kind: pa.DataType) -> pa.FixedSizeListArray:
    """Lay out ``(n, d)`` as a vector column of this number type, null where ``hidden``."""
    flat = np.ascontiguousarray(
        values, np.float16 if pa.types.is_float16(kind) else np.float32
    ).reshape(-1)
    mask = pa.array(hidden) if hidden.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind), values.shape[1], mask=mask)


def unit(values: Floats, *, like: Floats) -> Floats:
    """Bring vectors to length 1 where those they were cut from (``like``) had it."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    whole = (
        np.abs(np.linalg.norm(like, axis=1, keepdims=True) - 1) < 1e-3
    )  # what fp32, bf16 and a store's rounding leave of 1
    return np.where(whole & (lengths > 0), values / np.maximum(lengths, 1e-12), values).astype(
        np.float32
    )
