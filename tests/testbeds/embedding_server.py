"""A double that embeds, over real sockets on loopback, as OpenAI's API and as TEI's.

The paths are ``/v1/embeddings``, and ``/embed`` with ``/tokenize``.

It is a double because neither server can be had from the registries: OpenAI's is a service, and
text-embeddings-inference ships as containers. The embedding is real, cheap and deterministic: a
text's trigrams, hashed, each with a fixed random direction, summed to length 1, so that like texts
have like vectors. It answers the items of an OpenAI answer out of order, as the API allows, and
breaks exactly the requests that a test names; nothing in it waits for a clock. A text that a test
calls deadly ends the embedding actor that sends it, as a text does that crashes a model in native
code.

Written from https://platform.openai.com/docs/api-reference/embeddings and TEI's
``docs/openapi.json`` (1.7.1).
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal, Self
from urllib.parse import SplitResult

import numpy as np
import psutil

from tests.testbeds.double import JsonHandler
from tests.testbeds.faults import HELD_SECONDS, Listener, Status
from tests.testbeds.processes import PATIENCE, title

Odd = Literal[
    "too few", "too wide", "uneven", "nan", "huge", "half", "unlike", "same index", "slow"
]

_TABLE_ROWS = 4_096
#: Begin of the title that Ray gives to an actor of the embedding line.
ACTOR = "ray::MapWorker(MapBatches(embed_"


def embedded(text: str, dimension: int) -> np.ndarray:
    """Embed a text, ``(dimension,)`` float32 of length 1."""
    table = _directions(dimension)
    data = f"\x02{text}\x03".encode()
    total = table[
        [zlib.crc32(data[at : at + 3]) % _TABLE_ROWS for at in range(max(1, len(data) - 2))]
    ].sum(axis=0, dtype=np.float64)
    return (total / np.linalg.norm(total)).astype(np.float32)


@functools.cache
def _directions(dimension: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((_TABLE_ROWS, dimension), dtype=np.float32)


def tokens(text: str) -> list[str]:
    """Cut a text into the double's tokens: words and other characters, between two special ones."""
    return ["[CLS]", *re.findall(r"\w+|[^\w\s]", text), "[SEP]"]


def client_of(client_port: int, server_port: int) -> int:
    """Find the process at the other end of a connection on loopback."""
    (client,) = [
        connection.pid
        for connection in psutil.net_connections("tcp4")
        if connection.raddr
        and (connection.laddr.port, connection.raddr.port) == (client_port, server_port)
    ]
    return client


