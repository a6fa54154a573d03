"""Say what a plan can know of tables without reading them: sizes, settings, costs, and traps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cfray.sources.base import Collection, Description, Shard
from cfray.sources.dynamodb.pages import UNIT_BYTES, Scanner, Segment
from cfray.sources.dynamodb.settings import DynamoDBSettings
from cfray.sources.dynamodb.table import Table

_LIVE = (
    "a scan is no snapshot: what is written during the run may be missed or read in either state; "
    "an export to S3 is the only consistent copy of a table"
)


def describe_collection(
    settings: DynamoDBSettings, scanner: Scanner, table: Table
) -> tuple[Collection, bool]:
    """Describe a table, and count its items where one page holds them all.

    Returns:
        The collection, and whether its rows are counted.
    """
    page = next(scanner.scan(Segment(table.name, 0, 1), only_count=True))
    rows = page.count if page.is_last else table.items or None
    vectors = {name: (declared.dimension, None) for name, declared in settings.vectors.items()}
    return Collection(table.name, rows, vectors=vectors, facts=table.facts), page.is_last


def describe_tables(
    settings: DynamoDBSettings,
    collections: Sequence[tuple[Collection, bool]],
    shards: Sequence[Shard],
    notes: Sequence[str],
) -> Description:
    """Put the description of a source of tables together."""
    rows = [collection.rows for collection, _ in collections]
    size = sum(shard.size for shard in shards)
    return Description(
        schema=None,
        rows=None if None in rows else sum(count or 0 for count in rows),
        # a count of the moment, which no shard's rows confirm
        exact=False,
        size=size,
        consistency="per-shard live",
        notes=(*_notes(settings, collections, size), *notes),
        collections=tuple(collection for collection, _ in collections),
    )


def _notes(
    settings: DynamoDBSettings, collections: Sequence[tuple[Collection, bool]], size: int
) -> Iterator[str]:
    yield _LIVE
    estimated = [collection.name for collection, is_counted in collections if not is_counted]
    if estimated:
        yield (
            f"the number of items of {', '.join(estimated[:20])} is DynamoDB's own, which is up to "
            "six hours old"
        )
    units = size // UNIT_BYTES[settings.consistent_read] + len(collections)
    again = ", and as many to count the items after the copy" if settings.count_items else ""
    budget = (
        f"at {settings.read_capacity:g} units a second"
        if settings.read_capacity
        else "without a limit but DynamoDB's throttling (source.read_capacity)"
    )
    yield f"read capacity units, an estimate: {units:,} for reading{again}, {budget}"
    if not settings.consistent_read:
        yield "reads are eventually consistent: a write of the last second may be missing"
    for name, declared in settings.vectors.items():
        if declared.dtype is None:
            yield f"vectors.{name}: lists of numbers are read as float32"
    if settings.api_key and not settings.is_encrypted:
        yield "requests travel unencrypted: source.url is not https"


def with_expiry(table: Table, attribute: str | None) -> Table:
    """Add the attribute of the time to live to a table's facts."""
    if attribute is None:
        return table
    return replace(table, facts={**table.facts, "time to live attribute": attribute})


def expiry_note(name: str, attribute: str) -> str:
    """Say what a time to live means for a read."""
    return (
        f"{name}: items whose {attribute} has passed and that DynamoDB has not deleted yet are "
        "read like all others"
    )
