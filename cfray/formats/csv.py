"""CSV: whole records in, batches of exactly the declared columns out.

Each run of whole records is parsed by pyarrow at once, every column as text, so nothing is
inferred.  A row that does not fit (fields missing or too many, another encoding, a text that
is not of its column's declared type) is taken out and becomes a Reject with its bytes and
its offset in the file; the rows around it are not affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.columns import interleave
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_parse import CsvTable, empty_table, parse_records
from cfray.formats.csv_records import Offsets, RecordEnds, find_content
from cfray.formats.csv_types import convert_texts
from cfray.formats.lines import BOM, OversizedRecord, RecordRun
from cfray.records.record import Reject

#: Characters of a value that a reason shows.
_SHOWN_CHARACTERS = 80


@dataclass(slots=True)
class _Rows:
    """The rows of a run: where they stand, and why some of them are no records.

    Attributes:
        run: the records' bytes.
        starts: offset of each row in the run.
        ends: offset behind each row in the run.
        reasons: number of a row -> why it is no record.
    """

    run: RecordRun
    starts: Offsets
    ends: Offsets
    reasons: dict[int, str]

    @classmethod
    def of(cls, run: RecordRun) -> _Rows:
        ends = np.array(run.ends, np.int64)
        starts = np.concatenate(([0], ends[:-1]))
        is_row = find_content(run.data, starts, ends)
        return cls(run, starts[is_row], ends[is_row], {})

    @property
    def end(self) -> int:
        """Give the offset behind the run in the file."""
        return self.run.offset + len(self.run.data)

    def reject_torn(self, offsets: list[int], dialect: CsvDialect) -> None:
        """Take out the rows in which text follows the closing quote at an offset of the file."""
        behind = np.array(offsets, np.int64) - self.run.offset
        for row in np.searchsorted(self.ends, behind, side="right").tolist():
            self.reasons[row] = _torn_reason(self.raw(row), dialect)

    def raw(self, row: int) -> bytes:
        return self.run.data[self.starts[row] : self.ends[row]]

    def remaining(self) -> list[int]:
        return [row for row in range(len(self.starts)) if row not in self.reasons]

    def rejects(self, name: str) -> Iterator[tuple[int, Reject]]:
        for row in sorted(self.reasons):
            yield (
                row,
                Reject(
                    f"row: {self.reasons[row]}",
                    f"{name}:byte {self.run.offset + int(self.starts[row])}",
                    self.raw(row).removesuffix(b"\n").removesuffix(b"\r"),
                ),
            )


def decode(
    runs: Iterable[RecordRun | OversizedRecord],
    find_ends: RecordEnds,
    table: CsvTable,
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn whole records into batches and rejects, one batch a run.

    Args:
        runs: whole records behind the header, from ``lines.gather_records``.
        find_ends: what found the ends of ``runs``; it knows whether the stream ended in a quoted
            field, and behind which closing quotes a text follows.
        table: the file, its dialect and its columns.

    Raises:
        SourceError: a quoted field that is never closed swallowed more than a record may have.
    """
    for run in runs:
        if isinstance(run, OversizedRecord):
            if not run.closed and find_ends.quoted:
                raise SourceError(
                    f"{table.name}: a quoted field in the record at byte {run.offset} is never "
                    f"closed; it runs over {run.size} bytes to the end",
                    "close the quote; or set source.newlines_in_values: false where no field holds "
                    "a line break, or source.quote: none where quotes are plain characters",
                )
            find_ends.take_torn(run.offset + run.size)
            yield run.reject(table.name, "row")
            continue
        rows = _Rows.of(run)
        _reject_torn_quotes(rows, find_ends, table.dialect)
        _reject_repeated_headers(rows, table)
        numbers, texts = _parse_rows(rows, table)
        numbers, batch = _convert_columns(numbers, texts, rows, table)
        yield from interleave(numbers, batch, rows.rejects(table.name))


def _reject_torn_quotes(rows: _Rows, find_ends: RecordEnds, dialect: CsvDialect) -> None:
    """Take out the rows with a quoted field that is not closed, or that text follows."""
    if dialect.quote is None or not len(rows.starts):
        return
    if not dialect.newlines_in_values:
        _reject_quotes_over_lines(rows, dialect)
        return
    if torn := find_ends.take_torn(rows.end):
        rows.reject_torn(torn, dialect)
    if not rows.run.closed and find_ends.quoted:
        rows.reasons[len(rows.starts) - 1] = (
            "the file ends inside a quoted field; rows that it swallowed are in this one's content"
        )


