"""CSV: whole records in, batches of exactly the declared columns out.

Each run of whole records is parsed by pyarrow in one piece, every column as
text, so nothing is inferred.  A row that does not fit (fields missing or too
many, another encoding, a text that is not of its column's declared type) is
taken out and becomes a Reject with its bytes and its offset in the file; the
rows around it are not affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from cfray.errors import SourceError
from cfray.formats.columns import interleaved
from cfray.formats.csv_records import Offsets, RecordEnds, is_content
from cfray.formats.csv_types import convert
from cfray.formats.lines import BOM, Oversized, Run
from cfray.records.record import Reject

_SHOWN = 80  # characters of a value shown in a reason


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How the rows are written: fields in order, delimiter, encoding.

    Whether a quoted field may hold line breaks.
    """

    schema: pa.Schema
    delimiter: str
    encoding: str
    newlines_in_values: bool


@dataclass(slots=True)
class _Rows:
    """The rows of a run: where they stand, and why some are no records."""

    run: Run
    starts: Offsets
    ends: Offsets
    reasons: dict[int, str]

    @classmethod
    def of(cls, run: Run) -> _Rows:
        ends = np.array(run.ends, np.int64)
        starts = np.concatenate(([0], ends[:-1]))
        kept = is_content(run.data, starts, ends)
        return cls(run, starts[kept], ends[kept], {})

    def raw(self, row: int) -> bytes:
        return self.run.data[self.starts[row] : self.ends[row]]

    def alive(self) -> list[int]:
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
    runs: Iterable[Run | Oversized], ends: RecordEnds, layout: CsvDialect, name: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn whole records into batches and rejects, one batch a run.

    Args:
        runs: whole records behind the header, from ``lines.whole_records``.
        ends: what found the ends of ``runs``; it knows whether the stream ended in a quoted field.
        layout: of the file.
        name: of the file, for positions.

    Raises:
        SourceError: a quoted field that is never closed swallowed more than a record may have.
    """
    for run in runs:
        if isinstance(run, Oversized):
            if not run.closed and ends.quoted:
                raise SourceError(
                    f"{name}: a quoted field in the record at byte {run.offset} is never closed; it runs over {run.size} bytes to the end",
                    "close the quote, or set source.newlines_in_values: false where no field holds a line break",
                )
            yield run.reject(name, "row")
            continue
        rows = _Rows.of(run)
        if not run.closed and ends.quoted and len(rows.starts):
            rows.reasons[len(rows.starts) - 1] = (
                "the file ends inside a quoted field; rows that it swallowed are in this one's content"
            )
        yield from interleaved(*_typed(_texts(rows, layout), rows, layout), rows.rejects(name))


def _texts(rows: _Rows, layout: CsvDialect) -> tuple[list[int], pa.Table]:
    """Parse all rows as text: which rows they are, and their fields."""
    alive = rows.alive()
    whole = _utf8(rows.run.data, layout.encoding) if not rows.reasons else None
    if whole is None:
        pieces = {row: _utf8(rows.raw(row), layout.encoding) for row in alive}
        rows.reasons |= {
            row: f"not valid {layout.encoding}" for row, piece in pieces.items() if piece is None
        }
        alive = rows.alive()
        whole = b"".join(pieces[row] or b"" for row in alive)
    if _has_torn_quote(whole, layout):
        texts = {row: _utf8(rows.raw(row), layout.encoding) or b"" for row in alive}
        torn = [
            row for row, piece in texts.items() if b'"' in piece and _has_torn_quote(piece, layout)
        ]
        rows.reasons |= dict.fromkeys(torn, "a quoted field is not closed on its line")
        alive = rows.alive()
        whole = b"".join(texts[row] for row in alive)
    parsed = _parse(whole, len(alive), layout)
    if parsed is None:
        return _one_by_one(rows, layout)
    table, wrong = parsed
    rows.reasons |= {alive[index]: reason for index, reason in wrong.items()}
    return [row for index, row in enumerate(alive) if index not in wrong], table


def _utf8(data: bytes, encoding: str) -> bytes | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return data if encoding == "utf-8" else text.encode()


def _has_torn_quote(data: bytes, layout: CsvDialect) -> bool:
    """Tell whether a quoted field goes on behind a line break although the file's owner said that none does."""
    if layout.newlines_in_values:
        return False
    quoting, plain = RecordEnds(layout.delimiter), RecordEnds(layout.delimiter, quoting=False)
    return not np.array_equal(quoting.find(data), plain.find(data)) or quoting.quoted


def _one_by_one(rows: _Rows, layout: CsvDialect) -> tuple[list[int], pa.Table]:
    """Parse each row for itself: where pyarrow cannot say how many there are.

    Because one is no CSV to it.
    """
    tables = [_empty(layout)]
    for row in rows.alive():
        parsed = _parse(_utf8(rows.raw(row), layout.encoding) or b"", 1, layout)
        if parsed is None or parsed[1]:
            rows.reasons[row] = "not one CSV record" if parsed is None else parsed[1][0]
        else:
            tables.append(parsed[0])
    return rows.alive(), pa.concat_tables(tables)


def _empty(layout: CsvDialect) -> pa.Table:
    return pa.schema([(column, pa.string()) for column in layout.schema.names]).empty_table()


def _parse(data: bytes, count: int, layout: CsvDialect) -> tuple[pa.Table, dict[int, str]] | None:
    """Parse records of UTF-8 text; None if they are not ``count`` records to pyarrow.

    Record ends are line breaks to both of us, so equal counts mean equal records.
    """
    if not count:
        return _empty(layout), {}
    wrong: dict[int, str] = {}
    names = layout.schema.names
    if data.startswith(
        BOM
    ):  # pyarrow would drop it, but only a file's first bytes are a mark; blank lines are ignored
        data = b"\n" + data
    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            pacsv.ParseOptions(
                delimiter=layout.delimiter,
                newlines_in_values=True,
                invalid_row_handler=partial(_note, wrong),
            ),
            pacsv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return (table, wrong) if table.num_rows + len(wrong) == count else None


def _note(wrong: dict[int, str], row: pacsv.InvalidRow) -> str:
    wrong[row.number - 1] = (
        f"{row.actual_columns} fields, but the header has {row.expected_columns}"
    )
    return "skip"


def _typed(
    parsed: tuple[list[int], pa.Table], rows: _Rows, layout: CsvDialect
) -> tuple[list[int], pa.RecordBatch]:
    """Convert the declared columns.

    Take out the rows that do not fit.  Gives the rows' numbers with them.
    """
    which, table = parsed
    columns: list[pa.Array] = []
    fits = np.ones(len(which), bool)
    for column, wanted in zip(table.columns, layout.schema, strict=True):
        texts = column.combine_chunks()
        if wanted.type == pa.string():
            columns.append(texts)
            continue
        values, wrong = convert(texts, wanted.type)
        columns.append(values)
        fits[wrong] = False
        for index in wrong:
            value = texts[index].as_py()
            rows.reasons.setdefault(
                which[index],
                f"column {wanted.name!r} is declared {wanted.type}, which {value[:_SHOWN]!r} is not",
            )
    batch = pa.RecordBatch.from_arrays(columns, schema=layout.schema)
    if fits.all():
        return which, batch
    return [row for row, fit in zip(which, fits.tolist(), strict=True) if fit], batch.filter(
        pa.array(fits)
    )
