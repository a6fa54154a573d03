"""Find the elements of BSON documents: a name, a type and a range of bytes each.

Only the frame is read, so a value that nobody wants is never decoded.  Every length is
checked against the document that holds it: a damaged document is an error, never a
shorter record.

Source: https://bsonspec.org/spec.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

#: Types of elements, by the specification's numbers.
DOUBLE, STRING, DOCUMENT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOL, DATE, NULL = range(1, 11)
REGEX, DB_POINTER, CODE, SYMBOL, CODE_WITH_SCOPE, INT32, TIMESTAMP, INT64, DECIMAL = range(11, 20)
MIN_KEY, MAX_KEY = 0xFF, 0x7F

#: Bytes of the types of one length.
LENGTHS = {
    DOUBLE: 8,
    UNDEFINED: 0,
    OBJECT_ID: 12,
    BOOL: 1,
    DATE: 8,
    NULL: 0,
    INT32: 4,
    TIMESTAMP: 8,
    INT64: 8,
    DECIMAL: 16,
    MIN_KEY: 0,
    MAX_KEY: 0,
}
#: Bytes beside what the length that a value begins with counts.
BESIDE_LENGTH = {
    STRING: 4,
    CODE: 4,
    SYMBOL: 4,
    DOCUMENT: 0,
    ARRAY: 0,
    CODE_WITH_SCOPE: 0,
    BINARY: 5,
    DB_POINTER: 16,
}
#: A document is its length, its elements and a zero.
_SMALLEST_DOCUMENT = 5
read_int32 = Struct("<i").unpack_from


class DamagedBsonError(ValueError):
    """Bytes that are no BSON document; the message says why."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a document.

    Attributes:
        name: bytes of its name.
        kind: number of its type.
        start: where its value begins.
        end: where its value ends.
    """

    name: bytes
    kind: int
    start: int
    end: int


def document_end(data: bytes, start: int, end: int) -> int:
    """Say where the document that begins at ``start`` ends.

    Raises:
        DamagedBsonError: it would end behind ``end``, or its end is no zero.
    """
    if end - start < _SMALLEST_DOCUMENT:
        raise DamagedBsonError(f"{end - start} bytes at byte {start} are no document")
    length = read_int32(data, start)[0]
    if not _SMALLEST_DOCUMENT <= length <= end - start or data[start + length - 1]:
        raise DamagedBsonError(f"the document at byte {start} says that it has {length} bytes")
    return int(start + length)


def read_elements(data: bytes, start: int, end: int) -> list[tuple[bytes, int, int, int]]:
    """List the elements of a document as (name, type, start and end of the value).

    Args:
        data: holds the document.
        start: where it begins.
        end: where it ends, as ``document_end`` says.

    Raises:
        DamagedBsonError: a type that does not exist, or a value that crosses the end.
    """
    elements = []
    position, last = start + 4, end - 1
    find, lengths = data.index, LENGTHS
    try:
        while position < last:
            kind = data[position]
            name_end = find(0, position + 1, last)
            value = name_end + 1
            length = lengths.get(kind)
            if length is None:
                length = variable_length(data, kind, value, last)
            elements.append((data[position + 1 : name_end], kind, value, value + length))
            position = value + length
    except (ValueError, IndexError) as error:
        raise DamagedBsonError(f"an element at byte {position} is damaged: {error}") from None
    if position != last:
        raise DamagedBsonError(f"an element ends behind its document, at byte {position}")
    return elements


def variable_length(data: bytes, kind: int, start: int, end: int) -> int:
    """Say how many bytes a value of a type without a fixed length takes."""
    if kind == REGEX:
        pattern_end = data.index(0, start, end)
        return data.index(0, pattern_end + 1, end) + 1 - start
    beside = BESIDE_LENGTH.get(kind)
    if beside is None:
        raise DamagedBsonError(f"type {kind} does not exist")
    if end - start < _SMALLEST_DOCUMENT:
        raise DamagedBsonError("it is cut short")
    length = read_int32(data, start)[0]
    if length < (0 if kind == BINARY else 1):
        raise DamagedBsonError(f"it says that it has {length} bytes")
    return int(length + beside)


def find_element(data: bytes, start: int, end: int, name: bytes) -> Element | None:
    """Find an element of a document by its name; None if the document has none.

    Raises:
        DamagedBsonError: the document is damaged.
    """
    # the element that is looked for is the first one nearly always
    first = start + 5
    if data.startswith(name, first) and data[first + len(name)] == 0:
        kind, value = data[start + 4], first + len(name) + 1
        length = LENGTHS.get(kind)
        if length is None:
            length = variable_length(data, kind, value, end - 1)
        if value + length < end:
            return Element(name, kind, value, value + length)
    for element in read_elements(data, start, end):
        if element[0] == name:
            return Element(*element)
    return None


def split_documents(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Give where each of the documents that follow one another begins and ends.

    Raises:
        DamagedBsonError: the last one is cut short, or a length is wrong.
    """
    while start < end:
        document = start
        start = document_end(data, document, end)
        yield document, start
