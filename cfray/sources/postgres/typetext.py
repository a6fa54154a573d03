"""Types as PostgreSQL writes them in a dump and a person in a job file: ``numeric(30,10)``.

A file holds no catalog, so what the live server says by numbers is read here from words.
"""

from __future__ import annotations

import re

from cfray.sources.postgres.catalog import TypeInfo
from cfray.sources.postgres.types import Column, describe_column

#: Words of SQL -> the name in the catalog.
_ALIASES = {
    "bigint": "int8",
    "bigserial": "int8",
    "integer": "int4",
    "int": "int4",
    "serial": "int4",
    "smallint": "int2",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
    "character varying": "varchar",
    "character": "bpchar",
    "char": "bpchar",
    "decimal": "numeric",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "bit varying": "varbit",
}
_TYPE = re.compile(
    r'(?:(?:"(?:[^"]|"")*"|\w+)\.)?(?P<name>"(?:[^"]|"")*"|\w[\w ]*?)\s*'
    r"(?:\((?P<modifiers>-?\d+(?:\s*,\s*-?\d+)?)\))?(?P<zone> with(?:out)? time zone)?"
    r"(?P<array>(?:\[\d*\])*)"
)
#: Numbers that stand for a type and for the type of its elements.
_NUMBER, _ELEMENT = 1, 2


class UnknownTypeError(ValueError):
    """The words name no type."""


def read_column(name: str, words: str) -> Column:
    """Say how a column of a file is read, by the words for its type.

    Raises:
        UnknownTypeError: the words are not those of a type.
    """
    match = _TYPE.fullmatch(words.strip())
    if match is None:
        raise UnknownTypeError(words)
    base = match["name"].strip()
    if base.startswith('"'):
        # "char" is another type than char
        base = base[1:-1].replace('""', '"')
    else:
        base = _ALIASES.get(base.lower() + (match["zone"] or ""), base.lower())
    info = TypeInfo("", base, "b", 0)
    if match["array"]:
        types = {_NUMBER: TypeInfo("", f"_{base}", "b", _ELEMENT), _ELEMENT: info}
    else:
        types = {_NUMBER: info}
    modifier = _modifier(base, match["modifiers"])
    return describe_column(name, _NUMBER, modifier, types, words.strip())


def _modifier(base: str, text: str | None) -> int:
    """Give a type's modifier as the catalog holds it; -1 for none."""
    if not text:
        return 1 if base in ("bit", "bpchar") else -1
    numbers = [int(number) for number in text.split(",")]
    if base == "numeric":
        scale = numbers[1] if len(numbers) > 1 else 0
        return (numbers[0] << 16 | (scale & 0x7FF)) + 4
    return numbers[0]
