"""A careless S3 store, on a real socket: the negative control of the conditional-put probe.

It knows PUT, GET and DELETE of objects, keeps them in memory and gets conditions wrong in the ways
that real stores do. It proves nothing about any product; it shows that the probe can say no.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

#: atomic: right; late: checks, and writes a moment later; ignored: no check; unknown: 501 for any
#: condition; no match, no none match: one of the two conditions ignored; failing: 503 for every
#: write.
Conduct = Literal["atomic", "late", "ignored", "unknown", "no match", "no none match", "failing"]

WINDOW_SECONDS = 0.05  # between the check and the write of a store that does the two separately


@contextmanager
def careless_s3(conduct: Conduct) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Serve on a free loopback port; gives the endpoint and the stored objects by path."""
    objects: dict[str, bytes] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: bytes = b"", tag: str = "") -> None:
            self.send_response(status)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuses(self) -> bool:
            held = objects.get(self.path)
            none = self.headers["If-None-Match"] if conduct != "no none match" else None
            wanted = self.headers["If-Match"] if conduct != "no match" else None
            return (none == "*" and held is not None) or (
                wanted is not None and wanted != _tag(held)
            )

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if conduct == "failing" or (
                conduct == "unknown"
                and ("If-Match" in self.headers or "If-None-Match" in self.headers)
            ):
                return self.answer(503 if conduct == "failing" else 501)
            if conduct == "late":
                if self.refuses():
                    return self.answer(412)
                time.sleep(WINDOW_SECONDS)
            with lock:
                if conduct not in ("late", "ignored") and self.refuses():
                    return self.answer(412)
                objects[self.path] = body
            return self.answer(200, tag=_tag(body))

        def do_GET(self) -> None:
            self.answer(200 if self.path in objects else 404, objects.get(self.path, b""))

        def do_DELETE(self) -> None:
            objects.pop(self.path, None)
            self.answer(204)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", objects
        server.shutdown()
        thread.join(10)


def _tag(body: bytes | None) -> str:
    return "" if body is None else f'"{hashlib.md5(body).hexdigest()}"'
