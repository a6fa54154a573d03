"""Weaviate 1.39.2: the real server, built from its Go module (BSD-3-Clause).

The module is ``weaviate_module/``; it needs Go 1.26 or newer.

Its gRPC and cluster ports bind every address and have no setting for it, so it runs in the jail.
``ports`` are HTTP and gRPC.  Parquet exports and backups go to the server's own file system, under
``folder / FILES``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testbeds.golang import built
from tests.testbeds.jail import jailed
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running

if TYPE_CHECKING:
    from weaviate import WeaviateClient

MODULE = Path(__file__).parent / "weaviate_module"
FILES = "files"
HTTP, GRPC = 8080, 50051


def connected(server: Server) -> WeaviateClient:
    """Open a client of the server, with its key if it wants one; the caller closes it."""
    import weaviate

    http, grpc = server.ports
    key = server.env.get("WEAVIATE_API_KEY")
    return weaviate.connect_to_custom(
        "127.0.0.1", http, False, "127.0.0.1", grpc, False,
        auth_credentials=weaviate.auth.Auth.api_key(key) if key else None,
        skip_init_checks=True,  # they ask pypi.org for the newest version
    )  # fmt: skip


def answers(server: Server) -> bool:
    """Tell whether the server is ready and both of its ports answer."""
    import grpc
    from weaviate.exceptions import WeaviateBaseError

    try:
        with (
            connected(server) as client,
            grpc.insecure_channel(f"127.0.0.1:{server.ports[1]}") as channel,
        ):
            grpc.channel_ready_future(channel).result(timeout=2)
            return client.is_ready() and client.collections.list_all() == {}
    except (WeaviateBaseError, grpc.FutureTimeoutError):
        return False


@contextmanager
def start(folder: Path, *, api_key: str | None = None) -> Iterator[Server]:
    """Start a Weaviate node on free ports, building it first if it is not in the cache.

    Args:
        folder: of its own, for its data and its exports.
        api_key: the only key that it lets in; without one it lets everybody in.
    """
    if not importlib.util.find_spec("weaviate"):
        raise Unavailable('weaviate-client is not installed; pip install -e ".[dev]" brings it')
    program = built(MODULE, "github.com/weaviate/weaviate/cmd/weaviate-server", "weaviate")
    http, grpc = ports = free_ports(2)
    files = folder.absolute() / FILES
    files.mkdir(parents=True, exist_ok=True)
    settings = {
        "PERSISTENCE_DATA_PATH": str(folder.absolute() / "data"),
        "ENABLE_MODULES": "backup-filesystem", "BACKUP_FILESYSTEM_PATH": str(files), "EXPORT_ENABLED": "true", "EXPORT_DEFAULT_PATH": str(files),
        "API_BASED_MODULES_DISABLED": "true", "DEFAULT_VECTORIZER_MODULE": "none", "AUTOSCHEMA_ENABLED": "false",
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false" if api_key else "true",
        "CLUSTER_HOSTNAME": "node1", "CLUSTER_IN_LOCALHOST": "true", "CLUSTER_BIND_ADDR": "127.0.0.1", "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_GOSSIP_BIND_PORT": "7946", "CLUSTER_DATA_BIND_PORT": "7947", "RAFT_PORT": "8300", "RAFT_INTERNAL_RPC_PORT": "8301",
        "RAFT_BOOTSTRAP_EXPECT": "1", "RAFT_TIMEOUTS_MULTIPLIER": "1", "GRPC_PORT": str(GRPC),
        "GO_PROFILING_DISABLE": "true", "PROMETHEUS_MONITORING_ENABLED": "false", "DISABLE_TELEMETRY": "true", "LOG_LEVEL": "warning",
        "DISK_USE_READONLY_PERCENTAGE": "0", "DISK_USE_WARNING_PERCENTAGE": "0", "GOMEMLIMIT": "1GiB", "LIMIT_RESOURCES": "false",
    }  # fmt: skip
    if api_key:
        settings |= {
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": api_key,
            "AUTHENTICATION_APIKEY_USERS": "tester",
        }
    argv = jailed(
        [str(program), "--host", "127.0.0.1", "--port", str(HTTP), "--scheme", "http"],
        {http: HTTP, grpc: GRPC},
    )
    env = {"WEAVIATE_API_KEY": api_key} if api_key else {}
    with running(
        Launch("weaviate", argv, ports, answers, env=env, settings=settings, slowest=120), folder
    ) as server:
        yield server
