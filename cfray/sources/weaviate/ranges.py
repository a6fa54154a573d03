"""Cut the ids of a collection into ranges of about as many objects each.

UUIDs that users make are skewed (counters fill the lowest range only), and the server needs
a scan to count a range.  So the cursor is asked at some ids how far the next 32 ids reach,
which tells how dense they are.  A wrong estimate makes shards uneven, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

#: (number, limit) -> the next ids behind the number, ascending, at most ``limit``.
IdsAfter: TypeAlias = Callable[[int, int], list[int]]

#: Ids that one look at the density asks for.
_LOOK_ROWS = 32
#: Looks that a plan may take (about 1.5 ms each).
_MAX_LOOKS = 2_000
#: Looks at one range of ids, and how much denser than the sparsest look the densest may be.
_LOOKS_A_RANGE, _EVEN_ENOUGH = 4, 4


class _IdRange(NamedTuple):
    low: int
    high: int
    rows: float


def split_ids(ids_after: IdsAfter, first_id: int, shards: int) -> list[int]:
    """Find the last id of each range but the last.

    Args:
        ids_after: (id, n) -> the next n ids.
        first_id: the lowest id.
        shards: how many ranges.

    Returns:
        Ids, ascending; fewer than ``shards``.
    """
    ranges = _estimate_ranges(ids_after, first_id)
    shard_rows = sum(id_range.rows for id_range in ranges) / shards
    last_ids: list[int] = []
    rows_before = 0.0
    for low, high, rows in ranges:
        while len(last_ids) < shards - 1 and rows:
            cut_row = shard_rows * (len(last_ids) + 1)
            if cut_row >= rows_before + rows:
                break
            last_ids.append(low + int((high - low) * ((cut_row - rows_before) / rows)))
        rows_before += rows
    return sorted(set(last_ids))


def highest_id(ids_after: IdsAfter, first_id: int) -> int:
    """Find the highest id, or a little more: the cursor goes upwards only."""
    low, high = first_id, 2**128 - 1
    while high - low > (low - first_id) // 1000:
        middle = (low + high) // 2
        next_ids = ids_after(middle, 1)
        low, high = (next_ids[-1], high) if next_ids else (low, middle)
    return max(low, high)


def _estimate_ranges(ids_after: IdsAfter, first_id: int) -> list[_IdRange]:
    """Halve the ids until each range is about evenly dense, and estimate the rows of each."""
    pending = [(first_id, highest_id(ids_after, first_id))]
    ranges, looks = [], 0
    while pending:
        low, high = pending.pop()
        starts = sorted(
            {low + (high - low) * look // _LOOKS_A_RANGE for look in range(_LOOKS_A_RANGE)}
        )
        densities = [_density(ids_after, start, high) for start in starts]
        looks += len(starts)
        is_even = max(densities) <= _EVEN_ENOUGH * min(densities)
        if is_even or high - low <= _LOOK_ROWS or looks >= _MAX_LOOKS:
            rows = (high - low + 1) * sum(densities) / len(densities)
            ranges.append(_IdRange(low, high, rows))
        else:
            middle = (low + high) // 2
            pending += [(low, middle), (middle + 1, high)]
    return sorted(ranges)


def _density(ids_after: IdsAfter, start: int, high: int) -> float:
    """Give the ids for each number behind ``start``."""
    next_ids = ids_after(start, _LOOK_ROWS)
    if len(next_ids) == _LOOK_ROWS and next_ids[-1] <= high:
        return _LOOK_ROWS / (next_ids[-1] - start)
    return sum(next_id <= high for next_id in next_ids) / max(1, high - start)
