"""JSON over HTTP on a loopback port, a proof of which process answers, a launcher: for all doubles.

A double is a program of its own, so that it can be killed, and a client talks to it as to a server.
``GET /__double__`` gives its name, the nonce it was started with and its process id, without a key.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socketserver
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import urlopen

from tests.testbeds.server import Launch, Server, Unavailable, is_open, running

ROOT = Path(__file__).parents[2]


class JsonHandler(BaseHTTPRequestHandler):
    """Reads a request whole and hands it to ``respond``, which calls ``send`` once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    identity: Mapping[str, Any] = {}

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        if url.path == "/__double__":
            return self.send(200, json.dumps(self.identity).encode())
        return self.respond([unquote(part) for part in url.path.strip("/").split("/")], url, body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815

    def respond(self, path: list[str], url: SplitResult, body: bytes) -> None:
        raise NotImplementedError

    def send(
        self, status: int, data: bytes, content_type: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


class _Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def options(description: str | None, **more: Mapping[str, Any]) -> argparse.Namespace:
    """Read the command line of a double: its port, its nonce, and options of its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nonce", default="")
    for name, how in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    return parser.parse_args()


def serve(handler: type[JsonHandler], name: str, given: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    handler.identity = {"double": name, "nonce": given.nonce, "pid": os.getpid()}
    with _Listener(("127.0.0.1", given.port), handler) as listener:
        listener.serve_forever()


@contextmanager
def started(
    name: str,
    folder: Path,
    *,
    ports: Sequence[int],
    needs: Sequence[str],
    arguments: Mapping[str, Any],
    settings: Mapping[str, str],
    env: Mapping[str, str],
) -> Iterator[Server]:
    """Start ``tests.testbeds.<name>_double``, and wait until it answers on all of its ports."""
    missing = [package for package in needs if not importlib.util.find_spec(package)]
    if missing:
        raise Unavailable(
            f'{", ".join(missing)} not installed; pip install -e ".[dev]" brings what the tests need'
        )
    nonce = uuid.uuid4().hex
    told = {"port": ports[0], "nonce": nonce, **arguments}
    argv = [
        sys.executable,
        "-m",
        f"tests.testbeds.{name}_double",
        *(f"--{option}={value}" for option, value in told.items()),
    ]

    def answers(server: Server) -> bool:
        with suppress(OSError), urlopen(f"{server.endpoint}/__double__", timeout=5) as answer:
            return json.load(answer) == {"double": name, "nonce": nonce, "pid": server.pid} and all(
                map(is_open, ports)
            )
        return False

    launch = Launch(
        name,
        argv,
        ports,
        answers,
        env=env,
        settings={"PYTHONPATH": str(ROOT), **settings},
        patience=2,
    )
    with running(launch, folder) as server:
        yield server
