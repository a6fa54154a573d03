"""milvus-lite 2.5.1: Milvus's own segment engine behind a thin server.

PyPI ``milvus-lite``, Apache-2.0.

It has the vector types that Milvus 2.3.5 lacks (FLOAT16, BFLOAT16, SPARSE), but no HNSW and not
every call: keep off partitions, flush and the server's version.  Not 3.x: that is another program
in Python, without this engine.  The package's own Python is not used: it needs ``pkg_resources``
and would put a process in between.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.milvus import answers
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running
from tests.testbeds.wheels import installed

VERSION = "2.5.1"


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start milvus-lite on a free port, installing it first if it is not in the cache."""
    if not importlib.util.find_spec("pymilvus"):
        raise Unavailable('pymilvus is not installed; pip install -e ".[dev]" brings it')
    programs = installed("milvus-lite", VERSION) / "milvus_lite/lib"
    ports = free_ports(1)
    argv = [
        str(programs / "milvus"),
        str(folder.absolute() / "lite.db"),
        f"127.0.0.1:{ports[0]}",
        "ERROR",
    ]
    launch = Launch(
        "milvus-lite", argv, ports, answers, settings={"LD_LIBRARY_PATH": str(programs)}, patience=2
    )
    with running(launch, folder) as server:
        yield server
