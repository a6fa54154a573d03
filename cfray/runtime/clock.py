"""The time of day as it is written into reports, receipts and sessions.

Seconds that are compared come from the monotonic clock instead: this one may be set back.
"""

from __future__ import annotations

import calendar
import time

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def utc_now() -> str:
    """Give the time in UTC, to the second: ``2026-11-28T20:15:00Z``."""
    return time.strftime(_FORM, time.gmtime())


def seconds_of(time_in_utc: str) -> float:
    """Give a time that ``utc_now`` wrote as seconds since 1970.

    Raises:
        ValueError: it is no such time.
    """
    return calendar.timegm(time.strptime(time_in_utc, _FORM))
