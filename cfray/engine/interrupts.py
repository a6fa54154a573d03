"""Ctrl-C and SIGTERM: stop cleanly within seconds, and say how to go on.

``ray job stop`` and a cluster's scheduler send SIGTERM; both signals raise
``Interrupted`` in the driver's main thread, between two steps of it.  What is
committed stays; what is staged is adopted by the next run.

A library that happens to run at that moment may swallow the exception (an
``except Exception`` around an import does), so it is also kept, and raised again
at the next step of ours; or it may raise one of its own instead, which then gives way
to the interrupt.  Ray does that while it unpickles, and logs a traceback: its waits
and answers are taken with the interrupt deferred.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cfray.errors import Interrupted

_pending: list[Interrupted] = []
_deferred: list[bool] = []


def check() -> None:
    """Raise the interrupt that a library swallowed, if there was one.

    Raises:
        Interrupted: a signal came.
    """
    if _pending:
        raise _pending[0]


@contextmanager
def deferred() -> Iterator[None]:
    """Raise an interrupt at the end of the block, not inside it.

    For calls that are short (taking an answer is, unless Ray makes a lost one anew).

    Raises:
        Interrupted: a signal came.
    """
    _deferred.append(True)
    try:
        yield
    finally:
        _deferred.pop()
    check()


@contextmanager
def heeded() -> Iterator[None]:
    """Turn both signals into ``Interrupted`` for the block (main thread only).

    Set after Ray set its own handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        check()
        yield
        check()
    except Exception as error:
        if _pending and error is not _pending[0]:
            raise _pending[0] from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _pending.clear()


def _raise(number: int, _frame: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            one, signal.SIG_IGN
        )  # the way out is short; a second signal must not cut it shorter
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    _pending.append(
        Interrupted(
            f"interrupted by {name}",
            "run the same command again: it goes on where this one stopped",
            128 + number,
        )
    )
    if not _deferred:
        check()
