"""Ctrl-C and SIGTERM: stop cleanly within seconds, and say how to go on.

``ray job stop`` and a cluster's scheduler send SIGTERM.  Both signals raise
``Interrupted`` in the driver's main thread, between two of its steps.  What is committed
stays; what is staged is adopted by the next run.

A library that runs at that moment may swallow the exception (an ``except Exception``
around an import does) or raise another exception instead.  So the interrupt is also
remembered: it is raised again at the driver's next step, and replaces the other exception.
Ray does this while it unpickles, and logs a traceback: the driver waits for Ray and takes
its answers with the interrupt deferred.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cfray.errors import Interrupted

#: The interrupt of the signal that came; empty before.
_pending: list[Interrupted] = []
#: An item for each ``defer`` block that the main thread is in.
_deferred: list[bool] = []
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check() -> None:
    """Raise the interrupt that a library swallowed.

    Raises:
        Interrupted: a signal came.
    """
    if _pending:
        raise _pending[0]


@contextmanager
def defer() -> Iterator[None]:
    """Raise an interrupt at the end of the block, not inside it.

    For calls that are short (taking an answer is, unless Ray must compute a lost answer anew).

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
def catch_signals() -> Iterator[None]:
    """Turn both signals into ``Interrupted`` for the block (main thread only).

    To be entered after Ray has set its signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers_before = {number: signal.signal(number, _raise) for number in _SIGNALS}
    try:
        check()
        yield
        check()
    except Exception as error:
        if _pending and error is not _pending[0]:
            raise _pending[0] from error
        raise
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        _pending.clear()


def _raise(number: int, _frame: FrameType | None) -> None:
    # stopping takes seconds, and a second signal must not cut it short
    for handled in _SIGNALS:
        signal.signal(handled, signal.SIG_IGN)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    _pending.append(
        Interrupted(
            f"interrupted by {name}",
            "run the same command again: it goes on where this run stopped",
            128 + number,
        )
    )
    if not _deferred:
        check()
