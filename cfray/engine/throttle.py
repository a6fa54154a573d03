"""The budget of requests that all workers of a run share.

A store's limit is the whole run's, so one bucket keeps it: a plain object where
there is one process, a Ray actor where there are many.  Sources only see the
``Throttle`` in their context, and know nothing of Ray.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from cfray.embedders.endpoint import Budgets
from cfray.embedders.spec import Endpoint
from cfray.runtime.throttle import Throttle, Unlimited
from cfray.sources.base import Source

#: Seconds of requests that may be sent at once after a quiet time.
_BURST = 1.0


class Bucket:
    """Hands out turns: each request gets the moment at which it may be sent."""

    def __init__(self, rate: float | None) -> None:
        """Start full.

        Args:
            rate: requests a second; None: only pauses that the store asks for.
        """
        self.rate = rate
        self._next = 0.0
        self._lock = threading.Lock()

    def turn(self, requests: float, now: float) -> float:
        """Take a turn and give the seconds to wait for it."""
        with self._lock:
            start = max(self._next, now - (_BURST if self.rate else 0.0))
            self._next = start + (requests / self.rate if self.rate else 0.0)
            return max(0.0, start - now)

    def hold_off(self, seconds: float, now: float) -> None:
        """Give no turn before this time is over."""
        with self._lock:
            self._next = max(self._next, now + seconds)


class LocalBudget:
    """The budget of one process."""

    def __init__(self, rate: float | None) -> None:
        """Start full."""
        self._bucket = Bucket(rate)

    def take(self, requests: float = 1) -> None:
        """Wait for a turn."""
        time.sleep(self._bucket.turn(requests, time.monotonic()))

    def hold_off(self, seconds: float) -> None:
        """Let nobody send for a while."""
        self._bucket.hold_off(seconds, time.monotonic())


class SharedBudget:
    """The budget of a run: a handle on the actor that keeps it; pickles."""

    def __init__(self, actor: Any) -> None:  # a Ray actor handle, which has no type of its own
        """Keep the handle."""
        self._actor = actor

    def take(self, requests: float = 1) -> None:
        """Wait for a turn; the clock is the actor's, so that workers' clocks need not agree."""
        import ray

        time.sleep(ray.get(self._actor.turn.remote(requests)))

    def hold_off(self, seconds: float) -> None:
        """Let no worker send for a while."""
        import ray

        ray.get(self._actor.hold_off.remote(seconds))


class _Keeper:
    """The actor's body: a bucket and its clock."""

    def __init__(self, rate: float | None) -> None:
        self._bucket = Bucket(rate)

    def turn(self, requests: float) -> float:
        return self._bucket.turn(requests, time.monotonic())

    def hold_off(self, seconds: float) -> None:
        self._bucket.hold_off(seconds, time.monotonic())


def local_budget(source: Source) -> Throttle:
    """Give the budget of a source that one process reads."""
    return LocalBudget(source.request_rate) if source.is_remote else Unlimited()


def shared_budget(source: Source) -> Throttle:
    """Give the budget of a source that the workers of a cluster read."""
    return _kept(source.request_rate) if source.is_remote else Unlimited()


def for_endpoint(spec: Endpoint | None, *, alone: bool = False) -> Budgets:
    """Give the budgets of requests and of tokens of a server that embeds; ``alone``.

    For this process only.
    """
    if spec is None:
        return Budgets(Unlimited(), Unlimited())
    rates = [rate and rate / 60 for rate in (spec.requests_per_minute, spec.tokens_per_minute)]
    requests, tokens = (LocalBudget(rate) if alone else _kept(rate) for rate in rates)
    return Budgets(requests, tokens)


def _kept(rate: float | None) -> Throttle:
    """Let an actor keep a budget."""
    import ray

    # an actor that dies starts anew with a full bucket: a second's burst too many, and no shard
    # fails for it
    keeper = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Keeper)
    return SharedBudget(keeper.remote(rate))
