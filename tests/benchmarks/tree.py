"""Run a command and account for its whole process tree: wall time, CPU-seconds, peak memory.

Ray's daemons leave their parent's session and outlive it, so this process makes
itself the one that orphans fall to, and never forgets a process it has seen.
Memory is the sum of PSS (what processes share counts once).  Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

#: Seconds between samples; more where reading /proc takes long, so that watching costs at most a twentieth of a core.
INTERVAL, SHARE = 0.15, 20
#: Seconds for what the command left behind to end by itself before it is killed.
GRACE = 10.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Run:
    """What a command cost.

    Attributes:
        wall: seconds.
        cpu: CPU-seconds of all processes; one that lived between two samples is not counted.
        peak: bytes, the largest sum of PSS of all processes at one moment.
        peak_after: seconds from the start to that moment.
        processes: largest number of processes at one moment.
        out, err: what it printed.
        left: names of processes that outlived the command by more than ``GRACE`` and were killed.
    """

    code: int
    wall: float
    cpu: float
    peak: int
    peak_after: float
    processes: int
    samples: int
    out: str
    err: str
    left: list[str] = field(default_factory=list)


def run(command: Sequence[str], *, cwd: str | None = None, env: dict[str, str] | None = None) -> Run:
    """Run a command to its end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watched = Watched()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        process = subprocess.Popen(list(command), stdout=out, stderr=err, cwd=cwd, env=env)
        while process.poll() is None:
            cost = watched.sample(time.perf_counter() - begin)
            time.sleep(max(INTERVAL, SHARE * cost))
        wall = time.perf_counter() - begin
        left = watched.end()
        out.seek(0)
        err.seek(0)
        return Run(
            code=process.returncode,
            wall=wall,
            cpu=sum(watched.cpu.values()),
            peak=watched.peak,
            peak_after=watched.peak_after,
            processes=watched.processes,
            samples=watched.samples,
            out=out.read(),
            err=err.read(),
            left=left,
        )


class Watched:
    """Every process that ever descended from this one."""

    def __init__(self) -> None:
        self.me = psutil.Process()
        self.before = set(self.me.children(recursive=True))
        self.seen: set[psutil.Process] = set()
        self.cpu: dict[psutil.Process, float] = {}
        self.peak = self.processes = self.samples = 0
        self.peak_after = 0.0

    def sample(self, elapsed: float) -> float:
        """Look once; returns the seconds it took."""
        begin = time.perf_counter()
        self._find()
        memory = living = 0
        for process in self.seen:
            try:
                times = process.cpu_times()
                self.cpu[process] = times.user + times.system
                memory += pss(process.pid)
                living += 1
            except (psutil.Error, OSError):
                pass  # it ended; what it had used stays counted
        if memory > self.peak:
            self.peak, self.peak_after = memory, elapsed
        self.processes = max(self.processes, living)
        self.samples += 1
        return time.perf_counter() - begin

    def _find(self) -> None:
        """Note new descendants, orphans included: they are children of this process now."""
        self.seen.update(process for process in self.me.children(recursive=True) if process not in self.before)

    def end(self) -> list[str]:
        """Wait for what the command left behind, kill the rest, and leave no zombies; returns the names of the killed."""
        self._find()
        deadline = time.monotonic() + GRACE
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
            self._find()
        for process in alive:
            process.kill()
        time.sleep(0.2 if alive else 0)
        self._find()
        self._alive()
        return sorted(_name(process) for process in alive)

    def _alive(self) -> list[psutil.Process]:
        """Give the processes that still run, after reaping those that ended as our children."""
        alive = []
        for process in self.seen:
            with contextlib.suppress(ChildProcessError):  # another one's child, or reaped before
                os.waitpid(process.pid, os.WNOHANG)
            if process.is_running():
                alive.append(process)
        return alive


def pss(pid: int) -> int:
    """Give a process's proportional set size in bytes."""
    with open(f"/proc/{pid}/smaps_rollup", "rb") as lines:
        for line in lines:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"
