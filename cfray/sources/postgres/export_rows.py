"""Rows in COPY's text or CSV form, made into records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cfray.formats import lines
from cfray.formats.columns import interleave, row_content, split_by_bytes
from cfray.formats.invalid_text import invalid_text_rows
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.postgres.copytext import (
    BadRowsError,
    CsvEnds,
    TextForm,
    parse_rows,
    without_end_of_data,
)
from cfray.sources.postgres.records import assemble
from cfray.sources.postgres.texts import cast_texts
from cfray.sources.postgres.types import Column


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads rows in text or CSV form.

    Attributes:
        form: how they are written.
        columns: what they hold.
        name: of the file.
        context: of the run.
    """

    form: TextForm
    columns: Sequence[Column]
    name: str
    context: Context

    def read(self, blocks: Iterator[bytes], start: int) -> Iterator[pa.RecordBatch | Reject]:
        """Make records of consecutive blocks, the first of which begins at ``start``."""
        find_ends = CsvEnds() if self.form.is_csv else lines.line_ends
        limit = lines.record_limit(self.context.max_record)
        for run in lines.gather_records(blocks, find_ends, limit, start):
            if not run.closed and not self.form.is_csv:
                raise BadRowsError("its last row has no line break: it was cut")
            if isinstance(run, lines.OversizedRecord):
                yield run.reject(self.name, "row")
                continue
            data = run.data if self.form.is_csv else without_end_of_data(run.data)
            if not run.closed and self.form.is_csv and data.count(b'"') % 2:
                raise BadRowsError("it ends within a quoted value: it was cut")
            if data and not self.columns:
                yield from self._decode_empty(data)
            elif data:
                yield from self._decode(data, f"{self.name}:byte {run.offset}")

    def _decode_empty(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """Make records of the rows of a table without columns: each is an empty line."""
        if data.strip(b"\n"):
            raise BadRowsError("a row has values, and its table has no columns")
        yield from split_by_bytes(assemble([], [], len(data)), self.context.batch_bytes)

    def _decode(self, data: bytes, position: str) -> Iterator[pa.RecordBatch | Reject]:
        """Make records of whole rows; a row whose text is not UTF-8 becomes a Reject."""
        texts = [
            pa.Array.from_buffers(pa.string(), len(text), text.buffers(), offset=text.offset)
            for text in parse_rows(data, self.form, len(self.columns))
        ]
        batch = pa.RecordBatch.from_arrays(texts, [column.name for column in self.columns])
        invalid = {
            row: column.name
            for column, text in zip(self.columns, texts, strict=True)
            for row in invalid_text_rows(text)
        }
        rejects = [
            (
                row,
                Reject(
                    f"column {invalid[row]} is not UTF-8",
                    f"{position}, row {row}",
                    row_content(batch, row),
                ),
            )
            for row in sorted(invalid)
        ]
        valid = [row for row in range(batch.num_rows) if row not in invalid]
        if invalid:
            batch = batch.take(pa.array(valid, pa.int64()))
        arrays = [
            cast_texts(text, column)
            for text, column in zip(batch.columns, self.columns, strict=True)
        ]
        records = assemble(self.columns, arrays, len(valid))
        for item in interleave(valid, records, iter(rejects)):
            if isinstance(item, Reject):
                yield item
            else:
                yield from split_by_bytes(item, self.context.batch_bytes)
