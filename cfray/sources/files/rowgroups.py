"""Row groups of Parquet files.

What Parquet exports and the stores' own Parquet exports are cut by and read in.

A batch aims at bytes by its row group's own average; a row group is decoded as
a stream, never as one table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cfray.formats.columns import plain_batch
from cfray.records.record import Reject
from cfray.sources.base import Json
from cfray.sources.files.base import Part
from cfray.sources.files.listing import PinnedFile, opened, undamaged

SUFFIXES = (".parquet", ".pq")


def parts(file: PinnedFile, shard_bytes: int) -> list[Part]:
    """Gather row groups, in order, up to ``shard_bytes`` of uncompressed data."""
    told = footer(file)
    found: list[Part] = []
    first = rows = size = 0
    for group in range(told.num_row_groups):
        meta = told.row_group(group)
        if rows and size + meta.total_byte_size > shard_bytes:
            found.append(_part(file, first, group, rows, size))
            first, rows, size = group, 0, 0
        rows += meta.num_rows
        size += meta.total_byte_size
    if rows:
        found.append(_part(file, first, told.num_row_groups, rows, size))
    return found


def batches(
    file: PinnedFile, where: dict[str, Json], batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Decode the row groups of a part, one at a time."""
    with undamaged(file), opened(file) as stream:
        reader = pq.ParquetFile(stream)
        for group in range(int(str(where["from"])), int(str(where["to"]))):
            meta = reader.metadata.row_group(group)
            pieces = max(
                1, -(-8 * meta.total_byte_size // (7 * batch_bytes))
            )  # a little under: one byte over, and it would be cut in halves
            for batch in reader.iter_batches(
                max(1, -(-meta.num_rows // pieces)), row_groups=[group], use_threads=False
            ):
                yield from plain_batch(batch, f"{file.name}:row group {group}", batch_bytes)


def footer(file: PinnedFile) -> pq.FileMetaData:
    """Read a file's footer.

    Raises:
        SourceError: changed since the plan, damaged, or no Parquet.
    """
    with undamaged(file), opened(file) as stream:
        return pq.ParquetFile(stream).metadata


def _part(file: PinnedFile, first: int, end: int, rows: int, size: int) -> Part:
    return Part(file, f"{first:06d}", {"from": first, "to": end}, size, rows)
