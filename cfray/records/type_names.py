"""The names of Arrow types, read back: ``type_name`` of ``values`` writes them.

Arrow prints a type and reads no such print, so this is a reader of its grammar (pyarrow 26.0.1):
``list<item: int32 not null>``, ``map<string, int64>``, ``timestamp[ns, tz=UTC]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")
#: Types without parameters, by their names.
_PLAIN = {
    str(kind): kind
    for kind in [
        *(pa.null(), pa.bool_(), pa.float16(), pa.float32(), pa.float64()),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
        *(pa.date32(), pa.date64(), pa.month_day_nano_interval()),
        *(pa.time32(unit) for unit in _UNITS[:2]),
        *(pa.time64(unit) for unit in _UNITS[2:]),
        *(pa.duration(unit) for unit in _UNITS),
    ]
} | {"uuid": pa.uuid(), str(pa.json_()): pa.json_(), str(pa.bool8()): pa.bool8()}
_PLAIN_NAME = re.compile("|".join(re.escape(name) for name in sorted(_PLAIN, key=len)[::-1]))
_TIMESTAMP = re.compile(r"timestamp\[(?P<unit>\w+)(, tz=(?P<zone>[^\]]+))?\]")
_DECIMAL = re.compile(r"decimal(?P<width>\d+)\((?P<precision>\d+), (?P<scale>-?\d+)\)")
_FIXED_BINARY = re.compile(r"fixed_size_binary\[(?P<width>\d+)\]")
_DECIMALS: dict[str, Callable[[int, int], pa.DataType]] = {
    "32": pa.decimal32,
    "64": pa.decimal64,
    "128": pa.decimal128,
    "256": pa.decimal256,
}
_LISTS: dict[str, Callable[[pa.Field], pa.DataType]] = {
    "list<": pa.list_,
    "large_list<": pa.large_list,
    "list_view<": pa.list_view,
    "large_list_view<": pa.large_list_view,
}


class _UnreadableNameError(ValueError):
    """A name that is none of a type that can be made again."""


@lru_cache(maxsize=1024)
def read_type(name: str) -> pa.DataType | None:
    """Give the type of a name.

    Returns:
        None where a name names no type that can be made again: a store's own type, a union, or a
        struct whose fields' names make the name ambiguous.
    """
    reader = _Reader(name)
    try:
        kind = reader.kind()
    except (_UnreadableNameError, ValueError):  # pyarrow refuses parameters with a ValueError
        return None
    is_whole = reader.position == len(name)
    return kind if is_whole and str(kind).replace(str(pa.uuid()), "uuid") == name else None


class _Reader:
    """Reads a name from left to right."""

    def __init__(self, name: str) -> None:
        self.name, self.position = name, 0

    def kind(self) -> pa.DataType:
        """Read a type."""
        for opening, make in _LISTS.items():
            if self._skip(opening):
                return make(self._last_field())
        others = {
            "fixed_size_list<": self._fixed_size_list,
            "struct<": self._struct,
            "map<": self._map,
            "dictionary<values=": self._dictionary,
            "run_end_encoded<run_ends: ": self._runs,
        }
        read = next((read for opening, read in others.items() if self._skip(opening)), self._flat)
        return read()

    def _fixed_size_list(self) -> pa.DataType:
        item = self._last_field()
        return pa.list_(item, int(self._find(re.compile(r"\[(\d+)\]"))[1]))

    def _runs(self) -> pa.DataType:
        ends = self.kind()
        self._expect(", values: ")
        values = self.kind()
        self._expect(">")
        return pa.run_end_encoded(ends, values)

    def _flat(self) -> pa.DataType:
        if match := self._match(_TIMESTAMP):
            return pa.timestamp(match["unit"], match["zone"])
        if match := self._match(_DECIMAL):
            make = _DECIMALS[match["width"]]
            return make(int(match["precision"]), int(match["scale"]))
        if match := self._match(_FIXED_BINARY):
            return pa.binary(int(match["width"]))
        return _PLAIN[self._find(_PLAIN_NAME)[0]]

    def _map(self) -> pa.DataType:
        keys = self._map_field("key", nullable=False)
        self._expect(", ")
        items = self._map_field("value", nullable=True)
        is_sorted = self._skip(", keys_sorted")
        self._expect(">")
        return pa.map_(keys, items, keys_sorted=is_sorted)

    def _map_field(self, name: str, *, nullable: bool) -> pa.Field:
        kind = self.kind()
        is_nullable = nullable and not self._skip(" not null")
        named = self._match(re.compile(r" \('(.*?)'\)"))
        return pa.field(named[1] if named else name, kind, is_nullable)

    def _dictionary(self) -> pa.DataType:
        values = self.kind()
        self._expect(", indices=")
        indices = self.kind()
        is_ordered = self._find(re.compile(r", ordered=(\d)>"))[1] == "1"
        return pa.dictionary(indices, values, ordered=is_ordered)

    def _struct(self) -> pa.DataType:
        fields: list[pa.Field] = []
        while not self._skip(">"):
            if fields:
                self._expect(", ")
            fields.append(self._field())
        return pa.struct(fields)

    def _last_field(self) -> pa.Field:
        field = self._field()
        self._expect(">")
        return field

    def _field(self) -> pa.Field:
        name = self._find(re.compile(r"(.*?): ", re.DOTALL))[1]
        kind = self.kind()
        return pa.field(name, kind, nullable=not self._skip(" not null"))

    def _skip(self, text: str) -> bool:
        is_next = self.name.startswith(text, self.position)
        self.position += len(text) if is_next else 0
        return is_next

    def _expect(self, text: str) -> None:
        if not self._skip(text):
            raise _UnreadableNameError(self.name)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.name, self.position)
        if match is not None:
            self.position = match.end()
        return match

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = self._match(pattern)
        if match is None:
            raise _UnreadableNameError(self.name)
        return match
