"""MongoDB collections, live or as files of mongodump and mongoexport.

A shard is a range of ``_id`` in the order of the index, which mixes types: the bounds are
the index's own, and each page is checked against them.  Source collections are named
``database.collection``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pyarrow as pa

from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources import paging
from cfray.sources.base import Collection, Context, Description, Session, Shard
from cfray.sources.mongodb import catalog, describe, export, plan, snapshot
from cfray.sources.mongodb.catalog import Catalog
from cfray.sources.mongodb.client import open_connection
from cfray.sources.mongodb.pages import Range, read_pages
from cfray.sources.mongodb.records import Page, to_records
from cfray.sources.mongodb.settings import MongoSettings
from cfray.sources.paging import PageSize

#: Documents of the first page, and of a page at most.
_FIRST_PAGE_ROWS, _MAX_PAGE_ROWS = 256, 20_000
#: Bytes that a page aims at; an answer of the server holds 16 MB at most.
_PAGE_BYTES = 8 * MIB


class MongoDB(MongoSettings):
    """Collections of a MongoDB deployment (``url``), or files exported from one (``uri``)."""

    def session(self) -> AbstractContextManager[Session]:
        """Take one cluster time for the run, where the job asks for a snapshot."""
        if self.uri or self.consistency == "live":
            return super().session()
        return self._snapshot()

    @contextmanager
    def _snapshot(self) -> Iterator[Session]:
        with open_connection(self, Context()) as connection:
            session = snapshot.take_snapshot(connection)
        yield session

    def shards(self, context: Context) -> list[Shard]:
        """Cut each collection into ranges of ``_id``."""
        if self.uri:
            return export.plan_shards(self)
        with open_connection(self, context) as connection:
            return [
                shard
                for entry in catalog.read_catalog(connection).chosen
                for shard in plan.plan_collection(connection, entry.database, entry.name)
            ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read one range page by page; the next page is fetched during the conversion."""
        if self.uri:
            yield from export.read_shard(self, shard, context)
            return
        page_size = PageSize(
            _FIRST_PAGE_ROWS, _MAX_PAGE_ROWS, min(context.batch_bytes, _PAGE_BYTES)
        )
        database, _, name = shard.collection.partition(".")
        documents = Range(database, name, shard.where.get("from"), shard.where.get("to"))
        with open_connection(self, context) as connection:
            for page in paging.fetch_ahead(read_pages(connection, documents, page_size)):
                page_size.adjust(len(page.spans), page_bytes(page))
                yield from to_records(page, context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say how each collection is made, and what of the deployment is not read."""
        if self.uri:
            return export.describe_files(self, shards)
        collections: list[Collection] = []
        notes: list[str] = []
        with open_connection(self, context) as connection:
            listed = catalog.read_catalog(connection)
            for entry in listed.chosen:
                rows = sum(
                    shard.rows or 0 for shard in shards if shard.collection == entry.full_name
                )
                collection, collection_notes = describe.describe_collection(connection, entry, rows)
                collections.append(collection)
                notes += collection_notes
        if self.api_key and not self.is_encrypted:
            notes.append("the documents travel unencrypted: source.url asks for no TLS")
        return Description(
            schema=None,
            rows=sum(collection.rows or 0 for collection in collections),
            exact=True,
            size=sum(shard.size for shard in shards),
            consistency="per-shard live",
            notes=(*notes, *_view_notes(listed)),
            collections=tuple(collections),
            unread=_unread(listed),
        )

    def count(self, context: Context) -> int | None:
        """Count the documents of the chosen collections exactly; None for files.

        The plan has counted the documents of files, and pinned files do not change.
        """
        if self.uri:
            return None
        with open_connection(self, context) as connection:
            return sum(
                plan.count_documents(connection, Range(entry.database, entry.name))
                for entry in catalog.read_catalog(connection).chosen
            )


def page_bytes(page: Page) -> int:
    """Give the bytes of a page's documents."""
    return page.spans[-1][1] - page.spans[0][0]


def _view_notes(listed: Catalog) -> list[str]:
    return [
        f"{entry.full_name} is not read: {entry.why_not_read}"
        for entry in listed.left_out
        if entry.kind == "view"
    ]


def _unread(listed: Catalog) -> tuple[str, ...]:
    return tuple(
        f"{entry.full_name} is not read: {entry.why_not_read}"
        for entry in listed.left_out
        if entry.kind != "view"
    )
