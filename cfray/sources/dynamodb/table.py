"""What DynamoDB says of a table: its keys, its size, and what is worth keeping of its settings.

DynamoDB's own counts of items and bytes are six hours old (API reference, "TableDescription"):
they size a plan and never prove anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from cfray.errors import SourceError
from cfray.records.record import canonical
from cfray.sources.dynamodb.errors import NoPermission
from cfray.sources.dynamodb.settings import DynamoDBSettings

T = TypeVar("T")


class SendRequest(Protocol):
    """``RemoteSource.send_request``, bound to the budget of a run."""

    def __call__(self, action: Callable[[], T], /) -> T:
        """Send one request."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as DynamoDB describes it.

    Attributes:
        name: of the table.
        key: names of the key attributes: the partition key, then the sort key.
        pin: tells this table from a later one of the same name.
        items: number of items some hours ago.
        size: bytes some hours ago; 0 where nothing is known yet.
        facts: its settings, as text.
    """

    name: str
    key: tuple[str, ...]
    pin: str
    items: int = 0
    size: int = 0
    facts: dict[str, str] = field(default_factory=dict)


def list_tables(client: Any, send: SendRequest) -> Iterator[str]:
    """List the names of all tables, page by page."""
    start: dict[str, str] = {}
    while True:
        answer = send(partial(client.list_tables, **start))
        yield from answer.get("TableNames", ())
        last_name = answer.get("LastEvaluatedTableName")
        if not last_name:
            return
        start = {"ExclusiveStartTableName": last_name}


def choose_tables(settings: DynamoDBSettings, client: Any, send: SendRequest) -> list[str]:
    """Give the names of the tables to read, sorted.

    A credential that may not list tables may read those that the job file names.

    Raises:
        SourceError: there is no such table, or none at all.
    """
    try:
        available = list(list_tables(client, send))
    except NoPermission:
        if not settings.collections:
            raise
        return sorted(set(settings.collections))
    return settings.choose_collections(available)


def describe_table(settings: DynamoDBSettings, client: Any, send: SendRequest, name: str) -> Table:
    """Describe a table.

    Raises:
        SourceError: there is no such table, it is not ready, or its keys are not those that the
            job file names.
    """
    answer = send(partial(client.describe_table, TableName=name))["Table"]
    status = answer.get("TableStatus", "ACTIVE")
    if status in ("CREATING", "DELETING", "INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ARCHIVED"):
        raise SourceError(
            f"the table {name} of {settings.address} is {status}",
            "wait until it is ACTIVE, or restore it; then run the same command again",
        )
    key = _key_names(answer["KeySchema"])
    if settings.key and tuple(settings.key) != key:
        raise SourceError(
            f"the table {name} has the key {list(key)}, the job file names {settings.key}",
            "leave source.key out: a live table says its key itself",
        )
    return Table(
        name,
        key,
        str(answer.get("TableId") or answer.get("CreationDateTime")),
        int(answer.get("ItemCount") or 0),
        int(answer.get("TableSizeBytes") or 0),
        _facts(answer),
    )


def _key_names(schema: list[dict[str, str]]) -> tuple[str, ...]:
    by_kind = {element["KeyType"]: element["AttributeName"] for element in schema}
    return tuple(by_kind[kind] for kind in ("HASH", "RANGE") if kind in by_kind)


def _facts(answer: dict[str, Any]) -> dict[str, str]:
    """Write down the settings of a table that its items do not show."""
    types = {
        attribute["AttributeName"]: attribute["AttributeType"]
        for attribute in answer.get("AttributeDefinitions", ())
    }
    facts = {
        "key schema": canonical(
            [
                {**element, "AttributeType": types.get(element["AttributeName"], "")}
                for element in answer["KeySchema"]
            ]
        )
    }
    for fact, name in (
        ("global secondary indexes", "GlobalSecondaryIndexes"),
        ("local secondary indexes", "LocalSecondaryIndexes"),
    ):
        indexes = [_index(index, types) for index in answer.get(name) or ()]
        if indexes:
            facts[fact] = canonical(indexes)
    billing = (answer.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED")
    facts["billing mode"] = billing
    throughput = answer.get("ProvisionedThroughput") or {}
    if billing == "PROVISIONED" and throughput.get("ReadCapacityUnits"):
        facts["read capacity units"] = str(throughput["ReadCapacityUnits"])
    stream = answer.get("StreamSpecification") or {}
    if stream.get("StreamEnabled"):
        facts["stream"] = str(stream.get("StreamViewType"))
    if answer.get("TableArn"):
        facts["table arn"] = str(answer["TableArn"])
    return facts


def _index(index: dict[str, Any], types: dict[str, str]) -> dict[str, object]:
    projection = index.get("Projection") or {}
    return {
        "name": index["IndexName"],
        "key": [
            {**element, "AttributeType": types.get(element["AttributeName"], "")}
            for element in index["KeySchema"]
        ],
        "projection": projection.get("ProjectionType", ""),
        "attributes": sorted(projection.get("NonKeyAttributes") or ()),
    }


def describe_expiry(client: Any, send: SendRequest, name: str) -> tuple[str | None, str | None]:
    """Give the attribute after whose time DynamoDB deletes items; None where there is none.

    Returns:
        The attribute, and a note where DynamoDB did not say it.
    """
    try:
        answer = send(partial(client.describe_time_to_live, TableName=name))
    except SourceError as error:
        if error.transient:
            raise
        return None, f"{name}: its time to live could not be seen ({error.what})"
    description = answer.get("TimeToLiveDescription") or {}
    if description.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        return str(description.get("AttributeName")), None
    return None, None
