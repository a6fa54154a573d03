"""An embedder behind a server.

The OpenAI API and text-embeddings-inference (TEI), batch by batch over plain HTTP.

A request waits for the run's budgets and is sent anew after a transient error;
``answers.py`` says what comes back.  Vectors are passed on at the length they have.

Only the server's tokenizer knows tokens: but for TEI's ``/tokenize`` they are an
estimate, 4 bytes of UTF-8 each, which is English prose
(https://help.openai.com/en/articles/4936856) and too few for digits or Chinese; there the operator
gives a smaller ``max_tokens``.

Sources: https://platform.openai.com/docs/api-reference/embeddings/create, TEI's
``docs/openapi.json`` (1.7.1).
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cfray.embedders.answers import NotThere, Server
from cfray.embedders.base import Embedder, Identity
from cfray.embedders.spec import Endpoint
from cfray.errors import SourceError, SourceUnavailable
from cfray.records.vectors import Floats
from cfray.runtime import retry
from cfray.runtime.sdk import import_sdk
from cfray.runtime.throttle import Throttle, Unlimited

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

#: Bytes of UTF-8 that a token is taken for.
_TOKEN_BYTES = 4
#: Bytes of text in a request that holds more than one: half of what TEI takes (payload_limit, 2
#: MB), and at 4 bytes a token within the 300,000 tokens that OpenAI takes.
_REQUEST_BYTES = 1_000_000
_PROBE = "dimension"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Budgets:
    """What all workers of a run may send an endpoint together.

    Attributes:
        requests: one is taken for each request; also keeps the pauses that the server asks for.
        tokens: as many are taken as the texts of a request have, or are taken to have.
    """

    requests: Throttle = field(default_factory=Unlimited)
    tokens: Throttle = field(default_factory=Unlimited)

    def take(self, tokens: int) -> None:
        """Wait until one more request with so many tokens may be sent.

        Its turn comes last, so that a pause asked for meanwhile holds.
        """
        if tokens:
            self.tokens.take(tokens)
        self.requests.take(1)

    def hold_off(self, seconds: float) -> None:
        """Let no worker send for a while."""
        self.requests.hold_off(seconds)


class EndpointEmbedder(Embedder):
    """One server; pickles, and opens its connections when it first sends.

    Attributes:
        tokens_exact: whether ``count_tokens`` gives the server's own counts; false where they are
            estimates, which for TEI the first call finds out.
    """

    def __init__(
        self,
        spec: Endpoint,
        *,
        prompt: str | None,
        query_prompt: str | None,
        throttle: Budgets,
        on_long_text: str = "truncate",
        dimension: int | None = None,
    ) -> None:
        """Reach the server, unless ``dimension`` says what would be asked.

        Args:
            spec: the job's section.
            prompt: put before each document; None: nothing.
            query_prompt: put before each query.
            throttle: the run's budgets.
            on_long_text: goes into the identity; what it means stands in ``texts.py``.
            dimension: width of the vectors where it is known; None: one short text is embedded to
                learn it.

        Raises:
            SourceError: refused: a wrong key, address or model, or an answer that is none.
            SourceUnavailable: the server does not answer.
        """
        self.spec, self.budgets = spec, throttle
        self.server = Server.of(spec)
        self.tokens_exact = spec.api == "tei"
        self._client: httpx.Client | None = None
        self._width = dimension or spec.dimensions
        if dimension is None:
            self._width = self._embedded([_PROBE], [_estimate(_PROBE)]).shape[1]
        assert self._width is not None
        named = {
            "url": spec.url.rstrip("/"),
            "api": spec.api,
            "model": spec.model,
            "dimensions": spec.dimensions,
        }
        self.identity = Identity(
            name=spec.model or self.server.place,
            sha256=hashlib.sha256(
                json.dumps(named, sort_keys=True, separators=(",", ":")).encode()
            ).hexdigest(),
            engine=spec.api,
            dtype="server",
            prompt=prompt or "",
            query_prompt=query_prompt or "",
            max_tokens=spec.max_tokens,
            dimension=self._width,
            on_long_text=on_long_text,
        )

    def __getstate__(self) -> dict[str, object]:
        """Leave the connections, and the key in their headers, behind."""
        return {**self.__dict__, "_client": None}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count by TEI's ``/tokenize`` where it is served, else estimate.

        Without special tokens then.
        """
        prompted = [_sendable(self.identity.prompt + text) for text in texts]
        if self.tokens_exact:
            try:
                return [
                    count
                    for batch in _batches(prompted, self.spec.batch)
                    for count in self._tokenized(prompted[batch])
                ]
            except NotThere:
                self.tokens_exact = False
        return [_estimate(text) for text in prompted]

    def encode(self, texts: Sequence[str], tokens: Sequence[int]) -> Floats:
        """Embed documents, one that the server fails on as NaN.

        What is too long TEI cuts, and for OpenAI's API, which refuses it, is cut here where the
        estimate says so.
        """
        return self._embedded(
            [_sendable(self.identity.prompt + text) for text in texts], tokens, documents=True
        )

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Embed queries."""
        prompted = [_sendable(self.identity.query_prompt + text) for text in texts]
        return self._embedded(prompted, [_estimate(text) for text in prompted])

    def pieces(self, text: str, tokens: int, overlap: int) -> list[str]:
        """Cut a text by the estimate, behind ASCII white space where there is some.

        Without the overlaps the pieces are the text.

        Raises:
            ValueError: ``overlap`` is not smaller than ``tokens``.
        """
        if not 0 <= overlap < tokens:
            raise ValueError(f"an overlap of {overlap} tokens in pieces of {tokens}")
        data = text.encode("utf-8", "surrogatepass")
        pieces, start = [], 0
        while len(data) - start > tokens * _TOKEN_BYTES:
            # behind what the next piece repeats, so that each begins after the last
            end = _word_end(
                data,
                start + overlap * _TOKEN_BYTES,
                _character(data, start + tokens * _TOKEN_BYTES),
            )
            pieces.append(data[start:end])
            start = _character(data, end - overlap * _TOKEN_BYTES, step=1)
        return [piece.decode("utf-8", "surrogatepass") for piece in [*pieces, data[start:]]]

    def cost(self, tokens: int) -> float | None:
        """Price so many tokens, in the operator's currency; None where the job names no price."""
        price = self.spec.price_per_million_tokens
        return None if price is None else price * tokens / 1e6

    def _embedded(
        self, texts: list[str], tokens: Sequence[int], *, documents: bool = False
    ) -> Floats:
        """Embed texts that stand behind their prompt."""
        spec, wide = (
            self.spec,
            {} if self.spec.dimensions is None else {"dimensions": self.spec.dimensions},
        )
        if spec.api == "openai":
            texts = [_cut(text, spec.max_tokens * _TOKEN_BYTES) for text in texts]
        parts = [np.zeros((0, self._width), np.float32)] if self._width else []
        for batch in _batches(texts, spec.batch):
            body: dict[str, object] = {
                "inputs": texts[batch],
                "truncate": True,
                "normalize": True,
                **wide,
            }
            if spec.api == "openai":
                body = {
                    "model": spec.model,
                    "input": texts[batch],
                    "encoding_format": "float",
                    **wide,
                }
            budget = sum(min(count, spec.max_tokens) for count in tokens[batch])
            read = partial(
                self.server.vectors, count=len(texts[batch]), width=self._width, documents=documents
            )
            parts.append(
                self._asked("embeddings" if spec.api == "openai" else "embed", body, budget, read)
            )
        return np.concatenate(parts)

    def _tokenized(self, texts: list[str]) -> list[int]:
        """Count one batch; TEI refuses an empty text.

        A letter is counted in its place and taken off again.
        """
        counts = self._asked(
            "tokenize",
            {"inputs": [text or "a" for text in texts]},
            0,
            partial(self.server.counts, texts=texts),
        )
        return [count - (text == "") for count, text in zip(counts, texts, strict=True)]

    def _asked(
        self, path: str, body: dict[str, object], tokens: int, read: Callable[[Any], T]
    ) -> T:
        """Send one request, again after a transient error, within the budgets."""
        client, library = self._opened(), import_sdk("httpx", "endpoint")
        key = client.headers.get("Authorization", "").removeprefix("Bearer ")

        def once() -> T:
            self.budgets.take(tokens)
            try:
                response = client.post(f"{self.spec.url.rstrip('/')}/{path}", json=body)
            except (library.HTTPError, library.InvalidURL) as error:
                raise self.server.lost(error, key) from None
            if response.is_success:
                return read(self.server.parsed(response.content))
            refusal = self.server.refused(response, key)
            if isinstance(refusal, SourceUnavailable) and refusal.retry_after:
                self.budgets.hold_off(refusal.retry_after)
            raise refusal

        return retry.retried(once)

    def _opened(self) -> httpx.Client:
        """Open the client, once.

        Raises:
            SourceError: httpx, the key or the certificates are missing, or cannot be used.
        """
        if self._client is None:
            spec, library = self.spec, import_sdk("httpx", "endpoint")
            key = "" if spec.api_key is None else spec.api_key.reveal().strip()
            if not (
                key.isascii() and key.isprintable()
            ):  # the client would quote it in its own error
                raise SourceError(
                    f"the key in {self.server.key_place} holds characters that no HTTP header takes",
                    "write it there as one line of ASCII",
                )
            try:
                trusted = ssl.create_default_context(cafile=spec.ca_file)
            except OSError as error:
                raise SourceError(
                    f"cannot read {spec.ca_file}: {error}",
                    "correct embedding.endpoint.ca_file: certificates in PEM",
                ) from None
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self._client = library.Client(timeout=spec.timeout, verify=trusted, headers=headers)
        assert self._client is not None
        return self._client


def _estimate(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // _TOKEN_BYTES)


def _sendable(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 and so no request can hold."""
    return _SURROGATE.sub("\ufffd", text)


def _cut(text: str, size: int) -> str:
    """Keep the first ``size`` bytes, to a whole character."""
    data = text.encode()
    return text if len(data) <= size else data[: _character(data, size)].decode()


def _character(data: bytes, at: int, step: int = -1) -> int:
    """Go to where a character begins: back, or on with a ``step`` of 1."""
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += step
    return at


def _word_end(data: bytes, after: int, end: int) -> int:
    """Go back behind the last white space, but not to ``after`` or before it."""
    return max(data.rfind(space, after, end) for space in (b" ", b"\n", b"\t")) + 1 or end


def _batches(texts: Sequence[str], most: int) -> Iterator[slice]:
    """Divide texts into requests, in their order.

    ``most`` texts or ``_REQUEST_BYTES``, whichever is less, but one text at least.
    """
    start = size = 0
    for place, text in enumerate(texts):
        weight = len(text.encode())
        if place > start and (place - start == most or size + weight > _REQUEST_BYTES):
            yield slice(start, place)
            start, size = place, 0
        size += weight
    if texts:
        yield slice(start, len(texts))
