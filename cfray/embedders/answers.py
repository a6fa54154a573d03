"""What an embedding server's answer means: vectors, or an error that says what to do.

The module is pure: it sends nothing.  A vector that is missing, that has another width
or that is not finite is an error and is never filled in: the dataset would hold it as
the text's vector.  The API key is removed from a server's message before the message is
cut to length, so that no half of the key remains.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cfray.embedders.spec import Endpoint
from cfray.errors import EmbeddingError, EmbeddingUnavailable
from cfray.records.vectors import Floats
from cfray.runtime import filesystems
from cfray.runtime.retry_after import retry_after_seconds

if TYPE_CHECKING:
    import httpx

#: Characters of a server's message that are passed on.
_MESSAGE_CHARACTERS = 300
#: Statuses of a request that is wrong or too large, or whose content cannot be processed: OpenAI's
#: API answers 400 to a text that is too long, TEI 413 to a text or a batch, other servers 422.
_REFUSED_TEXTS = (400, 413, 422)
_TRY_AGAIN = "then run the same command again"
#: Where a key is configured when the job file names none.
_NO_KEY = "embedding.endpoint.api_key (the job file names none)"


class EndpointNotFound(EmbeddingError):
    """The server knows no such address, or no such model."""


class TextsRefused(EmbeddingError):
    """The server will not take these texts, this many, or any."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server whose answers are read.

    Attributes:
        address: its URL, without credentials.
        api: ``openai`` or ``tei``.
        key_location: where its key is configured.
    """

    address: str
    api: str
    key_location: str

    @classmethod
    def from_spec(cls, spec: Endpoint) -> Self:
        """Describe the server that a job file names."""
        key, location = spec.api_key, _NO_KEY
        if key is not None:
            location = f"the environment variable {key.env}" if key.env else f"the file {key.file}"
        return cls(filesystems.strip_credentials(spec.url), spec.api, location)

    def connection_error(self, error: Exception, key: str) -> EmbeddingError:
        """Classify what httpx raises when no answer arrived.

        Args:
            error: what httpx raised.
            key: the API key, which the message must not show; empty where there is none.
        """
        name, message = type(error).__name__, _shorten(str(error), key)
        what = f"the embedding server {self.address} did not answer ({name}: {message})"
        if name in ("InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
            return EmbeddingError(what, "correct embedding.endpoint.url")
        if "CERTIFICATE_VERIFY_FAILED" in message:
            return EmbeddingError(
                what, "name the authority's certificate in embedding.endpoint.ca_file"
            )
        timeout = ", raise embedding.endpoint.timeout" if "Timeout" in name else ""
        return EmbeddingUnavailable(
            what, f"start the server or correct embedding.endpoint.url{timeout}, {_TRY_AGAIN}"
        )

    def refusal(self, response: httpx.Response, key: str) -> EmbeddingError:
        """Classify an answer by its HTTP status.

        A transient error carries the pause that the server asks for.

        Args:
            response: an answer that is no success.
            key: the API key, which the message must not show; empty where there is none.
        """
        status = response.status_code
        message = _shorten(_message(response), key)
        what = f"the embedding server {self.address} answered {status}: {message}"
        # OpenAI answers 429 with this code where the account is empty: waiting does not help.
        if status == 402 or (status == 429 and "insufficient_quota" in response.text):
            return EmbeddingError(what, f"settle the account, {_TRY_AGAIN}")
        if status in (408, 425, 429) or status >= 500:
            header = response.headers.get("Retry-After") if status in (429, 503) else None
            return EmbeddingUnavailable(
                what,
                "wait, or lower embedding.endpoint.requests_per_minute or tokens_per_minute, "
                f"{_TRY_AGAIN}",
                retry_after_seconds(header),
            )
        if status in (401, 403):
            remedy = f"wrong key: put a key that the server accepts into {self.key_location}"
            return EmbeddingError(what, remedy)
        if status in (404, 405, 410) or status < 400:
            remedy = "correct embedding.endpoint.url or embedding.endpoint.model"
            return EndpointNotFound(what, remedy)
        refusal = TextsRefused if status in _REFUSED_TEXTS else EmbeddingError
        return refusal(
            what,
            "do as the server says; lower embedding.endpoint.batch if the server takes fewer "
            "texts, embedding.endpoint.max_tokens if a text is too long",
        )

    def parse(self, content: bytes) -> Any:
        """Read the JSON of an answer.

        Raises:
            EmbeddingUnavailable: the bytes are no JSON; most likely the answer was cut off.
        """
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise EmbeddingUnavailable(
                f"the embedding server {self.address} gave {len(content)} bytes that are no "
                "complete JSON",
                "check embedding.endpoint.url and what stands between here and the server, "
                f"{_TRY_AGAIN}",
            ) from None

    def read_vectors(
        self, answer: Any, count: int, width: int | None, *, documents: bool = False
    ) -> Floats:
        """Read the vectors of an answer, in the order of the texts.

        Args:
            answer: parsed JSON.
            count: texts that were sent.
            width: numbers that a vector must have; None: any width, but the same for all.
            documents: the texts are documents, and each can be quarantined: a document that the
                model fails on has NaN in its vector.

        Returns:
            ``(count, width)`` float32.

        Raises:
            EmbeddingError: the answer holds not exactly one vector of the right width for each
                text; or a query's vector is not finite; or of several documents no vector is.
        """
        try:
            rows = self._rows(answer, count)
            widths = {len(_expect_list(row)) for row in rows}
            if len(rows) != count:
                raise self._wrong_answer(f"gave {len(rows)} vectors for {count} texts")
            if len(widths) != 1 or widths == {0} or widths != {width or max(widths)}:
                expected = width or "one width"
                raise self._wrong_answer(
                    f"gave vectors of {sorted(widths)} numbers where {expected} was expected"
                )
            # TEI writes NaN as null, which NumPy reads as NaN.
            with np.errstate(over="ignore"):
                vectors = np.array(rows, np.float64).astype(np.float32)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._wrong_answer(f"gave JSON that is no answer of the API {self.api}") from None
        self._check_numbers(vectors, documents=documents)
        return vectors

    def _check_numbers(self, vectors: Floats, *, documents: bool) -> None:
        count = len(vectors)
        if vectors.ndim != 2:
            raise self._wrong_answer(
                f"gave {vectors.ndim - 1} dimensions a text instead of one vector"
            )
        not_finite = int((~np.isfinite(vectors)).any(axis=1).sum())
        if not_finite and (not documents or 1 < not_finite == count):
            raise self._wrong_answer(
                f"gave NaN or infinite numbers in {not_finite} of {count} vectors"
            )

    def read_token_counts(self, answer: Any, texts: Sequence[str]) -> list[int]:
        """Count the tokens in TEI's lists of tokens.

        Raises:
            EmbeddingError: the answer holds not exactly one list for each text.
        """
        if (
            not isinstance(answer, list)
            or not all(isinstance(tokens, list) for tokens in answer)
            or len(answer) != len(texts)
        ):
            raise self._wrong_answer(f"gave no list of tokens for each of {len(texts)} texts")
        return [len(tokens) for tokens in answer]

    def _rows(self, answer: Any, count: int) -> list[Any]:
        """Give the vectors of an answer in the order of the texts."""
        if self.api != "openai":
            return _expect_list(answer)
        items = sorted(_expect_list(answer["data"]), key=lambda item: int(item["index"]))
        numbers = [item["index"] for item in items]
        if len(numbers) == count and numbers != list(range(count)):
            raise self._wrong_answer(f"numbered the vectors of {count} texts {numbers[:10]}")
        return [item["embedding"] for item in items]

    def _wrong_answer(self, what: str) -> EmbeddingError:
        return EmbeddingError(
            f"the embedding server {self.address} {what}",
            "correct url, api, model and dimensions of embedding.endpoint, or the server",
        )


def _expect_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _shorten(message: str, key: str) -> str:
    """Give a server's message without the key, on one line and at most 300 characters long."""
    without_key = message.replace(key, "***") if key else message
    return " ".join(without_key.split())[:_MESSAGE_CHARACTERS]


def _message(response: httpx.Response) -> str:
    """Find the message in a refusal.

    OpenAI's API has ``error.message``, TEI ``error``, other servers ``message`` or ``detail``.
    """
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(response.content)
        if isinstance(body, dict):
            inner = body.get("error") or body.get("message") or body.get("detail") or body
            return str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    return str(response.text)
