"""Ctrl-C and SIGTERM: stop cleanly within seconds, and say how to go on.

``ray job stop`` and a cluster's scheduler send SIGTERM; both signals raise
``Interrupted`` in the driver's main thread, between two steps of it.  What is
committed stays; what is staged is adopted by the next run.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cfray.errors import Interrupted


@contextmanager
def heeded() -> Iterator[None]:
    """Turn both signals into ``Interrupted`` for the block (main thread only); set after Ray set its own handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _frame: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # the way out is short; a second signal must not cut it shorter
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    raise Interrupted(f"interrupted by {name}", "run the same command again: it goes on where this one stopped", 128 + number)
