"""Chroma 1.5: the server that ``chroma run`` of PyPI ``chromadb`` starts (Apache-2.0, Rust).

It offers no authentication: the ``CHROMA_SERVER_AUTHN_*`` settings of 0.x are accepted and change
nothing (tried on 1.5.9), and ``chroma run`` has no option for a key.  So there is none to test
here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

RUN = "import sys; from chromadb.cli.cli import app; sys.argv[0] = 'chroma'; app()"


def connected(server: Server) -> ClientAPI:
    """Open a client of the server."""
    import chromadb
    from chromadb.config import Settings

    host, _, port = server.endpoint.removeprefix("http://").partition(":")
    return chromadb.HttpClient(
        host=host, port=int(port), settings=Settings(anonymized_telemetry=False)
    )


def answers(server: Server, names: Collection[str] = ()) -> bool:
    """Tell whether the server lists these collections, and no others."""
    try:
        return {collection.name for collection in connected(server).list_collections()} == {*names}
    except ValueError:  # what the client makes of a refused connection
        return False


@contextmanager
def start(folder: Path, names: Collection[str] = ()) -> Iterator[Server]:
    """Start Chroma on a free port.

    Args:
        folder: holds its persistent directory, ``data``.
        names: of the collections that the directory has already.
    """
    if not importlib.util.find_spec("chromadb"):
        raise Unavailable('chromadb is not installed; pip install -e ".[dev]" brings it')
    ports = free_ports(1)
    argv = [
        sys.executable,
        "-c",
        RUN,
        "run",
        "--path",
        "data",
        "--host",
        "127.0.0.1",
        "--port",
        str(ports[0]),
    ]
    launch = Launch("chroma", argv, ports, partial(answers, names=names), patience=5)
    with running(launch, folder) as server:
        yield server
