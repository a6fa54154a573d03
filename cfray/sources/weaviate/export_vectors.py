"""The vectors of an export: JSON text in two of its columns, bytes in the third.

Their numbers become float32 at once, with no float64 in between, so that each is the float32
that the server has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from cfray.sources.weaviate.batches import dense_column
from cfray.sources.weaviate.schema import column_of_index, index_of_column

#: The columns of an export that hold vectors.
VECTOR_COLUMNS = ["vector", "named_vectors", "multi_vectors"]
#: How deep the lists of a vector are nested: a vector, and a list of vectors.
SINGLE, MULTI = 1, 2


def build_vectors(
    batch: pa.RecordBatch, planned: Mapping[str, Sequence[int]]
) -> dict[str, pa.Array]:
    """Give the columns of the vectors that the batch has or the plan saw.

    Args:
        batch: with ``VECTOR_COLUMNS``.
        planned: name of a vector -> (width, ``SINGLE`` or ``MULTI``), as the plan saw them.
    """
    vectors: dict[str, pa.Array] = {}
    for column, depth in (("named_vectors", SINGLE), ("multi_vectors", MULTI)):
        names = [
            index_of_column(name)
            for name, (_, planned_depth) in planned.items()
            if planned_depth == depth
        ]
        parsed = _parse_vectors(batch.column(column), depth, names)
        vectors |= {
            column_of_index(name, is_multi=depth == MULTI): array for name, array in parsed.items()
        }
    unnamed = dense_column(batch.column("vector").to_pylist(), None)
    if unnamed is not None:
        vectors[""] = unnamed
    for name, (width, depth) in planned.items():
        if name not in vectors:
            single = pa.list_(pa.float32(), width)
            vectors[name] = pa.nulls(len(batch), single if depth == SINGLE else pa.list_(single))
    return vectors


def _parse_vectors(column: pa.Array, depth: int, names: Collection[str]) -> dict[str, pa.Array]:
    """Parse a column of JSON objects of vectors.

    Args:
        column: bytes; null where a record has none.
        depth: ``SINGLE`` or ``MULTI``.
        names: those the objects are expected to have; with further names they are parsed again.
    """
    if column.null_count == len(column):
        return {}
    text = b"".join((cell or b"{}") + b"\n" for cell in column.to_pylist())
    vector_type = pa.list_(pa.float32())
    column_type = vector_type if depth == SINGLE else pa.list_(vector_type)
    options = pj.ParseOptions(
        explicit_schema=pa.schema([(name, column_type) for name in names]),
        unexpected_field_behavior="infer",
    )
    read_options = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)
    table = pj.read_json(pa.BufferReader(text), read_options, options)
    if set(table.schema.names) - set(names):
        return _parse_vectors(column, depth, table.schema.names)
    columns = {name: table.column(name).combine_chunks() for name in names}
    return {
        name: _fix_width(lists) for name, lists in columns.items() if lists.null_count < len(lists)
    }


def _fix_width(lists: pa.ListArray) -> pa.Array:
    """Make the innermost lists fixed-size if all have one width.

    Lists of several widths stay as they are, so that each row is judged by itself.
    """
    if pa.types.is_list(lists.type.value_type):
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        offsets = pa.array(np.cumsum([0, *counts], dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, _fix_width(lists.flatten()), mask=lists.is_null())
    widths = pc.unique(pc.list_value_length(lists)).drop_null().to_pylist()
    if len(widths) != 1:
        return lists
    is_valid = lists.is_valid().to_numpy(zero_copy_only=False)
    numbers = np.zeros((len(lists), widths[0]), np.float32)
    numbers[is_valid] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, widths[0])
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers.reshape(-1)),
        widths[0],
        mask=pa.array(~is_valid) if lists.null_count else None,
    )
