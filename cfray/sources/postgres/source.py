"""PostgreSQL: a shard is a range of a table's key, or of its blocks, under one snapshot.

The driver exports a snapshot and holds it; every worker imports it and checks that it sees what
the driver saw.  A shard is one COPY in binary, decoded column by column.  A range of keys holds
the same rows under every snapshot, so a resumed run neither loses nor doubles a row; a range of
blocks is checked for that (``blocks.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources import paging
from cfray.sources.base import Context, Description, FieldEquals, Session, Shard
from cfray.sources.postgres import catalog
from cfray.sources.postgres.blocks import block_condition, check_unmoved
from cfray.sources.postgres.catalog import Relation, list_relations
from cfray.sources.postgres.cells import BadCopyError
from cfray.sources.postgres.client import Connection, open_connection
from cfray.sources.postgres.describe import (
    count_rows,
    describe_table,
    referenced_keys,
    table_notes,
)
from cfray.sources.postgres.export import describe_files, read_files
from cfray.sources.postgres.export_plan import plan_files
from cfray.sources.postgres.holder import check_snapshot, hold_snapshot
from cfray.sources.postgres.pages import RowStream, decode_rows, refuse_copy
from cfray.sources.postgres.plan import plan_relation
from cfray.sources.postgres.records import common_references, merge_schemas
from cfray.sources.postgres.search import search_nearest
from cfray.sources.postgres.settings import PostgresSettings
from cfray.sources.postgres.tables import Table, fetch_table
from cfray.sources.postgres.watermark import watermark_of

#: Bytes of rows that a page aims at.
_PAGE_BYTES = 8 * MIB
#: Kinds of relations that can be locked.
_LOCKABLE = (catalog.TABLE, catalog.PARTITIONED, catalog.VIEW)


class Postgres(PostgresSettings):
    """Tables of a PostgreSQL server (14 or later, ``url``), or files that it wrote (``uri``)."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Export a snapshot, and hold it; the tables can be neither changed nor truncated."""
        if self.uri:
            yield Session()
            return
        with open_connection(self, Context()) as connection:
            catalog.check_server(connection)
            relations = list_relations(self, connection)
        names = [relation.sql for relation in relations if relation.kind in _LOCKABLE]
        with hold_snapshot(self, names) as session:
            yield session

    def keep_alive(self, session: Session) -> None:
        """Ask the transaction that holds the snapshot whether it lives."""
        check_snapshot(self, session)

    def shards(self, context: Context) -> list[Shard]:
        """Cut each table at every n-th key, or into ranges of blocks where it has no key."""
        return self.shards_since([], context)

    def shards_since(self, earlier: list[Shard], context: Context) -> list[Shard]:
        """Cut each table where it was cut before, and what has come behind the last key."""
        if self.uri:
            return plan_files(self)
        with open_connection(self, context) as connection:
            catalog.check_server(connection)
            return [
                shard
                for relation in list_relations(self, connection)
                for shard in plan_relation(connection, relation, earlier)
            ]

    def watermark(self, shard: Shard, mark: str, context: Context) -> str | None:
        """Sum the versions of the shard's rows, as the session's snapshot sees them."""
        if self.uri or context.session is None:
            return None
        with open_connection(self, context) as connection:
            return watermark_of(connection, self._planned_table(connection, shard), shard)

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Copy the rows of one range; the next page is fetched during the conversion."""
        if self.uri:
            yield from read_files(self, shard, context)
            return
        with open_connection(self, context) as connection:
            table = self._planned_table(connection, shard)
            query, is_ordered = self._query(connection, table, shard)
            stream = RowStream(
                connection,
                query,
                min(context.batch_bytes, _PAGE_BYTES),
                can_repeat=is_ordered and context.session is not None,
            )
            first = 0
            try:
                for rows in paging.fetch_ahead(stream.pages()):
                    yield from decode_rows(rows, table.columns, shard.id, first, context)
                    first += len(rows)
            except BadCopyError as error:
                raise refuse_copy(error, shard.id) from None

    def _planned_table(self, connection: Connection, shard: Shard) -> Table:
        """Look up the table of a shard.

        Raises:
            SourceError: it is gone, or its columns are not those of the plan.
        """
        names = shard.where["table"]
        relation: Relation | None = None
        if isinstance(names, list):
            relation = catalog.fetch_relation(connection, str(names[0]), str(names[1]))
        elif self.query:
            relation = catalog.query_relation(self)
        if relation is None:
            raise SourceError(
                f"{self.address} has no table {shard.collection} any more",
                "restore it, or start anew with another target",
            )
        table = fetch_table(connection, relation)
        if table.digest != shard.where["columns"]:
            raise SourceError(
                f"the columns or the key of {shard.collection} changed since the plan was made",
                "start anew with another target, so that its columns are planned for",
            )
        return table

    def _query(self, connection: Connection, table: Table, shard: Shard) -> tuple[str, bool]:
        """Write the query of a shard's rows, and say whether they come in an order."""
        source, blocks = str(shard.where["from"]), shard.where.get("blocks")
        if blocks is not None:
            check_unmoved(connection, table.relation, shard)
            return table.select(source, block_condition(blocks), in_order=False), True
        return table.select(source, table.condition_of(shard), in_order=True), bool(table.key)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Count the rows of each table, and say what the catalog says of it."""
        if self.uri:
            return describe_files(shards)
        with open_connection(self, context) as connection:
            tables = [
                fetch_table(connection, relation) for relation in list_relations(self, connection)
            ]
            keys = referenced_keys(connection, tables)
            collections = [describe_table(connection, table, keys) for table in tables]
        schema, notes = merge_schemas([(table.relation.name, table.columns) for table in tables])
        return Description(
            schema=schema,
            rows=sum(collection.rows or 0 for collection in collections),
            exact=True,
            size=sum(shard.size for shard in shards),
            consistency="per-shard live",
            notes=(*notes, *(note for table in tables for note in table_notes(table))),
            collections=tuple(collections),
            references=common_references(collections),
        )

    def count(self, context: Context) -> int | None:
        """Count the rows that the session's snapshot sees; None for files."""
        if self.uri:
            return None
        with open_connection(self, context) as connection:
            return sum(
                count_rows(connection, fetch_table(connection, relation))
                for relation in list_relations(self, connection)
            )

    def search(
        self, collection: str, vector: list[float], k: int, where: FieldEquals | None = None
    ) -> list[str]:
        """Search the table's only column of vectors of that width."""
        if self.uri:
            return super().search(collection, vector, k, where)
        with open_connection(self, Context()) as connection:
            searched = self.model_copy(update={"collections": [collection]})
            table = fetch_table(connection, list_relations(searched, connection)[0])
            return search_nearest(connection, table, vector, k, where)
