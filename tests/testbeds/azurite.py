"""Azurite 3.37 as Azure Blob Storage: Microsoft's emulator, in Node.js.

npm ``azurite``, MIT.  It is installed into the cache folder once, by npm.  It checks keys.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.testbeds.server import (
    Launch,
    Server,
    Unavailable,
    cache_folder,
    free_ports,
    running,
)

VERSION = "3.37.0"
#: The account and the key that the emulator has, as its README gives them to everybody.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def program() -> Path:
    """Give the program; install it where the cache does not have it."""
    if not importlib.util.find_spec("azure"):
        raise Unavailable('azure-storage-blob is not installed; pip install -e ".[dev]" brings it')
    folder = cache_folder(f"azurite-{VERSION}")
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if shutil.which("node") is None:
        raise Unavailable("node is not installed (Node.js 20 or later)")
    if not script.exists():
        if shutil.which("npm") is None:
            raise Unavailable("npm is not installed")
        argv = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
        finished = subprocess.run(
            [*argv, f"azurite@{VERSION}"], capture_output=True, text=True, check=False, timeout=900
        )
        if finished.returncode or not script.exists():
            raise Unavailable(f"npm could not install azurite: {finished.stderr[-300:]}")
    return script


def client(server: Server) -> Any:
    """Open Azure's client of the emulator, independently of cfray and of the environment."""
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(
        server.env["AZURE_STORAGE_ENDPOINT"],
        credential={"account_name": ACCOUNT, "account_key": KEY},
        retry_total=0,
    )


def _keeps_a_blob(server: Server) -> bool:
    """Write a nonce and read it back."""
    from azure.core.exceptions import AzureError

    nonce = uuid.uuid4().hex.encode()
    try:
        container = client(server).create_container(f"proof-{nonce[:8].decode()}")
        container.upload_blob("nonce", nonce)
        return container.download_blob("nonce").readall() == nonce
    except AzureError:
        return False


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start it on a free port."""
    ports = free_ports(1)
    argv = ["node", str(program()), "--location", str(folder), "--blobHost", "127.0.0.1"]
    argv += ["--blobPort", str(ports[0]), "--silent", "--skipApiVersionCheck"]
    env = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{ports[0]}/{ACCOUNT}",
    }
    with running(
        Launch("azurite", argv, ports, _keeps_a_blob, env=env, patience=2), folder
    ) as server:
        yield server
