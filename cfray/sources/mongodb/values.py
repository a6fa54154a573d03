"""Write a BSON value as JSON without losing its type.

The form is MongoDB's extended JSON, version 2: plain JSON where it tells the type, else an
object such as ``{"$oid": ...}``.  A number without a fraction is an int32 where it fits and
an int64 where it does not; an int64 that would fit is ``{"$numberLong": ...}``.  A double
always has a fraction or an exponent.

Source: https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from json import JSONEncoder
from struct import Struct
from typing import TypeAlias

from cfray.sources.mongodb import elements as bson
from cfray.sources.mongodb.elements import DamagedBsonError, read_elements, read_int32

#: Parsed JSON.
Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

read_double = Struct("<d").unpack_from
read_int64 = Struct("<q").unpack_from
read_timestamp = Struct("<II").unpack_from
#: Writes canonical JSON as ``records.record.canonical`` does, which makes an encoder each time.
write_json = JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
#: Writes a text as JSON.
quote = JSONEncoder(ensure_ascii=False).encode
_EPOCH = datetime.fromtimestamp(0, UTC)
#: Milliseconds from 1970 to the end of the year 9999: extended JSON writes an instant between
#: these as text.
_LAST_TEXT_DATE = 253_402_300_799_999
_INT32_LIMIT = 2**31
GENERIC_BINARY, UUID_BINARY, VECTOR_BINARY = 0, 4, 9
#: Names of a reference's elements, which extended JSON leaves as they are.
_REFERENCE_NAMES = frozenset({"$ref", "$id", "$db"})


class AmbiguousNameError(ValueError):
    """A document's own name reads like one of extended JSON's."""


def read_text(data: bytes, start: int, end: int) -> str:
    """Read a value of the type string.

    Raises:
        DamagedBsonError: its length and its end do not agree, or it is not UTF-8.
    """
    if data[end - 1]:
        raise DamagedBsonError(f"the text at byte {start} has no end")
    return decode_text(data[start + 4 : end - 1])


def decode_text(raw: bytes) -> str:
    """Decode UTF-8.

    Raises:
        DamagedBsonError: it is not.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DamagedBsonError("a text is not UTF-8") from None


def read_document(data: bytes, start: int, end: int) -> dict[str, Plain]:
    """Read an embedded document.

    Raises:
        DamagedBsonError: it is damaged, or holds two elements of one name.
        AmbiguousNameError: a name begins with ``$`` and belongs to no reference.
    """
    document: dict[str, Plain] = {}
    members = read_elements(data, start, end)
    for raw_name, kind, value, value_end in members:
        name = decode_text(raw_name)
        if name.startswith("$") and name not in _REFERENCE_NAMES:
            raise AmbiguousNameError(name)
        document[name] = read_value(data, kind, value, value_end)
    if len(document) < len(members):
        raise DamagedBsonError("a document holds two elements of one name")
    return document


def read_array(data: bytes, start: int, end: int) -> list[Plain]:
    """Read an array.

    Raises:
        DamagedBsonError: it is damaged.
        AmbiguousNameError: see ``read_document``.
    """
    return [
        read_value(data, kind, value, value_end)
        for _, kind, value, value_end in read_elements(data, start, end)
    ]


def read_value(data: bytes, kind: int, start: int, end: int) -> Plain:
    """Read a value of any type as extended JSON.

    Raises:
        DamagedBsonError: it is damaged.
        AmbiguousNameError: see ``read_document``.
    """
    return _READERS[kind](data, start, end)


def _read_int64(data: bytes, start: int, _end: int) -> Plain:
    number: int = read_int64(data, start)[0]
    if -_INT32_LIMIT <= number < _INT32_LIMIT:
        return {"$numberLong": str(number)}
    return number


def _read_date(data: bytes, start: int, _end: int) -> Plain:
    milliseconds: int = read_int64(data, start)[0]
    if not 0 <= milliseconds <= _LAST_TEXT_DATE:
        return {"$date": {"$numberLong": str(milliseconds)}}
    instant = _EPOCH + timedelta(milliseconds=milliseconds)
    text = instant.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds")
    return {"$date": text.replace("+00:00", "Z")}


