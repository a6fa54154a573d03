"""Elasticsearch 9.5.3 and 8.19.21: the real engine, from the vendor's zip for integration tests.

It lacks the modules for join fields, data streams, painless and security.  Version 9 needs a JDK
from 21 on, version 8 runs on JDK 17.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.engines import Engine
from tests.testbeds.engines import start as start_node
from tests.testbeds.server import Server, Unavailable

NEWEST, OLDER = "9.5.3", "8.19.21"
ENGINES = {
    NEWEST: Engine("elasticsearch", NEWEST, (21, 26)),
    OLDER: Engine("elasticsearch", OLDER, (17, 23)),
}


@contextmanager
def start(folder: Path, *, version: str = NEWEST, quick: bool = True) -> Iterator[Server]:
    """Start a node on free ports, fetching it first if it is not in the cache."""
    if not importlib.util.find_spec("elasticsearch"):
        raise Unavailable('elasticsearch is not installed; pip install -e ".[dev]" brings it')
    settings = {"xpack.security.enabled": "false"}
    with start_node(ENGINES[version], folder, settings, quick=quick) as server:
        yield server
