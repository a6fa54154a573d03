"""Ranges of primary keys, their filters, and the order in which keys must come.

Keys that are strings are ordered by their UTF-8 bytes, as Milvus orders them.  Nothing here
sends a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

from cfray.errors import SourceError

Key: TypeAlias = int | str

#: The least and the greatest integer that a primary key may be.
LEAST, GREATEST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The records of a collection with primary keys from ``low`` to before ``high``.

    Attributes:
        collection: its name.
        primary: name of the primary field.
        partition: its name; None for all partitions.
        low: the first key; None for no limit.
        high: the first key behind the range; None for no limit.
    """

    collection: str
    primary: str
    partition: str | None = None
    low: Key | None = None
    high: Key | None = None

    @property
    def filter(self) -> str:
        """Write the filter of the range.

        The least integer is left out, because the server's parser takes its literal for no int64.
        """
        conditions = []
        if self.low is not None and self.low != LEAST:
            conditions.append(f"{self.primary} >= {format_key(self.low)}")
        if self.high is not None:
            conditions.append(f"{self.primary} < {format_key(self.high)}")
        return " and ".join(conditions)

    def filter_behind(self, last_key: Key) -> str:
        """Write the filter for the records of the range behind a key."""
        if isinstance(last_key, int):
            condition = f"{self.primary} >= {last_key + 1}"
        else:
            condition = f"{self.primary} > {format_key(last_key)}"
        if self.high is None:
            return condition
        return f"{condition} and {self.primary} < {format_key(self.high)}"

    def check_order(
        self, keys: Sequence[Key], previous_key: Key | None, *, may_repeat: bool
    ) -> None:
        """Check that the keys of a page ascend, behind the key before them and in the range.

        Args:
            keys: of the page, at least one.
            previous_key: the last key of the page before, or the start of the range.
            may_repeat: whether the first key may be ``previous_key``, as at the start of the range.

        Raises:
            SourceError: they do not, so that rows would be lost.
        """
        ranks: list[Any] = [order_of(key) for key in keys]
        in_order = all(rank < next_rank for rank, next_rank in pairwise(ranks))
        if previous_key is not None:
            previous_rank: Any = order_of(previous_key)
            in_order &= previous_rank < ranks[0] or (may_repeat and previous_rank == ranks[0])
        if self.high is not None:
            in_order &= ranks[-1] < order_of(self.high)
        if not in_order:
            raise SourceError(
                f"collection {self.collection} was not given in the order of its primary keys "
                f"(after {previous_key!r}: {keys[0]!r} to {keys[-1]!r})",
                "rows would be lost: report this with the server's version; "
                "milvus-lite 3 and servers before 2.3 are not supported",
            )

    def split_at(self, key: Key) -> tuple[KeyRange, KeyRange]:
        """Cut the range before a key."""
        return replace(self, high=key), replace(self, low=key)

    def only(self, key: Key) -> KeyRange:
        """Give the range of a single key."""
        return replace(self, low=key, high=next_key(key))

    def without(self, key: Key) -> Iterator[KeyRange]:
        """Give what remains of the range before and behind a key, where keys can be."""
        if key not in (self.low, LEAST, ""):
            yield replace(self, high=key)
        behind = next_key(key)
        if behind is not None and behind != self.high:
            yield replace(self, low=behind)


def format_key(key: Key) -> str:
    """Write a key as the filter language does."""
    return str(key) if isinstance(key, int) else json.dumps(key, ensure_ascii=False)


def order_of(key: Key) -> int | bytes:
    """Give what keys are ordered by: strings by their UTF-8 bytes."""
    return key if isinstance(key, int) else key.encode()


def next_key(key: Key) -> Key | None:
    """Give the least key behind a key; None behind the greatest integer."""
    if isinstance(key, str):
        return f"{key}\0"
    return None if key == GREATEST else key + 1
