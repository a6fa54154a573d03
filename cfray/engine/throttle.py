"""The budget of requests that all workers of a run share.

A store's limit counts the requests of the whole run, so a single bucket keeps it: a plain
object where one process reads, a Ray actor where many do.  Sources see only the
``Throttle`` in their context, and know nothing of Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from cfray.embedders.endpoint import Budgets
from cfray.embedders.spec import Endpoint
from cfray.runtime.throttle import Throttle, UnlimitedThrottle
from cfray.sources.base import Source

#: Seconds of requests that may be sent at once after a quiet time.
_BURST = 1.0
#: The actors of the command that is at work; None outside of a command.
_actors_of_command: ContextVar[list[Any] | None] = ContextVar("actors", default=None)


class Bucket:
    """Hands out turns: each request gets the moment at which it may be sent."""

    def __init__(self, rate: float | None) -> None:
        """Start full.

        Args:
            rate: requests a second; None: only pauses that the store asks for.
        """
        self.rate = rate
        self._next_turn = 0.0
        self._lock = threading.Lock()

    def turn(self, requests: float, now: float) -> float:
        """Take a turn and give the seconds to wait for it."""
        with self._lock:
            start = max(self._next_turn, now - (_BURST if self.rate else 0.0))
            self._next_turn = start + (requests / self.rate if self.rate else 0.0)
            return max(0.0, start - now)

    def hold_off(self, seconds: float, now: float) -> None:
        """Give no turn before this time is over."""
        with self._lock:
            self._next_turn = max(self._next_turn, now + seconds)


class LocalBudget:
    """The budget of one process."""

    def __init__(self, rate: float | None) -> None:
        """Start full."""
        self._bucket = Bucket(rate)

    def take(self, requests: float = 1) -> None:
        """Wait for a turn."""
        time.sleep(self._bucket.turn(requests, time.monotonic()))

    def hold_off(self, seconds: float) -> None:
        """Let no thread send for a while."""
        self._bucket.hold_off(seconds, time.monotonic())


class SharedBudget:
    """The budget of a run: a handle on the actor that keeps it; pickles."""

    def __init__(self, actor: Any) -> None:  # Ray gives the handle of an actor no type
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


class _BudgetActor:
    """The actor's body: a bucket and its clock."""

    def __init__(self, rate: float | None) -> None:
        self._bucket = Bucket(rate)

    def turn(self, requests: float) -> float:
        return self._bucket.turn(requests, time.monotonic())

    def hold_off(self, seconds: float) -> None:
        self._bucket.hold_off(seconds, time.monotonic())


def local_budget(source: Source) -> Throttle:
    """Give the budget of a source that one process reads."""
    return LocalBudget(source.request_rate) if source.is_remote else UnlimitedThrottle()


def shared_budget(source: Source) -> Throttle:
    """Give the budget of a source that the workers of a cluster read."""
    return _start_actor(source.request_rate) if source.is_remote else UnlimitedThrottle()


def endpoint_budgets(spec: Endpoint | None, *, is_local: bool = False) -> Budgets:
    """Give the budgets of requests and of tokens of a server that embeds.

    Args:
        spec: the server; None: the model runs in the workers, which need no budget.
        is_local: for this process alone.
    """
    if spec is None:
        return Budgets(UnlimitedThrottle(), UnlimitedThrottle())
    rates = [rate and rate / 60 for rate in (spec.requests_per_minute, spec.tokens_per_minute)]
    requests, tokens = (LocalBudget(rate) if is_local else _start_actor(rate) for rate in rates)
    return Budgets(requests, tokens)


def _start_actor(rate: float | None) -> Throttle:
    """Start the actor that keeps a budget."""
    import ray

    # an actor that dies starts anew with a full bucket: the store gets the burst of one second too
    # many, and no shard fails for it
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_BudgetActor)
    handle = actor.remote(rate)
    actors = _actors_of_command.get()
    if actors is not None:
        actors.append(handle)
    return SharedBudget(handle)


@contextmanager
def ending_budgets() -> Iterator[None]:
    """End the actors that keep the budgets of the block.

    Ray keeps the functions that a program sent out, and with them the handles that they hold, so
    that without this an actor lives as long as the program that called cfray.
    """
    actors: list[Any] = []
    token = _actors_of_command.set(actors)
    try:
        yield
    finally:
        _actors_of_command.reset(token)
        _end(actors)


def _end(actors: list[Any]) -> None:
    import ray

    # a Ray that is gone has ended them
    for actor in actors if ray.is_initialized() else ():
        with suppress(ray.exceptions.RayError):
            ray.kill(actor)
