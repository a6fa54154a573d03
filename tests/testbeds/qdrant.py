"""Qdrant as a source: the double of qdrant_double.py before the vendor's ``qdrant-edge-py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.double import started
from tests.testbeds.server import Server, free_ports

VERSION = "1.20.0"
NEEDS = ("qdrant_client", "qdrant_edge", "grpc")


@contextmanager
def start(folder: Path, *, api_key: str | None = None, version: str = VERSION) -> Iterator[Server]:
    """Start it on two free ports, REST and gRPC; a ``version`` below 1.19 refuses slices."""
    ports = free_ports(2)
    arguments = {"grpc-port": ports[1], "folder": folder / "shards", "version": version}
    settings = {"QDRANT__SERVICE__API_KEY": api_key} if api_key else {}
    env = {"QDRANT_API_KEY": api_key} if api_key else {}
    with started(
        "qdrant", folder, ports=ports, needs=NEEDS, arguments=arguments, settings=settings, env=env
    ) as server:
        yield server