def _read_binary(data: bytes, start: int, end: int) -> Plain:
    subtype, content = read_binary(data, start, end)
    if subtype == UUID_BINARY and len(content) == 16:
        return {"$uuid": str(uuid.UUID(bytes=content))}
    return {"$binary": {"base64": b64encode(content).decode(), "subType": f"{subtype:02x}"}}


def read_binary(data: bytes, start: int, end: int) -> tuple[int, bytes]:
    """Give the subtype and the bytes of a binary value."""
    return data[start + 4], data[start + 5 : end]


def read_timestamp_parts(data: bytes, start: int, _end: int) -> dict[str, Plain]:
    """Read the internal type timestamp: seconds and a counter."""
    counter, seconds = read_timestamp(data, start)
    return {"t": seconds, "i": counter}


def read_regex(data: bytes, start: int, end: int) -> dict[str, Plain]:
    """Read a regular expression."""
    pattern_end = data.index(0, start, end)
    return {
        "pattern": decode_text(data[start:pattern_end]),
        "options": decode_text(data[pattern_end + 1 : end - 1]),
    }


def read_pointer(data: bytes, start: int, end: int) -> dict[str, Plain]:
    """Read the deprecated type DBPointer."""
    return {
        "$ref": read_text(data, start, end - 12),
        "$id": {"$oid": data[end - 12 : end].hex()},
    }


def read_scoped_code(data: bytes, start: int, end: int) -> dict[str, Plain]:
    """Read JavaScript with its scope."""
    code_start = start + 4
    scope_start = code_start + 4 + read_int32(data, code_start)[0]
    if not code_start + 4 < scope_start < end:
        raise DamagedBsonError(f"the code at byte {start} is longer than its value")
    scope_end = bson.document_end(data, scope_start, end)
    return {
        "$code": read_text(data, code_start, scope_start),
        "$scope": read_document(data, scope_start, scope_end),
    }


def read_decimal(data: bytes, start: int, end: int) -> str:
    """Read a decimal128 as text, for example ``1.10``."""
    from bson.decimal128 import Decimal128

    return str(Decimal128.from_bid(data[start:end]))


def _nested(data: bytes, start: int, end: int) -> Plain:
    return read_document(data, start, bson.document_end(data, start, end))


def _listed(data: bytes, start: int, end: int) -> Plain:
    return read_array(data, start, bson.document_end(data, start, end))


_READERS: dict[int, Callable[[bytes, int, int], Plain]] = {
    bson.DOUBLE: lambda data, start, _: float(read_double(data, start)[0]),
    bson.STRING: read_text,
    bson.DOCUMENT: _nested,
    bson.ARRAY: _listed,
    bson.BINARY: _read_binary,
    bson.UNDEFINED: lambda *_: {"$undefined": True},
    bson.OBJECT_ID: lambda data, start, end: {"$oid": data[start:end].hex()},
    bson.BOOL: lambda data, start, _: data[start] != 0,
    bson.DATE: _read_date,
    bson.NULL: lambda *_: None,
    bson.REGEX: lambda *at: {"$regularExpression": read_regex(*at)},
    bson.DB_POINTER: lambda *at: {"$dbPointer": read_pointer(*at)},
    bson.CODE: lambda *at: {"$code": read_text(*at)},
    bson.SYMBOL: lambda *at: {"$symbol": read_text(*at)},
    bson.CODE_WITH_SCOPE: read_scoped_code,
    bson.INT32: lambda data, start, _: int(read_int32(data, start)[0]),
    bson.TIMESTAMP: lambda *at: {"$timestamp": read_timestamp_parts(*at)},
    bson.INT64: _read_int64,
    bson.DECIMAL: lambda *at: {"$numberDecimal": read_decimal(*at)},
    bson.MIN_KEY: lambda *_: {"$minKey": 1},
    bson.MAX_KEY: lambda *_: {"$maxKey": 1},
}
