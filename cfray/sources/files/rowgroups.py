"""Row groups of Parquet files: the parts that Parquet exports are cut into and read by.

The stores' own Parquet exports are cut and read here, too.  A batch aims at bytes by its
row group's average; a row group is decoded as a stream, never as one table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cfray.formats.columns import separate_invalid_text
from cfray.records.record import Reject
from cfray.sources.base import Json
from cfray.sources.files import kinds
from cfray.sources.files.base import FilePart
from cfray.sources.files.listing import PinnedFile, explain_read_errors, open_file

SUFFIXES = kinds.SUFFIXES["parquet"]


def split_file(file: PinnedFile, shard_bytes: int) -> list[FilePart]:
    """Gather row groups, in order, up to ``shard_bytes`` of uncompressed data."""
    footer = read_footer(file)
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
    with explain_read_errors(file, "parquet"), open_file(file) as stream:
        reader = pq.ParquetFile(stream)
        for number in range(int(str(where["from"])), int(str(where["to"]))):
            group = reader.metadata.row_group(number)
            # An eighth under the limit: a batch one byte over it would be cut in halves.
            batches = max(1, -(-8 * group.total_byte_size // (7 * batch_bytes)))
            rows_per_batch = max(1, -(-group.num_rows // batches))
            for batch in reader.iter_batches(
                rows_per_batch, row_groups=[number], use_threads=False
            ):
                yield from separate_invalid_text(
                    batch, f"{file.name}:row group {number}", batch_bytes
                )


def read_footer(file: PinnedFile) -> pq.FileMetaData:
    """Read a file's footer.

    Raises:
        SourceError: no permission, changed since the plan, damaged, or no Parquet.
        SourceUnavailable: the filesystem did not answer.
    """
    with explain_read_errors(file, "parquet"), open_file(file) as stream:
        return pq.ParquetFile(stream).metadata


def _part(file: PinnedFile, first: int, end: int, rows: int, size: int) -> FilePart:
    return FilePart(file, f"{first:06d}", {"from": first, "to": end}, size, rows)