def _reject_repeated_headers(rows: _Rows, table: CsvTable) -> None:
    """Take out the headers of files that were joined to one; a header of one word may be a row."""
    if len(table.schema) < 2 or not table.header:
        return
    at = -1
    while (at := rows.run.data.find(table.header, at + 1)) >= 0:
        row = int(np.searchsorted(rows.ends, at, side="right"))
        if rows.raw(row).rstrip(b"\r\n").removeprefix(BOM) == table.header:
            rows.reasons[row] = "the row repeats the header; the file was joined from several"


def _reject_quotes_over_lines(rows: _Rows, dialect: CsvDialect) -> None:
    """Take out torn quotes where the job file says that no field holds a line break."""
    quoting, plain = RecordEnds(dialect, rows.run.offset), RecordEnds(dialect, quoting=False)
    ends = quoting.find(rows.run.data)
    if np.array_equal(ends, plain.find(rows.run.data)) and not quoting.quoted:
        if torn := quoting.take_torn(rows.end):
            rows.reject_torn(torn, dialect)
        return
    assert dialect.quote is not None
    quote = dialect.quote.encode()
    for row in range(len(rows.starts)):
        raw = rows.raw(row)
        if quote not in raw:
            continue
        line = RecordEnds(dialect)
        line.find(raw)
        if line.quoted:
            rows.reasons[row] = "a quoted field is not closed on its line"
        elif line.take_torn(len(raw)):
            rows.reasons[row] = _torn_reason(raw, dialect)


def _torn_reason(raw: bytes, dialect: CsvDialect) -> str:
    """Say what is wrong with a row in which text follows a closing quote, and what may help."""
    assert dialect.quote is not None
    if dialect.escape is None and b"\\" + dialect.quote.encode() in raw:
        return (
            "text follows a closing quote; if a backslash escapes quotes in this file, write "
            r'source.escape: "\\" in the job file'
        )
    return (
        "text follows a closing quote; if quotes are plain characters in this file, write "
        "source.quote: none in the job file"
    )


def _parse_rows(rows: _Rows, table: CsvTable) -> tuple[list[int], pa.Table]:
    """Parse all rows as text.

    Returns:
        The numbers of the rows that could be parsed, and their fields.
    """
    numbers, encoding = rows.remaining(), table.dialect.encoding
    data = _to_utf8(rows.run.data, encoding) if not rows.reasons else None
    if data is None:
        texts = {row: _to_utf8(rows.raw(row), encoding) for row in numbers}
        rows.reasons |= {
            row: f"not valid {encoding}; source.encoding names another, for example cp1252"
            for row, text in texts.items()
            if text is None
        }
        numbers = rows.remaining()
        data = b"".join(texts[row] or b"" for row in numbers)
    parsed = parse_records(data, len(numbers), table)
    if parsed is None:
        return _parse_one_by_one(rows, table)
    fields, faults = parsed
    rows.reasons |= {numbers[index]: reason for index, reason in faults.items()}
    return [row for index, row in enumerate(numbers) if index not in faults], fields


def _to_utf8(data: bytes, encoding: str) -> bytes | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return data if encoding == "utf-8" else text.encode()


def _parse_one_by_one(rows: _Rows, table: CsvTable) -> tuple[list[int], pa.Table]:
    """Parse each row by itself.

    Needed where pyarrow cannot say how many rows there are, because one of them is no CSV to it.
    """
    tables = [empty_table(table)]
    for row in rows.remaining():
        data = _to_utf8(rows.raw(row), table.dialect.encoding) or b""
        parsed = parse_records(data, 1, table)
        if parsed is None or parsed[1]:
            rows.reasons[row] = "not one CSV record" if parsed is None else parsed[1][0]
        else:
            tables.append(parsed[0])
    return rows.remaining(), pa.concat_tables(tables)


def _convert_columns(
    numbers: list[int], texts: pa.Table, rows: _Rows, table: CsvTable
) -> tuple[list[int], pa.RecordBatch]:
    """Convert the columns with a declared type, and take out the rows that do not fit.

    Returns:
        The numbers of the rows that fit, and the rows.
    """
    columns: list[pa.Array] = []
    fits = np.ones(len(numbers), bool)
    for column, declared in zip(texts.columns, table.schema, strict=True):
        column_texts = column.combine_chunks()
        if declared.type == pa.string():
            columns.append(column_texts)
            continue
        values, misfits = convert_texts(column_texts, declared.type, decimal=table.dialect.decimal)
        columns.append(values)
        fits[misfits] = False
        for index in misfits:
            shown = column_texts[index].as_py()[:_SHOWN_CHARACTERS]
            rows.reasons.setdefault(
                numbers[index],
                f"column {declared.name!r} is declared {declared.type}, which {shown!r} is not",
            )
    batch = pa.RecordBatch.from_arrays(columns, schema=table.schema)
    if fits.all():
        return numbers, batch
    fitting_numbers = [row for row, fit in zip(numbers, fits.tolist(), strict=True) if fit]
    return fitting_numbers, batch.filter(pa.array(fits))
