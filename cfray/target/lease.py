"""The lease: one writer per target.

``lease.json`` names the holder, who renews its beat every ten seconds.  A run that wants
the target judges that file; it takes over with an empty ledger commit that raises the
epoch, so a holder that was only slow fails at its next commit.  This module judges and
beats; ``cfray.target.commit`` commits, and the epoch alone decides who may write.

On the same boot of the same host the beat is compared on one clock (CLOCK_BOOTTIME,
which also counts the time a machine sleeps).  Clocks of two hosts differ: the lease of
another host is watched for a time of silence instead.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from cfray.errors import LeaseHeld, TargetError
from cfray.runtime.filesystems import Folder
from cfray.target.documents import dumps, parse_document

#: Environment variables for the seconds between two beats, and for the seconds without a beat after
#: which the target may be taken over: tests need not wait as long as a run does.
BEAT_SETTING, SILENCE_SETTING = "CFRAY_LEASE_BEAT", "CFRAY_LEASE_SILENCE"
FILE = "lease.json"
_REMEDY = (
    "make sure that no cfray command is working on this target (on any host), remove the file, "
    "then run the same command again: the file only says who is writing, no data is in it"
)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds the target.

    Attributes:
        host, boot, pid, started: name one process of one boot of one host; ``started`` in clock
            ticks since boot.
        nonce: names one acquisition of the lease.
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
            _start_ticks(os.getpid()) or 0,
            uuid.uuid4().hex,
            _now(),
        )

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """Read a holder.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray.
        """
        body = json.loads(data)
        convert = {"pid": int, "started": int, "beat": float}
        return cls(
            **{field.name: convert.get(field.name, str)(body[field.name]) for field in fields(cls)}
        )

    @property
    def is_this_boot(self) -> bool:
        """Tell whether the process belongs to this boot of this host: then one clock counts."""
        return self.is_here and self.boot == _boot_id()

    @property
    def is_here(self) -> bool:
        """Tell whether the process belongs to this host, so that this host knows its state."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Tell whether the process is known to be gone; of another host nothing is known."""
        return self.is_here and not (self.is_this_boot and self._is_running)

    @property
    def _is_running(self) -> bool:
        """Tell whether a process of this boot still runs."""
        return _start_ticks(self.pid) == self.started

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


def _start_ticks(pid: int) -> int | None:
    """Give a process's start time in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc(5): the name of the process, in parentheses, is field 2; its state is field 3 and its
    # start time field 22
    state, *fields_from_4 = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields_from_4[22 - 4])


def read(folder: Folder) -> Holder | None:
    """Read who holds the target; None if no run does.

    Raises:
        TargetError: the file is damaged.
    """
    data = folder.read(FILE)
    if data is None:
        return None
    return parse_document(data, f"{folder.uri}/{FILE}", Holder.from_json, remedy=_REMEDY)


def wait_until_free(folder: Folder) -> None:
    """Return when the target may be taken over.

    A target is free if nothing is in its lease, or if a process of this boot holds it that has
    ended, that is silent for too long, or that is this process.  The lease of another host (or of
    another boot) is watched for the time of silence: if it does not change, its holder is gone.

    Raises:
        LeaseHeld: a live run holds it.
        TargetError: the file is damaged.
    """
    holder = read(folder)
    if holder is None:
        return
    if holder.is_this_boot:
        is_silent = _now() - holder.beat > silence_seconds()
        if not holder.has_ended and not is_silent and holder.pid != os.getpid():
            raise _held(holder, folder)
        return
    deadline = time.monotonic() + silence_seconds()
    pause = threading.Event()
    while time.monotonic() < deadline:
        pause.wait(min(1.0, silence_seconds() / 20))
        latest = read(folder)
        if latest is None:
            return
        if latest != holder:
            raise _held(latest, folder)


def _held(holder: Holder, folder: Folder) -> LeaseHeld:
    target = folder.uri.removesuffix(".cfray")
    return LeaseHeld(
        f"{holder} is writing to {target}",
        "wait for it to end, or stop it; `cfray status` shows how far it is",
    )


class Lease:
    """The lease of one run: it beats until it is released or lost.

    To be taken after the epoch was raised: a take-over that fails must leave no lease behind.
    """

    def __init__(self, folder: Folder) -> None:
        """Prepare to hold the target; nothing is written before ``start`` or ``announce``."""
        self.folder = folder
        self.holder = Holder.here()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def announce(self) -> None:
        """Write our name into the lease."""
        self.folder.publish(FILE, dumps(asdict(replace(self.holder, beat=_now()))))

    def start(self, is_ours: Callable[[], bool]) -> None:
        """Announce the holder, and beat from now on in a thread.

        Args:
            is_ours: tells from the ledger whether the target is still ours; asked when another
                name stands in the lease (a holder that was stopped may have written its name over
                ours when it went on).
        """
        self.announce()
        self._thread = threading.Thread(
            target=self._beat, args=(is_ours,), name="cfray-lease", daemon=True
        )
        self._thread.start()

    def _beat(self, is_ours: Callable[[], bool]) -> None:
        while not self._stop.wait(beat_seconds()):
            # the silence allows for missed beats, and the next commit decides who holds the target
            with suppress(OSError, TargetError):
                if self._names_us() or is_ours():
                    self.announce()
                else:
                    # taken over: never write over the lease of another run
                    return

    def _names_us(self) -> bool:
        """Tell whether the lease is ours, or nobody's."""
        try:
            holder = read(self.folder)
        except TargetError:
            # a damaged lease is nobody's, but it may have been another run's
            return False
        return holder is None or holder.nonce == self.holder.nonce

    def release(self) -> None:
        """Stop beating and free the target, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # a damaged lease stays: it may be another run's
        with suppress(TargetError):
            holder = read(self.folder)
            if holder is not None and holder.nonce == self.holder.nonce:
                self.folder.remove(FILE)
