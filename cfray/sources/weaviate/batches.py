"""Objects as batches of records: ids, vectors and properties side by side.

Vectors stay the bytes in which they came; nothing makes a Python float of each number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.formats import points
from cfray.sources.weaviate.schema import Definition, Message, column_of_index
from cfray.sources.weaviate.types import (
    message_reader,
    object_time,
    reference_values,
    value_converter,
)


@dataclass(frozen=True, slots=True)
class _VectorCells:
    """One vector of a page's objects.

    Attributes:
        is_multi: whether an object has several vectors in it.
        cells: for each object its vectors, as gRPC gives them; None where it has none.
    """

    is_multi: bool
    cells: list[bytes | None]


def _page_vectors(collection: Definition, objects: Sequence[Message]) -> dict[str, _VectorCells]:
    """Give the vectors of a page by column: those declared, and all that the objects have.

    An object of a collection from before named vectors may have an unnamed vector and named
    vectors beside it, if the named ones were added later.  An index that was added while the
    collection was read is in no definition yet.
    """
    vectors = {
        column: _VectorCells(index.is_multi, [None] * len(objects))
        for column, index in collection.vectors.items()
    }

    def cells_of(column: str, *, is_multi: bool) -> list[bytes | None]:
        if column not in vectors:
            vectors[column] = _VectorCells(is_multi, [None] * len(objects))
        return vectors[column].cells

    for row, result in enumerate(objects):
        if result.metadata.vector_bytes:
            cells_of("", is_multi=False)[row] = result.metadata.vector_bytes
        for vector in result.metadata.vectors:
            if vector.vector_bytes:
                is_multi = vector.type == vector.VECTOR_TYPE_MULTI_FP32
                column = column_of_index(vector.name, is_multi=is_multi)
                cells_of(column, is_multi=is_multi)[row] = vector.vector_bytes
    return vectors


def vector_widths(collection: Definition, objects: Sequence[Message]) -> Iterator[tuple[str, int]]:
    """Give column and width of each vector of some objects."""
    for column, vector in _page_vectors(collection, objects).items():
        for cell in vector.cells:
            if cell:
                yield column, _multi_width(cell) if vector.is_multi else len(cell) // 4


def _multi_width(content: bytes) -> int:
    """Read the width of an object's vectors in a multi-vector index: its first two bytes."""
    return int.from_bytes(content[:2], "little")


def build_page(
    collection: Definition,
    objects: Sequence[Message],
    references: Sequence[Mapping[str, Any]] | None,
    widths: Mapping[str, int],
    *,
    with_times: bool,
) -> pa.RecordBatch:
    """Make records of a page of objects.

    Args:
        collection: their collection.
        objects: ``SearchResult`` messages.
        references: for each object the properties that REST gave, where the collection has
            references.
        widths: width of each vector that the plan saw.
        with_times: whether an object's creation and update time become keys.
    """
    columns = {
        column: (_multi_column if vector.is_multi else dense_column)(
            vector.cells, widths.get(column)
        )
        for column, vector in _page_vectors(collection, objects).items()
    }
    payload = _read_properties(collection, objects)
    if references is not None:
        for row, properties in zip(payload, references, strict=True):
            for name, targets in collection.references.items():
                if properties.get(name):
                    row.update(reference_values(name, properties[name], targets))
    if with_times:
        created, updated = collection.time_keys
        for row, result in zip(payload, objects, strict=True):
            row[created] = object_time(result.metadata.creation_time_unix)
            row[updated] = object_time(result.metadata.last_update_time_unix)
    ids = pa.array([result.metadata.id_as_bytes for result in objects], pa.binary(16))
    return build_records(ids, columns, payload, widths)


def _read_properties(collection: Definition, objects: Sequence[Message]) -> list[dict[str, object]]:
    readers = [
        (declared.name, message_reader(declared.type), value_converter(declared))
        for declared in collection.properties
    ]
    payload: list[dict[str, object]] = []
    for result in objects:
        fields = result.properties.non_ref_props.fields
        row: dict[str, object] = {}
        for name, read, convert in readers:
            value = fields[name]
            if value.WhichOneof("kind") not in (None, "null_value"):
                row[name] = convert(read(value))
        payload.append(row)
    return payload


def build_records(
    ids: pa.Array,
    vectors: Mapping[str, pa.Array | None],
    payload: Sequence[Mapping[str, object]],
    planned: Collection[str],
) -> pa.RecordBatch:
    """Put ids, vectors and properties together.

    Args:
        ids: 16 bytes each.
        vectors: column -> vectors; None where no width is known, which leaves the column out.
        payload: the properties of each object.
        planned: columns of the vectors that the plan saw.
    """
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), ids)
    return points.build_batch(
        uuids,
        {name: column for name, column in vectors.items() if column is not None},
        payload,
        payload_name="properties",
        names_planned=any(planned),
    )


def dense_column(cells: Sequence[bytes | None], width: int | None) -> pa.Array | None:
    """Make a column of float32 vectors; None where neither plan nor page knows a width."""
    width = width or next((len(cell) // 4 for cell in cells if cell), None)
    if width is None:
        return None
    vectors = [np.frombuffer(cell, "<f4") if cell else None for cell in cells]
    return points.dense_column(vectors, pa.list_(pa.float32(), width))


def _multi_column(cells: Sequence[bytes | None], width: int | None) -> pa.Array | None:
    """Make a column of lists of float32 vectors.

    A cell is the width in two bytes, then the numbers of all its vectors.
    """
    cell_widths = [_multi_width(cell) if cell else None for cell in cells]
    width = width or next((cell_width for cell_width in cell_widths if cell_width), None)
    if width is None:
        return None
    numbers = [np.frombuffer(cell, "<f4", offset=2) if cell else None for cell in cells]
    # with several widths the rows stay lists, so that each row is judged by itself
    if any(cell_width not in (None, width) for cell_width in cell_widths):
        lists = [
            None if cell is None or not cell_width else cell.reshape(-1, cell_width).tolist()
            for cell, cell_width in zip(numbers, cell_widths, strict=True)
        ]
        return pa.array(lists, pa.list_(pa.list_(pa.float32())))
    counts = [0 if cell is None else len(cell) // width for cell in numbers]
    offsets = np.cumsum([0, *counts], dtype=np.int32)
    flat = np.concatenate(
        [np.empty(0, np.float32), *(cell for cell in numbers if cell is not None)]
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width)
    return pa.ListArray.from_arrays(
        pa.array(offsets), vectors, mask=pa.array([cell is None for cell in numbers])
    )
