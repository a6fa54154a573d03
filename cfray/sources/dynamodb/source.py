"""DynamoDB: a parallel scan of live tables, or the files of an export to S3.

A shard is a segment of a table's scan (``Segment`` of ``TotalSegments``).  The service offers no
snapshot of a scan; its export does, and is read from its files with their checksums compared.

Source: Amazon DynamoDB API Reference, "Scan"; Developer Guide, "DynamoDB data export to Amazon
S3".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources import paging
from cfray.sources.base import Context, Description, Shard
from cfray.sources.dynamodb import describe, export, plan
from cfray.sources.dynamodb.client import open_client
from cfray.sources.dynamodb.pages import Page, Scanner, Segment
from cfray.sources.dynamodb.records import RecordBuilder
from cfray.sources.dynamodb.settings import DynamoDBSettings
from cfray.sources.dynamodb.table import (
    SendRequest,
    choose_tables,
    describe_expiry,
    describe_table,
)
from cfray.sources.dynamodb.types import WireItem

T = TypeVar("T")

#: Bytes of answers that a batch is made of: a page is 1 MB at most, and every batch costs.
_GATHERED_BYTES = 8 * MIB
#: Segments whose items are counted at once.
_PARALLEL_COUNTS = 8


class DynamoDB(DynamoDBSettings):
    """Tables of a DynamoDB endpoint (``url`` or ``region``), or exports to S3 (``uri``)."""

    def _bind_budget(self, context: Context) -> SendRequest:
        def send(action: Callable[[], T]) -> T:
            return self.send_request(action, context)

        return send

    @contextmanager
    def _open_scanner(self, context: Context) -> Iterator[tuple[Any, SendRequest, Scanner]]:
        with open_client(self) as client:
            yield client, self._bind_budget(context), Scanner(client, self, context)

    def shards(self, context: Context) -> list[Shard]:
        """Cut every table into segments, or pack the files of the exports."""
        if self.uri:
            return export.plan_shards(self, context)
        with self._open_scanner(context) as (client, send, scanner):
            return [
                shard
                for name in choose_tables(self, client, send)
                for shard in plan.plan_table(
                    self, scanner, describe_table(self, client, send, name)
                )
            ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Scan one segment; the next page is fetched during the conversion."""
        builder = RecordBuilder(plan.key_of(shard), self.vectors, shard.collection, context)
        if self.uri:
            yield from export.read_shard(shard, builder)
            return
        with self._open_scanner(context) as (client, send, scanner):
            plan.check_same_table(shard, describe_table(self, client, send, shard.collection))
            pages = paging.fetch_ahead(scanner.scan(plan.segment_of(shard)))
            for items in _gather(pages, min(context.batch_bytes, _GATHERED_BYTES)):
                yield from builder.build(items)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what DynamoDB knows of each table, and what reading it costs."""
        if self.uri:
            return export.describe_exports(self, shards)
        collections, notes = [], []
        with self._open_scanner(context) as (client, send, scanner):
            for name in choose_tables(self, client, send):
                attribute, note = describe_expiry(client, send, name)
                table = describe.with_expiry(describe_table(self, client, send, name), attribute)
                collections.append(describe.describe_collection(self, scanner, table))
                notes += [note] if note else []
                notes += [describe.expiry_note(name, attribute)] if attribute else []
        return describe.describe_tables(self, collections, shards, notes)

    def count(self, context: Context) -> int | None:
        """Count the items by a scan that gives no items; None for exports, which are pinned.

        DynamoDB's own count is up to six hours old and proves nothing.
        """
        if self.uri or not self.count_items:
            return None
        with self._open_scanner(context) as (client, send, scanner):
            segments = [
                Segment(name, number, _PARALLEL_COUNTS)
                for name in choose_tables(self, client, send)
                for number in range(_PARALLEL_COUNTS)
            ]
            with ThreadPoolExecutor(_PARALLEL_COUNTS) as pool:
                return sum(pool.map(partial(_count_segment, scanner), segments))


def _count_segment(scanner: Scanner, segment: Segment) -> int:
    return sum(page.count for page in scanner.scan(segment, only_count=True))


def _gather(pages: Iterator[Page], size: int) -> Iterator[list[WireItem]]:
    """Gather the items of several pages, up to about so many bytes."""
    items: list[WireItem] = []
    gathered = 0
    for page in pages:
        items += page.items
        gathered += page.size
        if gathered >= size and items:
            yield items
            items, gathered = [], 0
    if items:
        yield items
