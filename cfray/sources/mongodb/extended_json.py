"""Write documents of extended JSON as BSON, so that an export is read as the store itself is.

Canonical extended JSON names the type of every number.  Relaxed extended JSON does not: a
bare number is refused here unless the job says that it is to be taken for what it looks like.

Source: https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md
"""

from __future__ import annotations

import re
import uuid
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from struct import error as StructError  # noqa: N812  # its own name says nothing
from struct import pack
from typing import Any

from cfray.sources.mongodb import elements as bson

_EPOCH = datetime.fromtimestamp(0, UTC)
_INT32_LIMIT = 2**31
#: What a wrapper raises whose value is not what its name says.
_UNREADABLE = (KeyError, TypeError, ValueError, OverflowError, ArithmeticError, StructError)
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")


class ExtendedJsonError(ValueError):
    """A value that is no extended JSON; the message says which."""


class BareNumberError(ValueError):
    """A number without its type: the file is relaxed JSON."""


#: Type of an element and the bytes of its value.
_Encoded = tuple[int, bytes]


class Encoder:
    """Encodes documents of one file.

    Attributes:
        takes_bare_numbers: whether relaxed JSON is read, too.
    """

    def __init__(self, *, takes_bare_numbers: bool) -> None:
        """Keep the setting."""
        self.takes_bare_numbers = takes_bare_numbers

    def encode_document(self, document: dict[str, Any]) -> bytes:
        """Encode a document.

        Raises:
            BareNumberError: it is relaxed JSON, which is not to be read.
            ExtendedJsonError: a value is not extended JSON.
        """
        return _framed(
            b"".join(self._element(_name(name), value) for name, value in document.items())
        )

    def _element(self, name: bytes, value: Any) -> bytes:
        kind, encoded = self._value(value)
        return bytes([kind]) + name + encoded

    def _value(self, value: Any) -> _Encoded:
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, str):
            return bson.STRING, _text(value)
        if isinstance(value, bool):
            return bson.BOOL, bytes([value])
        if value is None:
            return bson.NULL, b""
        if isinstance(value, list):
            items = (self._element(b"%d\0" % index, item) for index, item in enumerate(value))
            return bson.ARRAY, _framed(b"".join(items))
        if not self.takes_bare_numbers:
            raise BareNumberError(str(value))
        return _bare_number(value)

    def _object(self, value: dict[str, Any]) -> _Encoded:
        """Encode an object: a wrapper of extended JSON, or a document."""
        names = frozenset(value)
        if names == {"$code", "$scope"}:
            scope = self.encode_document(_checked(value["$scope"], dict, "$scope"))
            body = _text(_checked(value["$code"], str, "$code")) + scope
            return bson.CODE_WITH_SCOPE, pack("<i", len(body) + 4) + body
        encode = _WRAPPERS.get(names)
        if encode is None:
            return bson.DOCUMENT, self.encode_document(value)
        try:
            return encode(value)
        except _UNREADABLE as error:
            raise ExtendedJsonError(f"{'/'.join(sorted(names))} cannot be read: {error}") from None


def _framed(body: bytes) -> bytes:
    return pack("<i", len(body) + 5) + body + b"\0"


def _name(name: str) -> bytes:
    raw = name.encode()
    if b"\0" in raw:
        raise ExtendedJsonError(f"the name {name!r} holds a zero")
    return raw + b"\0"


def _text(text: str) -> bytes:
    raw = text.encode()
    return pack("<i", len(raw) + 1) + raw + b"\0"


