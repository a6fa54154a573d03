"""The ``_id`` of documents: as ids of records, as bounds of shards, and in MongoDB's order.

A collection may mix types of ids; the index on ``_id`` orders types first, then values.
The order is needed here to prove that a server kept to the bounds that it was given.

Source: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import math
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import VARIANT, canonical
from cfray.sources.base import Json
from cfray.sources.mongodb import elements as bson
from cfray.sources.mongodb import values
from cfray.sources.mongodb.elements import Element, read_elements, read_int32

if TYPE_CHECKING:
    from bson.raw_bson import RawBSONDocument

#: Key that sorts as MongoDB's index on ``_id`` does.
Order: TypeAlias = tuple[object, ...]

UUID_BYTES = 16
#: Type of an id that is no string, integer, ObjectId, UUID or bytes: its canonical extended JSON.
EXTENDED = "extendedJson"

#: Types in MongoDB's order; types of one rank are compared by value.
_RANKS = {
    bson.MIN_KEY: 0,
    bson.UNDEFINED: 1,
    bson.NULL: 1,
    bson.DOUBLE: 2,
    bson.INT32: 2,
    bson.INT64: 2,
    bson.DECIMAL: 2,
    bson.SYMBOL: 3,
    bson.STRING: 3,
    bson.DOCUMENT: 4,
    bson.ARRAY: 5,
    bson.BINARY: 6,
    bson.OBJECT_ID: 7,
    bson.BOOL: 8,
    bson.DATE: 9,
    bson.TIMESTAMP: 10,
    bson.REGEX: 11,
    bson.DB_POINTER: 12,
    bson.CODE: 13,
    bson.CODE_WITH_SCOPE: 14,
    bson.MAX_KEY: 15,
}


def encode_bound(data: bytes, identity: Element) -> str:
    """Write an ``_id`` as a bound for a shard's ``where``: base64 of the document {_id: value}."""
    value = data[identity.start : identity.end]
    length = 4 + 1 + 4 + len(value) + 1
    document = length.to_bytes(4, "little") + bytes([identity.kind]) + b"_id\0" + value + b"\0"
    return b64encode(document).decode()


def decode_bound(bound: str) -> tuple[bytes, Element]:
    """Read a bound back: the document {_id: value}, and its element."""
    document = b64decode(bound)
    ((name, kind, start, end),) = read_elements(document, 0, len(document))
    return document, Element(name, kind, start, end)


def bound_document(bound: str) -> RawBSONDocument:
    """Give a bound as the client sends it, byte for byte."""
    from bson.raw_bson import RawBSONDocument

    return RawBSONDocument(b64decode(bound))


def bound_order(bound: Json) -> Order | None:
    """Give the sort key of a bound; None for an open end."""
    if bound is None:
        return None
    document, identity = decode_bound(str(bound))
    return order_of(document, identity.kind, identity.start, identity.end)


def order_of(data: bytes, kind: int, start: int, end: int) -> Order:
    """Give the sort key of a value."""
    write = _ORDERS.get(kind, _bytes_order)
    return _RANKS[kind], *write(data, start, end)


def _bytes_order(data: bytes, start: int, end: int) -> Order:
    return (data[start:end],)


def _text_order(data: bytes, start: int, end: int) -> Order:
    return (data[start + 4 : end - 1],)


def _binary_order(data: bytes, start: int, end: int) -> Order:
    subtype, content = values.read_binary(data, start, end)
    return len(content), subtype, content


def _timestamp_order(data: bytes, start: int, _end: int) -> Order:
    counter, seconds = values.read_timestamp(data, start)
    return seconds, counter


# Numbers of all types are ordered by value, and NaN is below all of them.


def _double_order(data: bytes, start: int, _end: int) -> Order:
    number = values.read_double(data, start)[0]
    return (0, 0) if math.isnan(number) else (1, number)


def _decimal_order(data: bytes, start: int, end: int) -> Order:
    decimal = Decimal(values.read_decimal(data, start, end))
    return (0, 0) if decimal.is_nan() else (1, decimal)


def _document_order(data: bytes, start: int, end: int) -> Order:
    """Order documents element by element: by type, then by name, then by value."""
    return tuple(
        (_RANKS[kind], name, order_of(data, kind, at, to))
        for name, kind, at, to in read_elements(data, start, end)
    )


_ORDERS: dict[int, Callable[[bytes, int, int], Order]] = {
    bson.STRING: _text_order,
    bson.SYMBOL: _text_order,
    bson.CODE: _text_order,
    bson.INT32: lambda data, start, _: (1, read_int32(data, start)[0]),
    bson.INT64: lambda data, start, _: (1, values.read_int64(data, start)[0]),
    bson.DOUBLE: _double_order,
    bson.DECIMAL: _decimal_order,
    bson.BINARY: _binary_order,
    bson.BOOL: lambda data, start, _: (data[start] != 0,),
    bson.DATE: lambda data, start, _: (values.read_int64(data, start)[0],),
    bson.TIMESTAMP: _timestamp_order,
    bson.DOCUMENT: _document_order,
    bson.ARRAY: _document_order,
}


