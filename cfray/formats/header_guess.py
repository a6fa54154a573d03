"""Tell whether the first row of a table names its columns, by comparing it with the other rows.

A guess for a draft: it never decides how a file is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_LETTERS, _DIGITS = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
#: What columns are called everywhere; a record hardly ever holds such a word as a whole field.
_KNOWN_NAMES = frozenset(
    {
        *("id", "_id", "uuid", "key", "doc_id", "document_id", "title", "name", "text", "body"),
        *("content", "description", "summary", "url", "link", "timestamp", "date", "created_at"),
        *("updated_at", "embedding", "vector", "tags", "category", "label", "author", "language"),
        *("lang", "source", "score"),
    }
)
#: Characters of the longest name that a column plausibly has.
_LONGEST_NAME = 64


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first row holds names.

    Args:
        rows: of equal width, the first of the file first.
    """
    if not rows:
        return False
    # a file that was joined from several holds the header several times
    first, later_rows = rows[0], [row for row in rows if row != rows[0]]
    if not later_rows and len(rows) > 1:
        return False
    names = [name.strip() for name in first]
    columns = [[row[index] for row in later_rows] for index in range(len(names))]
    if _are_known(names, columns):
        return True
    is_counted = _counts_up(names) and sum(map(_counts_up, later_rows)) <= len(later_rows) / 10
    if not any(names) or any(
        not (is_name(name) or (is_counted and name.isdecimal())) for name in names if name
    ):
        return False
    if any(
        _is_like_others(name, values)
        for name, values in zip(names, columns, strict=True)
        if not (is_counted and name.isdecimal())
    ):
        return False
    # the index of pandas has no name, and no field stands behind a delimiter at the end
    return not any(
        any(values) for name, values in zip(names[1:], columns[1:], strict=True) if not name
    ) or _differ_mostly(names, columns)


def holds_known_name(names: Sequence[str]) -> bool:
    """Tell whether a row may be a header, one of whose names columns have everywhere."""
    return all(name and is_name(name) for name in names) and any(
        name.lower() in _KNOWN_NAMES for name in names
    )


def _are_known(names: list[str], columns: list[list[str]]) -> bool:
    """Tell names by words that columns are called, whatever stands beside them.

    The question of a form, a number and a name of two lines may be names, too.
    """
    filled = [name for name in names if name]
    known = [
        name
        for name, values in zip(names, columns, strict=True)
        if name.lower() in _KNOWN_NAMES and name not in values
    ]
    if len(set(filled)) < len(filled):
        return False
    return len(known) > 1 or (len(known) == 1 and _differ_mostly(names, columns))


def _counts_up(cells: Sequence[str]) -> bool:
    """Tell cells such as 0, 1, 2 or 1990, 1991, with which tables count their columns."""
    numbers = [int(cell) for cell in cells if cell.strip().isdecimal() and len(cell) <= 9]
    are_years = all(1800 <= number <= 2200 for number in numbers)
    steps = {after - before for before, after in pairwise(numbers)}
    return steps == {1} and (len(numbers) > 2 or are_years)


def is_name(text: str) -> bool:
    """Tell a text that may be the name of a column; not empty."""
    return (
        len(text) <= _LONGEST_NAME
        and "\n" not in text
        and text[0] not in "[{"
        and not _NUMBER.fullmatch(text)
        and text.count(" ") <= 5
        and text[-1] not in ".!?"
    )


def _is_like_others(name: str, values: list[str]) -> bool:
    """Tell whether a name is made of letters and digits as most values of its column are."""
    if not name or not any(map(str.isdigit, name)):
        return name != "" and values.count(name) > len(values) / 20
    shape = _shape(name)
    return sum(_shape(value) == shape for value in values) > len(values) / 2


def _differ_mostly(names: list[str], columns: list[list[str]]) -> bool:
    """Tell whether most names are plainly no values: without digits, or shorter than they are.

    A row without a header may lack a field, too.
    """
    named = [(name, values) for name, values in zip(names, columns, strict=True) if name]
    return sum(_differs(name, values) for name, values in named) > len(named) / 2


def _differs(name: str, values: list[str]) -> bool:
    filled = [value for value in values if value]
    has_digits = any(map(str.isdigit, name))
    with_digits = 0 if has_digits else sum(any(map(str.isdigit, value)) for value in filled)
    longer = sum(len(value) > 3 * len(name) for value in filled)
    return max(with_digits, longer) > len(filled) / 2


def _shape(text: str) -> str:
    return _DIGITS.sub("9", _LETTERS.sub("a", text[:200]))
