"""Which points of a backup stay: the newest, and the last of so many days, weeks and months."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many points stay.

    Attributes:
        last: the newest ones.
        daily, weekly, monthly: the last one of each of so many days (weeks of ISO 8601, months)
            that have one, in UTC.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    @property
    def keeps_all(self) -> bool:
        """Tell whether nothing was asked for: then every point stays."""
        return not (self.last or self.daily or self.weekly or self.monthly)

    def kept(self, names: Sequence[str]) -> set[str]:
        """Choose the points that stay.

        Args:
            names: of all points, the oldest first.
        """
        if self.keeps_all:
            return set(names)
        newest_first = list(reversed(names))
        kept = set(newest_first[: max(1, self.last)])  # never the last one
        periods: list[tuple[int, Callable[[dt.datetime], object]]] = [
            (self.daily, dt.datetime.date),
            (self.weekly, lambda time: time.isocalendar()[:2]),
            (self.monthly, lambda time: (time.year, time.month)),
        ]
        for count, period_of in periods:
            last_of: dict[object, str] = {}
            for name in newest_first:
                last_of.setdefault(period_of(_time_of(name)), name)
            kept.update(list(last_of.values())[:count])
        return kept


def _time_of(name: str) -> dt.datetime:
    # points of one second have a number behind it
    return dt.datetime.strptime(name[:20], "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=dt.UTC)
