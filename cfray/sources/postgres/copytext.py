r"""The rows of COPY's text and CSV forms, as columns of texts.

In the text form every line is a row, for a line break in a value is written ``\\n``; in CSV a row
ends at a line break outside of quotes.

Source: https://www.postgresql.org/docs/current/sql-copy.html, File Formats
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

#: The line that ends the rows of a text COPY within a script, and in files of old versions of psql.
_END_OF_DATA = b"\\.\n"
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_QUOTE, _NEWLINE = ord('"'), ord("\n")


class BadRowsError(ValueError):
    """The bytes are no rows of that many columns."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """How rows are written.

    Attributes:
        delimiter: between values.
        is_csv: whether values may stand in quotes; else they have escapes.
        null: what stands for null; in CSV only without quotes.
    """

    delimiter: str
    is_csv: bool
    null: str


TEXT = TextForm("\t", is_csv=False, null="\\N")


class CsvEnds:
    """Tells where rows of CSV end in consecutive blocks; remembers whether a quote is open."""

    def __init__(self) -> None:
        """Begin outside of quotes."""
        self._is_quoted = False

    def __call__(self, block: bytes) -> list[int]:
        """Give the offsets behind the line breaks of a block that stand outside of quotes."""
        data = np.frombuffer(block, np.uint8)
        quoted = (np.cumsum(data == _QUOTE) + self._is_quoted) % 2
        ends = np.flatnonzero((data == _NEWLINE) & (quoted == 0)) + 1
        if len(quoted):
            self._is_quoted = bool(quoted[-1])
        found: list[int] = ends.tolist()
        return found


def parse_rows(data: bytes, form: TextForm, n_columns: int) -> list[pa.BinaryArray]:
    """Give the texts of each column, as bytes; null for null.

    Raises:
        BadRowsError: a row does not have that many columns.
    """
    names = [str(number) for number in range(n_columns)]
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            csv.ParseOptions(
                delimiter=form.delimiter,
                quote_char='"' if form.is_csv else False,
                double_quote=form.is_csv,
                newlines_in_values=form.is_csv,
                ignore_empty_lines=False,
            ),
            csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.binary()),
                null_values=[form.null],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise BadRowsError(str(error)[:300]) from None
    columns = [column.combine_chunks() for column in table.columns]
    return columns if form.is_csv else [_unescape(column) for column in columns]


def without_end_of_data(data: bytes) -> bytes:
    """Leave out the line that ends the rows, where they end with it."""
    if data == _END_OF_DATA or data.endswith(b"\n" + _END_OF_DATA):
        return data[: -len(_END_OF_DATA)]
    return data


def _unescape(column: pa.BinaryArray) -> pa.BinaryArray:
    """Resolve the escapes of the text form, in the few values that have some."""
    escaped = pc.match_substring(column, b"\\").fill_null(False)
    if not pc.any(escaped).as_py():
        return column
    resolved = [_ESCAPE.sub(_resolve, text) for text in column.filter(escaped).to_pylist()]
    # pyarrow 26.0.1 replaces values of binary columns through a mask
    return pc.replace_with_mask(column, escaped, pa.array(resolved, pa.binary()))


def _resolve(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if escape[:1] == b"x" and len(escape) > 1:
        return bytes([int(escape[1:], 16)])
    if escape[:1] in b"01234567":
        return bytes([int(escape, 8) % 256])
    return _ESCAPES.get(escape, escape)
