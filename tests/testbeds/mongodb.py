"""MongoDB as a source: two doubles, for no package brings a mongod.

SecantusDB (PyPI, GPL-2.0, a process of its own) is MongoDB's wire protocol in Python on the real
WiredTiger; its snapshots are not isolated.  FerretDB 1.24.2 (Go module, Apache-2.0) is another
implementation, on SQLite: it ignores ``min`` and ``max`` and knows no snapshots, which shows that
a source notices.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.testbeds.golang import built
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running
from tests.testbeds.wheels import installed

#: What SecantusDB needs beside what the tests need anyway.
PACKAGES = (
    ("SecantusDB", "0.7.0b3"),
    ("shapely", "2.2.0"),
    ("s2sphere", "0.2.5"),
    ("future", "1.0.0"),
)
FERRETDB = Path(__file__).parent / "ferretdb_module"
USER, PASSWORD = "reader", "sesame"


def address(server: Server) -> str:
    """Give the connection string of a server, which leads to nothing but this server."""
    return f"mongodb://127.0.0.1:{server.ports[0]}/?directConnection=true"


def _answers(**credentials: Any) -> Callable[[Server], bool]:
    def answers(server: Server) -> bool:
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        try:
            with MongoClient(
                address(server), serverSelectionTimeoutMS=1_000, **credentials
            ) as client:
                return set(client.list_database_names()) <= {"admin", "config", "local"}
        except PyMongoError:
            return False

    return answers


@contextmanager
def start(folder: Path, *, user: bool = False) -> Iterator[Server]:
    """Start SecantusDB on a free port; with ``user`` it lets only ``USER`` in."""
    _require_client()
    data = folder.absolute() / "data"
    settings = {"PYTHONPATH": ":".join(str(installed(*package)) for package in PACKAGES)}
    if user:
        with running(_launch(data, settings, []), folder) as server:
            _create_user(server)
    argv = ["--auth"] if user else []
    credentials = {"username": USER, "password": PASSWORD} if user else {}
    with running(_launch(data, settings, argv, **credentials), folder) as server:
        yield server


def _launch(data: Path, settings: dict[str, str], argv: list[str], **credentials: Any) -> Launch:
    ports = free_ports(1)
    command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(ports[0])]
    command += ["--storage-path", str(data), "--cache-size", "256M", *argv]
    return Launch("secantusdb", command, ports, _answers(**credentials), settings=settings)


def _create_user(server: Server) -> None:
    from pymongo import MongoClient

    with MongoClient(address(server)) as client:
        client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])


@contextmanager
def start_ferretdb(folder: Path) -> Iterator[Server]:
    """Start FerretDB on a free port, building it first if it is not in the cache."""
    _require_client()
    program = built(FERRETDB, "github.com/FerretDB/FerretDB", "ferretdb", main=".")
    ports = free_ports(1)
    argv = [str(program), f"127.0.0.1:{ports[0]}", str(folder.absolute() / "data")]
    with running(Launch("ferretdb", argv, ports, _answers(), patience=5), folder) as server:
        yield server


def _require_client() -> None:
    if not importlib.util.find_spec("pymongo"):
        raise Unavailable('pymongo is not installed; pip install -e ".[dev]" brings it')
