"""A fault proxy for MongoDB's wire protocol: it takes whole messages and answers, as HttpProxy does.

A request is named ("OP_MSG", "find database.collection"), by the first element of its command.
"""

from __future__ import annotations

import select
import socket
import socketserver
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.testbeds.faults import Dropped, Listener, Proxy, Slow, Truncated

_HEADER = struct.Struct("<iiii")
_OP_MSG = 2013


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of the server's instead of its answer."""

    code: int
    name: str


class MongoProxy(Proxy):
    """In front of a server ("host:port", no TLS); each connection has its connection to it."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.server = (host, port)
        #: Every command that passed.
        self.commands: list[dict[str, Any]] = []
        #: Answer as a server does that reads the cluster time it is asked for: name that time.
        #: SecantusDB names its latest time instead.
        self.names_the_time = False

    def open(self) -> None:
        self.listener = Listener(type("Forward", (_Forward,), {"proxy": self}))
        self.port = self.listener.port
        self.endpoint = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def close(self) -> None:
        self.listener.stop()

    def wait_for_release(self, client: socket.socket) -> bool:
        ours, bell = socket.socketpair()
        with ours, bell:
            wake = bell.close
            self.held(wake)
            while ours not in (ready := select.select([ours, client], [], [])[0]):
                if client in ready and not client.recv(1, socket.MSG_PEEK):
                    self.left(wake)
                    return False
            return True


class _Forward(socketserver.BaseRequestHandler):
    proxy: MongoProxy

    def handle(self) -> None:
        with suppress(OSError, EOFError), socket.create_connection(self.proxy.server) as server:
            while True:
                request = _message(self.request)
                method, command = _command(request)
                self.proxy.commands.append(command)
                concern = command.get("readConcern", {})
                fault: Any = self.proxy.arrived(method, _name(command))
                if isinstance(fault, Dropped):
                    return
                if isinstance(fault, Refused):
                    self.request.sendall(_refusal(request, fault))
                    continue
                server.sendall(request)
                answer = _message(server)
                if "atClusterTime" in concern and self.proxy.names_the_time:
                    answer = _with_time(answer, concern["atClusterTime"])
                if isinstance(fault, Slow) and not self.proxy.wait_for_release(self.request):
                    return
                if isinstance(fault, Truncated):
                    self.request.sendall(answer[: len(answer) // 2])
                    return
                self.request.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    head = _bytes(connection, 4)
    return head + _bytes(connection, struct.unpack("<i", head)[0] - 4)


def _bytes(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _command(request: bytes) -> tuple[str, dict[str, Any]]:
    """Decode a request; what is no OP_MSG is a handshake of old."""
    import bson

    if _HEADER.unpack_from(request)[3] != _OP_MSG:
        return "OP_QUERY", {"hello": 1}
    length = struct.unpack_from("<i", request, 21)[0]
    return "OP_MSG", bson.decode(request[21 : 21 + length])


def _name(command: dict[str, Any]) -> str:
    """Name a command by its first element and its collection."""
    name = next(iter(command))
    return f"{name} {command.get('$db')}.{command[name]}"


def _with_time(answer: bytes, time: Any) -> bytes:
    """Put a cluster time into the cursor of an answer."""
    import bson
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument

    raw = bson.decode(answer[21:], CodecOptions(document_class=RawBSONDocument))
    document = dict(raw.items())
    document["cursor"] = {**dict(document["cursor"].items()), "atClusterTime": time}
    body = answer[16:21] + bson.encode(document)
    return struct.pack("<i", 16 + len(body)) + answer[4:16] + body


def _refusal(request: bytes, fault: Refused) -> bytes:
    import bson

    document = {"ok": 0.0, "errmsg": fault.name, "code": fault.code, "codeName": fault.name}
    body = struct.pack("<iB", 0, 0) + bson.encode(document)
    header = _HEADER.pack(16 + len(body), 0, _HEADER.unpack_from(request)[1], _OP_MSG)
    return header + body
