"""Milvus: a shard is a range of primary keys of a partition, read by a keyset loop.

Offsets end at 16,384 rows, and pymilvus's iterator loses a key with a quote, an
empty one and the greatest integer; so ranges are cut by a pass over the keys
alone and read page by page behind the last key, whose order is checked.  What
the server counts and no query gives (duplicate primary keys) is set aside, so
that a read accounts for every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import MIB, Context, Description, Json, Shard
from cfray.sources.milvus import client, schema
from cfray.sources.milvus.client import Connection, indexes, nearest, release, told, unloaded
from cfray.sources.milvus.export import BulkFiles, checked
from cfray.sources.milvus.keys import MOST_ROWS, Key, Range, count_rows, everything, pages
from cfray.sources.milvus.schema import Told
from cfray.sources.milvus.types import keys_of, records_of
from cfray.sources.remote import PageSize, RemoteSource

_SAMPLED, _MOST_SHARDS = 64, 4_000
#: Bytes an answer aims at: what the figures in the README were measured with.
_PAGE = 16 * MIB


class Milvus(RemoteSource):
    """Collections of one database of a Milvus server.

    (2.3 or later), or the files of its bulk writer.
    """

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {"load"}

    kind: Literal["milvus"] = "milvus"
    database: str = Field(default="default", min_length=1)
    #: What to do with a collection that is not loaded, which cannot be read: refuse it, or load it
    #: for the run and release it at the end.
    load: Literal["refuse", "load"] = "refuse"
    #: A query gives one row a primary key, and uniqueness is not enforced: set the further rows
    #: aside one by one, or refuse such a collection.
    duplicates: Literal["quarantine", "refuse"] = "quarantine"
    #: Export files only: field -> type as Milvus writes it (``FLOAT_VECTOR``), where the file does
    #: not show it.
    fields: dict[str, str] = Field(default_factory=dict)
    #: Export files only: the primary field.
    primary: str = "id"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        at = urlsplit(self.url if self.url is None or "://" in self.url else f"http://{self.url}")
        if self.url and (at.scheme not in ("http", "https") or at.path not in ("", "/")):
            raise ValueError(
                "url is http(s)://host:port of a server; the database goes to database, a milvus-lite file is served by milvus-lite"
            )
        if self.uri and len(self.collections or []) > 1:
            raise ValueError("export files hold one collection; name that one in collections")
        checked(self.fields)
        if self.insecure:
            raise ValueError(
                "gRPC cannot skip the check of a certificate; name the server's own with ca_file"
            )
        return self

    def _files(self) -> BulkFiles:
        assert self.uri is not None
        one = self.collections[0] if self.collections else ""
        return BulkFiles(
            uri=self.uri,
            shard_bytes=self.shard_bytes,
            collection=one,
            primary=self.primary,
            fields=self.fields,
        )

    @contextmanager
    def _connected(self, context: Context) -> Iterator[Connection]:
        assert self.url is not None
        metadata = client.metadata(self.secret(), self.database)
        with Connection(
            self.url,
            metadata,
            timeout=self.timeout,
            ca_file=self.ca_file,
            ask=lambda action: self.ask(action, context),
        ) as connection:
            yield connection

    def judge(self, error: Exception) -> SourceError | None:
        """Say what an error of a call means."""
        return client.judge(error, self.place)

    def _shown(self, name: str) -> str:
        return name if self.database == "default" else f"{self.database}/{name}"

    def _told(self, connection: Connection) -> list[Told]:
        return [
            told(connection, name)
            for name in self.chosen(connection.call("ShowCollections").collection_names)
        ]

    @contextmanager
    def session(self) -> Iterator[Json]:
        """Load what is not loaded, where the job file allows it.

        Release the same at the end, also after an error.
        """
        done: list[tuple[Told, list[str | None]]] = []
        if self.uri or self.load == "refuse":
            yield None
            return
        with self._connected(Context()) as connection:
            try:
                for one in self._told(connection):
                    if parts := unloaded(connection, one):
                        done.append((one, parts))
                        client.load(connection, one, parts)
                yield {one.name: list[Json](parts) for one, parts in done}
            finally:
                for one, parts in done:
                    release(connection, one, parts)

    def shards(self, context: Context) -> list[Shard]:
        """Cut each partition of each collection at every n-th primary key."""
        if self.uri:
            return self._files().shards(context)
        with self._connected(context) as connection:
            collections = self._told(connection)
            for one in collections:
                if parts := unloaded(connection, one):
                    which = (
                        ""
                        if len(parts) == len(one.partitions)
                        else f": partition {', '.join(map(str, parts))}"
                    )
                    raise SourceError(
                        f"collection {self._shown(one.name)} is not loaded{which}",
                        "load it, or set source.load: load, which loads it for the run (the server needs the memory) and releases it at the end",
                    )
            return [
                shard
                for one in collections
                for part in one.partitions
                for shard in self._cut(connection, one, part)
            ]

    def _cut(self, connection: Connection, one: Told, part: str | None) -> Iterator[Shard]:
        whole = Range(one.name, one.layout.primary.name, part)
        before = count_rows(connection, whole)
        sample = next(pages(connection, whole, ["*"], PageSize(_SAMPLED, _SAMPLED, MIB)), None)
        row_bytes = (
            1024 if sample is None else 1 + sample.ByteSize() // len(keys_of(sample, whole.primary))
        )
        each = max(1, self.shard_bytes // row_bytes, -(-before // _MOST_SHARDS))
        cuts: list[Key | None] = [None]
        seen = 0
        for page in pages(
            connection, whole, [whole.primary], PageSize(MOST_ROWS, MOST_ROWS, 8 * MIB)
        ):
            keys = keys_of(page, whole.primary)
            cuts += [keys[index] for index in range(-seen % each, len(keys), each) if seen + index]
            seen += len(keys)
        beyond = min(before, count_rows(connection, whole)) - seen
        if beyond > 0 and self.duplicates == "refuse":
            raise SourceError(
                f"collection {self._shown(one.name)} holds {beyond} rows more than it gives in queries: duplicate primary keys",
                "delete the duplicates, or set source.duplicates: quarantine",
            )
        shown = self._shown(one.name)
        for number, (low, high) in enumerate(pairwise([*cuts, None]) if before or seen else ()):
            rows = each if high is not None else seen - each * number
            yield Shard(
                f"{shown}#{number:06d}" if part is None else f"{shown}#{part}#{number:06d}",
                {"partition": part, "from": low, "to": high, "keys": rows},
                rows=None if beyond > 0 else rows,
                size=rows * row_bytes,
                collection=shown,
            )

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read a range page by page, then set aside what is counted in it and was not given."""
        if self.uri:
            yield from self._files().read(shard, context)
            return
        where: dict[str, Any] = dict(shard.where)
        part = where["partition"]
        with self._connected(context) as connection:
            one = told(connection, shard.collection.removeprefix(self._shown("")))
            over = Range(one.name, one.layout.primary.name, part, where["from"], where["to"])
            aim = min(context.batch_bytes, _PAGE)
            size = PageSize(max(1, aim * where["keys"] // max(1, shard.size)), MOST_ROWS, aim)
            for item in everything(connection, over, size):
                if isinstance(item, Reject):
                    yield item
                else:
                    yield from records_of(
                        item, one.layout, shard.collection, part, context.batch_bytes
                    )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count each collection, and say what the server says of it."""
        if self.uri:
            return self._files().describe(context, shards)
        collections, notes = [], []
        with self._connected(context) as connection:
            for one in self._told(connection):
                shown = self._shown(one.name)
                rows = count_rows(connection, Range(one.name, one.layout.primary.name))
                keys = sum(
                    int(str(shard.where["keys"])) for shard in shards if shard.collection == shown
                )
                collections.append(
                    schema.collection(shown, one, rows, indexes(connection, one.name))
                )
                notes += schema.notes(shown, one, rows - keys)
        size = sum(shard.size for shard in shards)
        return Description(
            None,
            sum(one.rows or 0 for one in collections),
            True,
            size,
            "per-shard live",
            tuple(notes),
            tuple(collections),
        )

    def count(self, context: Context) -> int | None:
        """Count the rows, duplicates too: each is read, or set aside."""
        if self.uri:
            return None
        with self._connected(context) as connection:
            return sum(
                count_rows(connection, Range(one.name, one.layout.primary.name))
                for one in self._told(connection)
            )

    def search(self, collection: str, vector: list[float], k: int) -> list[str]:
        """Search the collection's only float vector field of that width."""
        if self.uri:
            return super().search(collection, vector, k)
        with self._connected(Context()) as connection:
            return nearest(
                connection, told(connection, collection.removeprefix(self._shown(""))), vector, k
            )
