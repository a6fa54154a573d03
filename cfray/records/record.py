"""Record: the neutral Arrow row as read; Reject: a row that could not become a Record.

A batch of records is an ordinary ``pa.RecordBatch``.  A source with a fixed schema keeps its Arrow
types, and null means absent.  A source without a schema (JSON, document stores) has *variant*
columns: a null entry means that the key is missing, and each value carries its type.  So null,
missing and the string "null" stay three things, and ``1`` and ``1.0`` two.

Nothing here knows a store, a file or a mapping.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

#: Storage of a variant column.  ``type`` names the type of the value.  ``text`` is the canonical
#: text that ``custom_metadata`` holds: a string as it is, anything else canonical JSON.
#: ``numbers`` are the values of a list of numbers.  ``text`` is null exactly where ``numbers``
#: suffices (types ``list<double>``, ``list<int64>``).
VARIANT = pa.struct(
    [("type", pa.string()), ("text", pa.string()), ("numbers", pa.list_(pa.float64()))]
)
_MARK = {b"cfray.variant": b"1"}
#: Key of the schema metadata that names the file which a batch's records are from, by its path
#: below the source's location.  It costs no column, and travels with a batch wherever it is cut.
FILE_KEY = b"cfray.file"
#: Largest magnitude up to which every integer is a float64 (IEEE 754).
EXACT_INT = 2**53


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not become a Record.

    Attributes:
        reason: why not.
        position: where the row is in its source.
        content: its original bytes.
    """

    reason: str
    position: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Typed:
    """A value with the type its store declares for it.

    Attributes:
        type: the store's name or Arrow's: ``date``, ``geoCoordinates``, ``int32``.  A ``uuid`` and
            a ``binary`` (base64) may be ids.
        value: as canonical JSON will write it: an instant, a uuid or bytes as a str, anything else
            as parsed JSON.
    """

    type: str
    value: object


def with_file(batch: pa.RecordBatch, path: str) -> pa.RecordBatch:
    """Name the file that a batch's records are from, by its path below the source's location."""
    return batch.replace_schema_metadata({**(batch.schema.metadata or {}), FILE_KEY: path.encode()})


def file_of(batch: pa.RecordBatch) -> str | None:
    """Give the path of the file that a batch's records are from; None where they are from none."""
    path = (batch.schema.metadata or {}).get(FILE_KEY)
    return None if path is None else bytes(path).decode()


def variant_field(name: str) -> pa.Field:
    """Make the field of a variant column."""
    return pa.field(name, VARIANT, metadata=_MARK)


def is_variant(field: pa.Field) -> bool:
    """Tell whether a column holds variants."""
    return bool(field.metadata) and b"cfray.variant" in field.metadata


def from_objects(objects: Sequence[Mapping[str, object]]) -> pa.RecordBatch:
    """Make a batch with a variant column for each top-level key, in the order they first appear.

    Args:
        objects: parsed JSON objects, whose values may also be ``Typed``.
    """
    names = list(dict.fromkeys(key for item in objects for key in item))
    columns = [variant_array([item.get(name, MISSING) for item in objects]) for name in names]
    schema = pa.schema([variant_field(name) for name in names])
    if not names:
        # objects without any key are rows all the same
        return pa.RecordBatch.from_struct_array(pa.array([{}] * len(objects), pa.struct([])))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Missing:
    """The value of a key that an object lacks."""


MISSING = _Missing()


def variant_array(values: Iterable[object]) -> pa.StructArray:
    """Make a variant column; ``MISSING`` gives a null entry."""
    values = list(values)
    python_types = set(map(type, values)) - {_Missing}
    texts: list[str | None]
    numbers: list[list[float] | None]
    if len(python_types) == 1 and (plain := _PLAIN.get(next(iter(python_types)))):
        # all values have the same type, so it need not be found for each of them
        name, write = plain
        types: list[str | None] = [None if value is MISSING else name for value in values]
        texts = [None if value is MISSING else write(value) for value in values]
        numbers = [None] * len(values)
    else:
        types, texts, numbers = [], [], []
        for value in values:
            kind, text, floats = (None, None, None) if value is MISSING else _variant(value)
            types.append(kind)
            texts.append(text)
            numbers.append(floats)
    mask = pa.array([kind is None for kind in types], pa.bool_())
    children = [
        pa.array(types, pa.string()),
        pa.array(texts, pa.string()),
        pa.array(numbers, pa.list_(pa.float64())),
    ]
    return pa.StructArray.from_arrays(children, fields=list(VARIANT), mask=mask)


def _variant(value: object) -> tuple[str, str | None, list[float] | None]:
    """Give a JSON value its type name, canonical text and, for a list of numbers, the numbers."""
    if isinstance(value, str):
        return "string", value, None
    if isinstance(value, list) and value:
        item_types = set(map(type, value))
        if item_types == {float}:
            return "list<double>", None, value
        if item_types == {int}:
            is_exact = max(value) <= EXACT_INT and min(value) >= -EXACT_INT
            return ("list<int64>", None, value) if is_exact else ("list", canonical(value), None)
        is_numeric = item_types == {int, float} and all(
            abs(item) <= EXACT_INT for item in value if type(item) is int
        )
        return _list_type(item_types), canonical(value), value if is_numeric else None
    if isinstance(value, Typed):
        return value.type, canonical(value.value), None
    return _scalar_type(value), canonical(value), None


def _list_type(item_types: set[type]) -> str:
    if item_types == {str}:
        return "list<string>"
    return "list<bool>" if item_types == {bool} else "list"


def _scalar_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return "int64"
        return "uint64" if 0 < value < 2**64 else "integer"
    if isinstance(value, float):
        return "double"
    return "list" if isinstance(value, list) else "struct"


def canonical(value: object) -> str:
    """Write parsed JSON as canonical JSON.

    Keys are sorted by code point, spaces are left out, NaN and infinities are bare words.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def number_text(value: float) -> str:
    """Write a float64 as canonical JSON does: the shortest text that reads back to it."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def variant_texts(column: pa.StructArray) -> pa.StringArray:
    """Give the canonical text of each variant; null where the key is missing."""
    kinds, texts, numbers = column.flatten()
    is_numbers = pc.and_(texts.is_null(), kinds.is_valid())
    if not pc.any(is_numbers).as_py():
        return texts
    canonical_texts = texts.to_pylist()
    for row in pc.indices_nonzero(is_numbers).to_pylist():
        values = numbers[row].as_py()
        if kinds[row].as_py() == "list<int64>":
            values = [int(value) for value in values]
        canonical_texts[row] = canonical(values)
    return pa.array(canonical_texts, pa.string())


def variant_types(column: pa.StructArray) -> pa.StringArray:
    """Give the type name of each variant; null where the key is missing."""
    return column.flatten()[0]


def variant_numbers(column: pa.StructArray) -> pa.ListArray:
    """Give the numbers of each variant that is a list of numbers; null elsewhere."""
    return column.flatten()[2]


#: Python type -> type name and how its values are written.  Integers are left out, for their type
#: name depends on their size.
_PLAIN: dict[type, tuple[str, Callable[[Any], str]]] = {
    str: ("string", str),
    float: ("double", number_text),
    bool: ("bool", lambda value: "true" if value else "false"),
}


def parsed(text: str) -> object:
    """Read canonical JSON back: exact integers, float64, NaN and infinities as bare words."""
    value: object = json.loads(text)
    return value