def check_order(
    orders: Sequence[Order], address: str, *, lower: Order | None, upper: Order | None
) -> None:
    """Check that the ids of a page rise and are within bounds.

    Args:
        orders: sort keys of the page's ids.
        address: what the error names.
        lower: the first id may be equal to it, none may be below it; None for no bound.
        upper: all ids are below it.

    Raises:
        SourceError: they are not: a server that ignores bounds would double or lose documents.
    """
    if not orders:
        return
    is_below = lower is not None and orders[0] < lower
    is_above = upper is not None and not orders[-1] < upper
    if is_below or is_above:
        raise ignored_bounds(address)
    if any(not first < second for first, second in pairwise(orders)):
        raise SourceError(
            f"{address}: the server gave documents out of the order of their _id",
            "report it with the server's version: documents would be lost or doubled; a dump made "
            "with mongodump, named in source.uri, can be read meanwhile",
        )


def ignored_bounds(address: str) -> SourceError:
    """Say that a server did not keep to bounds."""
    return SourceError(
        f"{address}: the server gave documents outside of the bounds that it was asked for",
        "this server ignores the options min and max of find (FerretDB does), so its collections "
        "cannot be read in parts: export them with mongodump and name the dump in source.uri",
    )


def build_ids(data: bytes, identities: Sequence[Element]) -> pa.StructArray:
    """Make the column ``id`` of a page's ids."""
    pairs = [_id_variant(data, identity) for identity in identities]
    return pa.StructArray.from_arrays(
        [
            pa.array([kind for kind, _ in pairs], pa.string()),
            pa.array([text for _, text in pairs], pa.string()),
            pa.nulls(len(pairs), VARIANT[2].type),
        ],
        fields=list(VARIANT),
    )


def _id_variant(data: bytes, identity: Element) -> tuple[str, str]:
    """Give the type and the text of an id.

    An integer has one type in either width, as one id in MongoDB: 5 cannot stand beside 5.
    """
    write = _ID_WRITERS.get(identity.kind, _other_id)
    return write(data, identity)


def _binary_id(data: bytes, identity: Element) -> tuple[str, str]:
    subtype, content = values.read_binary(data, identity.start, identity.end)
    if subtype == values.UUID_BINARY and len(content) == UUID_BYTES:
        return "uuid", f'"{uuid.UUID(bytes=content)}"'
    if subtype == values.GENERIC_BINARY:
        return "binary", f'"{b64encode(content).decode()}"'
    return _other_id(data, identity)


def _other_id(data: bytes, identity: Element) -> tuple[str, str]:
    value = _canonical_value(data, identity.kind, identity.start, identity.end)
    return EXTENDED, canonical(value)


_ID_WRITERS: dict[int, Callable[[bytes, Element], tuple[str, str]]] = {
    bson.OBJECT_ID: lambda data, at: ("objectId", f'"{data[at.start : at.end].hex()}"'),
    bson.STRING: lambda data, at: ("string", values.read_text(data, at.start, at.end)),
    bson.INT32: lambda data, at: ("int64", str(read_int32(data, at.start)[0])),
    bson.INT64: lambda data, at: ("int64", str(values.read_int64(data, at.start)[0])),
    bson.BINARY: _binary_id,
}


def _canonical_value(data: bytes, kind: int, start: int, end: int) -> object:
    """Write a value as canonical extended JSON, in which numbers and dates are texts."""
    write = _CANONICAL_WRITERS.get(kind)
    if write is not None:
        return write(data, start, end)
    if kind in (bson.DOCUMENT, bson.ARRAY):
        members = read_elements(data, start, bson.document_end(data, start, end))
        items = [_canonical_value(data, of, at, to) for _, of, at, to in members]
        if kind == bson.ARRAY:
            return items
        names = [values.decode_text(name) for name, *_ in members]
        return dict(zip(names, items, strict=True))
    return values.read_value(data, kind, start, end)


def _canonical_double(data: bytes, start: int, _end: int) -> object:
    text = repr(values.read_double(data, start)[0])
    return {"$numberDouble": text.replace("nan", "NaN").replace("inf", "Infinity")}


def _canonical_binary(data: bytes, start: int, end: int) -> object:
    subtype, content = values.read_binary(data, start, end)
    return {"$binary": {"base64": b64encode(content).decode(), "subType": f"{subtype:02x}"}}


_CANONICAL_WRITERS: dict[int, Callable[[bytes, int, int], object]] = {
    bson.DOUBLE: _canonical_double,
    bson.INT32: lambda data, at, _: {"$numberInt": str(read_int32(data, at)[0])},
    bson.INT64: lambda data, at, _: {"$numberLong": str(values.read_int64(data, at)[0])},
    bson.DATE: lambda data, at, _: {"$date": {"$numberLong": str(values.read_int64(data, at)[0])}},
    bson.BINARY: _canonical_binary,
}


def describe_id(data: bytes, identity: Element) -> str:
    """Write an id for a person."""
    kind, text = _id_variant(data, identity)
    return f"{kind} {text[:200]}"
