"""Columns whose bytes are not what their type says: texts that are no UTF-8, and damage.

Arrow checks a column as a whole and says what is wrong first.  A text that is no UTF-8 concerns its
row alone; a date64 within a day, a time beyond the day or a decimal with too many digits is
carried as it is; anything else means that the buffers contradict each other, and nothing of
the column can be read.
"""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types as kinds

#: Words of Arrow's about single values (pyarrow 26.0.1): bad UTF-8, a date64 with a time of day,
#: a time outside the day, a decimal beyond its precision.
_ABOUT_VALUES = ("UTF8", "whole number of days", "acceptable range", "fit in precision")


def check_buffers(array: pa.Array) -> bool:
    """Tell whether all values of an array are what its type says.

    Raises:
        ArrowInvalid: its buffers contradict each other.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if not any(words in str(error) for words in _ABOUT_VALUES):
            raise
        return False
    return True


def invalid_text_rows(column: pa.Array) -> list[int]:
    """List the rows whose text (also inside lists, maps and structs) is not UTF-8.

    Args:
        column: of a normal type.

    Raises:
        ArrowInvalid: its buffers contradict each other.
    """
    if check_buffers(column) or not _holds_text(column.type):
        return []
    return [row for row in range(len(column)) if _is_invalid(column.slice(row, 1))]


def _holds_text(kind: pa.DataType) -> bool:
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return True
    return any(_holds_text(kind.field(index).type) for index in range(kind.num_fields))


def _is_invalid(array: pa.Array) -> bool:
    """Tell whether a text in an array is not UTF-8; what a null list or struct hides is not read.

    Args:
        array: a single row, or the items of one.
    """
    kind = array.type
    if not _holds_text(kind) or not len(array):
        return False
    if kinds.is_struct(kind):
        present = array.filter(array.is_valid()) if array.null_count else array
        return any(_is_invalid(present.field(index)) for index in range(kind.num_fields))
    if kinds.is_map(kind):
        return any(_is_invalid(row.values) for row in array if row.is_valid)
    if kinds.is_nested(kind):
        return _is_invalid(array.flatten())
    try:
        # A copy, for a slice is checked with the bytes beside it.
        pa.concat_arrays([array]).take(pa.array(range(len(array)))).validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False
