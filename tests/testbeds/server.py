"""Start a server for the tests, be sure that it is ours and on loopback only, and stop exactly it.

A busy port lets a client talk to a stranger, and several servers bind every address by default. So
nothing is written before /proc says that the port belongs to the process group started here, and
that no socket of the group is open to the network. Needs Linux.
"""

from __future__ import annotations

import ipaddress
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS = 60.0  # most need less than 7 s on an idle machine; a slower one says so itself
POLL_SECONDS = 0.05


class Unavailable(Exception):
    """The server cannot run on this machine, for a toolchain or a package is missing."""


class StartFailed(Exception):
    """The server should run here and did not; that is a failed test, never a skipped one."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        name: what it is called in the tests and in the "not run" list.
        endpoint: URL of its main port.
        env: what its clients need in their environment.
        pid: leader of its process group and session.
        ports: every port it was given; all are closed once it has stopped.
        log: what it printed.
    """

    name: str
    endpoint: str
    env: Mapping[str, str] = field(repr=False)
    pid: int
    ports: Sequence[int]
    log: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server.

    Attributes:
        argv: the command; it must stay in the foreground.
        ports: the ports the command was given, the endpoint's first.
        answers: a real request, tried until it returns true; it runs only once the port is known to
            be ours.
        env: what clients need in their environment.
        settings: the server's own environment, beside PATH and a HOME of its own.
        patience: seconds between SIGTERM and SIGKILL; 0 for a server that is slow to stop and has
            nothing to lose.
        slowest: seconds until it must answer, if READY_SECONDS is too few on a busy machine.
    """

    name: str
    argv: Sequence[str]
    ports: Sequence[int]
    answers: Callable[[Server], bool]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: float = 10.0
    slowest: float = 0.0


def cache_folder(key: str) -> Path:
    """Give the folder for what is built once; ``key`` names the server and its version."""
    root = os.environ.get("CFRAY_TEST_CACHE") or Path.home() / ".cache" / "cfray-tests"
    folder = Path(root, key)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_ports(count: int, *, twin: int = 0) -> list[int]:
    """Find a block of free loopback ports, below the range that the kernel hands out to clients.

    Args:
        count: how many, side by side.
        twin: distance of a second port that the server opens for each (SeaweedFS: 10,000); it is
            checked too.
    """
    for _ in range(200):
        base = random.randrange(10_000, 22_000)
        block = list(range(base, base + count))
        with ExitStack() as held, suppress(OSError):
            for port in block + [port + twin for port in block if twin]:
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return block
    raise StartFailed(f"found no block of {count} free ports")


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll a condition until it holds; an error says what never happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StartFailed(f"after {seconds:.0f} s still not: {what}")
        time.sleep(POLL_SECONDS)


def members(group: int) -> list[int]:
    """List the living processes of a process group."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(its_group) == group and state not in "ZX":
                    pids.append(int(entry.name))
    return pids


def listening(group: int) -> set[tuple[str, int]]:
    """List the (address, port) pairs on which a process group listens, from /proc."""
    sockets = set()
    for pid in members(group):
        with suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(os.readlink(handle))
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
                    address, _, port = columns[1].partition(":")
                    addresses.add((_address(address), int(port, 16)))
    return addresses


def _address(text: str) -> str:
    words = [
        bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)
    ]  # 32-bit words, little-endian
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def require_loopback(server: Server) -> None:
    """Fail if any socket of the server is open to the network."""
    exposed = {
        (address, port)
        for address, port in listening(server.pid)
        if not ipaddress.ip_address(address).is_loopback
    }
    assert not exposed, f"{server.name} listens beyond loopback: {sorted(exposed)}"


def is_open(port: int) -> bool:
    """Tell whether anything accepts on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(launch: Launch, folder: Path) -> Iterator[Server]:
    """Start a server in a folder of its own, wait until it answers, and stop it at the end.

    Raises:
        Unavailable: this machine is no Linux.
        StartFailed: it ended, never answered, or did not stop.
    """
    if not Path("/proc/net/tcp").exists():
        raise Unavailable("the check that a server listens on loopback only needs Linux's /proc")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{launch.name}.log"
    setpriv = shutil.which("setpriv")  # so that a killed test run leaves no server behind
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    settings = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        **launch.settings,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*guard, *launch.argv],
            cwd=folder,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(
        launch.name,
        f"http://127.0.0.1:{launch.ports[0]}",
        launch.env,
        process.pid,
        launch.ports,
        log,
    )
    try:
        _wait_until_it_answers(process, server, launch)
        require_loopback(server)
        yield server
        require_loopback(server)  # some open further ports only when they are used
    finally:
        _stop(process, server, launch.patience)


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], server: Server, launch: Launch
) -> None:
    def ready() -> bool:
        if process.poll() is not None:
            raise StartFailed(
                f"{server.name} ended with {process.returncode}: {_last_words(server)}"
            )
        return any(port == server.ports[0] for _, port in listening(server.pid)) and launch.answers(
            server
        )

    try:
        until(
            ready,
            seconds=max(launch.slowest, READY_SECONDS),
            what=f"{server.name} answers a real request",
        )
    except StartFailed as error:
        raise StartFailed(f"{error}; its log ends: {_last_words(server)}") from error


def _last_words(server: Server) -> str:
    return server.log.read_text(errors="replace")[-600:].strip() or "(nothing printed)"


def _stop(process: subprocess.Popen[bytes], server: Server, patience: float) -> None:
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        if seconds and members(server.pid):
            os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
    process.wait(10)
    until(
        lambda: not members(server.pid),
        seconds=10,
        what=f"every process of {server.name} has ended",
    )
    until(
        lambda: not any(map(is_open, server.ports)),
        seconds=10,
        what=f"the ports of {server.name} are closed",
    )
