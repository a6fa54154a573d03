"""Azurite 3.37 as Azure Blob Storage: Microsoft's emulator, in Node.js.

npm ``azurite``, MIT.  It is installed into the cache folder once, by npm.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs

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


def variables(server: Server) -> dict[str, str]:
    """Give the environment variables that a user sets."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": f"{server.endpoint}/{ACCOUNT}",
    }


def filesystem(server: Server) -> pafs.FileSystem:
    """Open the emulator, independently of cfray."""
    place = {
        f"{service}_storage_{part}": value
        for service in ("blob", "dfs")
        for part, value in (
            ("authority", server.endpoint.removeprefix("http://")),
            ("scheme", "http"),
        )
    }
    return pafs.AzureFileSystem(ACCOUNT, account_key=KEY, **place)


def _answers(server: Server) -> bool:
    try:
        filesystem(server).get_file_info(pafs.FileSelector("", allow_not_found=True))
    except OSError:
        return False
    return True


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start it on a free port."""
    ports = free_ports(1)
    argv = ["node", str(program()), "--location", str(folder), "--blobHost", "127.0.0.1"]
    argv += ["--blobPort", str(ports[0]), "--silent", "--skipApiVersionCheck"]
    with running(Launch("azurite", argv, ports, _answers, patience=2), folder) as server:
        yield server
