"""Milvus: a shard is a range of primary keys of a partition, read by a keyset loop.

Offsets end at 16,384 rows, and pymilvus's iterator loses a key with a quote, an empty key and
the greatest integer.  So the plan reads all keys and cuts them into ranges, and a range is
read page by page behind the last key, whose order is checked.  What the server counts and no
query gives (duplicate primary keys) becomes rejects, so that a read accounts for every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context, Description, FieldEquals, Json, Session, Shard
from cfray.sources.milvus.client import (
    Connection,
    fetch_collection,
    fetch_indexes,
    list_collections,
    open_connection,
    search_nearest,
)
from cfray.sources.milvus.describe import collection_notes, describe_collection
from cfray.sources.milvus.export import BulkFiles
from cfray.sources.milvus.keys import Key, KeyRange
from cfray.sources.milvus.loading import Partition, list_unloaded, load_for_run
from cfray.sources.milvus.pages import fetch_pages, read_range
from cfray.sources.milvus.queries import MAX_PAGE_ROWS, count_rows
from cfray.sources.milvus.schema import CollectionInfo
from cfray.sources.milvus.settings import MilvusSettings
from cfray.sources.milvus.types import build_records, keys_of
from cfray.sources.paging import PageSize

#: Records of a sample, and shards of one partition at most.
_SAMPLE_ROWS, _MAX_SHARDS = 64, 4_000
#: Bytes that a record is taken for where there is no sample.
_DEFAULT_ROW_BYTES = 1024
#: Bytes that a page of records aims at: what the figures in the README were measured with.
_PAGE_BYTES = 16 * MIB
#: Bytes that a page of keys alone aims at.
_KEY_PAGE_BYTES = 8 * MIB


class Milvus(MilvusSettings):
    """Collections of one database of a Milvus server (2.3 or later), or bulk-writer files."""

    def _files(self) -> BulkFiles:
        assert self.uri is not None
        return BulkFiles(
            uri=self.uri,
            partitioning="none",
            shard_bytes=self.shard_bytes,
            collection=self.collections[0] if self.collections else "",
            primary=self.primary,
            fields=self.fields,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Load what is not loaded, if the job file says so, and release the same at the end."""
        if self.uri or self.load == "refuse":
            yield Session()
            return
        with open_connection(self, Context()) as connection:
            collections = list_collections(self, connection)
            with load_for_run(connection, collections) as loaded:
                yield Session(
                    state={name: list[Json](partitions) for name, partitions in loaded.items()}
                )

    def shards(self, context: Context) -> list[Shard]:
        """Cut each partition of each collection at every n-th primary key."""
        if self.uri:
            return self._files().shards(context)
        with open_connection(self, context) as connection:
            collections = list_collections(self, connection)
            for collection in collections:
                self._check_loaded(connection, collection)
            return [
                shard
                for collection in collections
                for partition in collection.partitions
                for shard in self._cut_partition(connection, collection, partition)
            ]

    def _check_loaded(self, connection: Connection, collection: CollectionInfo) -> None:
        """Check that a collection can be read.

        Raises:
            SourceError: names the partitions that are not loaded.
        """
        unloaded = list_unloaded(connection, collection)
        if not unloaded:
            return
        names = ", ".join(map(str, unloaded))
        which = "" if len(unloaded) == len(collection.partitions) else f": partition {names}"
        raise SourceError(
            f"collection {self.source_collection(collection.name)} is not loaded{which}",
            "load it, or set source.load: load, which loads it for the run "
            "(the server needs the memory) and releases it at the end",
        )

    def _cut_partition(
        self, connection: Connection, collection: CollectionInfo, partition: Partition
    ) -> Iterator[Shard]:
        name = self.source_collection(collection.name)
        key_range = KeyRange(collection.name, collection.schema.primary.name, partition)
        counted_rows = count_rows(connection, key_range)
        row_bytes = _sample_row_bytes(connection, key_range)
        shard_rows = max(1, self.shard_bytes // row_bytes, -(-counted_rows // _MAX_SHARDS))
        cut_keys, read_rows = _find_cuts(connection, key_range, shard_rows)
        # rows may have been written or deleted while the keys were read
        hidden_rows = min(counted_rows, count_rows(connection, key_range)) - read_rows
        if hidden_rows > 0 and self.duplicates == "refuse":
            raise SourceError(
                f"collection {name} holds {hidden_rows} rows more than it gives in queries: "
                "duplicate primary keys",
                "delete the duplicates, or set source.duplicates: quarantine",
            )
        if not counted_rows and not read_rows:
            return
        prefix = name if partition is None else f"{name}#{partition}"
        # None is an open end
        for number, (low, high) in enumerate(pairwise([None, *cut_keys, None])):
            rows = shard_rows if high is not None else read_rows - shard_rows * number
            yield Shard(
                f"{prefix}#{number:06d}",
                {"partition": partition, "from": low, "to": high, "keys": rows},
                rows=None if hidden_rows > 0 else rows,
                size=rows * row_bytes,
                collection=name,
            )

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read a range page by page, then give a reject for each row counted and not given."""
        if self.uri:
            yield from self._files().read(shard, context)
            return
        where: dict[str, Any] = dict(shard.where)
        partition = where["partition"]
        with open_connection(self, context) as connection:
            collection = fetch_collection(connection, self.collection_name(shard.collection))
            primary = collection.schema.primary.name
            key_range = KeyRange(collection.name, primary, partition, where["from"], where["to"])
            page_bytes = min(context.batch_bytes, _PAGE_BYTES)
            first_rows = max(1, page_bytes * where["keys"] // max(1, shard.size))
            size = PageSize(first_rows, MAX_PAGE_ROWS, page_bytes)
            for reply in read_range(connection, key_range, size):
                if isinstance(reply, Reject):
                    yield reply
                else:
                    yield from build_records(
                        reply, collection, shard.collection, partition, context.batch_bytes
                    )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count each collection, and say what the server says of it."""
        if self.uri:
            return self._files().describe(context, shards)
        collections, notes = [], []
        with open_connection(self, context) as connection:
            for collection in list_collections(self, connection):
                name = self.source_collection(collection.name)
                rows = _count_collection(connection, collection)
                indexes = fetch_indexes(connection, collection.name)
                collections.append(describe_collection(name, collection, rows, indexes))
                planned_rows = sum(
                    int(str(shard.where["keys"])) for shard in shards if shard.collection == name
                )
                notes += collection_notes(name, collection, rows - planned_rows)
                notes += [
                    f"{alias} is an alias of {name}, which is read"
                    for alias in sorted(collection.description.aliases)
                    if alias in (self.collections or ())
                ]
        return Description(
            schema=None,
            rows=sum(collection.rows or 0 for collection in collections),
            exact=True,
            size=sum(shard.size for shard in shards),
            consistency="per-shard live",
            notes=tuple(notes),
            collections=tuple(collections),
        )

    def count(self, context: Context) -> int | None:
        """Count the rows, duplicates too: a read gives a record or a reject for each."""
        if self.uri:
            return None
        with open_connection(self, context) as connection:
            return sum(
                _count_collection(connection, collection)
                for collection in list_collections(self, connection)
            )

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search the collection's only float vector field of that width."""
        if self.uri:
            return super().search(collection, vector, k, where)
        with open_connection(self, Context()) as connection:
            searched = fetch_collection(connection, self.collection_name(collection))
            return search_nearest(connection, searched, vector, k, where)


def _count_collection(connection: Connection, collection: CollectionInfo) -> int:
    return count_rows(connection, KeyRange(collection.name, collection.schema.primary.name))


def _sample_row_bytes(connection: Connection, key_range: KeyRange) -> int:
    """Estimate the bytes of a record by the first records of a range."""
    size = PageSize(_SAMPLE_ROWS, _SAMPLE_ROWS, MIB)
    sample = next(fetch_pages(connection, key_range, ["*"], size), None)
    if sample is None:
        return _DEFAULT_ROW_BYTES
    return 1 + int(sample.ByteSize()) // len(keys_of(sample, key_range.primary))


def _find_cuts(
    connection: Connection, key_range: KeyRange, shard_rows: int
) -> tuple[list[Key], int]:
    """Read the keys of a range.

    Returns:
        The first key of each shard but the first, and how many keys there are.
    """
    cut_keys: list[Key] = []
    read_rows = 0
    size = PageSize(MAX_PAGE_ROWS, MAX_PAGE_ROWS, _KEY_PAGE_BYTES)
    for page in fetch_pages(connection, key_range, [key_range.primary], size):
        keys = keys_of(page, key_range.primary)
        next_cut = -read_rows % shard_rows
        cut_keys += [
            keys[index] for index in range(next_cut, len(keys), shard_rows) if read_rows + index
        ]
        read_rows += len(keys)
    return cut_keys, read_rows
