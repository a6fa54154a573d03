"""Places where a test may end the process: ``CFRAY_FAIL_AT=commit:3`` kills it at the third commit.

The crash is a SIGKILL, as in life: no handler runs, nothing is flushed.  A third
part names another signal: ``stage:1:SIGSTOP`` is a holder that is only slow.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_seen: Counter[str] = Counter()


def reached(place: str) -> None:
    """Note that a place was reached, and end the process if the setting says so."""
    setting = os.environ.get("CFRAY_FAIL_AT")
    if setting is None:
        return
    _seen[place] += 1
    name, number, *word = setting.split(":")
    if name == place and _seen[place] == int(number):
        os.kill(os.getpid(), signal.Signals[word[0]] if word else signal.SIGKILL)
