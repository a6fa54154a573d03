"""A jailed server binds every address, is reached on loopback alone, and dies with its jail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.testbeds import jail
from tests.testbeds.jail import jailed
from tests.testbeds.server import (
    Launch,
    StartFailed,
    Unavailable,
    free_ports,
    is_open,
    listening,
    members,
    running,
    until,
)

ECHO = """
import socket
server = socket.create_server(("0.0.0.0", 80))
while True:
    caller = server.accept()[0]
    caller.sendall(b"".join(iter(lambda: caller.recv(65536), b"")))
    caller.close()
"""


def echoed(port: int, sent: bytes) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as caller,
        caller.makefile("rb") as answer,
    ):
        caller.sendall(sent)
        caller.shutdown(socket.SHUT_WR)
        return answer.read()


def answers(server):
    try:
        return echoed(server.ports[0], b"ready?") == b"ready?"
    except OSError:
        return False


def launch(code, ports):
    try:
        argv = jailed([sys.executable, "-c", code], dict.fromkeys(ports, 80))
    except Unavailable as missing:
        pytest.skip(str(missing))
    return Launch("example", argv, ports, answers)


def test_a_jailed_server_is_reached_on_its_loopback_ports_only(tmp_path):
    ports = free_ports(2)
    large = os.urandom(3_000_000)
    with running(launch(ECHO, ports), tmp_path) as started:
        assert listening(started.pid) == {("127.0.0.1", port) for port in ports}
        assert [echoed(port, large) for port in ports] == [large, large]
    assert (members(started.pid), any(map(is_open, ports))) == ([], False)


def test_a_jailed_server_dies_with_its_jail(tmp_path):
    ports = free_ports(1)
    with running(launch(ECHO, ports), tmp_path) as started:
        assert len(members(started.pid)) == 2
        os.kill(started.pid, signal.SIGKILL)
        until(lambda: not members(started.pid), seconds=10, what="the server has ended")


def test_a_jail_ends_as_its_server_does(tmp_path):
    with (
        pytest.raises(StartFailed, match="ended with 3"),
        running(launch("raise SystemExit(3)", free_ports(1)), tmp_path),
    ):
        pass


def test_a_machine_without_namespaces_cannot_jail(monkeypatch):
    refused = subprocess.CompletedProcess(
        [], 1, stderr="Traceback\nPermissionError: [Errno 1] unshare: Operation not permitted\n"
    )
    monkeypatch.setattr(jail.subprocess, "run", lambda *_, **__: refused)
    with pytest.raises(Unavailable, match=r"no network namespace.*Operation not permitted"):
        jailed(["server"], {})
