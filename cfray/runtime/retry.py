"""The one retry policy: transient errors are tried again with growing pauses, terminal ones never.

What is retried is always a shard from its start, one request for a page or one small
effect.  A retry never goes on from a half-consumed stream: that loses rows without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import stamina

from cfray.errors import CfrayError, EmbeddingUnavailable, SourceUnavailable

T = TypeVar("T")

logger = logging.getLogger("cfray")
# stamina's log line names the function that is tried again; the line below says why.
logging.getLogger("stamina").setLevel(logging.ERROR)

ATTEMPTS = 5
#: Seconds of the first pause and of the longest pause, and the random share of each.
FIRST_PAUSE, LONGEST_PAUSE, JITTER = 0.5, 30.0, 1.0
#: Seconds that a server may ask for at most: a longer Retry-After (a maintenance window) ends the
#: run, resumably, instead of hanging it.
LONGEST_RETRY_AFTER = 300.0


def run_with_retries(action: Callable[[], T]) -> T:
    """Run ``action``; run it anew after a transient error, five times in all.

    Raises:
        CfrayError: a terminal error at once, a transient error after the last attempt.
    """
    for attempt in stamina.retry_context(
        on=_pause_after,
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


def _pause_after(error: Exception) -> bool | float:
    """Decide whether an action is run again after an error, as stamina asks for it.

    Returns:
        The seconds that the server asked for, True for the policy's pause, False for no retry.
    """
    if (
        isinstance(error, SourceUnavailable | EmbeddingUnavailable)
        and error.retry_after is not None
    ):
        return error.retry_after if error.retry_after <= LONGEST_RETRY_AFTER else False
    return isinstance(error, CfrayError) and error.transient
