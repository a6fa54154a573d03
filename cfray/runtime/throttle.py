"""The budget of requests, as the code that sends requests sees it.

``engine/throttle.py`` makes the budget that all workers share, with Ray; this module
knows no Ray, so that sources and embedders need none.
"""

from __future__ import annotations

from typing import Protocol


class Throttle(Protocol):
    """The budget of requests that all workers of a run share."""

    def take(self, requests: float = 1) -> None:
        """Wait until that many more requests may be sent."""

    def hold_off(self, seconds: float) -> None:
        """Let no worker send a request for so many seconds.

        To be called where a server said Retry-After: it tells a single worker and means all.
        """


class UnlimitedThrottle:
    """No budget: the store names none, or there is a single reader."""

    def take(self, requests: float = 1) -> None:
        """Never wait."""

    def hold_off(self, seconds: float) -> None:
        """Do nothing: the single reader's retry waits."""
