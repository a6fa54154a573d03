"""CsvDialect: how the rows of a delimited text are written, and what its escapes stand for.

Inside quotes two quotes stand for a quote.  An escape character means what the programs that write
it mean.  With quotes (Spark, DuckDB, pandas) it escapes a quote or itself; before any other
character, and in an unquoted field that has it before another character, it is text.  Without
quotes (MySQL, PostgreSQL's text format, Hive) it escapes the delimiter, a line break or itself, and
a backslash before ``b f n r t v 0`` is a control character.

The escapes of whole records are turned into what pyarrow's parser knows before it parses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc

_CONTROLS = {
    ord(letter): control for letter, control in zip("bfnrtv0", b"\b\f\n\r\t\v\0", strict=True)
}
#: First of the code points for private use (Unicode 15, section 23.5) of which those that a text
#: does not hold stand for escaped characters that the parser would take for delimiters, line breaks
#: or the start of a null's text.
_FIRST_MARK = 0xF0000


@dataclass(frozen=True)
class CsvDialect:
    r"""How the rows of a file are written.

    Attributes:
        delimiter: the ASCII character between fields.
        quote: the ASCII character around quoted fields; None where quotes are plain characters.
        escape: the ASCII character that takes its meaning from the character behind it, or None.
        nulls: texts that stand for null in an unquoted field; in a quoted one where they are
            written here with their quotes.
        encoding: of the bytes that ``decode`` is given.
        newlines_in_values: whether a quoted field may hold line breaks.
        decimal: the character before the fraction of a number: ``.`` or ``,``.
    """

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    nulls: tuple[str, ...] = field(default=())
    encoding: str = "utf-8"
    newlines_in_values: bool = True
    decimal: str = "."

    @property
    def marks(self) -> str:
        """Give the characters that have a meaning: delimiter, quote and escape."""
        return self.delimiter + (self.quote or "") + (self.escape or "")

    @cached_property
    def null_texts(self) -> list[str]:
        """Give the texts of null without their quotes."""
        return [text[1:-1] if self._is_quoted(text) else text for text in self.nulls]

    @cached_property
    def has_quoted_nulls(self) -> bool:
        """Tell whether a quoted field can stand for null."""
        return any(map(self._is_quoted, self.nulls))

    def _is_quoted(self, text: str) -> bool:
        return (
            self.quote is not None
            and len(text) > 1
            and text[0] == self.quote
            and text[-1] == self.quote
        )

    def mask_escapes(self, data: bytes) -> bytes:
        """Replace escaped characters, with their escapes, by letters of the same length.

        So quotes, delimiters and line breaks that remain are structure.
        """
        if self.escape is None or self._escape not in data:
            return data
        return self._pairs.sub(b"xx", data)

    def keep_pairs_together(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Move what must not be torn from the end of a block to the next block.

        A carriage return belongs to the line feed behind it, an escape to the character behind it.
        """
        carried = b""
        for block in blocks:
            data = carried + block
            carried = self._unfinished(data)
            if body := data[: len(data) - len(carried)]:
                yield body
        if carried:
            yield carried

    def _unfinished(self, data: bytes) -> bytes:
        end = b"\r" if data.endswith(b"\r") else b""
        if self.escape is None:
            return end
        body = data[: len(data) - len(end)]
        escapes = len(body) - len(body.rstrip(self._escape))
        return self._escape + end if escapes % 2 else end

    @cached_property
    def _escape(self) -> bytes:
        return (self.escape or "").encode()

    @cached_property
    def _pairs(self) -> re.Pattern[bytes]:
        escape = re.escape(self._escape)
        if self.quote is None:
            return re.compile(escape + b"(.)", re.DOTALL)
        return re.compile(escape + b"([" + re.escape(self._escape + self.quote.encode()) + b"])")

    @cached_property
    def _fields(self) -> re.Pattern[bytes]:
        """Match a quoted field, or an unquoted one with an escape in it."""
        escape, quote = re.escape(self._escape), re.escape((self.quote or "").encode())
        delimiter = re.escape(self.delimiter.encode())
        return re.compile(
            b"%(q)s(?:[^%(q)s%(e)s]++|%(e)s.|%(q)s%(q)s)*+(?:%(q)s|\\Z)"
            b"|[^%(d)s%(q)s\r\n][^%(d)s\r\n]*" % {b"q": quote, b"e": escape, b"d": delimiter},
            re.DOTALL,
        )

    def resolve_escapes(self, data: bytes) -> tuple[bytes, dict[str, str]]:
        """Write whole records without escapes.

        Args:
            data: UTF-8 text.

        Returns:
            the records, and what characters in them that the text did not hold stand for.
        """
        if self.escape is None or self._escape not in data:
            return data, {}
        if self.quote is not None:
            return self._fields.sub(self._double_quotes, data), {}
        marks = dict(zip((self.delimiter, "\n", "\r", self.escape), _absent(data), strict=False))
        meanings = {text.encode(): mark.encode() for text, mark in marks.items()}
        resolved = self._pairs.sub(lambda match: self._resolve(match, meanings), data)
        return resolved, {
            mark: text for text, mark in marks.items() if meanings[text.encode()] in resolved
        }

    def _double_quotes(self, match: re.Match[bytes]) -> bytes:
        """Write one field as it stands where quotes are doubled and nothing is escaped."""
        text = match[0]
        if self._escape not in text:
            return text
        assert self.quote is not None
        quote = self.quote.encode()
        if text.startswith(quote):
            return self._pairs.sub(lambda pair: quote * 2 if pair[1] == quote else pair[1], text)
        if self._escape in self._pairs.sub(b"", text):
            # before an ordinary character, too: no writer that escapes here writes that
            return text
        plain = self._pairs.sub(rb"\1", text)
        return quote + plain.replace(quote, quote * 2) + quote if quote in plain else plain

    def _resolve(self, match: re.Match[bytes], meanings: dict[bytes, bytes]) -> bytes:
        """Write the character of one escape where there are no quotes."""
        escaped = match[1]
        if escaped in meanings:
            return meanings[escaped]
        if self.escape == "\\" and escaped[0] in _CONTROLS:
            control = bytes([_CONTROLS[escaped[0]]])
            return meanings.get(control, control)
        return escaped if escaped in b"\"'" else match[0]


def _absent(data: bytes) -> Iterator[str]:
    """Give characters for private use that a text does not hold."""
    return (mark for mark in map(chr, count(_FIRST_MARK)) if mark.encode() not in data)


def restore_marks(table: pa.Table, marks: dict[str, str]) -> pa.Table:
    """Put the characters back that ``resolve_escapes`` marked in columns of texts."""
    columns = table.columns
    for mark, text in marks.items():
        columns = [pc.replace_substring(column, mark, text) for column in columns]
    return pa.Table.from_arrays(columns, names=table.column_names)
