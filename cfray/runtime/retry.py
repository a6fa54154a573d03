"""The one retry policy: transient errors are tried again with growing pauses, terminal ones never.

What is retried is always a whole shard, one request for a page or a whole
small effect, so a retry starts anew and never from a half-consumed stream (the
way the nearest peer loses rows: ``peers.md``, lance-ray).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import stamina

from cfray.errors import CfrayError, SourceUnavailable

T = TypeVar("T")

logger = logging.getLogger("cfray")
logging.getLogger("stamina").setLevel(
    logging.ERROR
)  # it names the function that is tried again; ours says why

ATTEMPTS = 5
#: Seconds of the first pause and of the longest one, and the random part of each.
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 0.5, 30.0, 1.0
#: Seconds that a store may ask for at most: a longer Retry-After (a maintenance window) ends the
#: run, resumably, instead of hanging it.
LONGEST_RETRY_AFTER = 300.0


def retried(action: Callable[[], T]) -> T:
    """Run ``action``; run it anew after a transient error, five times in all.

    Raises:
        CfrayError: a terminal error at once, a transient one after the last attempt.
    """
    for attempt in stamina.retry_context(
        on=_pause,
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=FIRST_PAUSE,
        wait_max=LONGEST_PAUSE,
        wait_jitter=JITTER,
    ):
        with attempt:
            try:
                return action()
            except CfrayError as error:
                if error.transient and attempt.num < ATTEMPTS:
                    logger.warning(
                        "attempt %d of %d failed, trying again: %s",
                        attempt.num,
                        ATTEMPTS,
                        error.what,
                    )
                raise
    raise AssertionError("stamina raises when the attempts are used up")


def _pause(error: Exception) -> bool | float:
    """Say whether an error is tried again.

    After how many seconds where the store named them.
    """
    if isinstance(error, SourceUnavailable) and error.retry_after is not None:
        return error.retry_after if error.retry_after <= LONGEST_RETRY_AFTER else False
    return isinstance(error, CfrayError) and error.transient
