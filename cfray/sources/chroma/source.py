"""Chroma: a server (``url``), or a persistent directory (``uri``), which is copied first.

A server has no snapshot, and offsets shift when records are deleted: with Chroma 1.5.9 a
reader that paged by offset lost 50 of 300 rows without an error while 50 others were
deleted.  So the ids of a collection are listed in one request, written down, and fetched by
id.  A record that was deleted since is a reject; a record that was added since is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa

from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.sources import manifests, paging
from cfray.sources.base import Context, Description, FieldEquals, Shard
from cfray.sources.chroma.client import WITHOUT_VECTORS, ChromaServer, ChromaStore
from cfray.sources.chroma.describe import collection_notes, measure_space, to_collection
from cfray.sources.chroma.export import DirectoryCopy
from cfray.sources.chroma.pages import PageFetcher
from cfray.sources.chroma.settings import ALL_DATABASES, ChromaSettings
from cfray.sources.chroma.types import (
    CollectionAddress,
    CollectionModel,
    build_records,
)

#: Records that are fetched to estimate the bytes of a record.
_SAMPLE_ROWS = 100
#: Shards of a collection at most.
_MAX_SHARDS = 4000


class Chroma(ChromaSettings):
    """Collections of a Chroma server or of a persistent directory."""

    def open_store(self, pin: str | None = None) -> ChromaStore:
        """Open the server, or a copy of the directory (which must still be the pinned state)."""
        if self.uri:
            return DirectoryCopy(self.uri, pin, self.timeout)
        assert self.url
        return ChromaServer(self.url, self)

    def _find_collections(
        self, store: ChromaStore, context: Context
    ) -> list[tuple[CollectionAddress, CollectionModel]]:
        """List the collections to read."""
        by_name: dict[str, tuple[CollectionAddress, CollectionModel]] = {}
        for tenant, database in sorted(self._databases(store, context)):
            listing = partial(store.list_collections, tenant, database)
            for model in self.send_request(listing, context):
                address = CollectionAddress(tenant, database, str(model["name"]))
                by_name[str(address)] = address, model
        return [by_name[name] for name in self.choose_collections(by_name)]

    def _databases(self, store: ChromaStore, context: Context) -> set[tuple[str, str]]:
        """Give tenant and database of all collections that may be read."""
        if self.collections:
            return {(address.tenant, address.database) for address in self.chosen_addresses()}
        if self.database != ALL_DATABASES:
            return {(self.tenant, self.database)}
        names = self.send_request(partial(store.list_databases, self.tenant), context)
        return {(self.tenant, name) for name in names}

    def shards(self, context: Context) -> list[Shard]:
        """List the ids of every collection, each in one request, and cut the lists."""
        with self.open_store() as store:
            return [
                shard
                for address, model in self._find_collections(store, context)
                for shard in self._cut(store, address, model, context)
            ]

    def _cut(
        self,
        store: ChromaStore,
        address: CollectionAddress,
        model: CollectionModel,
        context: Context,
    ) -> Iterator[Shard]:
        ids = self.send_request(partial(store.list_ids, address, model), context)
        sampling = partial(store.get_first_records, address, model, _SAMPLE_ROWS, WITHOUT_VECTORS)
        sample_bytes = len(self.send_request(sampling, context))
        sample_rows = max(1, min(len(ids), _SAMPLE_ROWS))
        vector_bytes = 4 * int(str(model.get("dimension") or 0))
        row_bytes = vector_bytes + sample_bytes // sample_rows
        per_shard = max(1, self.shard_bytes // row_bytes, -(-len(ids) // _MAX_SHARDS))
        for shard in manifests.write_id_shards(str(address), ids, per_shard, context, row_bytes):
            yield replace(shard, where={**shard.where, **store.pin})

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Fetch the ids of the shard's list, in its order."""
        address = CollectionAddress.parse(shard.collection)
        ids = manifests.read_ids(shard, context)
        pin = shard.where.get("pin")
        with self.open_store(None if pin is None else str(pin)) as store:
            model = self.send_request(partial(store.describe_collection, address), context)
            dimension = model.get("dimension")
            dimension = dimension if isinstance(dimension, int) else None
            send_request = partial(self.send_request, context=context)
            fetcher = PageFetcher(store, address, model, send_request)
            pages = fetcher.fetch_pages(ids, context.batch_bytes)
            for page_ids, answer in paging.fetch_ahead(pages):
                batch, unreadable = build_records(answer, page_ids, dimension)
                if batch.num_rows:
                    yield from split_by_bytes(batch, context.batch_bytes)
                for record_id, (reason, content) in unreadable.items():
                    yield Reject(reason, f"{address}, id {record_id}", content)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what was listed, and what Chroma does to vectors."""
        listed_rows = Counter[str]()
        for shard in shards:
            listed_rows[shard.collection] += shard.rows or 0
        notes: list[str] = []
        if not self.uri:
            notes.append(
                "records added after the ids were listed are not read; "
                "records deleted since are rejects"
            )
        collections = []
        send_request = partial(self.send_request, context=context)
        with self.open_store() as store:
            for address, model in self._find_collections(store, context):
                measured, sample_notes = measure_space(store, address, model, send_request)
                collection = to_collection(address, model, listed_rows[str(address)], measured)
                collections.append(collection)
                notes += [*collection_notes(collection), *sample_notes]
        return replace(
            super().describe(context, shards),
            consistency="snapshot" if self.uri else "none",
            notes=tuple(notes),
            collections=tuple(collections),
        )

    def count(self, context: Context) -> int:
        """Count the records of the chosen collections."""
        with self.open_store() as store:
            return sum(
                self.send_request(partial(store.count, address, model), context)
                for address, model in self._find_collections(store, context)
            )

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search Chroma's own index, and give the tagged ids, nearest first."""
        address, context = CollectionAddress.parse(collection), Context()
        with self.open_store() as store:
            model = self.send_request(partial(store.describe_collection, address), context)
            query = partial(store.nearest_ids, address, model, vector, k, where)
            return [f"s:{record_id}" for record_id in self.send_request(query, context)]
