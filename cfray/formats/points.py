"""Put a page of a vector store's points into one batch of records.

The columns are ``id``, ``vector`` or ``vectors.<name>``, ``text``, then the payload's keys.
Ids and vectors keep the Arrow type that the store declares, so that every page of a
collection has the same; payload values are variants.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import MISSING, VARIANT, variant_array, variant_field
from cfray.records.types import SPARSE

#: Names of columns that belong to the point itself; ``text`` only where a store has texts.
_POINT_COLUMNS = ("id", "vector", "vectors", "text")


def build_batch(
    ids: pa.Array,
    vectors: Mapping[str, pa.Array],
    payload: Sequence[Mapping[str, object]],
    *,
    payload_name: str,
    texts: pa.Array | None = None,
    names_planned: bool = True,
) -> pa.RecordBatch:
    """Put a page together.

    Args:
        ids: an id for each point; an Arrow array of one type, or a variant array where a store
            mixes types.
        vectors: name -> array with a null where a point has none; the name "" is the unnamed
            vector.
        payload: a mapping for each point: str keys; parsed JSON or ``records.Typed`` values; a key
            that is missing stays missing.
        payload_name: what the store calls the payload (``metadata``, ``properties``): a key named
            like one of the point's columns becomes ``<payload_name>.<key>`` (``unreserved_name``).
        texts: documents, where the store has them beside the payload; a string array.
        names_planned: whether the plan saw any of the named vectors.  If not, only some pages have
            the column ``vectors``, and it is null where a point has none of them: what a record
            says must not depend on its page.
    """
    fields = [variant_field("id") if ids.type.equals(VARIANT) else pa.field("id", ids.type)]
    columns: list[pa.Array] = [ids]
    named_vectors = {name: column for name, column in vectors.items() if name}
    if "" in vectors:
        fields.append(pa.field("vector", vectors[""].type))
        columns.append(vectors[""])
    if named_vectors:
        children = [pa.field(name, column.type) for name, column in named_vectors.items()]
        fields.append(pa.field("vectors", pa.struct(children)))
        arrays = list(named_vectors.values())
        mask = None if names_planned else reduce(pc.and_, [array.is_null() for array in arrays])
        columns.append(pa.StructArray.from_arrays(arrays, fields=children, mask=mask))
    if texts is not None:
        fields.append(pa.field("text", pa.string()))
        columns.append(texts)
    reserved = {name for name in _POINT_COLUMNS if name != "text" or texts is not None}
    # Sorted: a point's keys stand in the same order however the store cuts its pages.
    for key in sorted({key for point in payload for key in point}):
        fields.append(variant_field(unreserved_name(key, reserved, payload_name)))
        columns.append(variant_array(point.get(key, MISSING) for point in payload))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def unreserved_name(key: str, reserved: Collection[str], prefix: str) -> str:
    """Name the column of a payload's key, so that no two keys share a column.

    A key named like one of the record's columns gets the prefix, and so does a key that already
    reads like such a name: ``id`` becomes ``metadata.id``, ``metadata.id`` becomes
    ``metadata.metadata.id``.  So a key has the same name on every page, whatever other keys the
    page holds.

    Args:
        key: as the store has it.
        reserved: names of the record's columns.
        prefix: what stands before the dot.
    """
    unprefixed = key
    while unprefixed.startswith(f"{prefix}."):
        unprefixed = unprefixed.removeprefix(f"{prefix}.")
    return f"{prefix}.{key}" if unprefixed in reserved else key


def dense_column(
    values: Sequence[Sequence[float] | npt.NDArray[np.generic] | None], kind: pa.DataType
) -> pa.Array:
    """Make a vector column of a declared type; a point without a vector is null.

    A vector of another width than ``kind`` declares makes the column of the whole page lists of
    any width, so that each row is judged by itself.

    Args:
        values: a sequence of numbers for each point, or None.
        kind: a fixed-size list.
    """
    width = kind.list_size
    vectors = [vector for vector in values if vector is not None]
    if any(len(vector) != width for vector in vectors):
        return pa.array(
            [None if vector is None else list(vector) for vector in values],
            pa.list_(kind.value_type),
        )
    is_missing = np.fromiter((vector is None for vector in values), np.bool_, len(values))
    matrix = np.zeros((len(values), width), kind.value_type.to_pandas_dtype())
    if vectors:
        if matrix.dtype == np.float32 and not isinstance(vectors[0], np.ndarray):
            matrix[~is_missing] = to_float32(np.asarray(vectors, np.float64))
        else:
            matrix[~is_missing] = np.asarray(vectors, matrix.dtype)
    mask = pa.array(is_missing) if is_missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), width, mask=mask)


def sparse_column(values: Sequence[tuple[Sequence[int], Sequence[float]] | None]) -> pa.Array:
    """Make a column of sparse vectors; a point without a vector is null.

    Args:
        values: a pair (indices, values) for each point, or None.
    """
    return pa.array(
        [
            None
            if pair is None
            else {
                "indices": list(pair[0]),
                "values": to_float32(np.asarray(pair[1], np.float64)),
            }
            for pair in values
        ],
        SPARSE,
    )


def to_float32(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Give the float32 numbers whose shortest texts the store wrote.

    Such a text, read as float64, may lie exactly between two float32 (7.038531e-26 does);
    then the neighbour with that text is the stored number.
    """
    flat = numbers.reshape(-1)
    rounded = flat.astype(np.float32)
    # the 29 bits that a float32 lacks are exactly half of its last bit
    ties = np.flatnonzero((flat.view(np.uint64) & 0x1FFFFFFF) == 0x10000000)
    for index in ties:
        neighbours = (
            rounded[index],
            np.nextafter(rounded[index], np.float32(np.inf)),
            np.nextafter(rounded[index], np.float32(-np.inf)),
        )
        with_same_text = (number for number in neighbours if float(str(number)) == flat[index])
        rounded[index] = next(with_same_text, rounded[index])
    return rounded.reshape(numbers.shape)