def _checked(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ExtendedJsonError(f"{name} cannot be read: {value!r:.80}")
    return value


def _bare_number(value: Any) -> _Encoded:
    """Encode a number of relaxed JSON: an int32 where it fits, else an int64, or a double."""
    if isinstance(value, float):
        return bson.DOUBLE, pack("<d", value)
    if -_INT32_LIMIT <= value < _INT32_LIMIT:
        return bson.INT32, pack("<i", value)
    try:
        return bson.INT64, pack("<q", value)
    except StructError:
        raise ExtendedJsonError(f"{value} is no integer of 64 bits") from None


def _date(value: dict[str, Any]) -> _Encoded:
    date = value["$date"]
    if isinstance(date, dict):
        return bson.DATE, pack("<q", int(date["$numberLong"]))
    if isinstance(date, int):
        return bson.DATE, pack("<q", date)
    instant = datetime.fromisoformat(date)
    if instant.tzinfo is None:
        raise ExtendedJsonError(f"the date {date} has no time zone")
    return bson.DATE, pack("<q", (instant - _EPOCH) // timedelta(milliseconds=1))


def _binary_bytes(subtype: int, content: bytes) -> _Encoded:
    return bson.BINARY, pack("<iB", len(content), subtype) + content


def _binary(value: dict[str, Any]) -> _Encoded:
    binary = value["$binary"]
    if isinstance(binary, dict):
        content, subtype = binary["base64"], binary["subType"]
    else:
        # as it was written before version 2
        content, subtype = binary, value["$type"]
    return _binary_bytes(int(subtype, 16), b64decode(content, validate=True))


def _object_id(value: dict[str, Any]) -> _Encoded:
    text = value["$oid"]
    if not _OBJECT_ID.fullmatch(text):
        raise ExtendedJsonError(f"{text!r:.40} is no ObjectId")
    return bson.OBJECT_ID, bytes.fromhex(text)


def _timestamp(value: dict[str, Any]) -> _Encoded:
    parts = value["$timestamp"]
    return bson.TIMESTAMP, pack("<II", int(parts["i"]), int(parts["t"]))


def _regex_bytes(pattern: str, options: str) -> _Encoded:
    return bson.REGEX, _name(pattern) + _name(options)


def _regex(value: dict[str, Any]) -> _Encoded:
    parts = value["$regularExpression"]
    return _regex_bytes(parts["pattern"], parts["options"])


def _pointer(value: dict[str, Any]) -> _Encoded:
    parts = value["$dbPointer"]
    return bson.DB_POINTER, _text(parts["$ref"]) + _object_id(parts["$id"])[1]


def _decimal(value: dict[str, Any]) -> _Encoded:
    from bson.decimal128 import Decimal128

    return bson.DECIMAL, Decimal128(value["$numberDecimal"]).bid


#: Names of an object -> what encodes it.
_WRAPPERS: dict[frozenset[str], Callable[[dict[str, Any]], _Encoded]] = {
    frozenset({"$oid"}): _object_id,
    frozenset({"$date"}): _date,
    frozenset({"$binary"}): _binary,
    frozenset({"$binary", "$type"}): _binary,
    frozenset({"$uuid"}): lambda value: _binary_bytes(4, uuid.UUID(value["$uuid"]).bytes),
    frozenset({"$numberInt"}): lambda value: (bson.INT32, pack("<i", int(value["$numberInt"]))),
    frozenset({"$numberLong"}): lambda value: (bson.INT64, pack("<q", int(value["$numberLong"]))),
    frozenset({"$numberDouble"}): lambda value: (
        bson.DOUBLE,
        pack("<d", float(value["$numberDouble"])),
    ),
    frozenset({"$numberDecimal"}): _decimal,
    frozenset({"$timestamp"}): _timestamp,
    frozenset({"$regularExpression"}): _regex,
    frozenset({"$regex", "$options"}): lambda value: _regex_bytes(
        value["$regex"], value["$options"]
    ),
    frozenset({"$dbPointer"}): _pointer,
    frozenset({"$symbol"}): lambda value: (bson.SYMBOL, _text(value["$symbol"])),
    frozenset({"$code"}): lambda value: (bson.CODE, _text(value["$code"])),
    frozenset({"$undefined"}): lambda _: (bson.UNDEFINED, b""),
    frozenset({"$minKey"}): lambda _: (bson.MIN_KEY, b""),
    frozenset({"$maxKey"}): lambda _: (bson.MAX_KEY, b""),
}
