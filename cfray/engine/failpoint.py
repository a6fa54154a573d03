"""Points at which a test may end the process: ``CFRAY_FAIL_AT=commit:3`` at the third commit.

The crash is a SIGKILL, as in life: no handler runs, nothing is flushed.  A third word
names another signal: ``stage:1:SIGSTOP`` makes a holder that is only slow.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_times_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Note that a point was reached, and end the process if the setting says so."""
    setting = os.environ.get("CFRAY_FAIL_AT")
    if setting is None:
        return
    _times_reached[point] += 1
    name, number, *signal_name = setting.split(":")
    if name == point and _times_reached[point] == int(number):
        is_named = bool(signal_name)
        os.kill(os.getpid(), signal.Signals[signal_name[0]] if is_named else signal.SIGKILL)
