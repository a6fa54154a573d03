"""OpenSearch 3.6.0 and 2.19.6 with k-NN: the real engine, from the project's own Maven artifacts.

The k-NN plugin comes without its native library, and the first document of a faiss field would end
the node: an index template turns the native graph off, so that such fields are searched exactly.
Version 3 has all modules and needs a JDK from 21 on; version 2 runs on JDK 17.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.engines import Engine, send
from tests.testbeds.engines import start as start_node
from tests.testbeds.server import Server, Unavailable

NEWEST, OLDER = "3.6.0", "2.19.6"
ENGINES = {
    NEWEST: Engine("opensearch", NEWEST, (21, 26)),
    OLDER: Engine("opensearch", OLDER, (17, 23)),
}


@contextmanager
def start(folder: Path, *, version: str = NEWEST, quick: bool = True) -> Iterator[Server]:
    """Start a node on free ports, fetching it first if it is not in the cache."""
    if not importlib.util.find_spec("opensearchpy"):
        raise Unavailable('opensearch-py is not installed; pip install -e ".[dev]" brings it')
    # else a point in time lives for 30 s, whatever a request asks for
    settings = {"point_in_time.init.keep_alive": "1s"}
    with start_node(ENGINES[version], folder, settings, quick=quick) as server:
        template = {
            "index_patterns": ["*"],
            "priority": 0,
            "template": {"settings": {"index.knn.advanced.approximate_threshold": -1}},
        }
        send(server, "PUT", "/_index_template/no-native-graph", template)
        yield server
