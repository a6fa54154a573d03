"""Read arrays of numbers out of BSON without looking at single numbers.

An array of n numbers of one type always has the same layout: a type, the number's index as
text, a zero, the number.  So the arrays of a page that have the same length in bytes are
rows of one matrix, and a vector costs a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cfray.sources.mongodb.elements import DOUBLE, INT32, INT64

#: Type of an element -> numpy's type of the number.
NUMBER_TYPES: dict[int, np.dtype[Any]] = {
    DOUBLE: np.dtype("<f8"),
    INT32: np.dtype("<i4"),
    INT64: np.dtype("<i8"),
}
#: Bytes of a document beside its elements: its length before them and a zero behind.
_HEAD, _TAIL = 4, 1


@dataclass(frozen=True, slots=True)
class _Run:
    """Elements whose indexes have the same number of digits.

    Attributes:
        start: of the first element in the document.
        heads: ``(count, h)`` bytes before each number.
    """

    start: int
    heads: npt.NDArray[np.uint8]


@lru_cache(maxsize=64)
def _runs(kind: int, count: int) -> tuple[_Run, ...]:
    """Lay out an array of ``count`` numbers of a type."""
    width = NUMBER_TYPES[kind].itemsize
    runs, start, first = [], _HEAD, 0
    while first < count:
        last = min(count, max(10, 10 ** len(str(first))))
        heads = b"".join(
            bytes([kind]) + str(index).encode() + b"\0" for index in range(first, last)
        )
        run = _Run(start, np.frombuffer(heads, np.uint8).reshape(last - first, -1))
        runs.append(run)
        start += (last - first) * (run.heads.shape[1] + width)
        first = last
    return tuple(runs)


@lru_cache(maxsize=256)
def _count_of(kind: int, length: int) -> int | None:
    """Say how many numbers of a type an array of so many bytes holds; None for no such array."""
    width = NUMBER_TYPES[kind].itemsize
    left, first = length - _HEAD - _TAIL, 0
    while left > 0:
        digits = len(str(first)) if first else 1
        step = 2 + digits + width
        in_run = min(left // step, 10**digits - first)
        if in_run == 0 or (in_run < 10**digits - first and left % step):
            return None
        left -= in_run * step
        first += in_run
    return first if left == 0 else None


def read_number_arrays(
    data: bytes, spans: Sequence[tuple[int, int]]
) -> dict[int, tuple[int, npt.NDArray[np.generic]]]:
    """Read the arrays that hold numbers of one type.

    Args:
        data: holds the arrays.
        spans: where each begins and ends.

    Returns:
        index in ``spans`` -> (type of the elements, numbers), for the arrays that are nothing but
        such numbers, with the indexes that every driver writes.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (start, end) in enumerate(spans):
        if end - start > _HEAD + _TAIL:
            groups.setdefault((data[start + _HEAD], end - start), []).append(index)
    found: dict[int, tuple[int, npt.NDArray[np.generic]]] = {}
    for (kind, length), indexes in groups.items():
        count = _count_of(kind, length) if kind in NUMBER_TYPES else None
        if count is None:
            continue
        joined = b"".join(data[spans[index][0] : spans[index][1]] for index in indexes)
        matrix = np.frombuffer(joined, np.uint8).reshape(len(indexes), length)
        numbers, is_whole = _split(matrix, kind, count)
        for row, index in enumerate(indexes):
            if is_whole[row]:
                found[index] = (kind, numbers[row])
    return found


def _split(
    matrix: npt.NDArray[np.uint8], kind: int, count: int
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """Take the numbers out of ``(m, length)`` bytes, and say which rows have that layout."""
    rows, number_type = len(matrix), NUMBER_TYPES[kind]
    numbers = np.empty((rows, count), number_type)
    is_whole = np.ones(rows, np.bool_)
    column = 0
    for run in _runs(kind, count):
        in_run, head = run.heads.shape
        stride = head + number_type.itemsize
        cells = matrix[:, run.start : run.start + in_run * stride].reshape(rows, in_run, stride)
        is_whole &= (cells[:, :, :head] == run.heads).all(axis=(1, 2))
        raw = np.ascontiguousarray(cells[:, :, head:])
        numbers[:, column : column + in_run] = raw.view(number_type)[:, :, 0]
        column += in_run
    return numbers, is_whole
