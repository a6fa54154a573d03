"""Ranges of primary keys, and the loop that reads one.

Each page behind the last key of the one before.

The loop trusts no page: keys must ascend, strings by their UTF-8 bytes, within a
page and across pages; only an empty page is the end.  Where the server counts
more rows in a range than it gives, the difference is found by halving and
becomes rejects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.milvus.client import Connection, is_too_large, now
from cfray.sources.milvus.schema import Message
from cfray.sources.milvus.types import keys_of
from cfray.sources.remote import PageSize, ahead

Key: TypeAlias = int | str

LEAST, GREATEST = -(2**63), 2**63 - 1
#: Most rows of one query (Milvus, quotaAndLimits.limits.maxQueryResultWindow).
MOST_ROWS = 16_384
#: What a query must say so that every page is a run of the smallest keys that are left; pymilvus's
#: own iterator says it, too.
_IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True", "ignore_growing": "False"}


@dataclass(frozen=True, slots=True)
class Range:
    """The records of a collection.

    (and partition) with primary keys from ``low`` to before ``high``; None is open.

    Attributes:
        partition: its name; None for all.
    """

    collection: str
    primary: str
    partition: str | None = None
    low: Key | None = None
    high: Key | None = None

    @property
    def expression(self) -> str:
        """Write the filter; the least integer is not written.

        For its literal is no int64 to the server's parser.
        """
        low = (
            ""
            if self.low is None or self.low == LEAST
            else f"{self.primary} >= {literal(self.low)}"
        )
        high = "" if self.high is None else f"{self.primary} < {literal(self.high)}"
        return " and ".join(filter(None, (low, high)))

    def behind(self, last: Key) -> str:
        """Write the filter for what comes after a key."""
        after = (
            f"{self.primary} >= {last + 1}"
            if isinstance(last, int)
            else f"{self.primary} > {literal(last)}"
        )
        return after if self.high is None else f"{after} and {self.primary} < {literal(self.high)}"


def literal(value: Key) -> str:
    """Write a key as the filter language does."""
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def order(value: Key) -> int | bytes:
    """Give what keys are ordered by: strings by their UTF-8 bytes."""
    return value if isinstance(value, int) else value.encode()


def query_request(
    over: Range, expression: str, fields: list[str], limit: int | None, since: int | None = None
) -> dict[str, object]:
    """Give the fields of a query's request.

    ``since``: everything written before this timestamp of the server must be seen; None: before now
    (``Strong``), for which each query waits until the server's clock has ticked, 200 ms by default.
    """
    from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel, KeyValuePair

    flags = {} if limit is None else {"limit": str(limit), **_IN_ORDER}
    return {
        "collection_name": over.collection,
        "partition_names": [] if over.partition is None else [over.partition],
        "expr": expression,
        "output_fields": fields,
        "consistency_level": ConsistencyLevel.Strong
        if since is None
        else ConsistencyLevel.Customized,
        "guarantee_timestamp": since or 0,
        "use_default_consistency": False,
        "query_params": [KeyValuePair(key=key, value=value) for key, value in flags.items()],
    }


def _check_order(over: Range, keys: Sequence[Key], last: Key | None, *, inclusive: bool) -> None:
    ranks: list[Any] = [order(key) for key in keys]
    good = all(one < other for one, other in pairwise(ranks))
    good = good and (
        last is None or order(last) < ranks[0] or (inclusive and order(last) == ranks[0])
    )
    if not good or (over.high is not None and ranks[-1] >= order(over.high)):
        raise SourceError(
            f"collection {over.collection} was not given in the order of its primary keys (after {last!r}: {keys[0]!r} to {keys[-1]!r})",
            "rows would be lost: report this with the server's version; milvus-lite 3 and servers before 2.3 are not supported",
        )


def query(
    connection: Connection,
    over: Range,
    expression: str,
    fields: list[str],
    limit: int | None = None,
) -> Message:
    """Query what is there now (``Strong``): in order of keys, or an aggregate without a limit."""
    return connection.call("Query", **query_request(over, expression, fields, limit))


def count_rows(connection: Connection, over: Range) -> int:
    """Count rows; a duplicate primary key counts as often as it is there."""
    (column,) = query(connection, over, over.expression, ["count(*)"]).fields_data
    return int(column.scalars.long_data.data[0])


def pages(
    connection: Connection, over: Range, fields: list[str], size: PageSize, since: int | None = None
) -> Iterator[Message]:
    """Give the replies that hold a range, each behind the last key of the one before.

    Until one is empty.

    A short page is no end: the server stops where one of its segments has no more rows in its
    answer.

    Raises:
        SourceError: keys out of order or beyond the range.
    """
    expression, last = over.expression, over.low
    first = True
    while True:
        answer = _page(
            connection, partial(query_request, over, expression, fields, since=since), size
        )
        keys = keys_of(answer, over.primary)
        if not keys:
            return
        _check_order(over, keys, last, inclusive=first)
        size.learn(len(keys), answer.ByteSize())
        yield answer
        last, first = keys[-1], False
        if last == GREATEST:
            return
        expression = over.behind(last)


def _page(
    connection: Connection, asked: Callable[..., dict[str, object]], size: PageSize
) -> Message:
    def once() -> Message | None:
        try:
            return connection.once("Query", asked(limit=size.rows))
        except Exception as error:
            if size.rows == 1 or not is_too_large(error):
                raise
            return None

    while (answer := connection.ask(once)) is None:
        size.halve()
    return answer


def everything(connection: Connection, over: Range, size: PageSize) -> Iterator[Message | Reject]:
    """Give the replies that hold a range, then what is counted in it and was not among them."""
    keys: list[Key] = []
    there = 0

    def answers() -> Iterator[Message | int]:
        yield from pages(connection, over, ["*"], size, now(connection))
        yield count_rows(
            connection, over
        )  # here, so that it, too, is asked for while a page is converted

    for answer in ahead(answers()):
        if isinstance(answer, int):
            there = answer
        else:
            keys += keys_of(answer, over.primary)
            yield answer
    for left in unread(connection, over, keys, there):
        if isinstance(left, Reject):
            yield left
        else:
            yield from pages(connection, left, ["*"], size)


def unread(
    connection: Connection, over: Range, keys: Sequence[Key], there: int
) -> Iterator[Range | Reject]:
    """Find the rows of a range that are counted and were not read.

    By halving it while the counts differ.

    Uniqueness of keys is not enforced, and a query gives one row a key; servers of 2.3 never give
    the greatest int64.

    Args:
        connection: to the server.
        over: the range.
        keys: those that were read, in order.
        there: rows counted.

    Yields:
        a range with rows that came meanwhile and can be read, or a Reject for each row that cannot.
    """
    if there <= len(keys):
        return
    if len(keys) > 1:
        middle = len(keys) // 2
        for part, some in (
            (replace(over, high=keys[middle]), keys[:middle]),
            (replace(over, low=keys[middle]), keys[middle:]),
        ):
            yield from unread(connection, part, some, count_rows(connection, part))
        return
    for key in keys:
        for _ in range(count_rows(connection, replace(over, low=key, high=_behind(key))) - 1):
            yield _reject(
                over,
                key,
                "a duplicate primary key: a query gives one row a key, and not a defined one",
            )
    for gap in _gaps(over, keys):
        if keys_of(query(connection, gap, gap.expression, [over.primary], 1), over.primary):
            yield gap
        else:
            for _ in range(count_rows(connection, gap)):
                yield _reject(
                    over,
                    keys[0] if keys else None,
                    "a row behind this key that the server counts and no query gives",
                )


def _behind(key: Key) -> Key | None:
    """Give the next key that there may be; None behind the greatest."""
    if isinstance(key, str):
        return f"{key}\0"
    return None if key == GREATEST else key + 1


def _gaps(over: Range, keys: Sequence[Key]) -> Iterator[Range]:
    """Give what is left of a range without at most one key."""
    if not keys:
        yield over
        return
    if keys[0] not in (over.low, LEAST, ""):
        yield replace(over, high=keys[0])
    behind = _behind(keys[0])
    if behind is not None and behind != over.high:
        yield replace(over, low=behind)


def _reject(over: Range, key: Key | None, reason: str) -> Reject:
    content = json.dumps({over.primary: key}, ensure_ascii=False).encode()
    return Reject(
        reason, f"{over.collection}: {over.primary} {'' if key is None else literal(key)}", content
    )
