"""Read a range of primary keys: each page behind the last key of the page before.

The loop trusts no page: keys must ascend within a page and across pages, and only an empty
page is the end.  A short page is no end, because the server stops where one of its segments
has no more rows in its answer.  ``unread.py`` finds what is counted and not given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from cfray.records.record import Reject
from cfray.sources.milvus.client import Connection, fetch_timestamp
from cfray.sources.milvus.errors import is_too_large
from cfray.sources.milvus.keys import GREATEST, Key, KeyRange
from cfray.sources.milvus.queries import count_rows, query_request
from cfray.sources.milvus.schema import Message
from cfray.sources.milvus.types import keys_of
from cfray.sources.milvus.unread import find_unread
from cfray.sources.paging import PageSize, fetch_ahead


def fetch_pages(
    connection: Connection,
    key_range: KeyRange,
    fields: list[str],
    size: PageSize,
    since: int | None = None,
) -> Iterator[Message]:
    """Give the replies that hold a range.

    Args:
        connection: to the server.
        key_range: the range.
        fields: names of the fields that come.
        size: of the next page.
        since: what was written before this timestamp of the server must be seen; None: before now.

    Raises:
        SourceError: keys come out of order or beyond the range.
    """
    page_filter, previous_key = key_range.filter, key_range.low
    is_first = True
    while True:
        request = partial(query_request, key_range, page_filter, fields, since=since)
        page = _fetch_page(connection, request, size)
        keys = keys_of(page, key_range.primary)
        if not keys:
            return
        key_range.check_order(keys, previous_key, may_repeat=is_first)
        size.adjust(len(keys), page.ByteSize())
        yield page
        previous_key, is_first = keys[-1], False
        if previous_key == GREATEST:
            return
        page_filter = key_range.filter_behind(previous_key)


def _fetch_page(
    connection: Connection, request: Callable[..., dict[str, object]], size: PageSize
) -> Message:
    """Fetch a page, or half of it while it is too large.

    Args:
        connection: to the server.
        request: limit -> the fields of the request.
        size: of the page.
    """

    def send() -> Message | None:
        try:
            return connection.call_once("Query", request(limit=size.rows))
        except Exception as error:
            if size.rows == 1 or not is_too_large(error):
                raise
            return None

    while (page := connection.send_request(send)) is None:
        size.halve()
    return page


def read_range(
    connection: Connection, key_range: KeyRange, size: PageSize
) -> Iterator[Message | Reject]:
    """Give the replies that hold a range, then what is counted in it and was not among them."""
    keys: list[Key] = []
    counted_rows = 0

    def fetch() -> Iterator[Message | int]:
        since = fetch_timestamp(connection)
        yield from fetch_pages(connection, key_range, ["*"], size, since)
        # counted here, so that the count, too, is fetched while a page is converted
        yield count_rows(connection, key_range)

    for answer in fetch_ahead(fetch()):
        if isinstance(answer, int):
            counted_rows = answer
        else:
            keys += keys_of(answer, key_range.primary)
            yield answer
    for unread in find_unread(connection, key_range, keys, counted_rows):
        if isinstance(unread, Reject):
            yield unread
        else:
            yield from fetch_pages(connection, unread, ["*"], size)
