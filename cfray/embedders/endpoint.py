"""An embedder behind a server: the OpenAI API or text-embeddings-inference (TEI) over plain HTTP.

A request waits for the run's budgets and is sent again after a transient error;
``answers.py`` reads what the server answers.  Vectors are passed on at the length they
have.

Only the server's tokenizer knows tokens.  TEI counts them under ``/tokenize``; for every
other server ``estimate.py`` estimates them.

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
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cfray.embedders import estimate
from cfray.embedders.answers import EndpointNotFound, Server, TextsRefused
from cfray.embedders.base import Embedder, Identity
from cfray.embedders.spec import Endpoint
from cfray.errors import EmbeddingError, EmbeddingUnavailable, SourceError
from cfray.records.vectors import Floats
from cfray.runtime import retry
from cfray.runtime.sdk import import_sdk
from cfray.runtime.throttle import Throttle, UnlimitedThrottle

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

#: Bytes of text in a request of more than a single text: half of what TEI accepts (payload_limit,
#: 2 MB), and at 4 bytes a token within the 300,000 tokens that OpenAI accepts.
_REQUEST_BYTES = 1_000_000
#: Text whose vector shows the width of the model's vectors.
_PROBE = "dimension"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Budgets:
    """What all workers of a run together may send to an endpoint.

    Attributes:
        requests: a unit is taken for each request; it also keeps the pauses that the server asks
            for.
        tokens: a unit is taken for each token of a request's texts, counted or estimated.
    """

    requests: Throttle = field(default_factory=UnlimitedThrottle)
    tokens: Throttle = field(default_factory=UnlimitedThrottle)

    def take(self, tokens: int) -> None:
        """Wait until a request with so many tokens may be sent.

        The request's turn comes after the tokens', so that a pause that the server asks for
        during the wait holds.
        """
        if tokens:
            self.tokens.take(tokens)
        self.requests.take(1)

    def hold_off(self, seconds: float) -> None:
        """Let no worker send a request for so many seconds."""
        self.requests.hold_off(seconds)


class EndpointEmbedder(Embedder):
    """A client of one server; it pickles, and opens its connections when it first sends.

    Attributes:
        tokens_exact: whether ``count_tokens`` gives the server's counts.  It is false where the
            counts are estimates; for TEI the first call finds out.
    """

    def __init__(
        self,
        spec: Endpoint,
        *,
        prompt: str | None,
        query_prompt: str | None,
        budgets: Budgets,
        on_long_text: str = "truncate",
        dimension: int | None = None,
    ) -> None:
        """Reach the server, unless ``dimension`` gives what would be asked.

        Args:
            spec: the job's section.
            prompt: put before each document.
            query_prompt: put before each query.
            budgets: what the run may send.
            on_long_text: a part of the identity; ``texts.py`` says what it means.
            dimension: width of the vectors; None: a short text is embedded to learn it.

        Raises:
            EmbeddingError: the server refuses; or it is unavailable after the last attempt.
        """
        self.spec, self.budgets = spec, budgets
        self.server = Server.from_spec(spec)
        self.tokens_exact = spec.api == "tei"
        self._client: httpx.Client | None = None
        self._refusals: dict[str, str] = {}
        self._width = dimension or spec.dimensions
        if dimension is None:
            self._width = self._embed([_PROBE], [estimate.count_tokens(_PROBE)]).shape[1]
        assert self._width is not None
        self.identity = Identity(
            name=spec.model or self.server.address,
            sha256=_hash_model_settings(spec),
            engine=spec.api,
            dtype="server",
            prompt=prompt or "",
            query_prompt=query_prompt or "",
            max_tokens=spec.max_tokens,
            dimension=self._width,
            on_long_text=on_long_text,
        )

    def __getstate__(self) -> dict[str, object]:
        """Pickle without the connections and the key in their headers."""
        return {**self.__dict__, "_client": None}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens with TEI's ``/tokenize`` where it is served, and estimate them elsewhere.

        An estimate counts no special tokens.
        """
        prompted = [self._document(text) for text in texts]
        if self.tokens_exact:
            try:
                return [
                    count
                    for batch in _batches(prompted, self.spec.batch)
                    for count in self._count_by_server(prompted[batch])
                ]
            except EndpointNotFound:
                self.tokens_exact = False
        return [estimate.count_tokens(text) for text in prompted]

    def encode(self, texts: Sequence[str], tokens: Sequence[int]) -> Floats:
        """Embed documents; a document that the server fails on or refuses gets a vector of NaN.

        TEI cuts a text that is too long.  OpenAI's API refuses such a text, so it is cut here
        where the estimate says so.
        """
        return self._embed([self._document(text) for text in texts], tokens, documents=True)

    def fault_of(self, text: str) -> str:
        """Say why ``encode`` gave NaN for a text: in the server's words where it refused it."""
        return self._refusals.get(self._cut(self._document(text))) or super().fault_of(text)

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Embed queries."""
        prompted = [_without_surrogates(self.identity.query_prompt + text) for text in texts]
        return self._embed(prompted, [estimate.count_tokens(text) for text in prompted])

    def split_text(self, text: str, tokens: int, overlap: int) -> list[str]:
        """Split a text by the estimate, behind ASCII white space where the text has some.

        Joined without their overlaps, the parts are the text.

        Raises:
            ValueError: ``overlap`` is not smaller than ``tokens``.
        """
        return estimate.split_text(text, tokens, overlap)

    def _document(self, text: str) -> str:
        """Put a document behind its prompt."""
        return _without_surrogates(self.identity.prompt + text)

    def _cut(self, text: str) -> str:
        """Cut a text that OpenAI's API would refuse; TEI cuts texts itself."""
        is_cut = self.spec.api == "openai"
        return estimate.truncate(text, self.spec.max_tokens) if is_cut else text

    def _embed(self, texts: list[str], tokens: Sequence[int], *, documents: bool = False) -> Floats:
        """Embed texts that already stand behind their prompt."""
        texts = [self._cut(text) for text in texts]
        embed = self._embed_documents if documents else self._embed_batch
        vectors = [np.zeros((0, self._width), np.float32)] if self._width else []
        vectors += [
            embed(texts[batch], tokens[batch]) for batch in _batches(texts, self.spec.batch)
        ]
        return np.concatenate(vectors)

    def _embed_documents(self, texts: list[str], tokens: Sequence[int]) -> Floats:
        """Embed documents in one request; in halves, where the server refuses one of them.

        Raises:
            EmbeddingError: the server refuses every text.
        """
        try:
            return self._embed_batch(texts, tokens, documents=True)
        except TextsRefused as refusal:
            if len(texts) > 1:
                half = len(texts) // 2
                parts = (slice(half), slice(half, None))
                halves = [self._embed_documents(texts[part], tokens[part]) for part in parts]
                return np.concatenate(halves)
            # a server that refuses a harmless text, too, refuses what the job file says
            probe = self._cut(self._document(_PROBE))
            self._embed_batch([probe], [estimate.count_tokens(probe)])
            self._refusals[texts[0]] = refusal.what
            assert self._width is not None
            return np.full((1, self._width), np.nan, np.float32)

    def _embed_batch(
        self, texts: list[str], tokens: Sequence[int], *, documents: bool = False
    ) -> Floats:
        """Embed texts in one request."""
        path = "embeddings" if self.spec.api == "openai" else "embed"
        budget = sum(min(count, self.spec.max_tokens) for count in tokens)
        read = partial(
            self.server.read_vectors, count=len(texts), width=self._width, documents=documents
        )
        return self._request(path, self._body(texts), budget, read)

    def _body(self, texts: list[str]) -> dict[str, object]:
        """Build the body of a request for vectors, as each API documents it."""
        spec = self.spec
        width = {} if spec.dimensions is None else {"dimensions": spec.dimensions}
        if spec.api == "openai":
            return {"model": spec.model, "input": texts, "encoding_format": "float", **width}
        return {"inputs": texts, "truncate": True, "normalize": True, **width}

    def _count_by_server(self, texts: list[str]) -> list[int]:
        """Count the tokens of one batch.

        TEI refuses an empty text, so a letter is counted in its stead and subtracted again.
        """
        counts = self._request(
            "tokenize",
            {"inputs": [text or "a" for text in texts]},
            0,
            partial(self.server.read_token_counts, texts=texts),
        )
        return [count - (text == "") for count, text in zip(counts, texts, strict=True)]

    def _request(
        self, path: str, body: dict[str, object], tokens: int, read: Callable[[Any], T]
    ) -> T:
        """Send a request within the budgets, and send it again after a transient error.

        Raises:
            ConfigError: httpx is not installed.
            EmbeddingError: the server refuses; or it is unavailable after the last attempt.
        """
        library = import_sdk("httpx", "endpoint")
        client = self._open_client(library)
        key = client.headers.get("Authorization", "").removeprefix("Bearer ")

        def send() -> T:
            self.budgets.take(tokens)
            try:
                response = client.post(f"{self.spec.url.rstrip('/')}/{path}", json=body)
            except (library.HTTPError, library.InvalidURL) as error:
                raise self.server.connection_error(error, key) from None
            if response.is_success:
                return read(self.server.parse(response.content))
            refusal = self.server.refusal(response, key)
            if isinstance(refusal, EmbeddingUnavailable) and refusal.retry_after:
                self.budgets.hold_off(refusal.retry_after)
            raise refusal

        return retry.run_with_retries(send)

    def _open_client(self, library: ModuleType) -> httpx.Client:
        """Open the client once.

        Raises:
            EmbeddingError: the key or the certificates are missing, or cannot be used.
        """
        if self._client is None:
            key = self._read_key()
            try:
                certificates = ssl.create_default_context(cafile=self.spec.ca_file)
            except OSError as error:
                raise EmbeddingError(
                    f"cannot read {self.spec.ca_file}: {error}",
                    "correct embedding.endpoint.ca_file: certificates in PEM",
                ) from None
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self._client = library.Client(
                timeout=self.spec.timeout, verify=certificates, headers=headers
            )
        assert self._client is not None
        return self._client

    def _read_key(self) -> str:
        """Read the API key; empty where the job file names none.

        Raises:
            EmbeddingError: the key is missing, or no HTTP header can hold it.
        """
        if self.spec.api_key is None:
            return ""
        try:
            key = self.spec.api_key.reveal().strip()
        except SourceError as error:
            raise EmbeddingError(
                f"embedding.endpoint.api_key: {error.what}", error.remedy
            ) from error
        # httpx would quote such a key in its error message.
        if not (key.isascii() and key.isprintable()):
            raise EmbeddingError(
                f"embedding.endpoint.api_key: the key in {self.server.key_location} holds "
                "characters that no HTTP header can hold",
                "write the key as one line of ASCII",
            )
        return key


def _hash_model_settings(spec: Endpoint) -> str:
    """Give the SHA-256 of the settings that decide which model answers (hex)."""
    settings = {
        "url": spec.url.rstrip("/"),
        "api": spec.api,
        "model": spec.model,
        "dimensions": spec.dimensions,
    }
    return hashlib.sha256(
        json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8, and so a request, cannot hold."""
    return _SURROGATE.sub("\ufffd", text)


def _batches(texts: Sequence[str], max_texts: int) -> Iterator[slice]:
    """Divide texts into requests, in their order.

    A request holds at most ``max_texts`` texts and ``_REQUEST_BYTES``, but at least a single text.
    """
    start = size = 0
    for position, text in enumerate(texts):
        text_size = len(text.encode())
        is_full = position - start == max_texts or size + text_size > _REQUEST_BYTES
        if position > start and is_full:
            yield slice(start, position)
            start, size = position, 0
        size += text_size
    if texts:
        yield slice(start, len(texts))
