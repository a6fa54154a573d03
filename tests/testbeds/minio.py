"""MinIO, the release of 2026-02-12: a real S3 store, built from its Go module.

The module is ``minio_module/``; it needs Go 1.26 or newer.

AGPL-3.0: a test tool only, in a process of its own; neither its source nor its program is
distributed with cfray. Do not run ``go mod tidy`` in its module: it would drop the pins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.golang import built
from tests.testbeds.s3 import ACCESS_KEY, SECRET_KEY, environment, keeps_an_object
from tests.testbeds.server import Launch, Server, free_ports, running

MODULE = Path(__file__).parent / "minio_module"


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start MinIO on free ports, building it first if it is not in the cache."""
    program = built(MODULE, "github.com/minio/minio", "minio")
    ports = free_ports(2)
    address, console = (f"127.0.0.1:{port}" for port in ports)
    settings = {
        "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off", "MINIO_CI_CD": "1", "GOMEMLIMIT": "512MiB",
    }  # fmt: skip
    argv = [
        str(program),
        "server",
        "--quiet",
        "--address",
        address,
        "--console-address",
        console,
        "data",
    ]
    with running(
        Launch(
            "minio",
            argv,
            ports,
            keeps_an_object,
            env=environment(ports[0]),
            settings=settings,
            patience=5,
        ),
        folder,
    ) as server:
        yield server
