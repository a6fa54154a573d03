"""Pages of one segment of a scan, each from where the page before ended.

A page may be empty and still not be the last: only an answer without ``LastEvaluatedKey`` ends a
segment.  The capacity that a page consumed is taken from the run's budget after it, so all
workers together stay within it.

Source: Amazon DynamoDB API Reference, "Scan".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from cfray.errors import SourceError
from cfray.sources.base import Context
from cfray.sources.dynamodb.client import ANSWER_BYTES
from cfray.sources.dynamodb.settings import DynamoDBSettings
from cfray.sources.dynamodb.types import WireItem, request_key
from cfray.sources.paging import PageSize

#: Bytes that DynamoDB reads for a page at most, whatever ``Limit`` says.
PAGE_BYTES = 1024 * 1024
#: Bytes that a capacity unit reads, by whether the read is consistent.
UNIT_BYTES = {True: 4096, False: 8192}
#: Items of the first page under a budget, and of a page at most.
_FIRST_PAGE_ITEMS, _MAX_PAGE_ITEMS = 100, 10_000
#: Pages that may end at the same key before the scan is given up.
_MAX_STANDSTILL = 100


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a table's scan.

    Attributes:
        table: name of the table.
        number: of the segment, from 0.
        total: segments of the table.
    """

    table: str
    number: int
    total: int

    def request(self) -> dict[str, Any]:
        """Give what a request for the segment says."""
        request: dict[str, Any] = {"TableName": self.table}
        if self.total > 1:
            request |= {"Segment": self.number, "TotalSegments": self.total}
        return request


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a segment.

    Attributes:
        items: as they travel.
        count: items that DynamoDB counted in it.
        size: bytes of the answer.
        is_last: whether the segment ends with it.
    """

    items: list[WireItem]
    count: int
    size: int
    is_last: bool


class Scanner:
    """Scans the segments of tables within a run's budget."""

    def __init__(self, client: Any, settings: DynamoDBSettings, context: Context) -> None:
        """Send nothing yet."""
        self._client, self._settings, self._context = client, settings, context

    def scan(self, segment: Segment, *, only_count: bool = False) -> Iterator[Page]:
        """Scan a segment from its start to its end.

        Args:
            segment: of a table.
            only_count: ask for the number of items, not for the items.

        Raises:
            SourceError: DynamoDB refused it, or does not get on.
        """
        page_size = self._page_size()
        start: dict[str, Any] | None = None
        standstill = 0
        while True:
            answer = self._ask(segment, start, page_size, only_count=only_count)
            items = answer.get("Items") or []
            last_key = answer.get("LastEvaluatedKey")
            size = int(answer.get(ANSWER_BYTES) or 0)
            if page_size:
                page_size.adjust(len(items), size)
            yield Page(items, int(answer.get("Count") or 0), size, not last_key)
            if not last_key:
                return
            next_start = request_key(last_key)
            standstill = standstill + 1 if next_start == start else 0
            if standstill and (items or standstill > _MAX_STANDSTILL):
                raise SourceError(
                    f"{self._settings.address}: segment {segment.number} of {segment.total} of "
                    f"{segment.table} ends each page at the same key",
                    "report it with the store's version: rows would be lost or doubled",
                )
            start = next_start

    def _ask(
        self,
        segment: Segment,
        start: dict[str, Any] | None,
        page_size: PageSize | None,
        *,
        only_count: bool,
    ) -> dict[str, Any]:
        request = segment.request() | {
            "ConsistentRead": self._settings.consistent_read,
            "ReturnConsumedCapacity": "TOTAL",
        }
        if start:
            request["ExclusiveStartKey"] = start
        if page_size:
            request["Limit"] = page_size.rows
        if only_count:
            request["Select"] = "COUNT"
        answer: dict[str, Any] = self._settings.send_request(
            partial(self._client.scan, **request), self._context
        )
        if self._settings.read_capacity:
            units = float((answer.get("ConsumedCapacity") or {}).get("CapacityUnits") or 0)
            # the request itself took one
            if units > 1:
                self._context.throttle.take(units - 1)
        return answer

    def _page_size(self) -> PageSize | None:
        """Give pages of a second's budget; without a budget DynamoDB's own pages are the best."""
        if not self._settings.read_capacity:
            return None
        unit = UNIT_BYTES[self._settings.consistent_read]
        target = min(PAGE_BYTES, int(self._settings.read_capacity * unit))
        return PageSize(_FIRST_PAGE_ITEMS, _MAX_PAGE_ITEMS, max(target, unit))
