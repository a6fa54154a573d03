"""moto 5.2 as an S3 store: an emulator in Python, the light default.

PyPI ``moto[server]``, Apache-2.0.

It keeps everything in memory and lets any key in, so it cannot show what wrong credentials do.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbeds.s3 import environment, keeps_an_object
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start moto on a free port."""
    missing = [package for package in ("moto", "flask") if not importlib.util.find_spec(package)]
    if missing:
        raise Unavailable('moto[server] is not installed; pip install -e ".[dev]" brings it')
    ports = free_ports(1)
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])]
    with running(
        Launch("moto", argv, ports, keeps_an_object, env=environment(ports[0]), patience=2), folder
    ) as server:
        yield server
