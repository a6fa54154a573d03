"""Parquet exports: a part is a run of row groups; a batch aims at bytes by the row group's own average."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from cfray.formats.columns import plain_batch, plain_schema
from cfray.records import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files import FileSource, Part
from cfray.sources.listing import PinnedFile, opened, undamaged


class Parquet(FileSource):
    """One Parquet file, or a folder or glob of them; where their schemas differ, the deviating types are noted per row."""

    kind: Literal["parquet"] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Gather row groups, in order, up to ``shard_bytes`` of uncompressed data."""
        footer = _footer(file)
        parts: list[Part] = []
        first = rows = size = 0
        for group in range(footer.num_row_groups):
            meta = footer.row_group(group)
            if rows and size + meta.total_byte_size > self.shard_bytes:
                parts.append(_part(file, first, group, rows, size))
                first, rows, size = group, 0, 0
            rows += meta.num_rows
            size += meta.total_byte_size
        if rows:
            parts.append(_part(file, first, footer.num_row_groups, rows, size))
        return parts

    def read_part(self, file: PinnedFile, where: dict[str, Json], context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Decode the part's row groups, one at a time."""
        with undamaged(file), opened(file) as stream:
            reader = pq.ParquetFile(stream)
            for group in range(int(str(where["from"])), int(str(where["to"]))):
                meta = reader.metadata.row_group(group)
                rows = max(1, context.batch_bytes * meta.num_rows // max(1, meta.total_byte_size))
                for batch in reader.iter_batches(rows, row_groups=[group], use_threads=False):
                    yield from plain_batch(batch, f"{file.name}:row group {group}", context.batch_bytes)

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the columns as Arrow types."""
        return plain_schema(_footer(file).schema.to_arrow_schema())


def _part(file: PinnedFile, first: int, end: int, rows: int, size: int) -> Part:
    return Part(file, f"{first:06d}", {"from": first, "to": end}, size, rows)


def _footer(file: PinnedFile) -> pq.FileMetaData:
    with undamaged(file), opened(file) as stream:
        return pq.ParquetFile(stream).metadata
