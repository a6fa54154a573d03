"""PostgreSQL's arrays in COPY's binary form, decoded to lists of Arrow.

A column of arrays declares neither their length nor their number of dimensions.  Arrays of one
dimension become lists; where a batch holds one of several dimensions, its column becomes a
variant, whose values are nested lists.  The number of an array's first element is not kept.

Source: PostgreSQL, src/backend/utils/adt/arrayfuncs.c, ``array_send``
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.records import values
from cfray.records.record import MISSING, Typed, variant_array
from cfray.sources.postgres.cells import NULL, BadCopyError, Cells, Positions, read_numbers
from cfray.sources.postgres.types import Column

#: Bytes before the first element of an array without elements, and what each dimension adds.
_HEADER, _DIMENSION = 12, 8


def decode_array(
    cells: Cells, column: Column, decode_items: Callable[[Cells], pa.Array]
) -> pa.Array:
    """Decode arrays: a list column, or a variant where one array has several dimensions.

    Args:
        cells: of the column.
        column: what it holds.
        decode_items: decodes the elements of all arrays.
    """
    shapes = _read_shapes(cells)
    firsts = cells.starts + _HEADER + _DIMENSION * shapes.dimensions
    items = decode_items(_find_items(cells, firsts, shapes.counts))
    if shapes.dimensions.max(initial=0) <= 1 and items.type.equals(column.arrow.value_type):
        return pa.ListArray.from_arrays(
            pa.array(_offsets(shapes.counts)), items, type=column.arrow, mask=cells.mask
        )
    return _nested_variants(cells, column, items, shapes)


@dataclass(frozen=True, slots=True)
class _Shapes:
    """How large arrays are.

    Attributes:
        dimensions: of each array, ``(n,)``; 0 for an empty one and for a null.
        sizes: of each dimension, ``(n, greatest number of dimensions)``.
        counts: elements of each array, ``(n,)``.
    """

    dimensions: Positions
    sizes: Positions
    counts: Positions


def _read_shapes(cells: Cells) -> _Shapes:
    dimensions = np.zeros(len(cells.lengths), np.int64)
    dimensions[cells.valid] = cells.numbers(">i4")
    sizes = np.ones((len(dimensions), max(1, int(dimensions.max(initial=0)))), np.int64)
    for level in range(sizes.shape[1]):
        rows = dimensions > level
        positions = cells.starts[rows] + _HEADER + _DIMENSION * level
        sizes[rows, level] = read_numbers(cells.block, positions, ">i4")
    return _Shapes(dimensions, sizes, np.where(dimensions > 0, sizes.prod(axis=1), 0))


def _offsets(counts: Positions) -> npt.NDArray[np.int32]:
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _find_items(cells: Cells, firsts: Positions, counts: Positions) -> Cells:
    """Find the elements of all arrays; their n-th elements at once."""
    offsets = _offsets(counts)
    starts = np.zeros(offsets[-1], np.int64)
    lengths = np.full(offsets[-1], NULL, np.int64)
    position = firsts.copy()
    rows = np.flatnonzero(counts > 0)
    for number in range(int(counts.max(initial=0))):
        rows = rows[counts[rows] > number]
        item_lengths = read_numbers(cells.block, position[rows], ">i4").astype(np.int64)
        starts[offsets[rows] + number] = position[rows] + 4
        lengths[offsets[rows] + number] = item_lengths
        position[rows] += 4 + np.maximum(item_lengths, 0)
    filled = counts > 0
    if (position[filled] != (cells.starts + cells.lengths)[filled]).any():
        raise BadCopyError("an array does not end where its last element does")
    return Cells(cells.block, starts, lengths)


def _nested_variants(cells: Cells, column: Column, items: pa.Array, shapes: _Shapes) -> pa.Array:
    """Make nested lists of arrays of several dimensions."""
    if isinstance(items, pa.StructArray):
        texts = items.field("text").to_pylist()
    else:
        texts = values.json_texts(items).to_pylist()
    elements = [None if text is None else _parse(text) for text in texts]
    offsets = _offsets(shapes.counts)
    type_name = values.type_name(column.arrow)
    arrays: list[object] = []
    for row, is_valid in enumerate(cells.valid):
        if not is_valid:
            arrays.append(MISSING)
            continue
        nested: list[object] = elements[offsets[row] : offsets[row + 1]]
        for size in shapes.sizes[row, 1 : shapes.dimensions[row]][::-1]:
            nested = [nested[start : start + size] for start in range(0, len(nested), int(size))]
        arrays.append(Typed(type_name if shapes.dimensions[row] <= 1 else column.type, nested))
    return variant_array(arrays)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        # a word that stands for a value, such as an infinite date
        return text
