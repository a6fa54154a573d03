"""Pinecone as a source: the double of pinecone_double.py, for no server is published.

The service is never asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.testbeds.double import started
from tests.testbeds.server import Server, free_ports

NEEDS = ("pinecone", "msgspec")


@contextmanager
def start(folder: Path, *, api_key: str | None = None) -> Iterator[Server]:
    """Start it on a free port; its endpoint is the control plane's ``host``."""
    ports = free_ports(1)
    settings = {"PINECONE_API_KEY": api_key} if api_key else {}
    env = {
        "PINECONE_API_KEY": api_key or "any",
        "PINECONE_CONTROLLER_HOST": f"http://127.0.0.1:{ports[0]}",
    }
    with started(
        "pinecone", folder, ports=ports, needs=NEEDS, arguments={}, settings=settings, env=env
    ) as server:
        yield server


def throttle(server: Server, every: int, *, retry_after: float = 0) -> None:
    """Answer every so many-th request with 429; 0 stops that."""
    _tell(server, "throttle", every=every, retry_after=retry_after)


def forget(server: Server, index: str, number: str, *, namespace: str = "") -> None:
    """Keep an id in the lists of an index, and give it in no fetch."""
    _tell(server, "forget", index=index, namespace=namespace, id=number)


def _tell(server: Server, what: str, **query: object) -> None:
    with urlopen(f"{server.endpoint}/__double__/{what}?{urlencode(query)}", timeout=10):
        pass
