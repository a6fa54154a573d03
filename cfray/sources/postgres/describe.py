"""What PostgreSQL says of the tables of a job before any row is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cfray.records.record import canonical
from cfray.sources.base import Collection, Metric
from cfray.sources.postgres.catalog import (
    ForeignKey,
    Relation,
    VectorIndex,
    fetch_key,
    list_foreign_keys,
    list_leaves,
    list_vector_indexes,
)
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.tables import Table
from cfray.sources.postgres.types import Column

#: End of the name of an operator class -> the distance that it compares by.
_METRICS: dict[str, Metric] = {"_cosine_ops": "cosine", "_l2_ops": "l2", "_ip_ops": "dot"}
#: Words for the kinds of relations in the catalog.
_KINDS = {
    "r": "table",
    "p": "partitioned table",
    "f": "foreign table",
    "v": "view",
    "m": "materialized view",
    "q": "query",
}


def count_rows(connection: Connection, table: Table) -> int:
    """Count the rows of a relation exactly."""
    relation = table.relation
    sources = [leaf.sql for leaf in list_leaves(connection, relation)] if relation.oid else []
    counts = (
        connection.ask(f"SELECT count(*) FROM {source} AS t")[0][0]
        for source in sources or [relation.sql]
    )
    return sum(int(str(count)) for count in counts)


def describe_table(
    connection: Connection, table: Table, keys: Mapping[int, tuple[str, ...]]
) -> Collection:
    """Describe a table.

    Args:
        connection: in a transaction.
        table: what is described.
        keys: number of a table -> its key, of the tables that foreign keys refer to.
    """
    relation = table.relation
    indexes = list_vector_indexes(connection, relation)
    foreign_keys = list_foreign_keys(connection, relation)
    facts = {
        "kind": _KINDS[relation.kind],
        "columns": canonical({column.name: column.type for column in table.columns}),
    }
    if table.key:
        facts["key"] = canonical(list(table.key))
    if relation.comment:
        facts["comment"] = relation.comment
    if indexes:
        facts["vector indexes"] = "; ".join(index.definition for index in indexes)
    if foreign_keys:
        facts["foreign keys"] = "; ".join(f"{key.name} {key.definition}" for key in foreign_keys)
    main = next((column for column in table.columns if column.path == ("vector",)), None)
    named = {
        column.name: (column.dimension, index_metric(column, indexes))
        for column in table.columns
        if column.is_dense and column is not main
    }
    return Collection(
        relation.name,
        count_rows(connection, table),
        main.dimension if main else None,
        index_metric(main, indexes) if main else None,
        named,
        facts,
        _references(table, foreign_keys, keys),
    )


def index_metric(column: Column, indexes: Sequence[VectorIndex]) -> Metric | None:
    """Give the distance of a column's index; None without one, or where Lance has none such."""
    for index in indexes:
        if index.column == column.name:
            for ending, metric in _METRICS.items():
                if index.operator_class.endswith(ending):
                    return metric
    return None


def _references(
    table: Table, foreign_keys: Sequence[ForeignKey], keys: Mapping[int, tuple[str, ...]]
) -> dict[str, str]:
    """Say which fields refer to records: a foreign key of one column, to the key of a table."""
    paths = {column.name: ".".join(column.path) for column in table.columns}
    return {
        paths[key.columns[0]]: key.target
        for key in foreign_keys
        if len(key.columns) == 1 and keys.get(key.target_oid) == key.target_columns
    }


def referenced_keys(connection: Connection, tables: Sequence[Table]) -> dict[int, tuple[str, ...]]:
    """Look up the keys of the tables that foreign keys refer to: number of a table -> its key."""
    keys = {table.relation.oid: table.key for table in tables if table.relation.oid}
    for table in tables:
        for foreign_key in list_foreign_keys(connection, table.relation):
            oid = foreign_key.target_oid
            if oid not in keys:
                target = Relation(foreign_key.target, "", oid, "r")
                keys[oid] = fetch_key(connection, target)
    return keys


def table_notes(table: Table) -> list[str]:
    """Say what an operator should know of a table."""
    name = table.relation.name
    notes = []
    if not table.key:
        notes.append(
            f"{name} has no primary key, nor another unique key without nulls: mapping.id has to "
            "name what identifies a record"
        )
    elif len(table.key) > 1:
        notes.append(
            f"{name} has a key of several columns: mapping.id: {{key: [{', '.join(table.key)}]}}"
        )
    return notes
