"""Fault proxies on loopback, between a client and a server, break the requests that a test names.

They run in the test's own process, forward everything else unchanged, and never wait for a clock: a
held answer goes on when the test says so. HttpProxy takes whole requests and answers, so it
re-frames a chunked body with its length. GrpcProxy cannot cut a connection; TcpProxy can, whatever
travels in it.
"""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.testbeds.faults import Dropped, Grpc, Listener, Proxy, Slow, Status, Truncated

__all__ = ["Dropped", "Grpc", "GrpcProxy", "HttpProxy", "Slow", "Status", "TcpProxy", "Truncated"]


class HttpProxy(Proxy):
    """In front of an ``http://`` server; each client connection has its connection to the server."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = urlsplit(upstream).netloc

    def open(self) -> None:
        self.listener = Listener(type("Forward", (_Forward,), {"proxy": self}))
        self.endpoint = f"http://127.0.0.1:{self.listener.port}"

    def close(self) -> None:
        self.listener.stop()

    def wait_for_release(self, client: socket.socket) -> bool:
        ours, bell = socket.socketpair()
        with ours, bell:
            wake = bell.close
            self.held(wake)
            watched = [ours, client]
            while ours not in (ready := select.select(watched, [], [])[0]):
                if client in ready and not client.recv(1, socket.MSG_PEEK):
                    self.left(wake)
                    return False
                watched = [ours]  # the client has sent more: it is there
            return True


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    proxy: HttpProxy

    def setup(self) -> None:
        super().setup()
        self.upstream = HTTPConnection(self.proxy.upstream)

    def finish(self) -> None:
        self.upstream.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.forward
        raise AttributeError(name)

    def forward(self) -> None:
        body = self.body()
        fault = self.proxy.arrived(self.command, self.path)
        if isinstance(fault, Status):
            return self.answer(fault.code, "", list(fault.headers.items()), fault.body)
        try:
            if isinstance(fault, Dropped | Grpc):
                raise ConnectionAbortedError
            status, reason, headers, answer = self.ask(body)
            if isinstance(fault, Slow) and not self.proxy.wait_for_release(self.connection):
                raise ConnectionAbortedError
        except (
            OSError,
            HTTPException,
        ):  # also when the server itself closes: the client sees what it would see there
            self.close_connection = True
            return None
        return self.answer(status, reason, headers, answer, half=isinstance(fault, Truncated))

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return b"".join(_chunks(self.rfile))

    def ask(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.raw_items():
            if name.lower() not in {"expect", "transfer-encoding"}:  # 100 Continue was said here
                self.upstream.putheader(name, value)
        if "Transfer-Encoding" in self.headers:
            self.upstream.putheader("Content-Length", str(len(body)))
        self.upstream.endheaders(body or None)
        response = self.upstream.getresponse()
        answer = response.read()
        return response.status, response.reason, response.msg.raw_items(), answer  # type: ignore[attr-defined]

    def answer(
        self,
        status: int,
        reason: str,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        half: bool = False,
    ) -> None:
        self.send_response_only(status, reason or None)
        bodiless = self.command == "HEAD" or status in {204, 304}
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", *([] if bodiless else ["content-length"])}:
                self.send_header(name, value)  # "Connection: close" closes here too
        if not bodiless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        self.wfile.flush()
        self.close_connection = self.close_connection or half


def _chunks(stream: Any) -> Iterator[bytes]:
    while size := int(stream.readline().partition(b";")[0], 16):
        yield stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass


class GrpcProxy(Proxy):
    """In front of a gRPC server ("host:port", no TLS): any method, as streams of messages."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = upstream

    def open(self) -> None:
        from tests.testbeds.grpc_proxy import serve

        self._stop, port = serve(self, self.upstream)
        self.endpoint = f"127.0.0.1:{port}"

    def close(self) -> None:
        self._stop()


class TcpProxy(Proxy):
    """In front of any port: it counts bytes and knows no requests.

    ``fail`` and ``seen`` mean nothing here.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.server = (host, port)
        self._left_to_send: int | None = None

    def cut_after(self, n_bytes: int) -> None:
        """Let so many more bytes of answers pass, then close the connection of the last, once."""
        with self.changed:
            self._left_to_send = n_bytes

    def open(self) -> None:
        self.listener = Listener(type("Pump", (_Pump,), {"proxy": self}))
        self.port = self.listener.port
        self.endpoint = f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.listener.stop()

    def passing(self, data: bytes) -> tuple[bytes, bool]:
        with self.changed:
            if self._left_to_send is None or len(data) < self._left_to_send:
                self._left_to_send = (
                    None if self._left_to_send is None else self._left_to_send - len(data)
                )
                return data, False
            passing, self._left_to_send = data[: self._left_to_send], None
            return passing, True


class _Pump(socketserver.BaseRequestHandler):
    proxy: TcpProxy

    def handle(self) -> None:
        with socket.create_connection(self.proxy.server) as server:
            up = threading.Thread(
                target=_pump, args=(self.request, server, lambda data: (data, False)), daemon=True
            )
            up.start()
            _pump(server, self.request, self.proxy.passing)
            for end in (server, self.request):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            up.join()


def _pump(
    source: socket.socket, sink: socket.socket, passing: Callable[[bytes], tuple[bytes, bool]]
) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            data, cut = passing(data)
            sink.sendall(data)
            if cut:
                return
        sink.shutdown(socket.SHUT_WR)
