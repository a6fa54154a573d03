"""How the first bytes of a JSON text say that its records stand in it.

``jsonl`` asks whether a file holds one value a line; ``inspect`` asks which kind and keys read it.
Only the head is looked at: it is cut behind its last whole value and closed, so that it can be
parsed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from cfray.formats import text_encoding
from cfray.formats.header_guess import has_header
from cfray.formats.json_rows import find_list_columns
from cfray.formats.json_structure import Structure
from cfray.formats.jsontext import InexactJson, InvalidJson, between_values, parse_json
from cfray.formats.lines import BOM

#: ``lines``: a value a line; ``values``: values or arrays of them, wherever lines end;
#: ``sequence``: each value behind a record separator (RFC 7464).
Layout = Literal["lines", "values", "sequence"]

_SEPARATOR = b"\x1e"
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*\{")
#: Lines that are looked at.
_LINES = 20
#: Objects of the same keys, each under a key of its own, that are records.
_MANY = 5
_SPLIT_KEYS = {"columns", "index", "data"}


@dataclass(frozen=True, slots=True)
class JsonLayout:
    """One way to read a JSON text.

    Attributes:
        source: the keys of the job file's section ``source`` that it needs, beside ``uri``.
        why: what speaks for it.
        agreeing: values of the head that are records.
        records: values of the head.
    """

    source: dict[str, object]
    why: str
    agreeing: int
    records: int


def jsonl_layout(head: bytes) -> Layout:
    """Tell how the values of a file of kind jsonl stand in it, by its head in UTF-8."""
    text = between_values(head)
    if head.removeprefix(BOM).lstrip().startswith(_SEPARATOR):
        return "sequence"
    if _ARRAY_OF_OBJECTS.match(text):
        return "values"
    if not text.startswith(b"{"):
        return "lines"
    end = _value_end(text)
    lines = text.split(b"\n")[: _LINES + 1]
    if len(lines) == 1:
        is_joined = end is not None and between_values(text[end:]) != b""
        return "values" if is_joined and _is_object(text[:end]) else "lines"
    is_line = [_holds_objects(line) for line in lines if between_values(line)]
    if 2 * sum(is_line) >= len(is_line) - 1 and any(is_line):
        return "lines"  # the head may have cut the last one
    return "values" if end is None or _is_object(text[:end]) else "lines"


def _holds_objects(line: bytes) -> bool:
    """Tell whether a line is one object or several, none of them cut."""
    if _is_object(line):
        return True
    end = _value_end(line)
    return end is not None and _is_object(line[:end]) and Structure().find(line).depth[-1] == 0


def rank_layouts(head: bytes) -> list[JsonLayout]:
    """Rank the ways to read a JSON text, the best first; none for a text that is no JSON.

    Args:
        head: the first bytes of a file, decompressed, in any Unicode encoding.
    """
    text = between_values(head.decode(text_encoding.json_encoding(head), "ignore").encode())
    if text.startswith(b"["):
        return _rank_array(text)
    if not text.startswith(b"{"):
        return []
    end = _value_end(text)
    if end is not None and between_values(text[end:]):
        return _rank_values(text, text[:end])
    if end is None and any(map(_is_object, text.split(b"\n")[1 : _LINES + 1])):
        return _rank_values(text, b"")  # the first line is torn
    value = parse_head(text)
    if not isinstance(value, dict) or (not value and end is None):
        return []
    return [*_rank_object(value), JsonLayout({"kind": "json"}, "the file is one object", 1, 1)]


def _value_end(text: bytes) -> int | None:
    """Give the offset behind the first array or object; None where the text ends before it."""
    events = Structure().find(text)
    ends = events.offsets[events.closes & (events.depth <= 0)]
    return int(ends[0]) + 1 if len(ends) else None


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(parse_json(between_values(text)), dict)
    except InvalidJson:
        return False
    except InexactJson:
        return True


def parse_head(text: bytes) -> object:
    """Parse a JSON text that may be cut: up to its last whole value; None where that is no JSON."""
    end = _value_end(text)
    candidates: Iterator[bytes] = iter([text[:end]]) if end is not None else _closed(text)
    for candidate in candidates:
        try:
            return parse_json(candidate)
        except InexactJson:
            continue
    return None


def _closed(text: bytes) -> Iterator[bytes]:
    """Cut a text at one of its last commas and close what is open there."""
    events = Structure().find(text)
    stack: list[bytes] = []
    cuts: list[tuple[int, bytes]] = []
    for offset, is_open, is_close in zip(
        events.offsets.tolist(), events.opens.tolist(), events.closes.tolist(), strict=True
    ):
        if is_open:
            stack.append(b"]" if text[offset : offset + 1] == b"[" else b"}")
            cuts.append((offset + 1, b"".join(reversed(stack))))
        elif is_close and stack:
            stack.pop()
        elif stack:
            cuts.append((offset, b"".join(reversed(stack))))
    for offset, closing in islice(reversed(cuts), _LINES):
        yield text[:offset] + closing


def _rank_values(text: bytes, first_value: bytes) -> list[JsonLayout]:
    """Rank the ways to read several objects that stand one after the other."""
    lines = [line for line in text.split(b"\n")[: _LINES + 1] if between_values(line)]
    if not _is_object(lines[-1]):
        lines.pop()  # the head may have cut it
    agreeing = sum(map(_is_object, lines))
    if lines and agreeing * 2 > len(lines):
        why = f"{agreeing} of the first {len(lines)} lines are JSON objects"
        ranked = [JsonLayout({"kind": "jsonl"}, why, agreeing, len(lines))]
    elif _is_object(first_value):
        ranked = [JsonLayout({"kind": "jsonl"}, "JSON objects stand one after the other", 1, 1)]
    else:
        return []
    first = ranked[0]
    ranked.append(JsonLayout({"kind": "json"}, first.why, first.agreeing, first.records))
    value = parse_head(first_value)
    if isinstance(value, dict):
        # pages of records, one after the other: less likely than records that hold lists
        ranked += [layout for layout in _rank_object(value) if "orient" not in layout.source]
    return ranked


def _rank_array(text: bytes) -> list[JsonLayout]:
    items = parse_head(text)
    if not isinstance(items, list) or not items:
        return []
    objects = sum(isinstance(item, dict) for item in items)
    if objects:
        why = f"{objects} of {len(items)} elements of the head are objects"
        return [JsonLayout({"kind": "json"}, why, objects, len(items))]
    return _rank_rows(items, {"kind": "json", "orient": "header"})


def _rank_rows(rows: list[object], source: dict[str, object]) -> list[JsonLayout]:
    """Rank an array of arrays of which the first may hold the names."""
    lists = [row for row in rows if isinstance(row, list)]
    if len(lists) < len(rows) or not all(isinstance(name, str) for name in lists[0]):
        return []
    if len(set(lists[0])) < len(lists[0]):
        return []
    texts = [[cell if isinstance(cell, str) else repr(cell) for cell in row] for row in lists]
    fitting = [row for row in texts if len(row) == len(texts[0])]
    if not has_header(fitting):
        return []
    why = f"the first of {len(rows)} arrays of the head holds the names of the others' values"
    return [JsonLayout(source, why, len(fitting) - 1, len(rows) - 1)]


def _rank_object(value: dict[str, object]) -> list[JsonLayout]:
    """Rank the ways in which a single object may hold records, without a single record."""
    rows = value.get("data")
    if (
        set(value) <= _SPLIT_KEYS
        and isinstance(rows, list)
        and isinstance(value.get("columns"), list)
    ):
        lists = sum(isinstance(row, list) for row in rows)
        why = "its keys are those of pandas' to_json(orient='split')"
        return [JsonLayout({"kind": "json", "orient": "split"}, why, lists, len(rows))]
    if layout := _rank_lists(value):
        return [layout]
    wrapped = [
        (len(repr(items)), path, items) for path, items in _arrays(value, ()) if _has_objects(items)
    ]
    wrapped.sort(key=lambda item: (-item[0], item[1]))
    ranked = [
        JsonLayout(
            {"kind": "json", "records": ".".join(path)},
            f"{len(items)} objects of the head stand in the array {'.'.join(path)}",
            sum(isinstance(item, dict) for item in items),
            len(items),
        )
        for _, path, items in wrapped
    ]
    if ranked:
        return ranked
    nested = max(_keyed_records(value, ()), key=lambda found: len(found[1]), default=((), {}))
    if len(nested[1]) > len(value) or (nested[1] and not _are_objects(value)):
        path = ".".join(nested[0])
        why = f"{len(nested[1])} objects of the head stand in the object {path}, each under its key"
        source: dict[str, object] = {"kind": "json", "records": path, "orient": "index"}
        return [JsonLayout(source, why, len(nested[1]), len(nested[1]))]
    return [_rank_members(value)] if len(value) > 1 and _are_objects(value) else []


def _are_objects(value: dict[str, object]) -> bool:
    return all(isinstance(item, dict) for item in value.values())


def _keyed_records(
    value: dict[str, object], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, object]]]:
    """Give the objects inside an object, down to two keys, that hold records under their ids."""
    for key, item in value.items():
        if "." in key or not isinstance(item, dict):
            continue
        if _are_keyed_records(item):
            yield (*path, key), item
        elif not path:
            yield from _keyed_records(item, (key,))


def _are_keyed_records(members: dict[str, object]) -> bool:
    """Tell records under their ids, which repeat them or are many, from a record of objects."""
    records = [(key, item) for key, item in members.items() if isinstance(item, dict)]
    if not records or len(records) < len(members):
        return False
    if all(item.get("id") == key for key, item in records):
        return True
    keys = Counter(frozenset(item) for _, item in records)
    return len(records) >= _MANY and keys.most_common(1)[0][1] * 2 > len(records)


def _rank_lists(value: dict[str, object]) -> JsonLayout | None:
    """Tell an object of columns, each an array; None for any other object.

    An object with a text or a number beside its arrays is a record that has lists.
    """
    if any(item is not None and not isinstance(item, list) for item in value.values()):
        return None
    try:
        columns = find_list_columns(value)
    except InexactJson:
        return None
    lists = [item for item in value.values() if isinstance(item, list) and item]
    first_length = len(lists[0])
    is_cut = len(lists[-1]) < first_length and columns.rows == first_length
    if columns.rows < 2 or not (is_cut or len(columns.names) * 2 > len(lists)):
        return None
    if all(isinstance(item, dict) for name in columns.names for item in _items(value[name])):
        return None  # several exports of the same length
    why = f"{len(columns.names)} of its members are columns: arrays of {columns.rows:,} elements"
    source: dict[str, object] = {"kind": "json", "orient": "list"}
    return JsonLayout(source, why, columns.rows, columns.rows)


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _rank_members(value: dict[str, object]) -> JsonLayout:
    """Tell columns by row from records by key: the keys of rows are numbers."""
    inner_keys = {key for item in value.values() if isinstance(item, dict) for key in item}
    if inner_keys and all(key.isdigit() for key in inner_keys):
        why = "its members are columns, each an object of rows: pandas' to_json(orient='columns')"
        return JsonLayout(
            {"kind": "json", "orient": "columns"}, why, len(inner_keys), len(inner_keys)
        )
    why = "its members are objects, each under its key"
    return JsonLayout({"kind": "json", "orient": "index"}, why, len(value), len(value))


def _arrays(
    value: dict[str, object], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[object]]]:
    """Give the arrays in an object and in the objects inside it, down to three keys."""
    for key, item in value.items():
        if "." in key:
            continue
        if isinstance(item, list):
            yield (*path, key), item
        elif isinstance(item, dict) and len(path) < 2:
            yield from _arrays(item, (*path, key))


def _has_objects(items: list[object]) -> bool:
    return bool(items) and all(isinstance(item, dict) for item in items[:_LINES])
