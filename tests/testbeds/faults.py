"""The faults, which request meets which, and a listener that can stop: for all fault proxies."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

HELD_SECONDS = 60.0  # until_held gives up
POLL_SECONDS = 0.05  # between two looks whether to stop listening


@dataclass(frozen=True, slots=True)
class Dropped:
    """No answer: the request never reaches the server.

    A gRPC client gets what it reports of a closed connection.
    """


@dataclass(frozen=True, slots=True)
class Status:
    """Another answer than the server's, which is not asked."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Truncated:
    """Half of the server's answer, all of it promised, then a closed connection; HTTP only."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The server's answer, held until ``release()`` or until the client goes away."""


@dataclass(frozen=True, slots=True)
class Grpc:
    """A gRPC error instead of the server's answer; ``code`` is a ``grpc.StatusCode`` or its name."""

    code: Any
    details: str = ""
    trailing: Mapping[str, str] = field(default_factory=dict)


Fault = Dropped | Status | Truncated | Slow | Grpc


class Proxy:
    """What a proxy will do wrong next, and what it has seen.

    Attributes:
        endpoint: where clients connect.
        seen: every request, failed ones too: (method, path with query), in gRPC ("gRPC",
            "/package.Service/Method").
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.seen: list[tuple[str, str]] = []
        self._queue: list[tuple[Fault, str]] = []
        self.wakers: list[Callable[[], None]] = []
        self.changed = threading.Condition()

    def fail(self, fault: Fault, times: int = 1, matching: str = "") -> None:
        """Break the next ``times`` requests whose "METHOD path" contains ``matching``."""
        with self.changed:
            self._queue += [(fault, matching)] * times

    @property
    def waiting(self) -> int:
        """Count the faults that have not happened yet."""
        return len(self._queue)

    def heal(self) -> None:
        """Forget the faults that have not happened yet."""
        with self.changed:
            self._queue.clear()

    def until_held(self, count: int = 1) -> None:
        """Wait until so many answers are held."""
        with self.changed:
            held = self.changed.wait_for(lambda: len(self.wakers) >= count, HELD_SECONDS)
            assert held, f"{len(self.wakers)} answers are held, not {count}"

    def release(self) -> None:
        """Let every held answer go on."""
        with self.changed:
            for wake in self.wakers:
                wake()
            self.wakers.clear()

    def arrived(self, method: str, path: str) -> Fault | None:
        with self.changed:
            self.seen.append((method, path))
            for number, (fault, matching) in enumerate(self._queue):
                if matching in f"{method} {path}":
                    del self._queue[number]
                    return fault
        return None

    def held(self, wake: Callable[[], None]) -> None:
        with self.changed:
            self.wakers.append(wake)
            self.changed.notify_all()

    def left(self, wake: Callable[[], None]) -> None:
        """Forget a held answer whose client went away."""
        with self.changed:
            self.wakers = [
                other for other in self.wakers if other != wake
            ]  # bound methods are equal, never identical
            self.changed.notify_all()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.close()

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A loopback listener that ends its open connections with itself."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        handler: type[socketserver.BaseRequestHandler],
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(address, handler)
        self.port: int = self.server_address[1]
        self.connections: set[socket.socket] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), daemon=True
        )
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that left is what tests here are about."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
