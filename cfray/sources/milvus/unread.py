"""Find the rows that the server counts in a range and no query gives.

Uniqueness of primary keys is not enforced, and a query gives one row for a key; servers of 2.3
never give the greatest int64.  The rows are found by halving the range while the counts differ,
and each becomes a reject, so that a read accounts for every row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from cfray.records.record import Reject
from cfray.sources.milvus.client import Connection
from cfray.sources.milvus.keys import Key, KeyRange, format_key
from cfray.sources.milvus.queries import count_rows, query_range
from cfray.sources.milvus.types import keys_of


def find_unread(
    connection: Connection, key_range: KeyRange, keys: Sequence[Key], counted_rows: int
) -> Iterator[KeyRange | Reject]:
    """Find the rows of a range that are counted and were not read.

    Args:
        connection: to the server.
        key_range: the range.
        keys: those that were read, in order.
        counted_rows: rows of the range.

    Yields:
        A range with rows that were written meanwhile and can be read, or a Reject for each row
        that cannot.
    """
    if counted_rows <= len(keys):
        return
    if len(keys) > 1:
        middle = len(keys) // 2
        lower, upper = key_range.split_at(keys[middle])
        for half, half_keys in ((lower, keys[:middle]), (upper, keys[middle:])):
            yield from find_unread(connection, half, half_keys, count_rows(connection, half))
        return
    for key in keys:
        yield from _reject_duplicates(connection, key_range, key)
    for gap in key_range.without(keys[0]) if keys else [key_range]:
        if keys_of(query_range(connection, gap, [key_range.primary], 1), key_range.primary):
            yield gap
        else:
            for _ in range(count_rows(connection, gap)):
                yield _reject(
                    key_range,
                    keys[0] if keys else None,
                    "a row behind this key that the server counts and no query gives",
                )


def _reject_duplicates(connection: Connection, key_range: KeyRange, key: Key) -> Iterator[Reject]:
    for _ in range(count_rows(connection, key_range.only(key)) - 1):
        yield _reject(
            key_range,
            key,
            "a duplicate primary key: a query gives one row for a key, and not a defined row",
        )


def _reject(key_range: KeyRange, key: Key | None, reason: str) -> Reject:
    content = json.dumps({key_range.primary: key}, ensure_ascii=False).encode()
    key_text = "" if key is None else format_key(key)
    return Reject(reason, f"{key_range.collection}: {key_range.primary} {key_text}", content)
