"""Read the HTTP header Retry-After: how long a server asks to be left alone.

Every client of an HTTP server reads the header here, so that a pause means the same
for stores and for embedding servers.  What to do with the pause is ``retry.py``'s matter.

Source: RFC 9110, section 10.2.3: a number of seconds or an HTTP date.
"""

from __future__ import annotations

import datetime as dt
import math
from email.utils import parsedate_to_datetime


def retry_after_seconds(value: str | None) -> float | None:
    """Read the value of a Retry-After header as a pause in seconds.

    Fractions of a second are read, too: some servers send them against the RFC.

    Args:
        value: the header's text; None where the answer has no such header.

    Returns:
        Seconds, 0 or more.  None where there is no pause to keep: no header, a text that is
        neither a number nor a date, a negative number, or a date that has passed.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(http_date: str) -> float:
    """Count the seconds from now to an HTTP date; not a number where it is no date."""
    try:
        moment = parsedate_to_datetime(http_date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return (moment - dt.datetime.now(dt.UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return math.nan
