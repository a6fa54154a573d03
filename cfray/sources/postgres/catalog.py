"""What PostgreSQL's catalog says: tables, their keys, foreign keys, vector indexes and types.

Each function is one query.  Nothing is read of the tables themselves.

Source: https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from cfray.errors import SourceError
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.names import quote_relation, quote_text, source_collection
from cfray.sources.postgres.settings import PostgresSettings

#: Kinds of relations in the catalog: what holds rows of its own, and what is read besides.
TABLE, PARTITIONED, FOREIGN, VIEW, MATERIALIZED = "r", "p", "f", "v", "m"
#: Kinds that are read where the job file names no collection.
_DEFAULT_KINDS = (TABLE, PARTITIONED)

_RELATIONS = """
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition,
  pg_catalog.obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_class'::regclass
    AND d.objid = c.oid AND d.deptype = 'e')
  {condition}
ORDER BY n.nspname, c.relname
"""
#: Unique indexes over columns that hold no null, the primary key first, then the narrowest.
_KEY = """
SELECT json_agg(a.attname ORDER BY k.position)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, position)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
  AND i.indexprs IS NULL AND k.position <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts, c.relname
HAVING bool_and(a.attnotnull)
ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname LIMIT 1
"""
_LEAVES = """
SELECT c.oid, n.nspname, c.relname, c.relkind,
  coalesce(pg_catalog.pg_table_size(c.oid), 0),
  coalesce(pg_catalog.pg_relation_size(c.oid), 0)
    / current_setting('block_size')::bigint,
  coalesce(pg_catalog.pg_relation_filenode(c.oid), 0), greatest(c.reltuples, 0)::bigint
FROM {tree} JOIN pg_catalog.pg_class c ON c.oid = tree.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind <> 'p' ORDER BY n.nspname, c.relname
"""
_FOREIGN_KEYS = """
SELECT f.conname,
  (SELECT json_agg(a.attname ORDER BY k.position)
   FROM unnest(f.conkey) WITH ORDINALITY AS k(number, position)
   JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number),
  f.confrelid, n.nspname, c.relname,
  (SELECT json_agg(a.attname ORDER BY k.position)
   FROM unnest(f.confkey) WITH ORDINALITY AS k(number, position)
   JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number),
  pg_catalog.pg_get_constraintdef(f.oid)
FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class c ON c.oid = f.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.conrelid = {oid} AND f.conparentid = 0 ORDER BY f.conname
"""
_VECTOR_INDEXES = """
SELECT a.attname, o.opcname, pg_catalog.pg_get_indexdef(i.indexrelid)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam
JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = {oid} AND m.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname
"""
_TYPES = """
SELECT t.oid, n.nspname, t.typname, t.typtype, t.typelem, t.typsubscript::text
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid IN ({oids})
   OR t.oid IN (SELECT e.typelem FROM pg_catalog.pg_type e WHERE e.oid IN ({oids}))
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view, foreign table or query that is read as one source collection.

    Attributes:
        name: of the source collection.
        sql: how a FROM clause names it.
        oid: number in the catalog; None for a query.
        kind: letter of the catalog; ``q`` for a query.
        is_partition: whether it is a partition of another table.
        comment: what the database says of it.
        table: its schema and its own name; none for a query.
    """

    name: str
    sql: str
    oid: int | None
    kind: str
    is_partition: bool = False
    comment: str = ""
    table: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table that holds rows itself: the relation, or a partition of it.

    Attributes:
        name: as a source collection would be called.
        sql: how a FROM clause names it, without its children.
        kind: letter of the catalog.
        size: bytes, with what is stored out of line.
        blocks: of its main file.
        filenode: number of that file; another one after its rows were written anew.
        estimated_rows: as the last ANALYZE found; 0 where unknown.
    """

    name: str
    sql: str
    kind: str
    size: int
    blocks: int
    filenode: int
    estimated_rows: int


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns that refer to those of another table."""

    name: str
    columns: tuple[str, ...]
    target_oid: int
    target: str
    target_columns: tuple[str, ...]
    definition: str


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An index of pgvector: its column (empty for an expression), operator class and definition."""

    column: str
    operator_class: str
    definition: str


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """A type: schema, name, letter of its kind, number of its elements' type (0: no array)."""

    schema: str
    name: str
    kind: str
    element: int


