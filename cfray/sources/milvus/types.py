"""Milvus's columnar replies as batches of records.

A reply holds one column a field.  Vectors are taken from it as the bytes they
came as; pymilvus's own rows make a Python float of every number.  What was put
beside the declared fields (``$meta``) comes as further keys of the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.errors import SourceError
from cfray.formats import points
from cfray.formats.columns import interleaved, pieces
from cfray.formats.jsontext import NotExact, parse
from cfray.records.record import (
    VARIANT,
    Reject,
    Typed,
    canonical,
    number_text,
    variant_array,
    variant_field,
)
from cfray.records.types import SPARSE
from cfray.sources.milvus.schema import DENSE, SCALARS, Field, Message, MilvusSchema

T = TypeVar("T")

DYNAMIC, PARTITION = "$meta", "$partition"
#: Kind of a dense vector field -> where the reply has its bytes.
_BYTES = {
    "Float16Vector": "float16_vector",
    "BFloat16Vector": "bfloat16_vector",
    "Int8Vector": "int8_vector",
    "BinaryVector": "binary_vector",
}
#: Kinds whose lists parsed JSON has under the same name.
_AS_JSON = ("Bool", "Int64", "Double", "VarChar")


def keys_of(answer: Message, primary: str) -> list[int | str]:
    """Give the primary keys of a reply."""
    for column in answer.fields_data:
        if column.field_name == primary:
            return list(column.scalars.long_data.data) or list(column.scalars.string_data.data)
    return []


def records_of(
    answer: Message, told: MilvusSchema, collection: str, partition: str | None, batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn a reply into batches, and a Reject for each row whose JSON cannot be kept.

    Raises:
        SourceError: the reply lacks a declared field, which was not loaded.
    """
    columns = {column.field_name: column for column in answer.fields_data}
    wanted = [told.primary, *told.vectors.values(), *told.statics]
    if lost := [one.name for one in wanted if one.name not in columns]:
        raise SourceError(
            f"collection {collection} was loaded without its fields {', '.join(lost)}",
            "release it and load it whole, then run again",
        )
    keys = keys_of(answer, told.primary.name)
    bad: dict[int, tuple[str, bytes]] = {}
    own = {one.name: _variants(one, columns[one.name], bad) for one in told.statics}
    if partition is not None:
        own[PARTITION] = variant_array([partition] * len(keys))
    beside = (
        _json(DYNAMIC, columns[DYNAMIC], bad)
        if told.dynamic and DYNAMIC in columns
        else [{}] * len(keys)
    )
    payload = [_renamed(more, own) if isinstance(more, dict) else {} for more in beside]
    ids = pa.array(keys, pa.string() if told.is_text else pa.int64())
    whole = points.batch(
        ids,
        {name: vector(one, columns[one.name], len(keys)) for name, one in told.vectors.items()},
        payload,
        inside=DYNAMIC,
    )
    for name, column in own.items():
        whole = whole.append_column(
            variant_field(f"fields.{name}" if name in ("id", "vector", "vectors") else name), column
        )
    good = [row for row in range(len(keys)) if row not in bad] if bad else list(range(len(keys)))
    rejects = (
        (row, Reject(bad[row][0], f"{collection}: {canonical(keys[row])}", bad[row][1]))
        for row in sorted(bad)
    )
    for item in interleaved(
        good, whole.take(pa.array(good, pa.int64())) if bad else whole, rejects
    ):
        if isinstance(item, Reject):
            yield item
        else:
            yield from pieces(item, batch_bytes)


