"""How a table is cut into shards: ranges of its key, else ranges of its blocks.

A range of keys holds a row whatever snapshot it is read under, as long as the row keeps its key.
A range of blocks does not: an update moves a row.  So a range of blocks is read only while every
row is where the plan's snapshot saw it (``blocks.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cfray.errors import SourceError
from cfray.sources.base import Json, Shard
from cfray.sources.postgres.catalog import TABLE, Leaf, Relation, list_leaves
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.names import quote_name
from cfray.sources.postgres.tables import Table, fetch_table

#: Shards of one table at most.
_MAX_SHARDS = 4_000
#: How many times the shards that a table needs its earlier division may have (a choice).
_MOST_CUTS_KEPT = 4
#: Bytes that a row is taken for where the catalog knows no size (views, foreign tables, queries).
_DEFAULT_ROW_BYTES = 1_024
#: Rows above which the bounds come from a sample of the blocks, for reading all keys of 20 million
#: rows takes half a minute; and the keys of that sample.
_SAMPLED_ROWS, _SAMPLE_KEYS = 20_000_000, 200_000


def plan_relation(
    connection: Connection, relation: Relation, earlier: Sequence[Shard] = ()
) -> list[Shard]:
    """Cut a relation into shards.

    Args:
        connection: under the session's snapshot.
        relation: to be cut.
        earlier: shards that the source was cut into before; where they are ranges of this
            relation's keys, it is cut at the same keys.

    Raises:
        SourceError: it cannot be divided as the job file asks.
    """
    table = fetch_table(connection, relation)
    partition = connection.settings.partition
    if partition == "key" and not table.key:
        raise SourceError(
            f"{relation.name} has no primary key, nor another unique key without nulls",
            "name the columns that no two rows share with source.key, or set source.partition: "
            "blocks",
        )
    leaves = [] if relation.oid is None else list_leaves(connection, relation)
    if not leaves:
        leaves = [Leaf(relation.name, relation.sql, relation.kind, 0, 0, 0, 0)]
    shards: list[Shard] = []
    for leaf in leaves:
        by_blocks = partition == "blocks" or not table.key
        if by_blocks and leaf.kind == TABLE:
            shards += _cut_blocks(connection, table, leaf)
        elif partition == "blocks":
            raise SourceError(
                f"{leaf.name} is no table of rows, so it has no blocks to divide it by",
                "set source.partition: key, and name its key with source.key",
            )
        else:
            shards += _cut_keys(connection, table, leaf, earlier)
    return shards


def _prefix(table: Table, leaf: Leaf) -> str:
    name = table.relation.name
    return name if leaf.name == name else f"{name}/{leaf.name}"


def _where(table: Table, leaf: Leaf) -> dict[str, Json]:
    names = table.relation.table
    return {
        "table": None if names is None else [*names],
        "from": leaf.sql,
        "columns": table.digest,
    }


def _cut_keys(
    connection: Connection, table: Table, leaf: Leaf, earlier: Sequence[Shard]
) -> Iterator[Shard]:
    """Cut at every n-th key; a relation without a key is one shard."""
    rows = int(str(connection.ask(f"SELECT count(*) FROM {leaf.sql} AS t")[0][0]))
    if not rows:
        return
    row_bytes = max(1, leaf.size // rows) if leaf.size else _DEFAULT_ROW_BYTES
    shard_bytes = connection.settings.shard_bytes
    shard_rows = max(1, shard_bytes // row_bytes, -(-rows // _MAX_SHARDS))
    cuts: list[tuple[str, ...]] = []
    if table.key:
        cuts = _earlier_cuts(table, leaf, earlier)
        wanted = rows // shard_rows + 1
        if not wanted <= 2 * (len(cuts) + 1) <= 2 * _MOST_CUTS_KEPT * wanted:
            cuts = []
        cuts += _find_cuts(connection, table, leaf, shard_rows, cuts[-1] if cuts else None)
    prefix = _prefix(table, leaf)
    for number, (low, high) in enumerate(pairwise([None, *cuts, None])):
        yield Shard(
            f"{prefix}#{number:06d}",
            _where(table, leaf)
            | {"low": None if low is None else [*low], "high": None if high is None else [*high]},
            size=min(rows, shard_rows) * row_bytes,
            collection=table.relation.name,
            splittable=bool(table.key),
        )


def _earlier_cuts(table: Table, leaf: Leaf, earlier: Sequence[Shard]) -> list[tuple[str, ...]]:
    """Find the keys at which a table was cut; none where not all of its ranges are known."""
    mine = [
        (shard.where["low"], shard.where["high"])
        for shard in sorted(earlier, key=lambda shard: shard.id)
        if _where(table, leaf).items() <= shard.where.items() and "low" in shard.where
    ]
    lows, highs = [low for low, _ in mine], [high for _, high in mine]
    if not mine or lows[0] is not None or highs != [*lows[1:], None]:
        return []
    return [tuple(map(str, low)) for low in lows if isinstance(low, list)]


def _find_cuts(
    connection: Connection,
    table: Table,
    leaf: Leaf,
    shard_rows: int,
    after: tuple[str, ...] | None,
) -> list[tuple[str, ...]]:
    """Find the first key of each shard behind one; of each but the first where there is none.

    The last range of an earlier division may grow to two shards before it is cut.
    """
    source, step = f"{leaf.sql} AS t", shard_rows
    condition = table.range_condition(after, None)
    where = f" WHERE {condition}" if condition else ""
    rows = int(str(connection.ask(f"SELECT count(*) FROM {source}{where}")[0][0]))
    if rows <= (shard_rows if after is None else 2 * shard_rows):
        return []
    if rows > _SAMPLED_ROWS and leaf.kind == TABLE:
        share = min(1.0, _SAMPLE_KEYS / rows)
        source += f" TABLESAMPLE SYSTEM ({100 * share:.6f}) REPEATABLE (7)"
        step = max(1, round(shard_rows * share))
    aliases = [f"k{number}" for number in range(len(table.key))]
    texts = ", ".join(
        f"t.{quote_name(name)}::text AS {alias}"
        for name, alias in zip(table.key, aliases, strict=True)
    )
    query = (
        f"SELECT {', '.join(aliases)} FROM (SELECT {texts}, "
        f"row_number() OVER (ORDER BY {table.key_list()}) - 1 AS n FROM {source}{where}) AS s "
        f"WHERE n > 0 AND n % {step} = 0 ORDER BY n"
    )
    found = connection.ask(query)
    # keys with nulls come last, and bound nothing
    return [tuple(map(str, key)) for key in dict.fromkeys(found) if None not in key]


def _cut_blocks(connection: Connection, table: Table, leaf: Leaf) -> Iterator[Shard]:
    """Cut into ranges of blocks; the last range is open."""
    count = max(1, min(_MAX_SHARDS, leaf.blocks, leaf.size // connection.settings.shard_bytes))
    edges = [leaf.blocks * number // count for number in range(count)]
    planned = connection.view()
    prefix = _prefix(table, leaf)
    for first, end in pairwise([*edges, None]):
        yield Shard(
            f"{prefix}#b{first:010d}",
            _where(table, leaf)
            | {"blocks": [first, end], "filenode": leaf.filenode, "planned": planned},
            size=leaf.size // count,
            collection=table.relation.name,
        )
