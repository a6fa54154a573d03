"""CSV: whole records in, batches of exactly the declared columns out.

Each run of whole records is parsed by pyarrow at once, every column as text, so nothing is
inferred.  A row that does not fit (fields missing or too many, another encoding, a text that
is not of its column's declared type) is taken out and becomes a Reject with its bytes and
its offset in the file; the rows around it are not affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from cfray.errors import SourceError
from cfray.formats.columns import interleave
from cfray.formats.csv_records import Offsets, RecordEnds, find_content
from cfray.formats.csv_types import convert_texts
from cfray.formats.lines import BOM, OversizedRecord, RecordRun
from cfray.records.record import Reject

#: Characters of a value that a reason shows.
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How the rows of a file are written.

    Attributes:
        schema: the columns in the order of the header, with their declared types.
        delimiter: the character between fields.
        encoding: of the bytes that ``decode`` is given.
        newlines_in_values: whether a quoted field may hold line breaks.
    """

    schema: pa.Schema
    delimiter: str
    encoding: str
    newlines_in_values: bool


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
    dialect: CsvDialect,
    name: str,
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn whole records into batches and rejects, one batch a run.

    Args:
        runs: whole records behind the header, from ``lines.gather_records``.
        find_ends: what found the ends of ``runs``; it knows whether the stream ended in a quoted
            field.
        dialect: of the file.
        name: of the file, for positions.

    Raises:
        SourceError: a quoted field that is never closed swallowed more than a record may have.
    """
    for run in runs:
        if isinstance(run, OversizedRecord):
            if not run.closed and find_ends.quoted:
                raise SourceError(
                    f"{name}: a quoted field in the record at byte {run.offset} is never closed; "
                    f"it runs over {run.size} bytes to the end",
                    "close the quote, or set source.newlines_in_values: false where no field holds "
                    "a line break",
                )
            yield run.reject(name, "row")
            continue
        rows = _Rows.of(run)
        if not run.closed and find_ends.quoted and len(rows.starts):
            rows.reasons[len(rows.starts) - 1] = (
                "the file ends inside a quoted field; rows that it swallowed are in this one's "
                "content"
            )
        numbers, texts = _parse_rows(rows, dialect)
        numbers, batch = _convert_columns(numbers, texts, rows, dialect)
        yield from interleave(numbers, batch, rows.rejects(name))


def _parse_rows(rows: _Rows, dialect: CsvDialect) -> tuple[list[int], pa.Table]:
    """Parse all rows as text.

    Returns:
        The numbers of the rows that could be parsed, and their fields.
    """
    numbers = rows.remaining()
    data = _to_utf8(rows.run.data, dialect.encoding) if not rows.reasons else None
    if data is None:
        texts = {row: _to_utf8(rows.raw(row), dialect.encoding) for row in numbers}
        rows.reasons |= {
            row: f"not valid {dialect.encoding}" for row, text in texts.items() if text is None
        }
        numbers = rows.remaining()
        data = b"".join(texts[row] or b"" for row in numbers)
    if _has_torn_quote(data, dialect):
        known_texts = {row: _to_utf8(rows.raw(row), dialect.encoding) or b"" for row in numbers}
        torn_rows = [
            row
            for row, text in known_texts.items()
            if b'"' in text and _has_torn_quote(text, dialect)
        ]
        rows.reasons |= dict.fromkeys(torn_rows, "a quoted field is not closed on its line")
        numbers = rows.remaining()
        data = b"".join(known_texts[row] for row in numbers)
    parsed = _parse(data, len(numbers), dialect)
    if parsed is None:
        return _parse_one_by_one(rows, dialect)
    table, faults = parsed
    rows.reasons |= {numbers[index]: reason for index, reason in faults.items()}
    return [row for index, row in enumerate(numbers) if index not in faults], table


def _to_utf8(data: bytes, encoding: str) -> bytes | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return data if encoding == "utf-8" else text.encode()


def _has_torn_quote(data: bytes, dialect: CsvDialect) -> bool:
    """Tell whether a quoted field holds a line break although the job file says that none does."""
    if dialect.newlines_in_values:
        return False
    quoting, plain = RecordEnds(dialect.delimiter), RecordEnds(dialect.delimiter, quoting=False)
    return not np.array_equal(quoting.find(data), plain.find(data)) or quoting.quoted


def _parse_one_by_one(rows: _Rows, dialect: CsvDialect) -> tuple[list[int], pa.Table]:
    """Parse each row by itself.

    Needed where pyarrow cannot say how many rows there are, because one of them is no CSV to it.
    """
    tables = [_empty_table(dialect)]
    for row in rows.remaining():
        parsed = _parse(_to_utf8(rows.raw(row), dialect.encoding) or b"", 1, dialect)
        if parsed is None or parsed[1]:
            rows.reasons[row] = "not one CSV record" if parsed is None else parsed[1][0]
        else:
            tables.append(parsed[0])
    return rows.remaining(), pa.concat_tables(tables)


def _empty_table(dialect: CsvDialect) -> pa.Table:
    return pa.schema([(column, pa.string()) for column in dialect.schema.names]).empty_table()


def _parse(
    data: bytes, row_count: int, dialect: CsvDialect
) -> tuple[pa.Table, dict[int, str]] | None:
    """Parse records of UTF-8 text; None if they are not ``row_count`` records to pyarrow.

    Record ends are line breaks to both of us, so equal counts mean equal records.

    Returns:
        The fields of the rows that fit, and row -> why it does not fit.
    """
    if not row_count:
        return _empty_table(dialect), {}
    faults: dict[int, str] = {}
    names = dialect.schema.names
    if data.startswith(BOM):
        # pyarrow would drop it, but only a file's first bytes are a mark; it ignores blank lines.
        data = b"\n" + data
    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            pacsv.ParseOptions(
                delimiter=dialect.delimiter,
                newlines_in_values=True,
                invalid_row_handler=partial(_note_fault, faults),
            ),
            pacsv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return (table, faults) if table.num_rows + len(faults) == row_count else None


def _note_fault(faults: dict[int, str], row: pacsv.InvalidRow) -> str:
    faults[row.number - 1] = (
        f"{row.actual_columns} fields, but the header has {row.expected_columns}"
    )
    return "skip"


def _convert_columns(
    numbers: list[int], table: pa.Table, rows: _Rows, dialect: CsvDialect
) -> tuple[list[int], pa.RecordBatch]:
    """Convert the columns with a declared type, and take out the rows that do not fit.

    Returns:
        The numbers of the rows that fit, and the rows.
    """
    columns: list[pa.Array] = []
    fits = np.ones(len(numbers), bool)
    for column, declared in zip(table.columns, dialect.schema, strict=True):
        texts = column.combine_chunks()
        if declared.type == pa.string():
            columns.append(texts)
            continue
        values, misfits = convert_texts(texts, declared.type)
        columns.append(values)
        fits[misfits] = False
        for index in misfits:
            shown = texts[index].as_py()[:_SHOWN_CHARACTERS]
            rows.reasons.setdefault(
                numbers[index],
                f"column {declared.name!r} is declared {declared.type}, which {shown!r} is not",
            )
    batch = pa.RecordBatch.from_arrays(columns, schema=dialect.schema)
    if fits.all():
        return numbers, batch
    fitting_numbers = [row for row, fit in zip(numbers, fits.tolist(), strict=True) if fit]
    return fitting_numbers, batch.filter(pa.array(fits))
