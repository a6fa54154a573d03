"""A fault proxy that understands PostgreSQL's protocol, without TLS, as far as faults need it.

It sees each statement of the simple query protocol as a request whose method is ``QUERY`` and whose
path is the statement's text.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.testbeds.faults import Dropped, Listener, Proxy, Slow, Truncated

#: Requests for encryption, which are answered with no.
_SSL, _GSS = 80_877_103, 80_877_104


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of the server instead of its answer, which is not asked."""

    sqlstate: str
    severity: str = "ERROR"


@dataclass(frozen=True, slots=True)
class Cut:
    """So many bytes of the server's answer, then a closed connection."""

    after: int


class PostgresProxy(Proxy):
    """In front of a server; each client connection has its connection to the server."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.server = ("127.0.0.1", port)

    def open(self) -> None:
        self.listener = Listener(type("Forward", (_Forward,), {"proxy": self}))
        self.port = self.listener.port
        self.endpoint = f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.listener.stop()


class _Forward(socketserver.BaseRequestHandler):
    proxy: PostgresProxy

    def handle(self) -> None:
        client: socket.socket = self.request
        with suppress(OSError, EOFError), socket.create_connection(self.proxy.server) as server:
            self.gate = threading.Event()
            self.gate.set()
            self.left_to_send: int | None = None
            self.is_skipping = False
            answers = threading.Thread(target=self.pump, args=(server, client), daemon=True)
            answers.start()
            try:
                for kind, message in _messages(client):
                    if not self.forward(client, server, kind, message):
                        break
            finally:
                self.gate.set()
                for end in (server, client):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                answers.join()

    def forward(
        self, client: socket.socket, server: socket.socket, kind: bytes, message: bytes
    ) -> bool:
        """Pass a message on, or meet it with a fault; tell whether the connection goes on."""
        if self.is_skipping:
            # as the server does after an error
            self.is_skipping = kind != b"S"
            return True
        fault: object = None
        if kind == b"P":
            # a name, then the statement
            fault = self.proxy.arrived("QUERY", message[5:].split(b"\0")[1].decode())
        if isinstance(fault, Dropped):
            return False
        if isinstance(fault, Refusal):
            fields = f"S{fault.severity}\0V{fault.severity}\0C{fault.sqlstate}\0Mrefused\0\0"
            body = fields.encode()
            client.sendall(b"E" + struct.pack(">i", len(body) + 4) + body + b"Z\0\0\0\5E")
            self.is_skipping = True
            return fault.severity != "FATAL"
        if isinstance(fault, Truncated | Cut):
            self.left_to_send = fault.after if isinstance(fault, Cut) else 40
        if isinstance(fault, Slow):
            self.gate.clear()
            self.proxy.held(self.gate.set)
        server.sendall(message)
        return True

    def pump(self, server: socket.socket, client: socket.socket) -> None:
        """Pass answers on, as long as no fault holds or cuts them."""
        with suppress(OSError):
            while data := server.recv(1 << 16):
                self.gate.wait()
                if self.left_to_send is not None:
                    client.sendall(data[: self.left_to_send])
                    if self.left_to_send <= len(data):
                        break
                    self.left_to_send -= len(data)
                    continue
                client.sendall(data)
        for end in (server, client):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _messages(client: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Cut what a client sends into messages, each with its type; a start has the type ``b""``."""
    stream = client.makefile("rb")
    while True:
        head = _exactly(stream, 8)
        length, code = struct.unpack(">ii", head)
        if code not in (_SSL, _GSS):
            yield b"", head + _exactly(stream, length - 8)
            break
        client.sendall(b"N")
    while kind := stream.read(1):
        head = _exactly(stream, 4)
        (length,) = struct.unpack(">i", head)
        yield kind, kind + head + _exactly(stream, length - 4)


def _exactly(stream: object, count: int) -> bytes:
    data: bytes = stream.read(count)  # type: ignore[attr-defined]
    if len(data) < count:
        raise EOFError
    return data
