"""DynamoDB's values as they travel, read without a loss.

A value names its type: ``{"N": "12.5"}``.  Numbers have up to 38 digits and travel as texts;
sets are no lists; ``{"NULL": true}`` is not a missing attribute.  An attribute keeps its type
beside its value.  Inside lists and maps, where a value has no type of its own, JSON says what
it can say exactly, and what it cannot stays as it travelled: ``{"B": "AAEC"}``,
``{"SS": ["a", "b"]}``, ``{"N": "1.23456789012345678901"}``.  A map that would read as such a
value is written ``{"M": ...}`` around it.

Source: Amazon DynamoDB API Reference, "AttributeValue".
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from cfray.records.record import Typed, canonical

#: A value as it travels: a single key that names the type, and what stands behind it.
WireValue: TypeAlias = Mapping[str, Any]
#: An item as it travels: attribute -> value.
WireItem: TypeAlias = Mapping[str, WireValue]

#: Names of the types, as they travel.
_TYPES = frozenset({"S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"})
#: Types of an attribute's value that JSON does not have.  A name that begins with ``list`` may be
#: mapped to a column of lists.
BINARY, DECIMAL = "binary", "decimal"
STRING_SET, NUMBER_SET, BINARY_SET = "list<SS>", "list<NS>", "list<BS>"
#: Type of an id that consists of several key attributes: canonical JSON of the array of them.
KEY = "key"


#: How DynamoDB writes a number.
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?")


class UnreadableItem(Exception):
    """An item that cannot become a record; its text is the reason."""


def read_value(value: WireValue) -> object:
    """Read the value of an attribute, with its type where JSON does not have it.

    Raises:
        UnreadableItem: it is none of DynamoDB's values.
    """
    kind, content = _open(value)
    if kind == "S":
        return content
    if kind == "N":
        number = read_number(content)
        return Typed(DECIMAL, content) if number is None else number
    try:
        return _ATTRIBUTES[kind](content)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UnreadableItem(f"a value of type {kind} is malformed: {error!r}") from None


def _open(value: WireValue) -> tuple[str, Any]:
    if len(value) != 1:
        raise UnreadableItem(f"a value names {len(value)} types: {', '.join(sorted(value))[:80]}")
    [(kind, content)] = value.items()
    if kind not in _TYPES:
        raise UnreadableItem(f"a value has the type {kind[:40]}, which cfray does not know")
    return kind, content


def read_number(text: str) -> int | float | None:
    """Read a number: an integer, or a float64 that has exactly these digits.

    Returns:
        None where neither has them: such a number stays a text.

    Raises:
        UnreadableItem: the text is no number.
    """
    if not isinstance(text, str) or _NUMBER.fullmatch(text) is None:
        raise UnreadableItem(f"{str(text)[:60]!r} is no number")
    try:
        if text.isdigit() or text[1:].isdigit():
            return int(text)
        number = float(text)
        if repr(number) == text and not number.is_integer():
            return number
        exact = Decimal(text)
        if exact == exact.to_integral_value():
            return int(exact)
    except (ValueError, ArithmeticError):
        raise UnreadableItem(f"{str(text)[:60]!r} is no number") from None
    return number if math.isfinite(number) and Decimal(repr(number)) == exact else None


def number_texts(values: Sequence[WireValue]) -> list[str] | None:
    """Give the texts of a list of numbers; None where an item is something else."""
    try:
        return [value["N"] for value in values]
    except (KeyError, TypeError):
        return None


def _read_list(values: list[WireValue]) -> list[object]:
    texts = number_texts(values)
    if texts is not None:
        numbers = [read_number(text) for text in texts]
        if None not in numbers:
            return list[object](numbers)
    return [_nest(value) for value in values]


def _read_map(values: WireItem) -> dict[str, object]:
    plain = {name: _nest(value) for name, value in values.items()}
    if len(plain) == 1 and not _TYPES.isdisjoint(plain):
        return {"M": plain}
    return plain


def _nest(value: WireValue) -> object:
    """Read a value that stands in a list or a map: JSON, or the value as it travelled."""
    kind, content = _open(value)
    return _NESTED[kind](content)


def _nest_number(text: str) -> object:
    number = read_number(text)
    return {"N": text} if number is None else number


def _sorted_set(kind: str, values: list[str]) -> list[str]:
    """Sort a set, which has no order: two reads of an item must give the same text."""
    return sorted(values, key=Decimal) if kind == "NS" else sorted(values)


def _read_number_set(values: list[str]) -> Typed:
    numbers: list[object] = []
    for text in _sorted_set("NS", values):
        number = read_number(text)
        numbers.append(text if number is None else number)
    return Typed(NUMBER_SET, numbers)


def _read_bool(content: object) -> bool:
    if not isinstance(content, bool):
        raise UnreadableItem(f"{str(content)[:60]!r} is neither true nor false")
    return content


#: Type -> how an attribute of this type is read.
_ATTRIBUTES: dict[str, Callable[[Any], object]] = {
    "BOOL": _read_bool,
    "NULL": lambda _: None,
    "B": lambda content: Typed(BINARY, str(content)),
    "SS": lambda content: Typed(STRING_SET, _sorted_set("SS", content)),
    "NS": _read_number_set,
    "BS": lambda content: Typed(BINARY_SET, _sorted_set("BS", content)),
    "L": _read_list,
    "M": _read_map,
}

#: Type -> how a value of this type is read inside a list or a map.
_NESTED: dict[str, Callable[[Any], object]] = {
    "S": lambda content: content,
    "N": _nest_number,
    "BOOL": _read_bool,
    "NULL": lambda _: None,
    "B": lambda content: {"B": str(content)},
    "SS": lambda content: {"SS": _sorted_set("SS", content)},
    "NS": lambda content: {"NS": _sorted_set("NS", content)},
    "BS": lambda content: {"BS": _sorted_set("BS", content)},
    "L": _read_list,
    "M": _read_map,
}


def read_id(item: WireItem, key: tuple[str, ...]) -> object:
    """Read the id of an item: its partition key, or the array of its keys.

    A number with a fraction is no id by itself, so an array of it is the id.

    Raises:
        UnreadableItem: the item lacks a key attribute, or it cannot be a key.
    """
    values = [_key_value(item, name) for name in key]
    if len(values) == 1 and not isinstance(values[0], float):
        value = values[0]
        if not (isinstance(value, Typed) and value.type == DECIMAL):
            return value
    return Typed(
        KEY,
        [
            str(item[name]["N"])
            if isinstance(value, float)
            else (value.value if isinstance(value, Typed) else value)
            for name, value in zip(key, values, strict=True)
        ],
    )


def _key_value(item: WireItem, name: str) -> object:
    value = item.get(name)
    if value is None:
        raise UnreadableItem(f"the item has no key attribute {name}")
    kind, _ = _open(value)
    if kind not in ("S", "N", "B"):
        raise UnreadableItem(f"the key attribute {name} has the type {kind}, which no key has")
    return read_value(value)


def id_text(record_id: object) -> str:
    """Write an id for a message."""
    value = record_id.value if isinstance(record_id, Typed) else record_id
    return value if isinstance(value, str) else canonical(value)


def request_key(key: WireItem) -> dict[str, dict[str, object]]:
    """Make the key at which the next page begins: the client takes bytes, and gives base64."""
    return {
        name: {
            kind: base64.b64decode(content) if kind == "B" else content
            for kind, content in value.items()
        }
        for name, value in key.items()
    }
