"""dynalite 4.0 as DynamoDB: an emulator in Node.js on LevelDB, the light default.

npm ``dynalite``, Apache-2.0.  It is installed into the cache folder once, by npm.  It lets any key
in, knows no backups and exports, and counts no items (``ItemCount`` is always 0).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.testbeds.s3 import ACCESS_KEY, SECRET_KEY
from tests.testbeds.server import (
    Launch,
    Server,
    Unavailable,
    cache_folder,
    free_ports,
    running,
)

VERSION = "4.0.0"


def program() -> Path:
    """Give the program; install it where the cache does not have it."""
    folder = cache_folder(f"dynalite-{VERSION}")
    script = folder / "node_modules" / "dynalite" / "cli.js"
    if shutil.which("node") is None:
        raise Unavailable("node is not installed (Node.js 20 or later)")
    if not script.exists():
        if shutil.which("npm") is None:
            raise Unavailable("npm is not installed")
        argv = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
        finished = subprocess.run(
            [*argv, f"dynalite@{VERSION}"], capture_output=True, text=True, check=False, timeout=600
        )
        if finished.returncode or not script.exists():
            raise Unavailable(f"npm could not install dynalite: {finished.stderr[-300:]}")
    return script


def client(endpoint: str) -> object:
    """Open a boto3 client that does not depend on the environment."""
    return boto3.session.Session().client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 5, "mode": "standard"}, read_timeout=120),
    )


def lists_tables(server: Server) -> bool:
    """Tell whether it answers DynamoDB's own request."""
    try:
        client(server.endpoint).list_tables()  # type: ignore[attr-defined]  # boto3 has no types
    except (BotoCoreError, ClientError):
        return False
    return True


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start it on a free port."""
    ports = free_ports(1)
    argv = ["node", str(program()), "--port", str(ports[0]), "--host", "127.0.0.1"]
    with running(
        Launch(
            "dynalite",
            [*argv, "--createTableMs", "0", "--deleteTableMs", "0"],
            ports,
            lists_tables,
            patience=2,
        ),
        folder,
    ) as server:
        yield server