def list_relations(settings: PostgresSettings, connection: Connection) -> list[Relation]:
    """List what the job file asks for: tables by default, else what it names, or its query.

    Raises:
        SourceError: there is no such table, or two would share a name.
    """
    if settings.query:
        return [query_relation(settings)]
    available = {
        relation.name: relation
        for relation in _fetch_relations(connection, "")
        if settings.collections or (relation.kind in _DEFAULT_KINDS and not relation.is_partition)
    }
    return [available[name] for name in settings.choose_collections(available)]


def query_relation(settings: PostgresSettings) -> Relation:
    """Give the job file's query as a relation."""
    name = settings.collections[0] if settings.collections else "query"
    # a comment at the end of the query ends before the parenthesis
    return Relation(name, f"(\n{settings.bare_query}\n)", None, "q")


def fetch_relation(connection: Connection, schema: str, table: str) -> Relation | None:
    """Look up one table; None where there is no such table."""
    condition = f"AND n.nspname = {quote_text(schema)} AND c.relname = {quote_text(table)}"
    return next(iter(_fetch_relations(connection, condition)), None)


def _fetch_relations(connection: Connection, condition: str) -> list[Relation]:
    return [
        Relation(
            source_collection(str(schema), str(table)),
            quote_relation(str(schema), str(table)),
            int(str(oid)),
            str(kind),
            is_partition == "t",
            comment or "",
            (str(schema), str(table)),
        )
        for oid, schema, table, kind, is_partition, comment in connection.ask(
            _RELATIONS.replace("{condition}", condition)
        )
    ]


def fetch_key(connection: Connection, relation: Relation) -> tuple[str, ...]:
    """Give the columns of the primary key, else of another unique key without nulls; or none."""
    if relation.oid is None:
        return ()
    rows = connection.ask(_KEY.format(oid=relation.oid))
    return tuple(json.loads(str(rows[0][0]))) if rows else ()


def list_leaves(connection: Connection, relation: Relation) -> list[Leaf]:
    """List the tables that hold the rows of a relation; itself, unless it is partitioned."""
    tree = (
        f"pg_catalog.pg_partition_tree({relation.oid}) AS tree"
        if relation.kind == PARTITIONED
        else f"(SELECT {relation.oid}::oid AS relid) AS tree"
    )
    return [
        Leaf(
            source_collection(str(schema), str(table)),
            ("ONLY " if kind == TABLE else "") + quote_relation(str(schema), str(table)),
            str(kind),
            *(int(str(number)) for number in numbers),
        )
        for _, schema, table, kind, *numbers in connection.ask(_LEAVES.format(tree=tree))
    ]


def list_foreign_keys(connection: Connection, relation: Relation) -> list[ForeignKey]:
    """List the foreign keys of a table."""
    if relation.oid is None:
        return []
    return [
        ForeignKey(
            str(name),
            tuple(json.loads(str(columns))),
            int(str(oid)),
            source_collection(str(schema), str(table)),
            tuple(json.loads(str(target_columns))),
            str(definition),
        )
        for name, columns, oid, schema, table, target_columns, definition in connection.ask(
            _FOREIGN_KEYS.format(oid=relation.oid)
        )
    ]


def list_vector_indexes(connection: Connection, relation: Relation) -> list[VectorIndex]:
    """List the indexes of pgvector on a table."""
    if relation.oid is None:
        return []
    rows = connection.ask(_VECTOR_INDEXES.format(oid=relation.oid))
    return [VectorIndex(column or "", str(name), str(text)) for column, name, text in rows]


def fetch_types(connection: Connection, oids: Iterable[int]) -> dict[int, TypeInfo]:
    """Look up types by their numbers, and the types of their elements."""
    numbers = ", ".join(map(str, sorted(set(oids))))
    if not numbers:
        return {}
    return {
        int(str(oid)): TypeInfo(
            str(schema),
            str(name),
            str(kind),
            # a type of fixed length may have elements without being an array (point, name)
            int(str(element)) if subscript == "array_subscript_handler" else 0,
        )
        for oid, schema, name, kind, element, subscript in connection.ask(
            _TYPES.format(oids=numbers)
        )
    }


def check_server(connection: Connection) -> None:
    """Refuse a server that is too old.

    Raises:
        SourceError: it is older than PostgreSQL 14.
    """
    version = str(connection.ask("SELECT current_setting('server_version_num')")[0][0])
    if int(version) < 140_000:
        raise SourceError(
            f"{connection.settings.address} is PostgreSQL {int(version) // 10_000}",
            "cfray reads PostgreSQL 14 and later; read files that COPY wrote with source.uri",
        )
