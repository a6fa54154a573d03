"""The processes of one run, found by a mark in their environment.

Ray's processes leave the session of the process that starts them and outlive a killed driver.  So
whatever the tests start carries a mark in its environment, which every process that it starts
inherits; a run is ended by the ids of the processes that carry the mark or descend from one that
does, never by a name.  Needs Linux.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "CFRAY_TEST_RUN"
#: Seconds after which a wait counts as hanging; nothing is ever judged by how long it takes.
PATIENCE = 3600 if os.environ.get("CFRAY_PROVE") == "1" else 900


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Give the condition's value as soon as it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.02)
    return value


def live_processes() -> dict[int, tuple[int, bytes]]:
    """List the live processes: id -> (parent, environment)."""
    processes = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            state, parent = (
                Path(f"/proc/{name}/stat")
                .read_text(errors="replace")
                .rpartition(")")[2]
                .split()[:2]
            )
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if state != "Z":
            processes[int(name)] = (int(parent), environment)
    return processes


def members(mark: str) -> set[int]:
    """Find every live process of one run: those that carry its mark, and their descendants."""
    processes = live_processes()
    entry = f"{MARK}={mark}".encode()
    pids = {pid for pid, (_, environment) in processes.items() if entry in environment.split(b"\0")}
    while more := {pid for pid, (parent, _) in processes.items() if parent in pids} - pids:
        pids |= more
    return pids - {os.getpid()}


def title(pid: int) -> str:
    """Give a process's command line, or the title it gave itself."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    except OSError:
        return ""


def kill_all(mark: str) -> None:
    """SIGKILL every process of one run, until none is left."""
    deadline = time.monotonic() + 60
    # a process that is born between the look and the kill carries the mark, too
    while pids := members(mark):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline, (
            f"cannot be killed: {[(pid, title(pid)) for pid in pids]}"
        )
