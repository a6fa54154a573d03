"""Run a command and account for its whole process tree: wall time, CPU-seconds, peak memory.

Ray's daemons leave their parent's session and outlive it, so this process makes
itself the one that orphans fall to, and never forgets a process it has seen.
Memory is the sum of PSS (what processes share counts once).  Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

#: Seconds between samples; more (up to the second figure) where reading /proc takes long, so that
#: watching costs a twentieth of a core.
INTERVAL, LONGEST, SHARE = 0.15, 0.5, 20
#: Seconds for what the command left behind to end by itself before it is killed.
GRACE = 10.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Run:
    """What a command cost.

    Attributes:
        wall: seconds.
        cpu: CPU-seconds of all processes: those sampled, or those the kernel gives for waited-for
            children where that is more.
        memory: (Unix time, sum of PSS of all processes in bytes) of every sample.
        largest: the processes at the moment of the peak, name -> bytes.
        out, err: what it printed.
        left: names of processes that outlived the command by more than ``GRACE`` and were killed.
    """

    code: int
    wall: float
    cpu: float
    memory: list[tuple[float, int]]
    largest: dict[str, int]
    out: str
    err: str
    left: list[str] = field(default_factory=list)

    def peak(self, begin: float = 0.0, end: float = float("inf")) -> int:
        """Give the largest memory in bytes between two Unix times."""
        return max((size for when, size in self.memory if begin <= when <= end), default=0)


def run_cfray(*arguments: str, memory: bool = False) -> Run:
    """Run a command of cfray's; end the program where it fails or leaves a process."""
    ran = run([sys.executable, "-m", "cfray.cli", *arguments, "--json"], memory=memory)
    if ran.code or ran.left:
        sys.exit(f"{arguments}: exit code {ran.code}, left running: {ran.left}\n{ran.err[-4000:]}")
    return ran


def run(
    command: Sequence[str],
    *,
    memory: bool,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
) -> Run:
    """Run a command to its end.

    ``memory``: whether to watch that, too.  It takes the more time the more processes there are, a
    second of a copy of 15 with Ray's among them, so a run whose clock counts goes without.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watched = Watched(memory=memory)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        before, begin = _children_cpu(), time.perf_counter()
        process = subprocess.Popen(list(command), stdout=out, stderr=err, cwd=cwd, env=env)
        while process.poll() is None:
            cost = watched.sample()
            time.sleep(min(LONGEST, max(INTERVAL, SHARE * cost)))
        wall = time.perf_counter() - begin
        left = watched.end()
        out.seek(0)
        err.seek(0)
        return Run(
            code=process.returncode,
            wall=wall,
            cpu=max(sum(watched.cpu.values()), _children_cpu() - before),
            memory=watched.memory,
            largest=watched.largest,
            out=out.read(),
            err=err.read(),
            left=left,
        )


class Watched:
    """Every process that ever descended from this one."""

    def __init__(self, *, memory: bool) -> None:
        self.watch_memory = memory
        self.me = psutil.Process()
        self.before = set(self.me.children(recursive=True))
        self.seen: set[psutil.Process] = set()
        self.cpu: dict[psutil.Process, float] = {}
        self.memory: list[tuple[float, int]] = []
        self.largest: dict[str, int] = {}

    def sample(self) -> float:
        """Look once; returns the CPU-seconds it took."""
        begin = time.thread_time()
        self._find()
        sizes: dict[psutil.Process, int] = {}
        for process in self.seen:
            try:
                times = process.cpu_times()
                self.cpu[process] = times.user + times.system
                if self.watch_memory:
                    sizes[process] = pss(process.pid)
            except (psutil.Error, OSError):
                pass  # it ended; what it had used stays counted
        if not self.watch_memory:
            return time.thread_time() - begin
        total = sum(sizes.values())
        if total > max((size for _, size in self.memory), default=0):
            self.largest = {
                f"{_name(process)} {process.pid}": size
                for process, size in sorted(sizes.items(), key=lambda item: -item[1])
            }
        self.memory.append((time.time(), total))
        return time.thread_time() - begin

    def _find(self) -> None:
        """Note new descendants, orphans included: they are children of this process now."""
        self.seen.update(
            process for process in self.me.children(recursive=True) if process not in self.before
        )

    def end(self) -> list[str]:
        """Wait for what the command left behind, kill the rest, and leave no zombies.

        Returns the names of the killed.
        """
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


def _children_cpu() -> float:
    """Give the CPU-seconds of all children that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"
