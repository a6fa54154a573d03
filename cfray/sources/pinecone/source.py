"""Pinecone, serverless: ids are listed once and written down, records are fetched by id.

Pinecone has no snapshot and no scan.  A list of ids is the only complete way through a
namespace, and a fetch leaves out what it does not find without saying so: every id that was
asked for is compared with what came back.  A pod index lists no ids; whoever has them
gives them in a file.

Source: docs.pinecone.io, "List record IDs", "Fetch data", "Rate limits", "Understand Pinecone
cost".
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.columns import interleave, split_by_bytes
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources import manifests
from cfray.sources.base import Context, Description, FieldEquals, Shard
from cfray.sources.paging import PageSize
from cfray.sources.pinecone import client, export, plan
from cfray.sources.pinecone.client import SendRequest
from cfray.sources.pinecone.fetch import FetchedRecords, RecordFetcher
from cfray.sources.pinecone.records import build_records
from cfray.sources.pinecone.settings import PineconeSettings
from cfray.sources.pinecone.types import (
    DescribedNamespace,
    NamespaceSize,
    PineconeNamespace,
    describe_namespaces,
    is_pod_index,
)

T = TypeVar("T")

#: Records of the first fetch, and records that a fetch may ask for at most:
#: https://docs.pinecone.io/reference/api/latest/data-plane/fetch
_FIRST_PAGE_ROWS, _MAX_PAGE_ROWS = 100, 1000
#: Bytes that a page aims at.
_PAGE_BYTES = 2 * MIB
#: Fetches at once for one shard, and namespaces listed at once.
_PARALLEL_FETCHES, _PARALLEL_LISTS = 4, 8
#: Namespaces that a note lists at most.
_LISTED_NAMESPACES = 20
_NOTES = (
    (
        "Pinecone has no snapshot and is eventually consistent: what is written during the run "
        "may be missed, what is deleted is rejected by name"
    ),
    (
        "Pinecone stores every number of the metadata as a float64, and no null: "
        "5 may come back as 5.0"
    ),
)


class Pinecone(PineconeSettings):
    """The indexes of a Pinecone project, or a folder in the layout of Pinecone's import.

    A collection is ``index`` or ``index/namespace``.
    """

    def find_namespaces(self, context: Context) -> list[DescribedNamespace]:
        """Find the chosen collections, sorted by name.

        Raises:
            SourceError: a collection that the job names does not exist, or none exists, or an
                index cannot be read.
        """
        return self._choose_namespaces(*self._describe_indexes(context))

    def _choose_namespaces(
        self, described: dict[str, DescribedNamespace], undescribed: set[str]
    ) -> list[DescribedNamespace]:
        return [described[name] for name in self.choose_collections({*described, *undescribed})]

    def _describe_indexes(self, context: Context) -> tuple[dict[str, DescribedNamespace], set[str]]:
        """Describe every namespace of the indexes that the job names, or of all indexes.

        Returns:
            The namespaces by the names of their collections, and the names of the indexes that
            were not described: an error can suggest them.
        """
        send = self._bind_budget(context)
        chosen_indexes = {name.split("/", 1)[0] for name in self.collections or []}
        with client.open_control_plane(self) as control_plane:
            models, warnings = client.list_indexes(control_plane, send)
        index_names = {model.name for model in models}
        if warnings and not (chosen_indexes and chosen_indexes <= index_names):
            raise SourceError(
                f"{self.address} holds an index that its client cannot read: {warnings[0]}",
                "name the other indexes in source.collections, or upgrade pinecone",
            )
        described: dict[str, DescribedNamespace] = {}
        for model in models:
            if not chosen_indexes or model.name in chosen_indexes:
                for namespace in self._describe_index(model, send):
                    described[namespace.collection.name] = namespace
        return described, index_names - chosen_indexes if chosen_indexes else set()

    def _describe_index(self, model: Any, send: SendRequest) -> list[DescribedNamespace]:
        if not model.host:
            raise SourceError(
                f"index {model.name} of {self.address} is {model.status.state}",
                "wait until it is ready, then run again",
            )
        with client.open_index(self, model.host) as index:
            stats = send(index.describe_index_stats)
            sizes = client.list_namespaces(index, stats, send, is_pod=is_pod_index(model))
        # the default namespace exists even if nobody has written into it
        if not sizes or model.name in (self.collections or []):
            sizes.setdefault("", NamespaceSize(0))
        return describe_namespaces(model, stats, sizes)

    def _bind_budget(self, context: Context, stop: threading.Event | None = None) -> SendRequest:
        """Bind ``send_request`` to a run's budget; after ``stop`` it sends nothing more."""

        def send(action: Callable[[], T]) -> T:
            if stop and stop.is_set():
                raise SourceError("stopped", "see the error that stopped it")
            return self.send_request(action, context)

        return send

    def shards(self, context: Context) -> list[Shard]:
        """List the ids of every namespace, several at once, and write them down."""
        if self.uri:
            return export.plan_shards(self.uri, self.shard_bytes, self.choose_collections)
        namespaces = self.find_namespaces(context)
        plan.check_readable(namespaces, self.ids)
        stop = threading.Event()
        with ExitStack() as stack, ThreadPoolExecutor(_PARALLEL_LISTS) as pool:
            indexes = {
                host: stack.enter_context(client.open_index(self, host))
                for host in {described.namespace.host for described in namespaces}
            }
            send = self._bind_budget(context, stop)
            listings = [
                pool.submit(
                    plan.write_shards,
                    self,
                    indexes[described.namespace.host],
                    described,
                    send,
                    context,
                )
                for described in namespaces
            ]
            try:
                ended, running = wait(listings, return_when=FIRST_EXCEPTION)
                # if some still run, a listing has failed: its result() raises
                finished = ended if running else listings
                return [shard for listing in finished for shard in listing.result()]
            finally:
                # after an error nobody waits for the other lists, or pays for them
                stop.set()

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Fetch the listed records, in the order of the list."""
        if self.uri:
            yield from export.read_shard(shard, context)
            return
        namespace = PineconeNamespace.from_json(shard.where)
        page_size = PageSize(
            _FIRST_PAGE_ROWS, _MAX_PAGE_ROWS, min(context.batch_bytes, _PAGE_BYTES)
        )
        ids = manifests.read_ids(shard, context)
        with client.open_index(self, namespace.host) as index:
            fetcher = RecordFetcher(index, namespace, page_size, self._bind_budget(context))
            for fetched in fetcher.fetch_in_order(ids, _PARALLEL_FETCHES):
                for item in self._convert(fetched, fetcher, shard.collection):
                    if isinstance(item, Reject):
                        yield item
                    else:
                        yield from split_by_bytes(item, context.batch_bytes)

    def _convert(
        self, fetched: FetchedRecords, fetcher: RecordFetcher, collection: str
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Make records of a page, and a reject of each id without a record."""
        record_rows: list[int] = []
        rejects: list[tuple[int, Reject]] = []
        for row, record_id in enumerate(fetched.ids):
            if record_id in fetched.records:
                record_rows.append(row)
            else:
                position = f"{collection}:{record_id[:80]}"
                reason = fetched.reasons[record_id]
                rejects.append((row, Reject(reason, position, record_id.encode())))
        record_ids = [fetched.ids[row] for row in record_rows]
        records = [fetched.records[record_id] for record_id in record_ids]
        batch = (
            build_records(fetcher.namespace, record_ids, records)
            if records
            else pa.RecordBatch.from_pydict({})
        )
        fetcher.page_size.adjust(len(records), batch.nbytes)
        yield from interleave(record_rows, batch, iter(rejects))

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the plan has listed, and what reading it costs.

        The number of records is the length of the list.
        """
        base = super().describe(context, shards)
        if self.uri:
            return export.describe_files(self.uri, base, shards)
        listed_rows = Counter[str]()
        for shard in shards:
            listed_rows[shard.collection] += shard.rows or 0
        described, undescribed = self._describe_indexes(context)
        collections = [
            namespace.collection for namespace in self._choose_namespaces(described, undescribed)
        ]
        counts = [listed_rows[collection.name] for collection in collections]
        notes = [*_NOTES, plan.read_units_note(counts, ids_listed=not self.ids)]
        unread = sorted(described.keys() - {collection.name for collection in collections})
        if unread:
            names = ", ".join(unread[:_LISTED_NAMESPACES])
            more = len(unread) - _LISTED_NAMESPACES
            notes.append(
                "not read, because source.collections does not name them: "
                + (f"{names} and {more} more" if more > 0 else names)
            )
        for collection, count in zip(collections, counts, strict=True):
            if count != collection.rows:
                origin = "given" if self.ids else "listed"
                notes.append(
                    f"{collection.name}: {count} ids were {origin}, "
                    f"Pinecone's own count says {collection.rows}"
                )
        return replace(
            base,
            notes=tuple(notes),
            collections=tuple(
                replace(collection, rows=count)
                for collection, count in zip(collections, counts, strict=True)
            ),
        )

    def count(self, context: Context) -> int | None:
        """Add up Pinecone's own counts, which lag behind writes.

        To list all ids again would cost a read unit for every hundred.
        """
        if self.uri or self.ids:
            return None
        return sum(described.collection.rows or 0 for described in self.find_namespaces(context))

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search the index of a collection, and give the tagged ids, nearest first."""
        if self.uri:
            return super().search(collection, vector, k, where)
        context = Context()
        only_this = self.model_copy(update={"collections": [collection]})
        (described,) = only_this.find_namespaces(context)
        namespace = described.namespace
        with client.open_index(self, namespace.host) as index:
            query = partial(client.nearest_ids, index, namespace, vector, k, where)
            return [f"s:{record_id}" for record_id in self.send_request(query, context)]
