"""Weaviate: a shard is a range of UUIDs of one collection, or of one of its tenants.

The cursor walks a range upwards; the nil UUID is seen only without one.  Reading
an inactive tenant wakes it where the collection says so, and a migration must not
change its source: states are looked at first, and nobody is woken unasked.

Sources: https://docs.weaviate.io/weaviate/manage-objects/read-all-objects and
https://docs.weaviate.io/weaviate/manage-collections/tenant-states
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.formats.columns import pieces
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.remote import RemoteSource, ahead
from cfray.sources.weaviate import client, export, schema, types
from cfray.sources.weaviate.pages import Cursor, cuts, id_of

#: Shards of one collection at most.
_SHARDS = 4_096


class Weaviate(RemoteSource):
    """A Weaviate server, 1.27 or newer, or the folder of its Parquet export."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {
        "grpc_port",
        "grpc_host",
        "consistency_level",
    }

    kind: Literal["weaviate"] = "weaviate"
    #: Port of gRPC; default: 50051, in Weaviate Cloud 443.
    grpc_port: int | None = Field(default=None, ge=1, le=65_535)
    #: Host of gRPC; default: that of ``url``, in Weaviate Cloud its ``grpc-`` twin.
    grpc_host: str | None = Field(default=None, min_length=1)
    #: What to do about tenants that cannot be read as they are, or that an export skipped.
    inactive_tenants: Literal["refuse", "skip", "activate"] = "refuse"
    #: How many replicas must agree on what is read; default: the server's.
    consistency_level: Literal["ONE", "QUORUM", "ALL"] | None = None
    #: Whether records say when their object was made and changed: ``_creation_time`` and
    #: ``_update_time``.
    object_times: bool = True

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.url and urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError("url of a weaviate source starts with http:// or https://")
        if self.insecure:
            raise ValueError(
                "gRPC always checks the server's certificate; name the authority that signed it with ca_file"
            )
        if self.uri and self.inactive_tenants == "activate":
            raise ValueError(
                "an export has no tenants to activate; write inactive_tenants: refuse or skip"
            )
        return self

    def judge(self, error: Exception) -> SourceError | None:
        """Say what an error of the wire means."""
        return client.judged(error, self.place)

    def wire(self, context: Context) -> AbstractContextManager[client.Wire]:
        """Open a connection."""
        assert self.url
        host = urlsplit(self.url).hostname or ""
        cloud = host.endswith(".weaviate.cloud")
        target = f"{self.grpc_host or (f'grpc-{host}' if cloud else host)}:{self.grpc_port or (443 if cloud else 50_051)}"
        key = self.secret()
        return client.opened(
            self.url,
            target,
            key=key,
            ca_file=self.ca_file,
            timeout=self.timeout,
            ask=lambda action: self.ask(action, context),
        )

    @contextmanager
    def session(self) -> Iterator[Json]:
        """Wake the tenants of a job with ``inactive_tenants.

        Activate``, and put them back into their state at its end.
        """
        if self.inactive_tenants != "activate":
            yield None
            return
        with self.wire(Context()) as wire, client.awake(wire, lambda: self._places(wire)) as woken:
            yield {"woken": list[Json](woken)}

    def _places(self, wire: client.Wire) -> list[client.Place]:
        """List what the job reads, whatever its state."""
        definitions = wire.classes()
        there: list[client.Place] = []
        for name in sorted(
            {one.split("/", 1)[0] for one in self.collections or definitions} & set(definitions)
        ):
            if schema.declared(definitions[name]).tenants:
                there += [
                    client.Place(f"{name}/{tenant}", name, tenant, state)
                    for tenant, state in sorted(wire.tenants(name).items())
                ]
            else:
                there.append(client.Place(name, name, "", "ACTIVE"))
        chosen = set(self.chosen({*definitions, *(place.full for place in there)}))
        return [
            place
            for place in there
            if not self.collections or chosen & {place.full, place.collection}
        ]

    def _readable(self, wire: client.Wire) -> tuple[list[client.Place], list[str]]:
        """List what can be read as it is, and name what is skipped."""
        return client.readable(self._places(wire), self.place, skip=self.inactive_tenants == "skip")

    def _cursor(self, wire: client.Wire, declared: schema.Declared, tenant: str) -> Cursor:
        return Cursor(wire, declared, tenant, self.consistency_level or "")

    def shards(self, context: Context) -> list[Shard]:
        """Cut each collection, or tenant, into ranges of about ``shard_bytes``."""
        if self.uri:
            return export.shards(self)
        with self.wire(context) as wire:
            classes = wire.classes()
            readable, _ = self._readable(wire)
            cursors = [
                (
                    self._cursor(wire, schema.declared(classes[place.collection]), place.tenant),
                    place.full,
                )
                for place in readable
            ]
            return [shard for cursor, full in cursors for shard in self._ranges(cursor, full)]

    def _ranges(self, cursor: Cursor, full: str) -> Iterator[Shard]:
        name, tenant = cursor.declared.name, cursor.tenant
        rows = cursor.wire.count(name, tenant)
        first, row_bytes, widths = cursor.sample(rows)
        if first is None:
            return
        parts = min(_SHARDS, math.ceil(rows * row_bytes / self.shard_bytes))
        ends = [id_of(one) for one in cuts(cursor.following, first, parts)] if parts > 1 else []
        about = -(-rows // (len(ends) + 1))
        seen: dict[str, Json] = dict(widths)
        for after, until in zip(["", *ends], [*ends, ""], strict=True):
            place: dict[str, Json] = {
                "class": name,
                "tenant": tenant,
                "after": after,
                "until": until,
            }
            where = place | {"rows": about, "row_bytes": row_bytes, "widths": seen}
            yield Shard(
                f"{full}#{after or id_of(0)}", where, size=about * row_bytes, collection=full
            )

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Walk one range."""
        if self.uri:
            yield from export.read(self, shard, context)
            return
        where: Any = shard.where
        with self.wire(context) as wire:
            definition = wire.classes().get(where["class"])
            if definition is None:
                raise SourceError(
                    f"{self.place} has no collection {where['class']} any more",
                    "correct source.collections, or plan anew",
                )
            if (
                where["tenant"]
                and (state := wire.tenant(where["class"], where["tenant"])) != "ACTIVE"
            ):
                raise SourceError(
                    f"tenant {shard.collection} of {self.place} is {state} now",
                    "activate it, or write source.inactive_tenants: activate",
                )
            declared = schema.declared(definition)
            for page in ahead(
                self._cursor(wire, declared, where["tenant"]).walk(where, context.batch_bytes)
            ):
                if isinstance(page, Reject):
                    yield page
                elif page.objects:
                    yield from pieces(
                        types.batch(
                            declared,
                            page.objects,
                            page.references,
                            where["widths"],
                            times=self.object_times,
                        ),
                        context.batch_bytes,
                    )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count every collection, and carry its definition over."""
        base = super().describe(context, shards)
        if self.uri:
            return export.describe(self, base, shards)
        with self.wire(context) as wire:
            definitions, aliases = wire.classes(), wire.aliases()
            readable, skipped = self._readable(wire)
            widths: dict[str, Any] = {shard.collection: shard.where["widths"] for shard in shards}
            told = [
                schema.told(
                    place.full,
                    wire.count(place.collection, place.tenant),
                    definitions[place.collection],
                    widths.get(place.full, {}),
                    aliases,
                )
                for place in readable
            ]
        notes = [f"skipped, because not active: {one}" for one in skipped]
        woken = context.session.get("woken") if isinstance(context.session, dict) else None
        notes += [f"woken for this run: {one}" for one in woken] if isinstance(woken, list) else []
        told_rows = sum(one.rows or 0 for one in told)
        references = schema.references(
            definitions, [(place.collection, place.tenant) for place in readable]
        )
        return replace(
            base,
            rows=told_rows,
            exact=True,
            consistency="per-shard live",
            notes=tuple(notes),
            collections=tuple(told),
            references=references,
        )

    def count(self, context: Context) -> int | None:
        """Count the objects of all that is read."""
        if self.uri:
            return sum(shard.rows or 0 for shard in export.shards(self))
        with self.wire(context) as wire:
            return sum(
                wire.count(place.collection, place.tenant) for place in self._readable(wire)[0]
            )

    def search(self, collection: str, vector: list[float], k: int) -> list[str]:
        """Ask the index of the column ``vector``, else that of the first named vector."""
        if self.uri:
            return super().search(collection, vector, k)
        name, _, tenant = collection.partition("/")
        with self.wire(Context()) as wire:
            definitions = wire.classes()
            if name not in definitions:
                raise SourceError(
                    f"{self.place} has no collection {name}", "name one of source.collections"
                )
            return self._cursor(wire, schema.declared(definitions[name]), tenant).nearest(
                np.asarray(vector, "<f4").tobytes(), k
            )
