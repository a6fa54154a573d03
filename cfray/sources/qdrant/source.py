"""Qdrant collections, live or as shard snapshots.

A shard is a slice of the ids (server 1.19 and later: a hash of the id, disjoint and complete by the
server's own promise) or a range of them (older ones).  Ids are integers and UUIDs side by side: a
scroll gives all integers first, then the UUIDs, and a range of integers alone would lose every
UUID.  A scroll sees writes that happen meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias
from urllib.parse import quote

import pyarrow as pa
from pydantic import Field

from cfray.errors import SourceError
from cfray.formats.columns import pieces
from cfray.records.record import Reject
from cfray.sources import remote
from cfray.sources.base import MIB, Collection, Context, Description, Json, Shard
from cfray.sources.qdrant import client, export, schema, types
from cfray.sources.qdrant.client import Reach, Scroll, knows_slices, opened
from cfray.sources.qdrant.types import Id, Page

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

#: Label, bounds and, where they were counted, points of each part of a collection.
Cuts: TypeAlias = Iterator[tuple[str, dict[str, Json], int | None]]

#: A slice's scroll looks at every id of the collection, so many slices cost the server: 999 of 100
#: million points are a hash of 10**11 ids.
_MOST_SHARDS = 999
#: Ids that may be looked at to count the slices one by one when the plan is made; above, their
#: sizes stay unknown.
_COUNTED_IDS = 10**8
#: Points of the first page, of the largest one, and of a page of ids alone.
_FIRST, _MOST, _MOST_IDS = 256, 10_000, 10_000
#: Bytes a page aims at: large ones run into time-outs (qdrant/qdrant-client#358), and the next one
#: comes while this one is converted.
_PAGE = 8 * MIB


class Qdrant(remote.RemoteSource):
    """Collections of one Qdrant (``url``), or archives of their shards (``uri``)."""

    unfingerprinted: ClassVar[frozenset[str]] = remote.RemoteSource.unfingerprinted | {
        "prefer_grpc",
        "grpc_port",
    }

    kind: Literal["qdrant"] = "qdrant"
    #: Read pages over gRPC, which takes a fraction of REST's time; all else goes over REST.
    prefer_grpc: bool = True
    grpc_port: int = Field(default=6334, ge=1, le=65_535)
    #: Replicas that must agree on what is read (``all``, ``majority``, ``quorum`` or a number);
    #: default: one answers.
    consistency: Literal["all", "majority", "quorum"] | Annotated[int, Field(ge=1)] | None = None

    def shards(self, context: Context) -> list[Shard]:
        """Cut each collection into slices, or into id ranges where the server knows none."""
        if self.uri:
            return export.shards(self.uri, self.collections, self.shard_bytes)
        with self._opened() as store:
            slices = knows_slices(self.ask(store.info, context).version)
            return [
                shard
                for name in self._names(store, context)
                for shard in self._planned(store, name, context, slices=slices)
            ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Scroll through one slice or range, a page ahead of the conversion."""
        config = shard.where["config"]
        assert isinstance(config, dict)
        declares = schema.declared(config.get("vectors"), config.get("sparse_vectors"))
        size = remote.PageSize(
            _FIRST,
            min(_MOST, int(str(shard.where.get("limit") or _MOST))),
            min(context.batch_bytes, _PAGE),
        )
        if self.uri:
            yield from _batches(export.pages(shard, size), declares, size, context)
            return
        cut, key = shard.where.get("slice"), types.id_json(shard.where.get("key"))
        where = (int(str(cut[0])), int(str(cut[1]))) if isinstance(cut, list) else None
        wants = Scroll(shard.collection, declares, where, key, self.consistency)
        start, end = types.id_json(shard.where.get("from")), types.id_json(shard.where.get("to"))
        with self._opened() as store:
            yield from _batches(
                remote.ahead(self._pages(store, wants, size, context, start=start, end=end)),
                declares,
                size,
                context,
            )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count the points and say how each collection is kept."""
        if self.uri:
            return export.describe(shards)
        notes: list[str] = []
        collections: list[Collection] = []
        with self._opened() as store:
            for name in self._names(store, context):
                rows = self.ask(partial(self._all(name).count, store), context)
                config = schema.config_of(self.ask(partial(store.get_collection, name), context))
                try:
                    config["aliases"] = sorted(
                        one.alias_name
                        for one in self.ask(
                            partial(store.get_collection_aliases, name), context
                        ).aliases
                    )
                except SourceError as error:
                    if error.transient:
                        raise
                    notes.append(f"{name}: its aliases could not be listed ({error.what})")
                collections.append(schema.collection(name, config, rows))
                notes += schema.notes(name, config, consistent=self.consistency is not None)
        if self.api_key and not self._is_encrypted:
            notes.append("the key travels unencrypted: source.url is not https")
        total, size = sum(one.rows or 0 for one in collections), sum(shard.size for shard in shards)
        return Description(
            None, total, True, size, "per-shard live", tuple(notes), tuple(collections)
        )

    def count(self, context: Context) -> int | None:
        """Count the points of the chosen collections exactly."""
        if self.uri:
            return None  # the plan counted: files that are pinned do not change
        with self._opened() as store:
            return sum(
                self.ask(partial(self._all(name).count, store), context)
                for name in self._names(store, context)
            )

    def search(self, collection: str, vector: list[float], k: int) -> list[str]:
        """Ask for the nearest points by the unnamed vector, or by the only one of that width."""
        if self.uri:
            return super().search(collection, vector, k)
        context = Context()
        with self._opened() as store:
            config = schema.config_of(self.ask(partial(store.get_collection, collection), context))
            using = schema.searched(collection, config, len(vector)) or None
            asked = partial(
                store.query_points,
                collection,
                query=vector,
                using=using,
                limit=k,
                with_payload=False,
            )
            return [types.tagged(point.id) for point in self.ask(asked, context).points]

    def judge(self, error: Exception) -> SourceError | None:
        """Say what an error of the client means."""
        return client.judge(error, self.place)

    def _opened(self) -> AbstractContextManager[QdrantClient]:
        assert self.url is not None
        return opened(
            self.url,
            secret=self.secret(),
            timeout=self.timeout,
            grpc_port=self.grpc_port,
            ca_file=self.ca_file,
            insecure=self.insecure,
        )

    def _names(self, store: QdrantClient, context: Context) -> list[str]:
        return self.chosen(one.name for one in self.ask(store.get_collections, context).collections)

    def _all(self, name: str) -> Scroll:
        return Scroll(name, consistency=self.consistency)

    @property
    def _is_encrypted(self) -> bool:
        return str(self.url).startswith("https://")

    def _planned(
        self, store: QdrantClient, name: str, context: Context, *, slices: bool
    ) -> Iterator[Shard]:
        """Plan one collection: a group of shards for each shard key, or one for all."""
        config = schema.config_of(self.ask(partial(store.get_collection, name), context))
        declares = schema.declared(config.get("vectors"), config.get("sparse_vectors"))
        vectors: dict[str, Json] = {
            "vectors": config.get("vectors"),
            "sparse_vectors": config.get("sparse_vectors"),
        }
        where: dict[str, Json] = {"config": vectors, "limit": schema.limit(config)}
        weight = schema.row_bytes(declares)
        keys: list[Id | None] = [None]
        if config.get("sharding_method") == "custom":
            listed = self.ask(partial(store.list_shard_keys, name), context).shard_keys
            keys = [*sorted((one.key for one in listed or []), key=types.key)]
        for key in keys:
            group = (
                name
                if key is None
                else f"{name}#key-{'i' if isinstance(key, int) else 's'}-{quote(str(key), safe='')}"
            )
            own = where if key is None else {**where, "key": key}
            everything = Scroll(name, shard_key=key, consistency=self.consistency)
            rows = self.ask(partial(everything.count, store), context)
            parts = max(1, min(rows, _MOST_SHARDS, math.ceil(rows * weight / self.shard_bytes)))
            cut = self._slices if slices else self._ranges
            for label, extra, count in cut(store, everything, rows, parts, context):
                size = weight * (rows // parts if count is None else count)
                yield Shard(
                    f"{group}#{label}", {**own, **extra}, rows=count, size=size, collection=name
                )

    def _slices(
        self, store: QdrantClient, everything: Scroll, rows: int, parts: int, context: Context
    ) -> Cuts:
        for index in range(parts):
            one = replace(everything, slice=(parts, index))
            counted = (
                self.ask(partial(one.count, store), context)
                if rows * parts <= _COUNTED_IDS
                else None
            )
            yield f"slice-{index:03d}-of-{parts:03d}", {"slice": [parts, index]}, counted

    def _ranges(
        self, store: QdrantClient, everything: Scroll, rows: int, parts: int, context: Context
    ) -> Cuts:
        """Cut where one pass over the ids alone finds the bounds.

        No sample and no guess, so the same points give the same ranges.
        """
        size = remote.PageSize(_MOST_IDS, _MOST_IDS, _MOST_IDS)
        pages = self._pages(store, replace(everything, whole=False), size, context)
        yield from types.ranges(
            (one for page in pages for one in page.ids), math.ceil(rows / parts) or 1
        )

    def _pages(
        self,
        store: QdrantClient,
        wants: Scroll,
        size: remote.PageSize,
        context: Context,
        *,
        start: Id | None = None,
        end: Id | None = None,
    ) -> Iterator[Page]:
        """Scroll from ``start`` up to ``end``, and see that ids rise.

        A page that repeats or goes back would lose or double rows.
        """
        offset, last = start, None
        over_grpc = self.prefer_grpc and not (
            self.insecure and self._is_encrypted
        )  # gRPC cannot leave a certificate unchecked
        reach = Reach(self.place, self.timeout, over_grpc, context.throttle)
        while True:
            page = self.ask(partial(wants.page, store, offset, size, reach), context)
            last = types.risen(page, last, f"{self.place}, collection {wants.collection}")
            page = page.until(end)
            if page.ids:
                yield page
            if page.following is None:
                return
            offset = page.following


def _batches(
    found: Iterator[Page],
    declares: dict[str, schema.Vector],
    size: remote.PageSize,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    for page in found:
        batch = page.batch(declares)
        size.learn(len(batch), batch.nbytes)
        yield from pieces(batch, context.batch_bytes)
