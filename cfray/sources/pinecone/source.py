"""Pinecone, serverless: ids are listed once and written down, records are fetched by id.

There is no snapshot and no scan: a list of ids, 100 a request, in one order, is
the only complete way through a namespace, and a fetch leaves out what it does
not find without a word.  So what was asked for is compared with what came back.
A pod index lists no ids; whoever has them gives them in a file.

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
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import pyarrow as pa
from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.formats.columns import interleaved, pieces
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.runtime.credentials import Secret
from cfray.sources import manifests
from cfray.sources.base import MIB, Context, Description, Shard
from cfray.sources.pinecone import client, export, types
from cfray.sources.pinecone.client import Ask, in_order, namespaces, nearest, reconciled
from cfray.sources.pinecone.types import Home, PineconeIndex, is_of_pods, read_units, refuse_pods
from cfray.sources.remote import PageSize, RemoteSource

T = TypeVar("T")

CONTROL_PLANE = "https://api.pinecone.io"
#: Records a fetch may ask for: https://docs.pinecone.io/reference/api/latest/data-plane/fetch
_MOST = 1000
#: Fetches under way at once for one shard, and namespaces listed at once.
_FETCHES, _LISTS = 4, 8
_NOTES = (
    "Pinecone has no snapshot and is eventually consistent: what is written during the run may be missed, what is deleted is rejected by name",
    "Pinecone stores every number of the metadata as a float64, and no null: 5 may come back as 5.0",
)


class Pinecone(RemoteSource):
    """The indexes of a Pinecone project.

    Or a folder in the layout of Pinecone's import.  A collection is ``index`` or
    ``index/namespace``.
    """

    kind: Literal["pinecone"] = "pinecone"
    api_key: Secret | None = Secret(env="PINECONE_API_KEY")
    #: Pinecone lets 100 fetches a second through, and 200 lists, per index.
    requests_per_second: float | None = Field(default=100, gt=0)
    #: File of ids to read instead of listing them: one a line, in ``.jsonl`` as JSON strings.
    ids: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _default_address(cls, data: Any) -> Any:
        return (
            {"url": CONTROL_PLANE, **data}
            if isinstance(data, dict) and not {"url", "uri"} & data.keys()
            else data
        )

    def located(self, base: Path) -> Self:
        """Resolve the file of ids, too."""
        at = super().located(base)
        return at.model_copy(update={"ids": filesystems.absolute(at.ids, base)}) if at.ids else at

    def judge(self, error: Exception) -> SourceError | None:
        """Say what an error of the client means."""
        return types.judge(error, self.place)

    def homes(self, context: Context) -> list[Home]:
        """Find the chosen collections, sorted by name.

        Raises:
            SourceError: one that is named is not there, or there is none, or an index that cannot
                be read.
        """
        ask = self._asking(context)
        wanted = {name.split("/", 1)[0] for name in self.collections or []}
        with client.control(self) as control:
            models, left_out = client.indexes(control, ask)
        names = {model.name for model in models}
        if left_out and not (wanted and wanted <= names):
            raise SourceError(
                f"{self.place} holds an index that its client cannot read: {left_out[0]}",
                "name the others in source.collections, or upgrade pinecone",
            )
        found: dict[str, Home] = {}
        for model in models:
            if not wanted or model.name in wanted:
                found |= {home.collection.name: home for home in self._homes_in(model, ask)}
        return [found[name] for name in self.chosen({*found, *(names - wanted if wanted else ())})]

    def _homes_in(self, model: Any, ask: Ask) -> list[Home]:
        if not model.host:
            raise SourceError(
                f"index {model.name} of {self.place} is {model.status.state}",
                "wait until it is ready, then run again",
            )
        with client.data(self, model.host) as index:
            stats = ask(index.describe_index_stats)
            spaces = namespaces(index, stats, ask, pod=is_of_pods(model))
        if not spaces or model.name in (self.collections or []):
            spaces.setdefault(
                "", (0, 0)
            )  # the default namespace is there, also where nobody has written into it
        return types.homes(model, stats, spaces)

    def _asking(self, context: Context, stop: threading.Event | None = None) -> Ask:
        def ask(action: Callable[[], T]) -> T:
            if stop and stop.is_set():
                raise SourceError("stopped", "see the error that stopped it")
            return self.ask(action, context)

        return ask

    def shards(self, context: Context) -> list[Shard]:
        """List the ids of every namespace, several at once, and write them down."""
        if self.uri:
            return export.shards(self.uri, self.shard_bytes, self.chosen)
        homes = self.homes(context)
        refuse_pods(homes, self.ids)
        stop = threading.Event()
        with ExitStack() as opened, ThreadPoolExecutor(_LISTS) as pool:
            indexes = {
                host: opened.enter_context(client.data(self, host))
                for host in {home.layout.host for home in homes}
            }
            ask = self._asking(context, stop)
            parts = [
                pool.submit(client.shards, self, indexes[home.layout.host], home, ask, context)
                for home in homes
            ]
            try:
                ended, _ = wait(parts, return_when=FIRST_EXCEPTION)
                return [
                    shard
                    for part in (parts if len(ended) == len(parts) else ended)
                    for shard in part.result()
                ]
            finally:
                # after an error nobody waits for the rest of the lists, or pays for them
                stop.set()

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Fetch the listed records, in the order of the list."""
        if self.uri:
            yield from export.read(shard, context)
            return
        layout, ask = PineconeIndex.from_json(shard.where), self._asking(context)
        page = PageSize(100, _MOST, min(context.batch_bytes, 2 * MIB))
        chunks = client.chunks(manifests.ids_of(shard, context), page, layout)
        with client.data(self, layout.host) as index:
            tasks = (partial(reconciled, index, layout, chunk, page, ask) for chunk in chunks)
            for wanted, found in in_order(tasks, _FETCHES):
                good = [row for row, one in enumerate(wanted) if not isinstance(found[one], str)]
                bad = [
                    (row, Reject(found[one], f"{shard.collection}:{one[:80]}", one.encode()))
                    for row, one in enumerate(wanted)
                    if isinstance(found[one], str)
                ]
                names = [wanted[row] for row in good]
                batch = (
                    types.batch(layout, names, [found[one] for one in names])
                    if good
                    else pa.RecordBatch.from_pydict({})
                )
                page.learn(len(good), batch.nbytes)
                for item in interleaved(good, batch, iter(bad)):
                    yield from (
                        [item] if isinstance(item, Reject) else pieces(item, context.batch_bytes)
                    )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the plan has listed, and what it costs to read it.

        The records are counted by the list.
        """
        base = super().describe(context, shards)
        if self.uri:
            return export.describe(self.uri, base, shards)
        rows = Counter[str]()
        for shard in shards:
            rows[shard.collection] += shard.rows or 0
        found = [(home.collection, rows[home.collection.name]) for home in self.homes(context)]
        notes = [*_NOTES, read_units([count for _, count in found], listed=not self.ids)]
        notes += [
            f"{one.name}: {count} ids were {'given' if self.ids else 'listed'}, Pinecone's own count says {one.rows}"
            for one, count in found
            if count != one.rows
        ]
        return replace(
            base,
            notes=tuple(notes),
            collections=tuple(replace(one, rows=count) for one, count in found),
        )

    def count(self, context: Context) -> int | None:
        """Add up Pinecone's own counts, which lag behind writes.

        To list all ids again would cost a read unit for every hundred.
        """
        if self.uri or self.ids:
            return None
        return sum(home.collection.rows or 0 for home in self.homes(context))

    def search(self, collection: str, vector: list[float], k: int) -> list[str]:
        """Query the index."""
        if self.uri:
            return super().search(collection, vector, k)
        context = Context()
        (home,) = self.model_copy(update={"collections": [collection]}).homes(context)
        with client.data(self, home.layout.host) as index:
            return [
                f"s:{one}"
                for one in self.ask(partial(nearest, index, home.layout, vector, k), context)
            ]
