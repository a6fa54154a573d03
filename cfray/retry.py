"""The one retry policy: transient errors are tried again with growing pauses, terminal ones never.

What is retried is always a whole shard or a whole small effect, so a retry
starts from the source and never from a half-consumed stream (the way the
nearest peer loses rows: ``peers.md``, lance-ray).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import stamina

from cfray.errors import CfrayError

T = TypeVar("T")

ATTEMPTS = 5
#: Seconds of the first pause and of the longest one; jitter is stamina's own.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


def retried(action: Callable[[], T]) -> T:
    """Run ``action``; run it anew after a transient error, five times in all.

    Raises:
        CfrayError: a terminal error at once, a transient one after the last attempt.
    """
    for attempt in stamina.retry_context(on=_is_transient, attempts=ATTEMPTS, timeout=None, wait_initial=FIRST_PAUSE, wait_max=LONGEST_PAUSE):
        with attempt:
            return action()
    raise AssertionError("stamina raises when the attempts are used up")


def _is_transient(error: Exception) -> bool:
    return isinstance(error, CfrayError) and error.transient
