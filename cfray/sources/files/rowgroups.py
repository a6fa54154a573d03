"""Row groups of Parquet files: the parts that Parquet exports are cut into and read by.

The stores' own Parquet exports are cut and read here, too.  A batch aims at bytes by its
row group's average; a row group is decoded as a stream, never as one table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from cfray.errors import SourceError
from cfray.formats.columns import normal_schema, separate_invalid_text
from cfray.formats.int96 import UNITS, exact_instants
from cfray.records.record import Reject
from cfray.sources.base import Json
from cfray.sources.files import kinds
from cfray.sources.files.base import FilePart
from cfray.sources.files.listing import PinnedFile, explain_read_errors, open_file
from cfray.sources.files.schemas import recall_schema, remember_schema

SUFFIXES = kinds.SUFFIXES["parquet"]


def split_file(file: PinnedFile, shard_bytes: int) -> list[FilePart]:
    """Gather row groups, in order, up to ``shard_bytes`` of uncompressed data."""
    with _open_reader(file) as (reader, _):
        footer = reader.metadata
        remember_schema(file, normal_schema(reader.schema_arrow))
    parts: list[FilePart] = []
    first = rows = size = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        if rows and size + group.total_byte_size > shard_bytes:
            parts.append(_part(file, first, number, rows, size))
            first, rows, size = number, 0, 0
        rows += group.num_rows
        size += group.total_byte_size
    if rows:
        parts.append(_part(file, first, footer.num_row_groups, rows, size))
    return parts


def read_part(
    file: PinnedFile, where: dict[str, Json], batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Decode the row groups of a part, one at a time."""
    with _open_reader(file) as (reader, stream):
        instants = _int96_columns(reader)
        for number in range(int(str(where["from"])), int(str(where["to"]))):
            group = reader.metadata.row_group(number)
            # An eighth under the limit: a batch one byte over it would be cut in halves.
            count = max(1, -(-8 * group.total_byte_size // (7 * batch_bytes)))
            rows_per_batch = max(1, -(-group.num_rows // count))
            batches = reader.iter_batches(rows_per_batch, row_groups=[number], use_threads=False)
            position = f"{file.name}:row group {number}"
            items: Iterator[pa.RecordBatch | Reject] = batches
            if instants:
                items = _exact_batches(batches, stream, number, instants, position)
            for item in items:
                if isinstance(item, Reject):
                    yield item
                else:
                    yield from separate_invalid_text(item, position, batch_bytes)


def read_footer(file: PinnedFile) -> pq.FileMetaData:
    """Read a file's footer.

    Raises:
        SourceError: no permission, changed since the plan, damaged, encrypted, or no Parquet.
        SourceUnavailable: the filesystem did not answer.
    """
    with _open_reader(file) as (reader, _):
        return reader.metadata


def read_schema(file: PinnedFile) -> pa.Schema:
    """Give the columns as the records have them.

    Raises:
        SourceError, SourceUnavailable: as ``read_footer``.
    """
    schema = recall_schema(file)
    if schema is None:
        with _open_reader(file) as (reader, _):
            schema = normal_schema(reader.schema_arrow)
    return schema


@contextmanager
def _open_reader(file: PinnedFile) -> Iterator[tuple[pq.ParquetFile, pa.NativeFile]]:
    with explain_read_errors(file, "parquet"), open_file(file) as stream:
        try:
            yield _reader_of(stream, UNITS[0]), stream
        except OSError as error:
            # The words of a file whose footer is encrypted, and of encrypted columns (26.0.1).
            if "decrypt" not in str(error):
                raise
            raise SourceError(
                f"{file.uri} is encrypted (Parquet's modular encryption), and cfray holds no keys",
                "write the file again without encryption, or leave it out",
            ) from error


def _reader_of(stream: pa.NativeFile, unit: str) -> pq.ParquetFile:
    """Open a file; pages that have a checksum are compared with it."""
    return pq.ParquetFile(stream, coerce_int96_timestamp_unit=unit, page_checksum_verification=True)


def _int96_columns(reader: pq.ParquetFile) -> list[str]:
    """Name the columns that hold INT96, at any depth."""
    columns = map(reader.schema.column, range(len(reader.schema)))
    paths = [column.path for column in columns if column.physical_type == "INT96"]
    return [
        name
        for name in dict.fromkeys(reader.schema_arrow.names)
        if any(path == name or path.startswith(f"{name}.") for path in paths)
    ]


def _exact_batches(
    batches: Iterator[pa.RecordBatch],
    stream: pa.NativeFile,
    number: int,
    instants: list[str],
    position: str,
) -> Iterator[pa.RecordBatch | Reject]:
    """Read the INT96 columns of a row group in the other units, too, and make them exact."""
    tables = []
    for unit in UNITS[1:]:
        reader = _reader_of(stream, unit)
        table = reader.read_row_group(number, columns=instants, use_threads=False)
        indexes = [index for index, name in enumerate(table.column_names) if name in instants]
        tables.append(table.select(indexes))
    first = 0
    for batch in batches:
        milliseconds, nanoseconds = (_rows_of(table, first, batch.num_rows) for table in tables)
        yield from exact_instants(batch, milliseconds, nanoseconds, position)
        first += batch.num_rows


def _rows_of(table: pa.Table, first: int, count: int) -> pa.RecordBatch:
    """Give rows of a table as one batch."""
    columns = [column.slice(first, count).combine_chunks() for column in table.columns]
    arrays = [
        pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
        for column in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=table.column_names)


def _part(file: PinnedFile, first: int, end: int, rows: int, size: int) -> FilePart:
    return FilePart(file, f"{first:06d}", {"from": first, "to": end}, size, rows)
