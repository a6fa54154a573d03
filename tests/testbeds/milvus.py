"""Milvus 2.3.5 standalone: a real server with etcd and the message queue inside.

PyPI ``milvus``, Apache-2.0, of January 2024.

It binds every address on most of its ports, so it runs in the jail. The package's own
``milvus-server`` unpacks 250 MB of programs for each data folder and leaves the server behind when
it is killed; here they are unpacked once and the jail holds the server itself. An open port is not
ready: only a query that answers is.
"""

from __future__ import annotations

import importlib.util
import logging
import lzma
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.testbeds.jail import jailed
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running
from tests.testbeds.wheels import installed, made_once

VERSION = "2.3.5"
PORT = 19530
BECOME_MILVUS = """
import os, sys
site, programs = sys.argv[1:]
sys.path.insert(0, site)
import milvus
config = milvus.MilvusServerConfig(data_dir=os.getcwd())
config.resolve()
os.environ.update(DEPLOY_MODE="STANDALONE", METRICS_PORT="9091")
os.environ.update(MILVUS_RUN_DIR="run", LD_LIBRARY_PATH=programs)
os.execv(programs + "/milvus", ["milvus", "run", "standalone"])
"""
"""Write the package's configuration for the working folder, then become the server.

So no process stands between.
"""


def programs(site: Path) -> Path:
    """Unpack the server and its libraries beside the installed package, once."""

    def unpack(target: Path) -> None:
        for packed in (site / "milvus/data/bin").glob("*.lzma"):
            with lzma.open(packed) as source, (target / packed.stem).open("wb") as file:
                shutil.copyfileobj(source, file)
        (target / "milvus").chmod(0o755)

    return made_once(site.with_name("bin"), unpack)


def answers(server: Server) -> bool:
    """Tell whether the server answers a query of a collection that it has just made and loaded."""
    from pymilvus import DataType, MilvusClient, MilvusException

    name = "is_it_ready"
    with suppress(MilvusException), _silent("pymilvus"):
        client = MilvusClient(server.endpoint, timeout=5)
        try:
            client.drop_collection(name)
            schema = (
                MilvusClient.create_schema()
                .add_field("id", DataType.INT64, is_primary=True)
                .add_field("vector", DataType.FLOAT_VECTOR, dim=2)
            )
            indexes = MilvusClient.prepare_index_params(
                "vector", index_type="FLAT", metric_type="L2"
            )
            client.create_collection(
                name, schema=schema, index_params=indexes, consistency_level="Strong"
            )
            client.insert(name, [{"id": 1, "vector": [1.0, 2.0]}])
            rows = client.query(name, filter="id == 1", output_fields=["vector"])
            client.drop_collection(name)
        finally:
            client.close()
        return len(rows) == 1
    return False


@contextmanager
def start(
    folder: Path, settings: Mapping[str, str], answers: Callable[[Server], bool]
) -> Iterator[Server]:
    """Start Milvus on a free port, installing it first if it is not in the cache.

    Args:
        folder: for its data.
        settings: its environment variables.
        answers: tells whether it answers a query.
    """
    if not importlib.util.find_spec("pymilvus"):
        raise Unavailable('pymilvus is not installed; pip install -e ".[dev]" brings it')
    site, ports = installed("milvus", VERSION), free_ports(1)
    command = [sys.executable, "-I", "-c", BECOME_MILVUS, str(site), str(programs(site))]
    launch = Launch(
        "milvus",
        jailed(command, {ports[0]: PORT}),
        ports,
        answers,
        settings=settings,
        patience=0,
        slowest=240,
    )
    try:
        with running(launch, folder) as server:
            yield server
    finally:
        # 270 MB of logs that were made full size
        shutil.rmtree(folder / "data", ignore_errors=True)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a client from printing each refusal of a server that is not ready yet."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
