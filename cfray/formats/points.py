"""A page of a vector store's points as one batch of records.

``id``, ``vector`` or ``vectors.<name>``, ``text``, then the payload's keys.

Ids and vectors keep the Arrow type that the store declares, so that every page
of a collection has the same; payload values are variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.records.record import MISSING, VARIANT, variant_array, variant_field
from cfray.records.types import SPARSE

#: Names that belong to the point itself.
_OWN = ("id", "vector", "vectors", "text")


def batch(
    ids: pa.Array,
    vectors: Mapping[str, pa.Array],
    payload: Sequence[Mapping[str, object]],
    *,
    inside: str,
    texts: pa.Array | None = None,
) -> pa.RecordBatch:
    """Put a page together.

    Args:
        ids: one a point; an Arrow array of one type, or a variant array where a store mixes types.
        vectors: name -> array with a null where a point has none; the name "" is the unnamed
            vector.
        payload: one mapping a point: str keys; parsed JSON or ``records.Typed`` values; a key that
            is missing stays missing.
        inside: what the store calls the payload (``metadata``, ``properties``): a key named like
            one of the point's own becomes ``<inside>.<key>``.
        texts: documents, where the store has them beside the payload; a string array.
    """
    fields = [variant_field("id") if ids.type.equals(VARIANT) else pa.field("id", ids.type)]
    columns: list[pa.Array] = [ids]
    named = {name: column for name, column in vectors.items() if name}
    if "" in vectors:
        fields.append(pa.field("vector", vectors[""].type))
        columns.append(vectors[""])
    if named:
        children = [pa.field(name, column.type) for name, column in named.items()]
        fields.append(pa.field("vectors", pa.struct(children)))
        columns.append(pa.StructArray.from_arrays(list(named.values()), fields=children))
    if texts is not None:
        fields.append(pa.field("text", pa.string()))
        columns.append(texts)
    own = {name for name in _OWN if name != "text" or texts is not None}
    for key in sorted(
        {key for point in payload for key in point}
    ):  # however a store's pages fall, a point's keys stand in one order
        name = key
        while name in own:
            name = f"{inside}.{name}"
        own.add(name)
        fields.append(variant_field(name))
        columns.append(variant_array(point.get(key, MISSING) for point in payload))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def dense(
    values: Sequence[Sequence[float] | npt.NDArray[np.generic] | None], kind: pa.DataType
) -> pa.Array:
    """Make a vector column of a declared type; a point without one is null.

    A vector of another width than ``kind`` declares makes the whole page a column of lists, so that
    each row is judged for itself.

    Args:
        values: one sequence of numbers a point, or None.
        kind: a fixed-size list.
    """
    width = kind.list_size
    missing = np.fromiter((one is None for one in values), np.bool_, len(values))
    if any(one is not None and len(one) != width for one in values):
        return pa.array(
            [None if one is None else list(one) for one in values], pa.list_(kind.value_type)
        )
    rows = np.zeros((len(values), width), kind.value_type.to_pandas_dtype())
    there = [one for one in values if one is not None]
    if there:
        rows[~missing] = np.asarray(there, rows.dtype)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(rows.reshape(-1)), width, mask=pa.array(missing) if missing.any() else None
    )


def sparse(values: Sequence[tuple[Sequence[int], Sequence[float]] | None]) -> pa.Array:
    """Make a column of sparse vectors from (indices, values) pairs; a point without one is null."""
    return pa.array(
        [
            None if one is None else {"indices": list(one[0]), "values": list(one[1])}
            for one in values
        ],
        SPARSE,
    )
