"""Which servers took part in a test run, and which could not.

A missing one is a skip with its reason, named again in the last lines of the run; it never counts
as passed. ``CFRAY_REQUIRE_SERVERS`` (``all``, or names with commas) makes it a failure instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import pytest

from tests.testbeds.server import Unavailable

T = TypeVar("T")

NOT_RUN: dict[str, str] = {}


def is_required(name: str) -> bool:
    """Tell whether a missing server is a failure."""
    names = {part.strip() for part in os.environ.get("CFRAY_REQUIRE_SERVERS", "").split(",")}
    return bool(names & {"all", name})


@contextmanager
def taking_part(name: str, server: AbstractContextManager[T]) -> Iterator[T]:
    """Start a server for the tests that asked for it.

    Where it cannot run, note why, and skip the tests or fail them.
    """
    with ExitStack() as stack:
        try:
            started = stack.enter_context(server)
        except Unavailable as missing:
            NOT_RUN[name] = str(missing)
            if is_required(name):
                pytest.fail(
                    f"{name} is required by CFRAY_REQUIRE_SERVERS but cannot run: {missing}",
                    pytrace=False,
                )
            pytest.skip(f"{name}: {missing}")
        yield started


_SHARED: dict[str, tuple[ExitStack, Any]] = {}


def shared(name: str, start: Callable[[], AbstractContextManager[T]]) -> T:
    """Give the server that all tests of its group share; the first of them starts it.

    Args:
        name: of the server in the tests; what stands behind a comma tells two of one kind apart.
        start: starts it.
    """
    if name not in _SHARED:
        stack = ExitStack()
        server = stack.enter_context(taking_part(name.partition(",")[0], start()))
        _SHARED[name] = (stack, server)
    server: T = _SHARED[name][1]
    return server


def stop_shared() -> None:
    """Stop the servers that a group of tests shared."""
    with ExitStack() as stopping:
        while _SHARED:
            stopping.push(_SHARED.popitem()[1][0])


def summary() -> list[str]:
    """Name what could not run, one line each."""
    return [f"  {name}: {reason}" for name, reason in sorted(NOT_RUN.items())]
