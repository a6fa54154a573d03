"""The frame starts only what is ours, sees every socket, and stops all of it."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.testbeds import server
from tests.testbeds.server import (
    Launch,
    StartFailed,
    Unavailable,
    free_ports,
    is_open,
    listening,
    members,
    require_loopback,
    running,
)

LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
WITH_A_CHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {LISTEN!r}, sys.argv[1]]); time.sleep(600)"


def launch(code, port, **more):
    return Launch(
        "example", [sys.executable, "-c", code, str(port)], [port], lambda _: True, **more
    )


@pytest.mark.parametrize("code", [LISTEN, WITH_A_CHILD])
def test_a_server_is_stopped_with_its_children_and_its_port_closed(tmp_path, code):
    port = free_ports(1)[0]
    with running(launch(code, port), tmp_path) as started:
        assert (("127.0.0.1", port) in listening(started.pid), is_open(port)) == (True, True)
    assert (members(started.pid), is_open(port)) == ([], False)


def test_a_server_is_stopped_when_the_test_fails(tmp_path):
    port = free_ports(1)[0]
    with (
        pytest.raises(ZeroDivisionError),
        running(launch(LISTEN, port, patience=0), tmp_path) as started,
    ):
        raise ZeroDivisionError
    assert (members(started.pid), is_open(port)) == ([], False)


def test_a_server_that_ends_says_its_last_words(tmp_path):
    with (
        pytest.raises(StartFailed, match="no such option"),
        running(launch("raise SystemExit('no such option')", 1), tmp_path),
    ):
        pass


def test_a_stranger_on_the_port_is_not_taken_for_our_server(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "READY_SECONDS", 0.5)
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        ours = Launch(
            "example",
            [sys.executable, "-c", "import time; time.sleep(600)"],
            [port],
            asked.append,
            patience=0,
        )
        monkeypatch.setattr(server, "is_open", lambda _: False)  # the stranger stays
        with (
            pytest.raises(StartFailed, match="still not: example answers"),
            running(ours, tmp_path),
        ):
            pass
    assert asked == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000001000000", "::1"),
        ("00000000000000000000000000000000", "::"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("B80D01200000000000000000010000A0", "2001:db8::a000:1"),
    ],
)
def test_an_address_of_proc_is_read_right(text, address):
    assert server._address(text) == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_socket_open_to_the_network_is_an_error(monkeypatch, address):
    monkeypatch.setattr(server, "listening", lambda _: {("127.0.0.1", 1), (address, 2)})
    with pytest.raises(AssertionError, match="beyond loopback"):
        require_loopback(server.Server("example", "", {}, 0, (), None))


def test_a_block_of_ports_leaves_its_twins_free_too():
    ports = free_ports(4, twin=10_000)
    assert ports == list(range(ports[0], ports[0] + 4))
    assert not any(is_open(port) or is_open(port + 10_000) for port in ports)


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CFRAY_TEST_CACHE", str(tmp_path))
    assert server.cache_folder("thing-1.0") == tmp_path / "thing-1.0"
    monkeypatch.delenv("CFRAY_TEST_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert server.cache_folder("thing-1.0") == tmp_path / ".cache/cfray-tests/thing-1.0"


def test_a_machine_without_proc_cannot_run_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "Path", lambda *parts: tmp_path / "nothing")
    with pytest.raises(Unavailable, match="Linux"), running(launch(LISTEN, 1), tmp_path):
        pass
