"""Writers of the formats: rows go in, files come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow import ipc

from cfray.transfers.exports.files import OutputFile
from cfray.transfers.exports.settings import ExportSettings
from cfray.transfers.exports.texts import csv_cells, json_objects
from cfray.transfers.files import HashedFile


class Writer(ABC):
    """Writes one file.

    Attributes:
        file: that is written.
        rows: that were written.
        size: bytes of Arrow data that were written.
    """

    def __init__(self, file: OutputFile) -> None:
        """Begin with an empty file."""
        self.file = file
        self.rows = self.size = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Write rows behind those that are there."""
        self._write(rows)
        self.rows += rows.num_rows
        self.size += rows.nbytes

    @abstractmethod
    def _write(self, rows: pa.RecordBatch) -> None: ...

    def finish(self) -> HashedFile:
        """Close the file, and give its hash."""
        self._close()
        return self.file.finish()

    @abstractmethod
    def _close(self) -> None:
        """Write what stands behind the last row."""


class _SchemaWriter(Writer):
    """Writes a format whose file has one schema, which the first rows have."""

    def __init__(self, file: OutputFile) -> None:
        super().__init__(file)
        self._writer: Any = None

    def _write(self, rows: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = self._open(rows.schema)
        self._writer.write_batch(rows)

    @abstractmethod
    def _open(self, schema: pa.Schema) -> Any: ...

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _ParquetWriter(_SchemaWriter):
    def _open(self, schema: pa.Schema) -> Any:
        return pq.ParquetWriter(
            self.file.stream, schema, compression="zstd", write_page_checksum=True
        )


class _ArrowWriter(_SchemaWriter):
    def _open(self, schema: pa.Schema) -> Any:
        return ipc.new_file(self.file.stream, schema)


class _CsvWriter(_SchemaWriter):
    """Writes every cell as a text: a text in quotes, a null as nothing.

    In a file of one column a null is an empty text: most readers skip an empty line.
    """

    def _write(self, rows: pa.RecordBatch) -> None:
        cells = [
            csv_cells(column, field)
            for field, column in zip(rows.schema, rows.columns, strict=True)
        ]
        names = rows.schema.names
        if len(cells) == 1:
            cells = [cells[0].fill_null("")]
        super()._write(pa.RecordBatch.from_arrays(cells, names=names))

    def _open(self, schema: pa.Schema) -> Any:
        return pacsv.CSVWriter(self.file.stream, schema)


class _JsonLinesWriter(Writer):
    def __init__(self, file: OutputFile, *, with_nulls: bool) -> None:
        super().__init__(file)
        self._with_nulls = with_nulls

    def _write(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        objects = json_objects(rows, with_nulls=self._with_nulls)
        self.file.write(self._joined(objects))

    def _close(self) -> None:
        """A file ends with its last line."""

    def _joined(self, objects: pa.StringArray) -> bytes:
        return b"".join(text.as_buffer().to_pybytes() + b"\n" for text in objects)


class _JsonWriter(_JsonLinesWriter):
    """Writes an array, an object a line."""

    def _joined(self, objects: pa.StringArray) -> bytes:
        begin = b",\n" if self.rows else b"[\n"
        return begin + b",\n".join(text.as_buffer().to_pybytes() for text in objects)

    def _close(self) -> None:
        self.file.write(b"\n]\n" if self.rows else b"[]\n")


class _MilvusWriter(_JsonLinesWriter):
    """Writes an object with an array of rows, a row a line."""

    def _joined(self, objects: pa.StringArray) -> bytes:
        begin = b",\n" if self.rows else b'{"rows":[\n'
        return begin + b",\n".join(text.as_buffer().to_pybytes() for text in objects)

    def _close(self) -> None:
        self.file.write(b"\n]}\n" if self.rows else b'{"rows":[]}\n')


def open_writer(file: OutputFile, settings: ExportSettings, *, is_fixed: bool) -> Writer:
    """Open the writer of a format.

    Args:
        file: that is written.
        settings: of the export.
        is_fixed: whether every row has every field, so that nulls are written.
    """
    if settings.format in ("parquet", "pinecone"):
        return _ParquetWriter(file)
    if settings.format == "arrow":
        return _ArrowWriter(file)
    if settings.format == "csv":
        return _CsvWriter(file)
    if settings.format == "milvus":
        return _MilvusWriter(file, with_nulls=False)
    writer = _JsonWriter if settings.format == "json" else _JsonLinesWriter
    return writer(file, with_nulls=is_fixed)
