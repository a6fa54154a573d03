"""The lease: one writer per target.

``lease.json`` names the holder, who renews its beat every ten seconds.  Whoever
wants the target judges that file; taking over is an empty ledger commit that
raises the epoch, so a holder that was only slow fails at its next commit.  This
module judges and beats; the commit is ``target/commit.py``'s.

On the same boot of the same host the beat is compared on one clock
(CLOCK_BOOTTIME).  Another host's clock is not ours: there we watch.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cfray.errors import LeaseHeld, TargetError
from cfray.runtime.filesystems import Folder
from cfray.target.receipts import dumps

#: Seconds between two beats, and without a beat until a takeover; settings, so that tests need not
#: wait.
BEAT_SETTING, SILENCE_SETTING = "CFRAY_LEASE_BEAT", "CFRAY_LEASE_SILENCE"
_FILE = "lease.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the target.

    Attributes:
        host, boot, pid, started: one process of one boot of one host; ``started`` in clock ticks
            since boot.
        nonce: one acquisition.
        beat: seconds of CLOCK_BOOTTIME at the last beat.
    """

    host: str
    boot: str
    pid: int
    started: int
    nonce: str
    beat: float

    @classmethod
    def here(cls) -> Holder:
        """Describe this process."""
        return cls(
            socket.gethostname(),
            _boot_id(),
            os.getpid(),
            _started(os.getpid()) or 0,
            uuid.uuid4().hex,
            _now(),
        )

    @property
    def alive(self) -> bool:
        """Tell whether the process still runs (same boot only)."""
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        """Name the holder for a message."""
        return f"process {self.pid} on {self.host}"


def beat_seconds() -> float:
    """Give the seconds between two beats."""
    return float(os.environ.get(BEAT_SETTING, "10"))


def silence_seconds() -> float:
    """Give the seconds without a beat after which a target may be taken over."""
    return float(os.environ.get(SILENCE_SETTING, "60"))


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    """Give a process's start time; None if it is gone or a zombie."""
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return None
    return (
        None if state == "Z" else int(rest[18])
    )  # field 22 of /proc/pid/stat (proc(5)); two stand before the state


def read(folder: Folder) -> Holder | None:
    """Read who holds the target; None if nobody does."""
    data = folder.read(_FILE)
    return None if data is None else Holder(**json.loads(data))


def wait_until_free(folder: Folder) -> None:
    """Return when the target may be taken; judge as ``design.md``, "The lease", says.

    Raises:
        LeaseHeld: a live run holds it.
    """
    holder = read(folder)
    if holder is None:
        return
    if holder.host == socket.gethostname() and holder.boot == _boot_id():
        if holder.alive and _now() - holder.beat <= silence_seconds() and holder.pid != os.getpid():
            raise _held(holder, folder)
        return
    deadline = time.monotonic() + silence_seconds()
    pause = threading.Event()
    while time.monotonic() < deadline:
        pause.wait(min(1.0, silence_seconds() / 20))
        now = read(folder)
        if now is None:
            return
        if now != holder:
            raise _held(now, folder)


def _held(holder: Holder, folder: Folder) -> LeaseHeld:
    target = folder.uri.removesuffix(".cfray")
    return LeaseHeld(
        f"{holder} is writing to {target}",
        "wait for it to end, or stop it; `cfray status` shows how far it is",
    )


class Lease:
    """Held by one run: beats until it is released or lost."""

    def __init__(self, folder: Folder) -> None:
        """Prepare to hold the target; ``announce`` writes the file."""
        self.folder = folder
        self.holder = Holder.here()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_ours: Callable[[], bool] = bool

    def announce(self) -> None:
        """Write our name into the lease."""
        holder = Holder(**{**asdict(self.holder), "beat": _now()})
        self.folder.publish(_FILE, dumps(asdict(holder)))

    def start(self, is_ours: Callable[[], bool]) -> None:
        """Beat from now on, in a thread of its own.

        Args:
            is_ours: tells from the ledger whether the target is still ours; asked when another name
                stands in the lease (a holder that was stopped may have written its own over ours
                when it went on).
        """
        self._is_ours = is_ours
        self.announce()
        self._thread = threading.Thread(target=self._beat, name="cfray-lease", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(beat_seconds()):
            try:
                now = read(self.folder)
                if now is not None and now.nonce != self.holder.nonce and not self._is_ours():
                    # taken over: the next commit finds out; never write over another's lease
                    return
                self.announce()
            except (
                OSError,
                TargetError,
            ):  # a missed beat is what the silence allows for; the commit is the judge
                continue

    def release(self) -> None:
        """Stop beating and free the target, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        now = read(self.folder)
        if now is not None and now.nonce == self.holder.nonce:
            self.folder.remove(_FILE)
