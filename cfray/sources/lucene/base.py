"""Indices of a search server, live or as elasticdump's files: what both products have alike.

A run reads all its indices at one point in time each, opened together and kept alive by the
session; a shard is a slice of an index by a hash of the id, so that a document is in the same
shard at every point in time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, cast

import pyarrow as pa

from cfray.errors import CannotFilter, CannotSearchWords, SourceError
from cfray.records.record import Reject
from cfray.sources import paging
from cfray.sources.base import Collection, Context, Description, FieldEquals, Json, Session, Shard
from cfray.sources.lucene import export, plan
from cfray.sources.lucene.describe import describe_index, index_notes
from cfray.sources.lucene.errors import NoPermission
from cfray.sources.lucene.indices import (
    UNDER_WAY,
    choose_indices,
    fetch_facts,
    history_of,
    list_catalog,
    mark_index,
    refresh,
)
from cfray.sources.lucene.pages import Page, read_slice
from cfray.sources.lucene.records import convert_page
from cfray.sources.lucene.schema import (
    IndexSchema,
    VectorField,
    parse_schema,
    unread_fields,
    walk_fields,
)
from cfray.sources.lucene.server import Server, path_of, session_views
from cfray.sources.lucene.settings import LuceneSettings
from cfray.sources.paging import PageSize

#: Bytes of a text up to which a keyword is indexed where ``ignore_above`` does not say: all.
_WHOLE = 2**31 - 1


class LuceneSource(LuceneSettings):
    """A server's indices (``url``), or files of elasticdump (``uri``)."""

    @abstractmethod
    def open_server(self, context: Context) -> AbstractContextManager[Server]:
        """Open the vendor's client for one task, and check that the server is of this kind.

        Raises:
            SourceError: it is not.
        """

    @property
    @abstractmethod
    def parse_vector(self) -> Any:
        """Give the product's reader of a vector's declaration."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Refresh each index, open a point in time of it, and let these go at the end.

        A document that was written and not refreshed yet is in no point in time.

        Their newest ids stand in the session's state: ``keep_alive`` puts them there, so that
        shards that are begun later ask with those.
        """
        if self.uri:
            yield Session()
            return
        views: dict[str, Json] = {}
        with self.open_server(Context()) as server:
            chosen = choose_indices(server, list_catalog(server))
            unrefreshed: list[Json] = [index for index in chosen if not refresh(server, index)]
            if self.read_by == "scroll":
                yield Session(state={"unrefreshed": unrefreshed})
                return
            try:
                for index in chosen:
                    views[index] = server.open_view(index)
                yield Session(
                    consistency="snapshot",
                    expires=float(self.keep_alive_seconds),
                    state={"views": views, "unrefreshed": unrefreshed},
                )
            finally:
                for view in views.values():
                    server.close_quietly(str(view))

    def keep_alive(self, session: Session) -> None:
        """Ask each point in time for nothing, which makes it live on.

        Raises:
            SourceError: one of them is gone.
        """
        views = session_views(session.state)
        if views is None:
            return
        assert isinstance(session.state, dict)
        newest = session.state["views"]
        assert isinstance(newest, dict)
        with self.open_server(Context()) as server:
            for index, view in views.items():
                body: dict[str, Json] = {"size": 0, "track_total_hits": False}
                answer = plan.search_view(server, view, index, body)
                newest[index] = answer.get("pit_id") or view

    def shards(self, context: Context) -> list[Shard]:
        """Cut each index into slices of about ``shard_bytes``."""
        if self.uri:
            return export.plan_shards(self, self.parse_vector)
        with self.open_server(context) as server:
            chosen = choose_indices(server, list_catalog(server))
            return [shard for index in chosen for shard in plan.plan_index(server, index)]

    def shards_since(self, earlier: list[Shard], context: Context) -> list[Shard]:
        """Cut each index into as many slices as before, unless it has grown or shrunk to half.

        How many there are follows from the bytes of a few documents, which another copy of the
        index may give otherwise.
        """
        fresh = self.shards(context)
        return fresh if self.uri else list(plan.slices_since(earlier, fresh))

    def watermark(self, shard: Shard, mark: str, context: Context) -> str | None:
        """Give the number of operations and the history of the index; ``where`` has its uuid.

        The index was counted before it was refreshed, so what is counted is seen by a search; but
        not what was under way, nor where the credential may not refresh.  An index that is restored
        from a snapshot begins another history.
        """
        state = context.session if isinstance(context.session, dict) else {}
        unrefreshed = state.get("unrefreshed")
        if not isinstance(unrefreshed, list) or shard.collection in unrefreshed:
            return None
        if not mark or UNDER_WAY in mark:
            return None
        with self.open_server(context) as server:
            history = history_of(server, shard.collection)
        return f"{mark}, history {history}" if history else None

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read a slice page by page; the next page is fetched during the conversion."""
        if self.uri:
            yield from export.read_shard(shard, context)
            return
        where: Any = shard.where
        schema = IndexSchema.from_json(where["schema"])
        page_bytes = min(context.batch_bytes, plan.PAGE_BYTES)
        first_rows = max(1, page_bytes // where["row_bytes"])
        page_size = PageSize(first_rows, where["limit"], page_bytes)
        with self.open_server(context) as server:
            plan.check_same_index(server, shard)
            pages = read_slice(server, plan.slice_of(shard), schema, page_size)
            # closed in this order, so that the thread is done with the pages
            pages_ahead = cast("Generator[Page]", paging.fetch_ahead(pages))
            with closing(pages), closing(pages_ahead):
                for page in pages_ahead:
                    items = convert_page(page.hits, schema, context, where["index"], page.faults)
                    size = 0
                    for item in items:
                        size += 0 if isinstance(item, Reject) else item.nbytes
                        yield item
                    page_size.adjust(len(page.hits), size)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count every index, and carry its mapping and its settings over."""
        if self.uri:
            return export.describe_files(self, shards)
        notes: list[str] = []
        unread: list[str] = []
        collections: list[Collection] = []
        with self.open_server(context) as server:
            catalog = list_catalog(server)
            for index, name in choose_indices(server, catalog).items():
                notes += [f"{index} is read for {name}"] if index != name else []
                collections.append(self._describe_index(server, index, notes, unread))
        if not self.collections:
            unread += catalog.unread()
        unread += _unrefreshed_notes(context.session)
        whole = self._uncut_notes(shards) if self.slices is None else ()
        return Description(
            schema=None,
            rows=sum(collection.rows or 0 for collection in collections),
            exact=True,
            size=sum(shard.size for shard in shards),
            consistency="per-shard live",
            notes=(*notes, *whole),
            collections=tuple(collections),
            unread=tuple(unread),
        )

    def _describe_index(
        self, server: Server, index: str, notes: list[str], unread: list[str]
    ) -> Collection:
        """Describe an index; add what is to be said of it to ``notes`` and ``unread``."""
        facts = fetch_facts(server, index)
        schema = parse_schema(facts.mapping, server.parse_vector)
        with server.view_of(index) as view:
            rows = plan.count_index(server, view, index)
            without = {
                vector.path: rows - plan.count_index(server, view, index, vector.exists_query())
                for vector in schema.vectors.values()
            }
        notes += [*index_notes(facts, schema, without), *server.vector_notes(facts)]
        vectors = [*schema.vectors.values(), *schema.inner_vectors]
        restored = {vector.path for vector in vectors} if server.restores_vectors(facts) else set()
        unread += unread_fields(index, facts.mapping, restored)
        return describe_index(server, facts, rows)

    def _uncut_notes(self, shards: list[Shard]) -> Iterator[str]:
        """Name the indices whose slices are larger than asked for."""
        large = {shard.collection for shard in shards if shard.size > 2 * self.shard_bytes}
        for index in sorted(large):
            yield (
                f"{index}: at a point in time this server cuts an index into no more slices than "
                "it has Lucene shards, so its shards are larger than source.shard_bytes; "
                "source.read_by: scroll cuts it finer, and is no snapshot"
            )

    def marks(self, context: Context) -> dict[str, str] | None:
        """Mark each index by the operations that its primary shards have numbered.

        None where the credential may not read the statistics of an index.
        """
        if self.uri:
            return None
        with self.open_server(context) as server:
            chosen = choose_indices(server, list_catalog(server))
            try:
                return {index: mark_index(server, index) for index in chosen}
            except NoPermission:
                return None

    def count(self, context: Context) -> int | None:
        """Count the documents of the indices exactly, at the session's point in time."""
        if self.uri:
            return None
        total = 0
        with self.open_server(context) as server:
            for index in choose_indices(server, list_catalog(server)):
                with server.view_of(index) as view:
                    total += plan.count_index(server, view, index)
        return total

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search by the column ``vector``, or by the only vector of that width.

        Raises:
            SourceError: the store did not answer, or it is not clear which vector to search.
        """
        if self.uri:
            return super().search(collection, vector, k, where)
        with self.open_server(Context()) as server:
            facts = fetch_facts(server, collection)
            schema = parse_schema(facts.mapping, server.parse_vector)
            field = _search_field(collection, schema, len(vector))
            condition = None if where is None else _term_of(collection, facts.mapping, where)
            nearest = server.nearest(field.path, vector, k, condition)
            body = {"size": k, "_source": False, **nearest}
            answer = server.send("POST", path_of(collection, "_search"), body)
        return [f"s:{hit['_id']}" for hit in answer["hits"]["hits"]]

    def search_words(
        self, collection: str, words: str, field: tuple[str, ...], k: int
    ) -> list[str]:
        """Search a field of texts by ``match``."""
        if self.uri:
            return super().search_words(collection, words, field, k)
        name = ".".join(field)
        with self.open_server(Context()) as server:
            _check_searched_by_words(collection, fetch_facts(server, collection).mapping, name)
            query: dict[str, Json] = {"match": {name: words}}
            body: dict[str, Json] = {"size": k, "_source": False, "query": query}
            answer = server.send("POST", path_of(collection, "_search"), body)
        return [f"s:{hit['_id']}" for hit in answer["hits"]["hits"]]


def _unrefreshed_notes(session: Json) -> Iterator[str]:
    indices = session.get("unrefreshed") if isinstance(session, dict) else None
    for index in indices if isinstance(indices, list) else []:
        yield (
            f"{index} could not be refreshed, for the credential may not: documents that were "
            "written to it and are not searchable yet are not read (the permission is "
            "maintenance, or indices:admin/refresh)"
        )


def _check_searched_by_words(index: str, mapping: Mapping[str, Any], name: str) -> None:
    """Refuse a field of which the index keeps no words.

    Raises:
        CannotSearchWords: says what the field is.
    """
    types = [
        declared.get("type", "object")
        for path, declared, nested in walk_fields(mapping)
        if path == name and not nested and declared.get("index", True)
    ]
    if types != ["text"]:
        raise CannotSearchWords(
            f"{name} of {index} is not searched by words ({', '.join(types) or 'no such field'})",
            "compare such searches by hand",
        )


def _term_of(index: str, mapping: Mapping[str, Any], where: FieldEquals) -> dict[str, Json]:
    """Write a condition on a field that is a keyword, or has one beside it.

    Raises:
        CannotFilter: the field is none, or the keyword is changed on its way into the index.
    """
    for path, declared, nested in walk_fields(mapping):
        if path != where.name or nested:
            continue
        inner = {f"{path}.{name}": field for name, field in (declared.get("fields") or {}).items()}
        for name, field in {path: declared, **inner}.items():
            is_whole = len(where.text.encode()) <= int(field.get("ignore_above", _WHOLE))
            if field.get("type") == "keyword" and "normalizer" not in field and is_whole:
                return {"term": {name: where.text}}
    raise CannotFilter(
        f"{index} has no keyword of {where.name}, by which it would be compared exactly",
        "compare such searches by hand",
    )


def _search_field(index: str, schema: IndexSchema, width: int) -> VectorField:
    fitting = {
        name: vector
        for name, vector in schema.vectors.items()
        if vector.width == width and not vector.is_multi
    }
    if "" in fitting:
        return fitting[""]
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    raise SourceError(
        f"{index} has {len(fitting)} vectors of {width} numbers, so it is not clear which of them "
        "to search",
        "compare search quality by hand",
    )
