"""Plan the shards of a table: segments of a parallel scan.

DynamoDB hashes the partition key to the segment: an item is in the same segment as long as it
exists and the number of segments stays.  So the number stands in the plan, and a table that was
deleted and made again since is refused.  Items of one partition key are all in one segment,
however many they are.
"""

from __future__ import annotations

from cfray.errors import SourceError
from cfray.sources.base import Json, Shard
from cfray.sources.dynamodb.pages import Scanner, Segment
from cfray.sources.dynamodb.settings import DynamoDBSettings
from cfray.sources.dynamodb.table import Table

#: Segments of a table at most where the job file says nothing.
_MAX_SEGMENTS = 4000
#: Segments of a table of which DynamoDB knows no size yet, and which is larger than a page.
_DEFAULT_SEGMENTS = 16


def plan_table(settings: DynamoDBSettings, scanner: Scanner, table: Table) -> list[Shard]:
    """Cut a table into segments of about ``shard_bytes``."""
    size = table.size
    total = settings.segments
    if total is None and not size:
        # a page is at most 1 MB: a table that ends with it has this size
        first_page = next(scanner.scan(Segment(table.name, 0, 1)))
        size = first_page.size
        total = None if first_page.is_last else _DEFAULT_SEGMENTS
    total = total or max(1, min(_MAX_SEGMENTS, -(-size // settings.shard_bytes)))
    digits = max(4, len(str(total)))
    return [
        Shard(
            f"{table.name}#{number:0{digits}d}-of-{total}",
            {
                "segment": number,
                "segments": total,
                "key": list[Json](table.key),
                "table": table.pin,
            },
            size=size // total,
            collection=table.name,
        )
        for number in range(total)
    ]


def segment_of(shard: Shard) -> Segment:
    """Read the segment from a shard."""
    return Segment(
        shard.collection, int(str(shard.where["segment"])), int(str(shard.where["segments"]))
    )


def key_of(shard: Shard) -> tuple[str, ...]:
    """Read the names of the key attributes from a shard."""
    names = shard.where["key"]
    assert isinstance(names, list)
    return tuple(map(str, names))


def check_same_table(shard: Shard, table: Table) -> None:
    """Refuse a table that is not the planned one.

    Raises:
        SourceError: the table was deleted since the plan, and another one made under its name.
    """
    if table.pin != shard.where["table"]:
        raise SourceError(
            f"the table {table.name} is not the planned one: it was deleted and made again",
            "start anew with another target, or restore the table",
        )
