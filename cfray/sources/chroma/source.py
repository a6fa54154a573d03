"""Chroma: a server (``url``), or the directory one persisted to (``uri``.

Copied, and the copy read).

A server has no snapshot, and offsets shift when records are deleted: paging by
them loses rows without a word (``sources.md`` 2.4).  So the ids of a collection are
listed in one request, written down, and fetched by id.  What is read is what the
list held: a record deleted since is a reject, one added since is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.columns import pieces
from cfray.records.record import Reject
from cfray.sources import manifests, remote
from cfray.sources.base import Context, Description, Shard
from cfray.sources.chroma import types
from cfray.sources.chroma.client import EVERYTHING, LOST_VECTOR, Live, SmallerPage, Store, judged
from cfray.sources.chroma.export import Copied
from cfray.sources.chroma.types import DATABASE, TENANT, Model, Place
from cfray.sources.remote import PageSize, RemoteSource

#: Ids in one request; SQLite takes 32,766 variables, and larger pages were no faster.
MOST = 500
#: Records looked at to estimate what one weighs.
_SAMPLE = 100
#: Shards of a collection at most.
_SHARDS = 4000
_EVERY = "*"


class Chroma(RemoteSource):
    """Collections of a Chroma server or of a persistent directory."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {"api_key_header"}

    kind: Literal["chroma"] = "chroma"
    tenant: str = TENANT
    #: ``*`` for every database of the tenant.
    database: str = DATABASE
    #: Header the credential travels in; ``Authorization`` makes it a bearer token.
    api_key_header: str = "x-chroma-token"

    def store(self, pin: str | None = None) -> Store:
        """Open the server, or a copy of the directory (which must still be the pinned one)."""
        if self.uri:
            return Copied(self.uri, pin, self.timeout)
        assert self.url
        secret = self.secret()
        bearer = "Bearer " if self.api_key_header.lower() == "authorization" else ""
        headers = {} if secret is None else {self.api_key_header: f"{bearer}{secret}"}
        return Live(
            self.url, headers, timeout=self.timeout, ca_file=self.ca_file, insecure=self.insecure
        )

    def judge(self, error: Exception) -> SourceError | None:
        """Say what an error of Chroma means."""
        return judged(error, self.place)

    def chosen(self, there: Iterable[str]) -> list[str]:
        """Give the source collections to read.

        A bare name is one of ``tenant`` and ``database``.
        """
        if not self.collections:
            return super().chosen(there)
        return RemoteSource.chosen(
            self.model_copy(update={"collections": [str(place) for place in self._named()]}), there
        )

    def _named(self) -> list[Place]:
        return [
            Place.named(name, self.tenant, DATABASE if self.database == _EVERY else self.database)
            for name in self.collections or []
        ]

    def _found(self, store: Store, context: Context) -> list[tuple[Place, Model]]:
        """List the collections to read."""
        homes = {(place.tenant, place.database) for place in self._named()}
        if not homes:
            every = self.database == _EVERY
            names = (
                self.ask(lambda: store.databases(self.tenant), context)
                if every
                else [self.database]
            )
            homes = {(self.tenant, name) for name in names}
        found: dict[str, tuple[Place, Model]] = {}
        for tenant, database in sorted(homes):
            for model in self.ask(lambda t=tenant, d=database: store.collections(t, d), context):  # type: ignore[misc]  # binds the loop's values
                place = Place(tenant, database, str(model["name"]))
                found[str(place)] = place, model
        return [found[name] for name in self.chosen(found)]

    def shards(self, context: Context) -> list[Shard]:
        """List the ids of every collection, each in one request, and cut the lists."""
        with self.store() as store:
            return [
                shard
                for place, model in self._found(store, context)
                for shard in self._cut(store, place, model, context)
            ]

    def _cut(self, store: Store, place: Place, model: Model, context: Context) -> Iterator[Shard]:
        ids = self.ask(lambda: store.ids(place, model), context)
        sample = self.ask(lambda: store.first(place, model, _SAMPLE, EVERYTHING[1:]), context)
        row_bytes = 4 * int(str(model.get("dimension") or 0)) + len(sample) // max(
            1, min(len(ids), _SAMPLE)
        )
        per_shard = max(1, self.shard_bytes // row_bytes, -(-len(ids) // _SHARDS))
        for shard in manifests.shards(str(place), ids, per_shard, context, row_bytes):
            yield replace(shard, where={**shard.where, **store.pinned})

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Fetch the ids of the shard's list, in its order."""
        place = Place.named(shard.collection)
        ids = manifests.ids_of(shard, context)
        pin = shard.where.get("pin")
        with self.store(None if pin is None else str(pin)) as store:
            model = self.ask(lambda: store.collection(place), context)
            width = model.get("dimension")
            for wanted, answer in remote.ahead(self._pages(store, place, model, ids, context)):
                batch, missing = types.batch(
                    answer, wanted, width if isinstance(width, int) else None
                )
                if batch.num_rows:
                    yield from pieces(batch, context.batch_bytes)
                for name in missing:
                    yield Reject(
                        "deleted meanwhile or lost: it was listed, and Chroma does not give it",
                        f"{place}, id {name}",
                        name.encode(),
                    )

    def _pages(
        self, store: Store, place: Place, model: Model, ids: list[str], context: Context
    ) -> Iterator[tuple[list[str], bytes]]:
        size = PageSize(MOST // 2, MOST, context.batch_bytes)
        done = 0
        while done < len(ids):
            wanted = ids[done : done + size.rows]
            include: tuple[str, ...] = EVERYTHING
            while True:
                try:
                    answer = self.ask(partial(store.get, place, model, wanted, include), context)
                    break
                except SmallerPage as refused:
                    if size.halve():
                        wanted = ids[done : done + size.rows]
                    elif LOST_VECTOR in refused.what and include == EVERYTHING:
                        include = EVERYTHING[
                            1:
                        ]  # the one record whose vector is gone keeps the rest of what it is
                    else:
                        raise
            yield wanted, answer
            done += len(wanted)
            size.learn(len(wanted), len(answer))

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Tell what was listed, and what Chroma does to vectors."""
        told = super().describe(context, shards)
        listed: dict[str, int] = {}
        for shard in shards:
            listed[shard.collection] = listed.get(shard.collection, 0) + (shard.rows or 0)
        notes = (
            []
            if self.uri
            else [
                "records added after the ids were listed are not read; records deleted since are rejects"
            ]
        )
        with self.store() as store:
            found = self._found(store, context)
            notes += [
                f"{place}: {note}"
                for place, model in found
                for note in self._notes(store, place, model, context)
            ]
        collections = tuple(
            types.collection(place, model, listed.get(str(place), 0)) for place, model in found
        )
        return replace(
            told,
            consistency="snapshot" if self.uri else "none",
            notes=tuple(notes),
            collections=collections,
        )

    def _notes(self, store: Store, place: Place, model: Model, context: Context) -> Iterator[str]:
        if types.collection(place, model, 0).metric == "cosine":
            yield "Chroma rescales the vectors of a cosine space as it stores them: they are read as stored, and differ from what was sent in the last bits"
        try:
            self.ask(lambda: store.first(place, model, _SAMPLE, EVERYTHING[:1]), context)
        except SmallerPage:
            yield f"Chroma has lost the vector of some of the first {_SAMPLE} records; such records are read without one"

    def count(self, context: Context) -> int:
        """Count the records of the chosen collections."""
        with self.store() as store:
            found = self._found(store, context)
            return sum(
                self.ask(partial(store.count, place, model), context) for place, model in found
            )

    def search(self, collection: str, vector: list[float], k: int) -> list[str]:
        """Ask Chroma's own index."""
        place, context = Place.named(collection), Context()
        with self.store() as store:
            model = self.ask(lambda: store.collection(place), context)
            return [
                f"s:{name}"
                for name in self.ask(lambda: store.nearest(place, model, vector, k), context)
            ]
