"""Parquet exports: a part is a run of row groups (``rowgroups.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa

from cfray.records.record import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files import rowgroups
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.listing import PinnedFile


class Parquet(FileSource):
    """One Parquet file, or a folder or glob of them.

    Where their schemas differ, the deviating types are noted per row.
    """

    kind: Literal["parquet"] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = rowgroups.SUFFIXES
    is_compressible: ClassVar[bool] = False

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Gather row groups, in order, up to ``shard_bytes`` of uncompressed data."""
        return rowgroups.split_file(file, self.shard_bytes)

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Decode the part's row groups, one at a time."""
        return rowgroups.read_part(file, where, context.batch_bytes)

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the columns as the records have them."""
        return rowgroups.read_schema(file)
