"""Nearest neighbours as PostgreSQL itself finds them, for comparison with the target."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from cfray.errors import CannotFilter, SourceError
from cfray.sources.base import FieldEquals, Metric
from cfray.sources.postgres.catalog import list_vector_indexes
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.describe import index_metric
from cfray.sources.postgres.names import quote_name, quote_text
from cfray.sources.postgres.tables import Table
from cfray.sources.postgres.types import Column

_OPERATORS: dict[Metric, str] = {"cosine": "<=>", "l2": "<->", "dot": "<#>"}
#: Tags of ids by the type of the key.
_TAGS = {"int2": "i", "int4": "i", "int8": "i", "oid": "i", "decimal": "i", "uuid": "u"}


def search_nearest(
    connection: Connection,
    table: Table,
    vector: Sequence[float],
    k: int,
    where: FieldEquals | None = None,
) -> list[str]:
    """Find the k nearest rows by the distance of the column's index, else by cosine.

    Raises:
        SourceError: the table has not one column of such vectors, or not one column as its key.
        CannotFilter: the condition is not on a column of text.
    """
    column = _choose_column(table, len(vector))
    if len(table.key) != 1:
        raise SourceError(
            f"{table.relation.name} has no key of a single column to name what is found",
            "search a table with a primary key of one column",
        )
    indexes = list_vector_indexes(connection, table.relation)
    operator = _OPERATORS[index_metric(column, indexes) or "cosine"]
    key = next(item for item in table.columns if item.name == table.key[0])
    literal = f"{quote_text(json.dumps([*vector]))}::{column.type}"
    condition = "" if where is None else _condition(table, where)
    rows = connection.ask(
        f"SELECT t.{quote_name(key.name)}::text FROM {table.relation.sql} AS t "
        f"{condition}ORDER BY t.{quote_name(column.name)} {operator} {literal}, 1 LIMIT {k}"
    )
    tag = _TAGS.get(key.decoder, "s")
    return [f"{tag}:{row[0]}" for row in rows]


def _condition(table: Table, where: FieldEquals) -> str:
    columns = [column for column in table.columns if column.path == where.path]
    if len(columns) != 1 or not pa.types.is_string(columns[0].arrow):
        raise CannotFilter(
            f"{where.name} of {table.relation.name} is no column of text",
            "compare such searches by hand",
        )
    return f"WHERE t.{quote_name(columns[0].name)}::text = {quote_text(where.text)} "


def _choose_column(table: Table, width: int) -> Column:
    columns = [
        column for column in table.columns if column.is_dense and column.dimension in (width, None)
    ]
    if len(columns) != 1:
        names = ", ".join(column.name for column in columns) or "none"
        raise SourceError(
            f"{table.relation.name} has not one column of vectors of {width} numbers ({names})",
            "search a table with one such column",
        )
    return columns[0]
