"""The budget of requests as those who send requests see it.

``engine/throttle.py`` owns the shared one.
"""

from __future__ import annotations

from typing import Protocol


class Throttle(Protocol):
    """The budget of requests that all workers of a run share.

    ``stages`` owns it, sources ask it.
    """

    def take(self, requests: float = 1) -> None:
        """Wait until that many more requests may be sent."""

    def hold_off(self, seconds: float) -> None:
        """Let nobody send one for a while.

        The store said Retry-After to one worker and means them all.
        """


class Unlimited:
    """No budget: the store names none, or there is one reader only."""

    def take(self, requests: float = 1) -> None:
        """Never wait."""

    def hold_off(self, seconds: float) -> None:
        """Leave it to the one reader's own retry."""
