"""What stands before the rows of a CSV file: a byte order mark, ``sep=;``, the names of columns.

Excel reads and writes a first line ``sep=;``, which names the delimiter and is no record.  A
column whose name is empty (the index that pandas writes) or repeated gets a name of its own, and
what it is called is said; a file without a header gets its names from the job file.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Literal

from cfray.errors import SourceError
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_records import RecordEnds
from cfray.formats.lines import BOM, OversizedRecord, gather_records
from cfray.records.names import unique_names

_SEPARATOR_LINE = re.compile(rb'"?sep=([\x01-\x7f])"?[ \t]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
#: First rows that are compared with the names in the job file.
_CHECKED_ROWS = 20
_REMEDY = (
    "write a first line with a name for each column, or name the columns in source.columns where "
    "the first line is a row"
)


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """What stands before the rows of a file.

    Attributes:
        columns: names in their order, each different from all others.
        end: offset of the first row.
        dialect: of the rows: the delimiter may be the one that ``sep=`` names.
        notes: what was understood that the file does not say plainly (one sentence each).
        line: the header without its line break; empty where the file has none.
    """

    columns: tuple[str, ...]
    end: int
    dialect: CsvDialect
    notes: tuple[str, ...] = ()
    line: bytes = b""


@dataclass(frozen=True, slots=True)
class SeparatorLine:
    """A line ``sep=;``.

    Attributes:
        delimiter: the character that it names.
        end: offset behind the line.
    """

    delimiter: str
    end: int


def find_separator_line(text: bytes, start: int = 0) -> SeparatorLine | None:
    """Find a line ``sep=;`` that stands at ``start``."""
    line = _SEPARATOR_LINE.match(text, start)
    return SeparatorLine(line[1].decode(), line.end()) if line else None


def read_header(
    blocks: Iterator[bytes],
    dialect: CsvDialect,
    name: str,
    limit: int,
    columns: Sequence[str] = (),
) -> CsvHeader:
    """Read the column names from the first line that is not blank.

    Args:
        blocks: of the file, from its start; no pair torn.
        dialect: of the job file.
        name: of the file, for errors.
        limit: bytes above which a line is no header.
        columns: names, where the file has no header.

    Raises:
        SourceError: no such line, one that is not in the encoding or torn, a line ``sep=`` that
            names another delimiter than the job file, or ``columns`` that the first rows do not
            have.
    """
    first = next(blocks, b"")
    start = len(BOM) if first.startswith(BOM) else 0
    notes: list[str] = []
    if separator := find_separator_line(first, start):
        dialect = _with_delimiter(dialect, separator.delimiter, name)
        notes.append(f"{name}: its first line, sep={dialect.delimiter}, names the delimiter")
        start = separator.end
    if columns:
        _check_columns(first[start:], columns, dialect, name)
        return CsvHeader(tuple(columns), start, dialect, tuple(notes))
    find_ends = RecordEnds(dialect, start)
    runs = gather_records(chain([first[start:]], blocks), find_ends, limit, start)
    for run in runs:
        if isinstance(run, OversizedRecord):
            raise SourceError(
                f"{name} begins with a record of {run.size} bytes, which is no header", _REMEDY
            )
        for offset, record in run.records():
            if not record.strip(b"\r\n"):
                continue
            end = offset + len(record)
            if find_ends.take_torn(end):
                raise SourceError(
                    f"the header of {name} cannot be read: text follows a closing quote",
                    "set source.quote: none if quotes are plain characters in this file, or "
                    "correct its first line",
                )
            fields = split_fields(record, dialect, name)
            names, more_notes = name_columns(fields, name)
            line = record.rstrip(b"\r\n")
            return CsvHeader(names, end, dialect, (*notes, *more_notes), line)
    raise SourceError(f"{name} has no header: it holds no line that is not blank", _REMEDY)


def _with_delimiter(dialect: CsvDialect, delimiter: str, name: str) -> CsvDialect:
    if dialect.delimiter not in (",", delimiter):
        raise SourceError(
            f"the first line of {name} is sep={delimiter}, but source.delimiter is "
            f"{dialect.delimiter!r}",
            "remove source.delimiter, or the file's first line",
        )
    return replace(dialect, delimiter=delimiter)


def _check_columns(head: bytes, columns: Sequence[str], dialect: CsvDialect, name: str) -> None:
    """Refuse names of columns that stand in the file, or that none of its first rows has."""
    find_ends = RecordEnds(dialect)
    ends = find_ends(head)[:_CHECKED_ROWS] or [len(head)]
    records = [head[start:end] for start, end in pairwise([0, *ends])]
    rows: list[list[str]] = []
    for record in records:
        if record.strip(b"\r\n"):
            with suppress(SourceError):
                rows.append(split_fields(record, dialect, name))
    if list(columns) in rows:
        raise SourceError(
            f"a row of {name} is exactly source.columns: the file has a header",
            "remove source.columns from the job file",
        )
    if rows and all(len(row) != len(columns) for row in rows):
        count = len(rows[0])
        raise SourceError(
            f"source.columns has {len(columns)} names, but the first row of {name} has {count} "
            f"field{'s' if count > 1 else ''}",
            "correct source.columns, source.delimiter, source.quote or source.escape",
        )


def split_fields(record: bytes, dialect: CsvDialect, name: str) -> list[str]:
    """Split one whole record into its texts.

    Raises:
        SourceError: the record is not in the dialect's encoding.
    """
    try:
        content = record.rstrip(b"\r\n").decode(dialect.encoding).encode()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"the header of {name} cannot be read: {error}",
            "correct source.encoding, for example cp1252 or utf-16, or the file's first line",
        ) from error
    resolved, marks = dialect.resolve_escapes(content)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE
    reader = csv.reader(
        io.StringIO(resolved.decode(), newline=""),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or '"',
        quoting=quoting,
    )
    try:
        fields = next(reader, [])
    except csv.Error as error:
        raise SourceError(
            f"the header of {name} cannot be read: {error}",
            "correct source.delimiter or the file's first line",
        ) from error
    for mark, text in marks.items():
        fields = [field.replace(mark, text) for field in fields]
    return fields


def name_columns(fields: Sequence[str], name: str) -> tuple[tuple[str, ...], list[str]]:
    """Give every column a name of its own, and say which ones the header does not give.

    Args:
        fields: the names as the header has them.
        name: of the file.
    """
    named = [
        field if field.strip() else _free_name(number, fields)
        for number, field in enumerate(fields, 1)
    ]
    names = unique_names(named)
    notes = [
        f"{name}: column {number} has no name in the header; it is {column!r}"
        for number, (field, column) in enumerate(zip(fields, names, strict=True), 1)
        if not field.strip()
    ]
    notes += [
        f"{name}: the header has the name {field!r} {count} times; its columns are "
        f"{', '.join(column for column, name in zip(names, named, strict=True) if name == field)}"
        for field, count in Counter(named).items()
        if count > 1
    ]
    return tuple(names), notes


def _free_name(number: int, fields: Sequence[str]) -> str:
    name = f"column_{number}"
    while name in fields:
        name += "_"
    return name