class EmbeddingServer:
    """One server; ``with EmbeddingServer() as server`` serves.

    Attributes:
        dimension: of its vectors; the OpenAI API's ``dimensions`` cuts them.
        key: what it wants as a bearer token; None: nothing.
        max_batch: texts it takes in one request.
        max_tokens: of one text; TEI cuts what is longer where it is told to, the OpenAI API refuses
            it.
        tokenizes: whether ``/tokenize`` is served.
        address: of loopback, and the port that it listens on; port 0: any that is free.
        quota: after every so many requests it answers one with 429 and ``retry_after``; None:
            never.
        url: of the OpenAI API, the root for TEI.
        requests: path and texts of every request, refused ones too.
        headers: of the last request.
        inside: the requests that are in it now.
        widest: the most requests that were in it at the same time.
        deaths: process ids of the actors that a deadly text ended.
    """

    def __init__(
        self,
        dimension: int = 16,
        *,
        key: str | None = None,
        tokenizes: bool = True,
        max_batch: int = 2_048,
        max_tokens: int = 8_191,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.dimension, self.key, self.tokenizes, self.max_batch, self.max_tokens = (
            dimension,
            key,
            tokenizes,
            max_batch,
            max_tokens,
        )
        self.address = address
        self.quota: int | None = None
        self.retry_after = "0.01"
        self.requests: list[tuple[str, list[str]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.inside = self.widest = self._since_refusal = 0
        self.deaths: list[int] = []
        self._is_deadly: Callable[[str], bool] | None = None
        self._gates: list[tuple[str, threading.Event]] = []
        self._faults: dict[int, Odd | Status] = {}
        self._refusal: tuple[Callable[[str], bool], Status] = (lambda text: False, Status(400))
        self._lock = threading.Lock()
        self._released = threading.Event()

    def __enter__(self) -> Self:
        handler = type("Answer", (_Handler,), {"double": self})
        self._listener = Listener(handler, self.address)
        self.root = f"http://{self.address[0]}:{self._listener.port}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        for _, gate in self._gates:
            gate.set()
        self._listener.stop()

    def fail(self, fault: Odd | Status, on: Iterable[int] = (1,)) -> None:
        """Break the first request from now on, or the ones with these numbers (1: the next one)."""
        with self._lock:
            self._faults |= {len(self.requests) + number: fault for number in on}

    def refuse(self, is_refused: Callable[[str], bool], answer: Status) -> None:
        """From now on, answer so to each request for vectors of a text that is refused."""
        self._refusal = is_refused, answer

    def release(self) -> None:
        """Let the slow answers go that are held now; later ones are held again."""
        released, self._released = self._released, threading.Event()
        released.set()

    def sent(self, path: str = "embed") -> list[list[str]]:
        """Give the texts of each request to an address that contains ``path``."""
        return [texts for where, texts in self.requests if path in where]

    def arrived(self, path: str, body: dict[str, Any]) -> Odd | Status | None:
        """Note a request and say what goes wrong with it."""
        texts = body.get("input", body.get("inputs", []))
        with self._lock:
            self.requests.append((path, texts if isinstance(texts, list) else [texts]))
            self.bodies.append(body)
            self.inside += 1
            self.widest = max(self.widest, self.inside)
            self._since_refusal += 1
            if self.quota is not None and self._since_refusal > self.quota:
                self._since_refusal = 0
                return Status(
                    429,
                    {"Retry-After": self.retry_after},
                    b'{"error": {"message": "rate limit reached"}}',
                )
            is_refused, answer = self._refusal
            if "tokenize" not in path and any(map(is_refused, self.requests[-1][1])):
                return answer
            return self._faults.pop(len(self.requests), None)

    def left(self) -> None:
        with self._lock:
            self.inside -= 1

    def wait(self) -> None:
        self._released.wait(HELD_SECONDS)

    def hold(self, words: str) -> threading.Event:
        """Hold each request that has a text with these words, until the test sets the event."""
        gate = threading.Event()
        self._gates.append((words, gate))
        return gate

    def wait_at_gates(self, texts: list[str]) -> None:
        """Wait until no gate holds these texts."""
        for words, gate in self._gates:
            if any(words in text for text in texts):
                gate.wait(PATIENCE)

    def kill(self, is_deadly: Callable[[str], bool]) -> None:
        """From now on, end each embedding actor that sends a deadly text; answer other clients."""
        self._is_deadly = is_deadly

    def mend(self) -> None:
        """From now on, no text is deadly."""
        self._is_deadly = None

    def is_deadly(self, texts: list[str]) -> bool:
        """Tell whether an actor that sends these texts is to be ended."""
        judge = self._is_deadly
        return judge is not None and any(judge(text) for text in texts)

    def vectors(
        self, texts: list[str], dimensions: int | None, fault: Odd | Status | None
    ) -> list[list[Any]]:
        """Embed a batch, or spoil it."""
        rows: list[list[Any]] = [
            embedded(text, self.dimension)[:dimensions].tolist() for text in texts
        ]
        if fault == "too few":
            rows.pop()
        elif fault == "too wide":
            rows = [[*row, 0.5] for row in rows]
        elif fault == "uneven":
            rows[-1].append(0.5)
        elif fault == "nan":
            rows[-1][0] = None  # so does TEI write NaN
        elif fault == "huge":
            rows[-1][0] = 10**400  # JSON has integers of any size, float64 has not
        return rows


class _Handler(JsonHandler):
    double: EmbeddingServer
    server: Listener

    def respond(self, path: list[str], url: SplitResult, body: bytes) -> None:
        double = self.double
        double.headers = dict(self.headers)
        asked = json.loads(body)
        fault = double.arrived(url.path, asked)
        try:
            if (
                double.key is not None
                and self.headers.get("Authorization") != f"Bearer {double.key}"
            ):
                said = self.headers.get("Authorization", "nothing")
                return self.error(401, f"Incorrect API key provided: {said}")
            if isinstance(fault, Status):
                return self.send(
                    fault.code,
                    fault.body,
                    **{name.replace("-", "_"): value for name, value in fault.headers.items()},
                )
            texts = asked.get("input", asked.get("inputs", []))
            double.wait_at_gates(texts)
            if double.is_deadly(texts) and self.end_actor():
                return None
            if fault == "slow":
                double.wait()
            answers: dict[str, Callable[[dict[str, Any], Any], Any]] = {
                "/v1/embeddings": self.openai,
                "/embed": self.tei,
                "/tokenize": self.tokenize,
            }
            if url.path not in answers or (url.path == "/tokenize" and not double.tokenizes):
                return self.error(404, f"no {url.path} here")
            return answers[url.path](asked, fault)
        finally:
            double.left()

    def end_actor(self) -> bool:
        """End the client if it is an actor of the embedding line; tell whether it was."""
        client = client_of(self.client_address[1], self.server.port)
        if not title(client).startswith(ACTOR):
            return False
        self.double.deaths.append(client)
        os.kill(client, signal.SIGKILL)
        self.close_connection = True
        return True

    def openai(self, asked: dict[str, Any], fault: Odd | None) -> None:
        texts = asked["input"]
        if len(texts) > self.double.max_batch:
            return self.error(400, f"{len(texts)} inputs are more than {self.double.max_batch}")
        if any(len(tokens(text)) - 2 > self.double.max_tokens for text in texts):
            return self.error(400, f"maximum context length is {self.double.max_tokens} tokens")
        rows = self.double.vectors(texts, asked.get("dimensions"), fault)
        items = [
            {
                "object": "embedding",
                "index": 0 if fault == "same index" else place,
                "embedding": row,
            }
            for place, row in enumerate(rows)
        ]
        total = sum(len(tokens(text)) - 2 for text in texts)
        answer = {
            "object": "list",
            "data": items[::-1],
            "model": asked["model"],
            "usage": {"prompt_tokens": total, "total_tokens": total},
        }
        return self.answer(answer, fault)

    def tei(self, asked: dict[str, Any], fault: Odd | None) -> None:
        texts = asked["inputs"]
        if len(texts) > self.double.max_batch:
            return self.error(
                422, f"batch size {len(texts)} > maximum allowed batch size {self.double.max_batch}"
            )
        if not all(texts):
            return self.error(400, "`inputs` cannot be empty")
        if not asked.get("truncate") and any(
            len(tokens(text)) > self.double.max_tokens for text in texts
        ):
            return self.error(413, f"`inputs` must have less than {self.double.max_tokens} tokens")
        cut = [
            text
            if len(tokens(text)) <= self.double.max_tokens
            else " ".join(tokens(text)[1 : self.double.max_tokens - 1])
            for text in texts
        ]
        return self.answer(self.double.vectors(cut, asked.get("dimensions"), fault), fault)

    def tokenize(self, asked: dict[str, Any], fault: Odd | None) -> None:
        if not all(asked["inputs"]):
            return self.error(400, "`inputs` cannot be empty")
        lists = [
            [{"id": 0, "text": one, "special": one in ("[CLS]", "[SEP]")} for one in tokens(text)]
            for text in asked["inputs"]
        ]
        return self.answer(lists[:-1] if fault == "too few" else lists, fault)

    def answer(self, content: Any, fault: Odd | None) -> None:
        data = json.dumps({"hello": "world"} if fault == "unlike" else content).encode()
        with suppress(OSError):  # a client that did not wait
            self.send(200, data[: len(data) // 2] if fault == "half" else data)

    def error(self, status: int, message: str) -> None:
        inner: Any = (
            {"message": message, "type": "invalid_request_error"}
            if self.path.startswith("/v1")
            else message
        )
        self.send(status, json.dumps({"error": inner}).encode())
