"""Choose some of many, evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """Choose some items evenly, the first and the last among them; of ``count`` 1 the first."""
    if count == 1:
        return list(items[:1])
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / (count - 1)
    return [items[round(number * step)] for number in range(count)]