def _renamed(more: dict[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """Keep apart what has the name of a declared field, though servers refuse that."""
    return (
        more
        if own.keys().isdisjoint(more)
        else {f"{DYNAMIC}.{key}" if key in own else key: value for key, value in more.items()}
    )


def _variants(told: Field, column: Message, bad: dict[int, tuple[str, bytes]]) -> pa.StructArray:
    """Give a static field as a column of variants.

    Null is explicit, for a declared field is never missing.
    """
    if told.kind == "JSON":
        return variant_array(_json(told.name, column, bad))
    if told.kind == "Array":
        return variant_array(
            _aligned(
                column, [_array(told.element, cell) for cell in column.scalars.array_data.data]
            )
        )
    where, name = SCALARS[told.kind]
    texts = pa.array(
        _aligned(column, _texts(told.kind, getattr(column.scalars, where).data)), pa.string()
    )
    given = texts.is_valid()
    types = pc.if_else(given, name, "null")
    return pa.StructArray.from_arrays(
        [types, texts.fill_null("null"), pa.nulls(len(texts), VARIANT.field("numbers").type)],
        fields=list(VARIANT),
    )


def _aligned(column: Message, found: Sequence[T]) -> Sequence[T | None]:
    """Put None where a nullable field is null.

    Some servers leave such cells out, others send a value that means nothing.
    """
    if not column.valid_data:
        return found
    given = list(column.valid_data)
    rest = iter(found)
    if len(found) < len(given):
        return [next(rest) if valid else None for valid in given]
    return [value if valid else None for value, valid in zip(rest, given, strict=True)]


def _texts(kind: str, found: Sequence[Any]) -> list[str]:
    """Write scalars as canonical JSON, strings as they are."""
    if kind == "VarChar":
        return list(found)
    if kind == "Bool":
        return ["true" if value else "false" for value in found]
    return (
        [number_text(value) for value in _shortest(kind, found)]
        if kind in ("Float", "Double")
        else list(map(str, found))
    )


def _array(kind: str, cell: Message) -> object:
    where, name = SCALARS[kind]
    found = _shortest(kind, getattr(cell, where).data)
    return found if kind in _AS_JSON else Typed(f"list<{name}>", found)


def _shortest(kind: str, found: Sequence[Any]) -> list[Any]:
    """Give numbers as Python has them.

    A float32 as the float whose text is the shortest for 32 bits.
    """
    return (
        [float(str(value)) for value in np.array(found, np.float32)]
        if kind == "Float"
        else list(found)
    )


def _json(name: str, column: Message, bad: dict[int, tuple[str, bytes]]) -> list[object]:
    found: list[object] = []
    for row, text in enumerate(_aligned(column, column.scalars.json_data.data)):
        try:
            found.append(None if text is None else parse(text))
        except NotExact as error:
            found.append(None)
            bad[row] = f"field {name}: {error}", bytes(text or b"")
    return found


def vector(told: Field, column: Message, rows: int) -> pa.Array:
    """Give a vector field's column; a null (nullable vectors) takes no room in the reply."""
    given = np.array(column.valid_data, np.bool_) if column.valid_data else np.ones(rows, np.bool_)
    if told.kind == "SparseFloatVector":
        return _sparse(column.vectors.sparse_float_vector.contents, given)
    width = told.arrow.list_size
    numbers = _numbers(told, column.vectors)
    if numbers.size != given.sum() * width:
        raise SourceError(
            f"field {told.name}: {numbers.size} numbers for {given.sum()} vectors of {width}",
            "report this with the server's version",
        )
    if not given.all():
        spread = np.zeros((rows, width), numbers.dtype)
        spread[given] = numbers.reshape(-1, width)
        return pa.FixedSizeListArray.from_arrays(
            pa.array(spread.reshape(-1)), width, mask=pa.array(~given)
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), width)


def _numbers(told: Field, data: Message) -> npt.NDArray[Any]:
    kind = DENSE[told.kind][0]
    if (
        told.kind == "FloatVector"
    ):  # the last bytes of the packed field; going through its items would make a Python float of each
        packed = data.float_vector.SerializeToString()
        return np.frombuffer(
            packed, kind, offset=len(packed) - 4 * len(data.float_vector.data)
        ).copy()  # Lance takes aligned memory only
    numbers = np.frombuffer(getattr(data, _BYTES[told.kind]), kind)
    if told.kind == "BFloat16Vector":  # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def _sparse(contents: Sequence[bytes], given: npt.NDArray[np.bool_]) -> pa.Array:
    """Read rows of (uint32 index, float32 value) pairs, 8 bytes each.

    (milvus-proto, ``SparseFloatArray``).
    """
    if len(contents) == len(given):
        contents = [row for row, there in zip(contents, given, strict=True) if there]
    lengths = np.zeros(len(given), np.int64)
    lengths[given] = [len(row) // 8 for row in contents]
    ends = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    pairs = np.frombuffer(b"".join(contents), np.dtype([("index", "<u4"), ("value", "<f4")]))
    children = [
        pa.ListArray.from_arrays(ends, pa.array(np.ascontiguousarray(pairs["index"]))),
        pa.ListArray.from_arrays(ends, pa.array(np.ascontiguousarray(pairs["value"]))),
    ]
    return pa.StructArray.from_arrays(
        children, fields=list(SPARSE), mask=None if given.all() else pa.array(~given)
    )
