"""Run a server that binds every address so that only 127.0.0.1 reaches it, and it reaches nobody.

Weaviate's gRPC port and most of Milvus's have no setting for their address. So the server runs in a
network namespace with nothing but ``lo``. The listening sockets are made first: a socket stays in
the namespace it was made in. What they accept is forwarded to 127.0.0.1 inside. The forwarding is
Python: leave it out of any claim about speed.

``jailed`` gives the command for a `server.Launch`; the frame then sees the forwarder's sockets, and
only those. Run as a program, this file is the jail. Needs Linux, and root or unprivileged user
namespaces.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

NEW_USER, NEW_NETWORK = 0x1000_0000, 0x4000_0000  # CLONE_NEWUSER, CLONE_NEWNET of linux/sched.h
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h
GET_FLAGS, SET_FLAGS, UP = (
    0x8913,
    0x8914,
    1,
)  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP of linux/sockios.h and linux/if.h
CHUNK = 1 << 16

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def jailed(command: Sequence[str], forwards: Mapping[int, int]) -> list[str]:
    """Give the command that runs a server in a jail.

    Args:
        command: the server; inside it has every port to itself.
        forwards: the ports that clients use: port outside -> port inside.

    Raises:
        Unavailable: this machine lets us make no network namespace.
    """
    from tests.testbeds.server import Unavailable

    jail = [sys.executable, "-I", __file__]
    tried = subprocess.run(
        [*jail, "--", "true"], capture_output=True, text=True, timeout=60, check=False
    )
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or ["no output"])[-1]
        raise Unavailable(
            f"it binds every address, and this machine lets us make no network namespace to keep it in: {last}"
        )
    return [
        *jail,
        *(f"--forward={outside}={inside}" for outside, inside in forwards.items()),
        "--",
        *command,
    ]


def main() -> None:
    """Be the jail: listen outside, enter the namespace, run the server, end as it does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forward", action="append", default=[], metavar="OUTSIDE=INSIDE")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    doors = []
    for pair in given.forward:
        outside, inside = map(int, pair.split("="))
        doors.append((socket.create_server(("127.0.0.1", outside), backlog=128), inside))
    _leave_the_network()
    code = asyncio.run(_serve(given.command, doors))
    sys.exit(code if code >= 0 else 128 - code)


def _leave_the_network() -> None:
    user, group = os.getuid(), os.getgid()
    try:
        _unshare(NEW_NETWORK)
    except PermissionError:  # not root: as root of a user namespace
        _unshare(NEW_USER | NEW_NETWORK)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))  # struct ifreq: name, flags
        fcntl.ioctl(handle, GET_FLAGS, request)
        struct.pack_into("h", request, 16, struct.unpack_from("h", request, 16)[0] | UP)
        fcntl.ioctl(handle, SET_FLAGS, request)


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


async def _serve(command: Sequence[str], doors: Sequence[tuple[socket.socket, int]]) -> int:
    jail = os.getpid()

    def die_with_the_jail() -> None:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != jail:
            os._exit(1)

    process = await asyncio.create_subprocess_exec(*command, preexec_fn=die_with_the_jail)
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # the frame signals the whole group, so the server has had it too
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    for door, inside in doors:
        await asyncio.start_server(_forwarding(inside), sock=door)
    return await process.wait()


def _forwarding(inside: int) -> Handler:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", inside)
        except OSError:
            writer.transport.abort()  # as if nothing listened: the server is not up yet
            return
        await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))
        to_server.close()
        writer.close()

    return forward


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        return
    writer.close()


if __name__ == "__main__":
    main()
