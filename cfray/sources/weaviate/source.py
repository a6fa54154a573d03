"""Weaviate: a shard is a range of UUIDs of one collection, or of one of its tenants.

The cursor walks a range upwards; the nil UUID is seen only without a cursor.  Reading an
inactive tenant wakes it where the collection allows that, and a migration must not change its
source: states are looked at first, and no tenant is woken unless the job file says so.

Sources: https://docs.weaviate.io/weaviate/manage-objects/read-all-objects and
https://docs.weaviate.io/weaviate/manage-collections/tenant-states
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.columns import split_by_bytes
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, FieldEquals, Json, Session, Shard
from cfray.sources.paging import fetch_ahead
from cfray.sources.weaviate import export
from cfray.sources.weaviate.batches import build_page
from cfray.sources.weaviate.client import Connection, open_connection
from cfray.sources.weaviate.describe import (
    alias_notes,
    common_references,
    describe_collection,
    vector_notes,
)
from cfray.sources.weaviate.pages import Cursor, format_id
from cfray.sources.weaviate.ranges import split_ids
from cfray.sources.weaviate.sample import take_sample
from cfray.sources.weaviate.schema import (
    Definition,
    check_exact,
    check_searchable,
    parse_definition,
)
from cfray.sources.weaviate.settings import WeaviateSettings
from cfray.sources.weaviate.tenants import SourceCollection, select_active, wake_tenants

#: Shards of one collection at most.
_MAX_SHARDS = 4_096


class Weaviate(WeaviateSettings):
    """A Weaviate server, 1.27 or newer, or the folder of its Parquet export."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Wake the inactive tenants if the job file says so, and restore their states at the end.

        The job file says so with ``inactive_tenants: activate``.
        """
        if self.inactive_tenants != "activate":
            yield Session()
            return
        with (
            open_connection(self, Context()) as connection,
            wake_tenants(self, connection) as woken_tenants,
        ):
            yield Session(state={"woken": list[Json](woken_tenants)})

    def _open_cursor(self, connection: Connection, collection: Definition, tenant: str) -> Cursor:
        return Cursor(connection, collection, tenant, self.consistency_level or "")

    def shards(self, context: Context) -> list[Shard]:
        """Cut each collection, or tenant, into ranges of about ``shard_bytes``."""
        if self.uri:
            return export.plan_shards(self)
        shards: list[Shard] = []
        with open_connection(self, context) as connection:
            definitions = connection.fetch_definitions()
            for active in select_active(self, connection)[0]:
                definition = parse_definition(definitions[active.collection])
                cursor = self._open_cursor(connection, definition, active.tenant)
                shards += self._cut_collection(cursor, active)
        return shards

    def _cut_collection(self, cursor: Cursor, active: SourceCollection) -> list[Shard]:
        rows = cursor.connection.count_objects(cursor.collection.name, cursor.tenant)
        first_id, row_bytes, widths = take_sample(cursor, rows)
        if first_id is None:
            return []
        shard_count = min(_MAX_SHARDS, math.ceil(rows * row_bytes / self.shard_bytes))
        last_ids: list[str] = []
        if shard_count > 1:
            last_ids = list(map(format_id, split_ids(cursor.ids_after, first_id, shard_count)))
        shard_rows = math.ceil(rows / (len(last_ids) + 1))
        return [
            Shard(
                f"{active.name}#{after or format_id(0)}",
                {
                    "class": cursor.collection.name,
                    "tenant": cursor.tenant,
                    "alias": active.alias,
                    "after": after,
                    "until": until,
                    "rows": shard_rows,
                    "row_bytes": row_bytes,
                    "widths": dict[str, Json](widths),
                },
                size=shard_rows * row_bytes,
                collection=active.name,
            )
            # an empty id is an open end
            for after, until in pairwise(["", *last_ids, ""])
        ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read a range of ids page by page."""
        if self.uri:
            yield from export.read_shard(self, shard, context)
            return
        where: Any = shard.where
        with open_connection(self, context) as connection:
            collection = self._check_readable(connection, shard)
            cursor = self._open_cursor(connection, collection, where["tenant"])
            for page in fetch_ahead(cursor.read_range(where, context.batch_bytes)):
                if isinstance(page, Reject):
                    yield page
                elif page.objects:
                    records = build_page(
                        collection,
                        page.objects,
                        page.references,
                        where["widths"],
                        with_times=self.object_times,
                    )
                    yield from split_by_bytes(records, context.batch_bytes)

    def _check_readable(self, connection: Connection, shard: Shard) -> Definition:
        """Give the definition of a shard's collection.

        Raises:
            SourceError: the collection is gone, its alias stands for another one, or its tenant is
                inactive, and reading would wake the tenant.
        """
        where: Any = shard.where
        name, tenant = where["class"], where["tenant"]
        definition = connection.fetch_definitions().get(name)
        if definition is None:
            raise SourceError(
                f"{self.address} has no collection {name} any more",
                "correct source.collections, or plan anew",
            )
        # a plan of an earlier version has no alias
        alias = where.get("alias")
        if alias and (current_name := connection.resolve_alias(alias)) != name:
            raise SourceError(
                f"the alias {alias} of {self.address} stood for {name} when the plan was made, "
                f"and now stands for {current_name or 'nothing'}",
                f"let it stand for {name} until this run has ended, or plan anew",
            )
        state = connection.fetch_tenant_state(name, tenant) if tenant else "ACTIVE"
        if state != "ACTIVE":
            raise SourceError(
                f"tenant {shard.collection} of {self.address} is {state} now",
                "activate it, or write source.inactive_tenants: activate",
            )
        return parse_definition(definition)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count every collection, and carry its definition over."""
        base = super().describe(context, shards)
        if self.uri:
            return export.describe_export(self, base, shards)
        with open_connection(self, context) as connection:
            definitions, aliases = connection.fetch_definitions(), connection.fetch_aliases()
            active, skipped = select_active(self, connection)
            widths: dict[str, Any] = {shard.collection: shard.where["widths"] for shard in shards}
            collections = [
                describe_collection(
                    collection,
                    connection.count_objects(collection.collection, collection.tenant),
                    definitions,
                    widths.get(collection.name, {}),
                    aliases,
                )
                for collection in active
            ]
        declared = {
            collection.name: parse_definition(definitions[collection.collection])
            for collection in active
        }
        notes = [
            *alias_notes(active),
            *(f"skipped, because not active: {tenant}" for tenant in skipped),
            *(f"woken for this run: {tenant}" for tenant in _woken_tenants(context)),
            *vector_notes(declared, widths),
        ]
        return replace(
            base,
            rows=sum(collection.rows or 0 for collection in collections),
            exact=True,
            consistency="per-shard live",
            notes=tuple(notes),
            collections=tuple(collections),
            references=common_references(collections),
        )

    def count(self, context: Context) -> int | None:
        """Count the objects of the collections and tenants that are read."""
        if self.uri:
            return sum(shard.rows or 0 for shard in export.plan_shards(self))
        with open_connection(self, context) as connection:
            return sum(
                connection.count_objects(active.collection, active.tenant)
                for active in select_active(self, connection)[0]
            )

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search the index of the column ``vector``, else that of the first named vector."""
        if self.uri:
            return super().search(collection, vector, k, where)
        chosen = self.model_copy(update={"collections": [collection]})
        with open_connection(self, Context()) as connection:
            (searched, *_), _ = select_active(chosen, connection)
            declared = connection.fetch_definitions()[searched.collection]
            if where is not None:
                check_exact(declared, where)
            cursor = self._open_cursor(connection, parse_definition(declared), searched.tenant)
            return cursor.search(np.asarray(vector, "<f4").tobytes(), k, where)

    def search_words(
        self, collection: str, words: str, field: tuple[str, ...], k: int
    ) -> list[str]:
        """Search a property of texts by BM25."""
        if self.uri:
            return super().search_words(collection, words, field, k)
        chosen = self.model_copy(update={"collections": [collection]})
        with open_connection(self, Context()) as connection:
            (searched, *_), _ = select_active(chosen, connection)
            declared = connection.fetch_definitions()[searched.collection]
            name = ".".join(field)
            check_searchable(declared, name)
            cursor = self._open_cursor(connection, parse_definition(declared), searched.tenant)
            return cursor.search_words(words, name, k)


def _woken_tenants(context: Context) -> list[Json]:
    woken = context.session.get("woken") if isinstance(context.session, dict) else None
    return woken if isinstance(woken, list) else []
