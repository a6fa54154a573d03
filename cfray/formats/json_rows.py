"""How JSON elements hold records: as objects, as arrays with names elsewhere, as columns.

The words are those of pandas' ``to_json(orient=...)``; ``header`` is an array of arrays of which
the first holds the names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cfray.formats.jsontext import InexactJson, parse_json

Orient = Literal["records", "index", "columns", "split", "header", "list"]
#: The field that holds a record's key where records are the members of an object.
KEY = "$key"


class RowShape:
    """Turns elements into rows, one after the other; an array of names comes first, if any."""

    def __init__(self, orient: Orient, columns: tuple[str, ...] = ()) -> None:
        """Take the names of columns from ``columns``; with ``header``, from the first element."""
        self._orient = orient
        self._columns = columns

    def row(self, element: bytes) -> dict[str, object] | str | None:
        """Read one element.

        Returns:
            the row, why it is none, or None for the element that holds the names.

        Raises:
            InexactJson: no JSON, or its meaning cannot be kept.
        """
        if self._orient == "index":
            return self._keyed_row(element)
        value = parse_json(element)
        if self._orient == "records":
            return value if isinstance(value, dict) else _no_object(value)
        if not isinstance(value, list):
            return "element is JSON, but no array"
        if not self._columns:
            self._columns = read_names(value)
            return None
        if len(value) != len(self._columns):
            return f"element has {len(value)} values, but there are {len(self._columns)} names"
        return dict(zip(self._columns, value, strict=True))

    @staticmethod
    def _keyed_row(member: bytes) -> dict[str, object] | str:
        value = parse_json(b"{" + member + b"}")
        if not isinstance(value, dict) or len(value) != 1:
            return "element is no single member of an object"
        ((key, row),) = value.items()
        if not isinstance(row, dict):
            return "member is JSON, but no object"
        if KEY in row:
            return f"the record has a field {KEY} already"
        return {KEY: key, **row}


def _no_object(value: object) -> str:
    if isinstance(value, list):
        return (
            "element is an array, whose values have no names; if the first array holds them, "
            "write source.orient: header"
        )
    return "element is JSON, but no object"


def read_names(value: object) -> tuple[str, ...]:
    """Give the names that an array holds, as texts or as objects with a ``name``.

    Raises:
        InexactJson: it holds something else, or a name twice.
    """
    items = value if isinstance(value, list) else []
    names = [item.get("name") if isinstance(item, dict) else item for item in items]
    texts = tuple(name for name in names if isinstance(name, str))
    if not texts or len(texts) < len(items):
        raise InexactJson("the array of names holds something else than texts")
    if len(set(texts)) < len(texts):
        raise InexactJson("the array of names holds a name twice")
    return texts


def transpose(text: bytes) -> list[dict[str, object]]:
    """Read ``{"name": {"0": ..., "1": ...}, ...}``: an object of columns, each an object of rows.

    Raises:
        InexactJson: no such object, or its columns have different keys.
    """
    value = parse_json(text)
    columns = value if isinstance(value, dict) else {}
    cells = list(columns.values())
    if not cells or not all(isinstance(column, dict) for column in cells):
        raise InexactJson("it is no object of columns, each an object of rows")
    keys = list(cells[0])
    if any(list(column) != keys for column in cells):
        raise InexactJson("its columns have different keys")
    if KEY in columns:
        raise InexactJson(f"it has a column {KEY} already")
    return [{KEY: key, **{name: column[key] for name, column in columns.items()}} for key in keys]


@dataclass(frozen=True, slots=True)
class ListColumns:
    """An object of columns, each an array with an element a row.

    Attributes:
        names: of the columns: the arrays of the length that most arrays have.
        rows: elements of each.
        other_members: the members that are no columns.
    """

    names: tuple[str, ...]
    rows: int
    other_members: dict[str, object]

    def torn(self) -> dict[str, int]:
        """Count the elements of arrays that are columns by their size, and lack or have too many.

        A list of the members' names (Chroma's ``included``) is no column.
        """
        members = {*self.names, *self.other_members}
        return {
            name: len(item)
            for name, item in self.other_members.items()
            if isinstance(item, list)
            and self.rows < 2 * len(item) < 4 * self.rows
            and not all(isinstance(element, str) and element in members for element in item)
        }


def find_list_columns(value: object) -> ListColumns:
    """Find the columns of ``{"id": [...], "text": [...]}``.

    Raises:
        InexactJson: it is no such object: two arrays of one length at least.
    """
    members = value if isinstance(value, dict) else {}
    lengths = Counter(len(item) for item in members.values() if isinstance(item, list))
    rows = max(lengths, key=lambda length: (lengths[length], length), default=0)
    if lengths[rows] < 2 or not rows:
        raise InexactJson("it is no object of columns, each an array with an element a row")
    names = [name for name, item in members.items() if isinstance(item, list) and len(item) == rows]
    other_members = {name: item for name, item in members.items() if name not in names}
    return ListColumns(tuple(names), rows, other_members)


def zip_columns(text: bytes, names: Sequence[str]) -> list[dict[str, object]]:
    """Read ``{"id": [...], "text": [...]}``: an object of columns, each an array.

    Args:
        text: the object.
        names: of the columns.

    Raises:
        InexactJson: no such object, or its columns have different lengths.
    """
    value = parse_json(text)
    columns = [value.get(name) for name in names] if isinstance(value, dict) else []
    lists = [column for column in columns if isinstance(column, list)]
    if not lists or len(lists) < len(names) or len(set(map(len, lists))) > 1:
        raise InexactJson("its columns are no arrays of one length")
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
