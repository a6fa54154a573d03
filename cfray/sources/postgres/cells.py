"""The values of one column as they lie in a block of bytes, and how they are taken out of it.

COPY writes row after row.  Where each value begins and how long it is, is found for all rows at
once, column by column; then the values of a column are gathered by numpy and Arrow.  Python
looks at no single row.

Source: https://www.postgresql.org/docs/current/sql-copy.html, Binary Format
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
#: A length that stands for null.
NULL = -1


class BadCopyError(ValueError):
    """The bytes are not what COPY writes."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of a column; they stand in the block in the order of the rows.

    Attributes:
        block: the bytes, ``(size,)``.
        starts: where each value begins, ``(n,)``; no matter for a null.
        lengths: bytes of each value, ``(n,)``; ``NULL`` for a null.
    """

    block: npt.NDArray[np.uint8]
    starts: Positions
    lengths: Positions

    @property
    def valid(self) -> Mask:
        """Tell which values are not null."""
        is_valid: Mask = self.lengths != NULL
        return is_valid

    @property
    def mask(self) -> pa.Array | None:
        """Tell which values are null, as Arrow wants it; None if none is."""
        valid = self.valid
        return None if valid.all() else pa.array(~valid)

    def inner(self, skip: int, lengths: Positions | None = None) -> Cells:
        """Give what stands behind the first ``skip`` bytes of each value."""
        inner_lengths = self.lengths - skip if lengths is None else lengths
        return Cells(self.block, self.starts + skip, np.where(self.valid, inner_lengths, NULL))

    def numbers(self, kind: str, skip: int = 0) -> npt.NDArray[Any]:
        """Give a number of each value that is not null.

        Args:
            kind: numpy's name of its type: ``>i4``.
            skip: bytes of the value before it.
        """
        return read_numbers(self.block, self.starts[self.valid] + skip, kind)

    def fixed(self, kind: str) -> npt.NDArray[Any]:
        """Give the number that each value is, ``(n,)``; 0 for a null.

        Raises:
            BadCopyError: a value has another length than the number.
        """
        dtype = np.dtype(kind)
        valid = self.valid
        if (self.lengths[valid] != dtype.itemsize).any():
            raise BadCopyError(f"a value is not of {dtype.itemsize} bytes")
        column = np.zeros(len(self.starts), dtype.newbyteorder("="))
        column[valid] = self.numbers(kind)
        return column

    def binary(self) -> pa.BinaryArray:
        """Copy the values into an Arrow array."""
        count = len(self.starts)
        lengths = np.maximum(self.lengths, 0)
        # each value, and the gap behind it, is an element; every second one is taken
        edges = np.zeros(2 * count, np.int64)
        edges[0::2] = self.starts
        edges[1::2] = self.starts + lengths
        if not self.valid.all():
            # a null begins where the value before it ends
            edges = np.maximum.accumulate(np.where(np.repeat(self.valid, 2), edges, 0))
        if count == 0:
            return pa.array([], pa.binary())
        offsets = pa.py_buffer(edges.astype(np.int32))
        block = pa.py_buffer(self.block)
        elements = pa.BinaryArray.from_buffers(pa.binary(), 2 * count - 1, [None, offsets, block])
        taken = elements.take(pa.array(np.arange(0, 2 * count, 2)))
        if self.valid.all():
            return taken
        validity = pa.array(self.valid).buffers()[1]
        return pa.BinaryArray.from_buffers(pa.binary(), count, [validity, *taken.buffers()[1:]])

    def joined(self) -> npt.NDArray[np.uint8]:
        """Copy the bytes of all values, one value behind the other."""
        data = self.binary().buffers()[2]
        size = int(np.maximum(self.lengths, 0).sum())
        if data is None:
            return np.zeros(0, np.uint8)
        return np.frombuffer(data, np.uint8, size)


def read_numbers(block: npt.NDArray[np.uint8], positions: Positions, kind: str) -> npt.NDArray[Any]:
    """Read a big-endian number at each position, ``(n,)``, in the machine's order of bytes.

    Raises:
        BadCopyError: a position is beyond the block.
    """
    dtype = np.dtype(kind)
    if not len(positions):
        return np.zeros(0, dtype.newbyteorder("="))
    if positions.min() < 0 or positions.max() + dtype.itemsize > len(block):
        raise BadCopyError("a row is cut short")
    windows = np.lib.stride_tricks.sliding_window_view(block, dtype.itemsize)
    gathered = np.ascontiguousarray(windows[positions])
    return gathered.view(dtype)[:, 0].astype(dtype.newbyteorder("="))


def split_rows(
    block: npt.NDArray[np.uint8], row_starts: Positions, row_ends: Positions, n_columns: int
) -> list[Cells]:
    """Find the values of each column in rows whose bounds are known.

    Raises:
        BadCopyError: a row does not have that many columns, or does not end with the last of them.
    """
    counts = read_numbers(block, row_starts, ">i2")
    if (counts != n_columns).any():
        raise BadCopyError(f"a row has {counts[counts != n_columns][0]} columns, not {n_columns}")
    position = row_starts + 2
    columns = []
    for _ in range(n_columns):
        lengths = read_numbers(block, position, ">i4").astype(np.int64)
        if (lengths < NULL).any():
            raise BadCopyError("a value has a negative length")
        columns.append(Cells(block, position + 4, lengths))
        position = position + 4 + np.maximum(lengths, 0)
    if (position != row_ends).any():
        raise BadCopyError("a row does not end where its last value does")
    return columns
