"""A table as it is read: its columns, its key, and the query that gives some of its rows.

Plan and read both look it up under their own transaction; a digest in the shard shows whether
the columns are still those of the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cfray.errors import SourceError
from cfray.records.record import canonical
from cfray.sources.base import Shard
from cfray.sources.postgres.catalog import Relation, fetch_key, fetch_types
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.names import quote_name, quote_text
from cfray.sources.postgres.types import Column, describe_column, place_columns


@dataclass(frozen=True, slots=True)
class Table:
    """A relation with its columns.

    Attributes:
        relation: what is read.
        columns: all of them, in the table's order.
        key: names of the columns that no two rows share; none where there are no such columns.
        key_has_nulls: whether a column of the key may be null: the job file names it.
    """

    relation: Relation
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    key_has_nulls: bool

    @property
    def digest(self) -> str:
        """Give a digest of what the columns are called, what they are, and what the key is."""
        described = [[column.name, column.type] for column in self.columns]
        content = canonical([described, list(self.key)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def key_list(self) -> str:
        """Write the columns of the key, for an ORDER BY."""
        return ", ".join(f"t.{quote_name(name)}" for name in self.key)

    def range_condition(self, low: Sequence[str] | None, high: Sequence[str] | None) -> str:
        """Write the condition of a range of keys; empty where both ends are open.

        A key with a null is in exactly one range, too: behind a bound only where the comparison
        says so.
        """
        conditions = []
        if low is not None:
            conditions.append(f"{self._row()} >= {self._bound(low)}")
        if high is not None:
            below = f"{self._row()} < {self._bound(high)}"
            if self.key_has_nulls:
                below = f"({self._row()} >= {self._bound(high)}) IS NOT TRUE"
            conditions.append(below)
        return " AND ".join(conditions)

    def condition_of(self, shard: Shard) -> str:
        """Write the condition of a shard that is a range of keys."""
        low, high = shard.where["low"], shard.where["high"]
        return self.range_condition(
            [str(value) for value in low] if isinstance(low, list) else None,
            [str(value) for value in high] if isinstance(high, list) else None,
        )

    def _row(self) -> str:
        names = self.key_list()
        return f"({names})" if len(self.key) > 1 else names

    def _bound(self, values: Sequence[str]) -> str:
        types = {column.name: column.type for column in self.columns}
        literals = [
            f"{quote_text(value)}::{types[name]}"
            for name, value in zip(self.key, values, strict=True)
        ]
        return f"({', '.join(literals)})" if len(literals) > 1 else literals[0]

    def select(self, source: str, condition: str, *, in_order: bool) -> str:
        """Write the query of some rows.

        Args:
            source: how FROM names the table that holds them.
            condition: of the rows; empty for all.
            in_order: whether they come in the order of the key.
        """
        expressions = ", ".join(
            column.cast.format(f"t.{quote_name(column.name)}") for column in self.columns
        )
        query = f"SELECT {expressions} FROM {source} AS t"
        if condition:
            query += f" WHERE {condition}"
        if in_order and self.key:
            query += f" ORDER BY {self.key_list()}"
        return query


def fetch_table(connection: Connection, relation: Relation) -> Table:
    """Look up what a relation's columns and its key are.

    Raises:
        SourceError: two columns of a query share a name, or the job file names a key that there is
            not.
    """
    settings = connection.settings
    described = connection.settings.send_request(
        lambda: connection.columns(relation.sql), connection.context
    )
    names = [name for name, _, _ in described]
    if len(set(names)) < len(names):
        raise SourceError(
            f"{relation.name} has several columns of one name: "
            f"{', '.join(sorted({name for name in names if names.count(name) > 1}))}",
            "give each column of source.query its own name with AS",
        )
    key, key_has_nulls = fetch_key(connection, relation), False
    if not key and settings.key:
        key, key_has_nulls = tuple(settings.key), True
    missing = [name for name in key if name not in names]
    if missing:
        raise SourceError(
            f"{relation.name} has no column {', '.join(missing)}", "correct source.key"
        )
    columns = _describe(connection, described)
    return Table(relation, tuple(place_columns(columns, key)), key, key_has_nulls)


def _describe(connection: Connection, described: Sequence[tuple[str, int, int]]) -> list[Column]:
    types = fetch_types(connection, (number for _, number, _ in described))
    if not described:
        return []
    texts = ", ".join(
        f"pg_catalog.format_type({number}, {modifier})" for _, number, modifier in described
    )
    (type_texts,) = connection.ask(f"SELECT {texts}")
    return [
        describe_column(name, number, modifier, types, str(text))
        for (name, number, modifier), text in zip(described, type_texts, strict=True)
    ]
