"""The time of day as it is written into reports, receipts and sessions.

Seconds that are compared come from the monotonic clock instead: this one may be set back.
"""

from __future__ import annotations

import time


def utc_now() -> str:
    """Give the time in UTC, to the second: ``2026-11-28T20:15:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
