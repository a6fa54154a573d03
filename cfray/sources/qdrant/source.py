"""Qdrant collections, live or as shard snapshots.

A shard is a slice of the ids (server 1.19 and later: a hash of the id) or a range of them
(older servers).  Ids are integers and UUIDs side by side: a scroll gives all integers first,
then the UUIDs, so a range of integers alone would lose every UUID.  A scroll sees writes
that happen meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.runtime.sdk import import_sdk
from cfray.sources import paging
from cfray.sources.base import Collection, Context, Description, FieldEquals, Json, Shard
from cfray.sources.paging import PageSize
from cfray.sources.qdrant import export, plan, schema
from cfray.sources.qdrant.client import open_client, server_knows_slices
from cfray.sources.qdrant.scroll import ScrollQuery, StoreReader
from cfray.sources.qdrant.settings import QdrantSettings
from cfray.sources.qdrant.types import Page, parse_id, tag_id

#: Points of the first page, and of a page at most.
_FIRST_PAGE_ROWS, _MAX_PAGE_ROWS = 256, 10_000
#: Bytes that a page aims at: large pages run into time-outs (qdrant/qdrant-client#358), and the
#: next page is fetched while this one is converted.
_PAGE_BYTES = 8 * MIB


class Qdrant(QdrantSettings):
    """Collections of a Qdrant server (``url``), or archives of their shards (``uri``)."""

    @contextmanager
    def _open_reader(self, context: Context) -> Iterator[StoreReader]:
        with open_client(self) as client:
            yield StoreReader(client, self, context)

    def _collection_names(self, reader: StoreReader) -> list[str]:
        listed = reader.send(reader.client.get_collections)
        names = [described.name for described in listed.collections]
        return self.choose_collections(names, partial(_list_aliases, reader))

    def _all_points(self, collection: str) -> ScrollQuery:
        return ScrollQuery(collection, consistency=self.consistency)

    def shards(self, context: Context) -> list[Shard]:
        """Cut each collection into slices, or into id ranges where the server has no slices."""
        if self.uri:
            return export.plan_shards(self.uri, self.collections, self.shard_bytes)
        with self._open_reader(context) as reader:
            by_slices = server_knows_slices(reader.send(reader.client.info).version)
            return [
                shard
                for name in self._collection_names(reader)
                for shard in plan.plan_collection(reader, name, by_slices=by_slices)
            ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Scroll through one slice or range; the next page is fetched during the conversion."""
        vectors = schema.parse_vectors(schema.shard_config(shard))
        page_size = PageSize(
            _FIRST_PAGE_ROWS,
            min(_MAX_PAGE_ROWS, int(str(shard.where.get("limit") or _MAX_PAGE_ROWS))),
            min(context.batch_bytes, _PAGE_BYTES),
        )
        if self.uri:
            pages = export.read_pages(shard, page_size)
            yield from _convert(pages, vectors, page_size, context)
            return
        shard_slice = shard.where.get("slice")
        query = ScrollQuery(
            shard.collection,
            vectors,
            slice=(
                (int(str(shard_slice[0])), int(str(shard_slice[1])))
                if isinstance(shard_slice, list)
                else None
            ),
            shard_key=parse_id(shard.where.get("key")),
            consistency=self.consistency,
        )
        start, end = parse_id(shard.where.get("from")), parse_id(shard.where.get("to"))
        with self._open_reader(context) as reader:
            pages = paging.fetch_ahead(reader.scroll(query, page_size, start=start, end=end))
            yield from _convert(pages, vectors, page_size, context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count the points, and say how each collection is configured."""
        if self.uri:
            return export.describe_archives(shards)
        notes: list[str] = []
        collections: list[Collection] = []
        with self._open_reader(context) as reader:
            for name in self._collection_names(reader):
                collection, collection_notes = self._describe_collection(reader, name)
                collections.append(collection)
                notes += collection_notes
        if self.api_key and not self.is_encrypted:
            notes.append("the key travels unencrypted: source.url is not https")
        return Description(
            schema=None,
            rows=sum(collection.rows or 0 for collection in collections),
            exact=True,
            size=sum(shard.size for shard in shards),
            consistency="per-shard live",
            notes=tuple(notes),
            collections=tuple(collections),
        )

    def _describe_collection(self, reader: StoreReader, name: str) -> tuple[Collection, list[str]]:
        """Describe one collection, and give the notes on it."""
        notes: list[str] = []
        rows = reader.count(self._all_points(name))
        info = reader.send(partial(reader.client.get_collection, name))
        config = schema.collection_config(info)
        try:
            listed = reader.send(partial(reader.client.get_collection_aliases, name))
            aliases = sorted(alias.alias_name for alias in listed.aliases)
            config["aliases"] = list[Json](aliases)
            requested = [alias for alias in aliases if alias in (self.collections or ())]
            notes += [f"{alias} is an alias of {name}, which is read" for alias in requested]
        except SourceError as error:
            if error.transient:
                raise
            notes.append(f"{name}: its aliases could not be listed ({error.what})")
        notes += schema.collection_notes(
            name, config, replicas_must_agree=self.consistency is not None
        )
        return schema.to_collection(name, config, rows), notes

    def count(self, context: Context) -> int | None:
        """Count the points of the chosen collections exactly; None for archives.

        The plan has counted the points of archives, and pinned files do not change.
        """
        if self.uri:
            return None
        with self._open_reader(context) as reader:
            return sum(
                reader.count(self._all_points(name)) for name in self._collection_names(reader)
            )

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search by the unnamed vector, or by the only vector of that dimension.

        Raises:
            SourceError: the store did not answer, or it is not clear which vector to search.
        """
        if self.uri:
            return super().search(collection, vector, k, where)
        with self._open_reader(Context()) as reader:
            info = reader.send(partial(reader.client.get_collection, collection))
            config = schema.collection_config(info)
            query = partial(
                reader.client.query_points,
                collection,
                query=vector,
                using=schema.choose_search_vector(collection, config, len(vector)) or None,
                query_filter=None if where is None else _field_condition(where),
                limit=k,
                with_payload=False,
            )
            return [tag_id(point.id) for point in reader.send(query).points]


def _field_condition(where: FieldEquals) -> Any:  # a Filter of the client's
    models = import_sdk("qdrant_client.models", "qdrant")
    match = models.MatchValue(value=where.text)
    return models.Filter(must=[models.FieldCondition(key=where.name, match=match)])


def _list_aliases(reader: StoreReader) -> dict[str, str]:
    """Give alias -> collection.

    Raises:
        SourceError: the store does not list them.
    """
    try:
        listed = reader.send(reader.client.get_aliases)
    except SourceError as error:
        if error.transient:
            raise
        requested = ", ".join(reader.settings.collections or ())
        raise SourceError(
            f"not all of {requested} are collections, and whether a name is an alias cannot be "
            f"seen: {error.what}",
            "name collections in source.collections, or let source.api_key name a credential that "
            "may list aliases",
        ) from error
    return {alias.alias_name: alias.collection_name for alias in listed.aliases}


def _convert(
    pages: Iterator[Page],
    vectors: Mapping[str, schema.VectorConfig],
    page_size: PageSize,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    """Make records of pages, and fit the size of the next page to them."""
    for page in pages:
        batch = page.to_records(vectors)
        page_size.adjust(len(batch), batch.nbytes)
        yield from split_by_bytes(batch, context.batch_bytes)
