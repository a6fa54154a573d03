"""Ranges of blocks under another snapshot than the plan's: read only if nothing has moved.

An update writes a new version of a row where there is room, perhaps in a range that is committed
or in one that is still to be read; then a row would be lost or doubled.  So before such a range
is read, the whole table must hold no version that is younger than the plan's snapshot, and its
file must be that of the plan: VACUUM FULL and CLUSTER write a new one.

Source: https://www.postgresql.org/docs/current/ddl-system-columns.html
"""

from __future__ import annotations

from cfray.errors import SourceError
from cfray.sources.base import Json, Shard
from cfray.sources.postgres.catalog import Relation
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.names import quote_text

_REMEDY = (
    "start anew with --restart, or set source.partition: key, which needs a key and no such check"
)
#: Tables that were found unchanged, with the view that they were found in, by this process.
_unchanged: set[tuple[str, str, str]] = set()


def block_condition(blocks: Json) -> str:
    """Write the condition of a range of blocks; the last range of a table is open."""
    assert isinstance(blocks, list)
    first, end = blocks
    condition = f"t.ctid >= '({first},0)'::tid"
    return condition if end is None else f"{condition} AND t.ctid < '({end},0)'::tid"


def check_unmoved(connection: Connection, relation: Relation, shard: Shard) -> None:
    """Check that the rows of a range of blocks are where the plan saw them.

    Raises:
        SourceError: they may have moved; says what to do.
    """
    where = shard.where
    leaf = str(where["from"]).removeprefix("ONLY ")
    filenode = connection.ask(
        f"SELECT pg_catalog.pg_relation_filenode({quote_text(leaf)}::regclass)"
    )
    if filenode[0][0] != str(where["filenode"]):
        raise SourceError(
            f"{leaf} was written anew since the plan was made (VACUUM FULL, CLUSTER, TRUNCATE)",
            _REMEDY,
        )
    planned, view = str(where["planned"]), connection.view()
    if view == planned or (relation.sql, planned, view) in _unchanged:
        return
    # every transaction below the first number of a view had ended; transactions are numbered with
    # 64 bits in a view, and with 32 in a row
    oldest = int(planned.partition(":")[0]) % 2**32
    age = f"age({quote_text(str(oldest))}::xid)"
    younger = connection.ask(
        f"SELECT EXISTS (SELECT FROM {relation.sql} AS t WHERE age(t.xmin) <= {age})"
    )
    if younger[0][0] == "t":
        raise SourceError(
            f"{relation.name} was written to since the plan was made, and its shards are ranges "
            "of blocks: under another snapshot rows would be lost or doubled",
            _REMEDY,
        )
    _unchanged.add((relation.sql, planned, view))
