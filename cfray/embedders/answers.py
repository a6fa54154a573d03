"""What an embedding server's answer means: vectors, or an error that says what to do.

Pure: nothing is sent from here.  A vector that is missing, of another width or not
finite is an error, never filled in: it would stand in the dataset as the text's.
The key is taken out of a server's words before they are cut, so that no half of it stays.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cfray.embedders.spec import Endpoint
from cfray.errors import SourceError, SourceUnavailable
from cfray.records.vectors import Floats
from cfray.runtime import filesystems

if TYPE_CHECKING:
    import httpx

#: Characters of a server's message that are passed on.
_SAID = 300
_AGAIN = "then run the same command again"


class NotThere(SourceError):
    """The server knows no such address, or no such model."""


@dataclass(frozen=True, slots=True)
class Server:
    """Whose answers are judged.

    Attributes:
        place: its address, without credentials.
        api: ``openai`` or ``tei``.
        key_place: where its key is configured.
    """

    place: str
    api: str
    key_place: str

    @classmethod
    def of(cls, spec: Endpoint) -> Self:
        """Name the server of a job."""
        key, where = spec.api_key, "embedding.endpoint.api_key (there is none in the job file)"
        if key is not None:
            where = f"the environment variable {key.env}" if key.env else f"the file {key.file}"
        return cls(filesystems.without_credentials(spec.url), spec.api, where)

    def lost(self, error: Exception, secret: str) -> SourceError:
        """Judge what httpx raises where no answer came."""
        name, words = type(error).__name__, _said(str(error), secret)
        what = f"{self.place} did not answer ({name}: {words})"
        if name in ("InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
            return SourceError(what, "correct embedding.endpoint.url")
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return SourceError(
                what, "name the authority's certificate in embedding.endpoint.ca_file"
            )
        slow = ", raise embedding.endpoint.timeout" if "Timeout" in name else ""
        return SourceUnavailable(
            what, f"start the server or correct embedding.endpoint.url{slow}, {_AGAIN}"
        )

    def refused(self, response: httpx.Response, secret: str) -> SourceError:
        """Judge an answer by its HTTP status.

        Transient ones carry the pause that the server asks for.
        """
        status, what = (
            response.status_code,
            f"{self.place} answered {response.status_code}: {_said(_message(response), secret)}",
        )
        if status == 402 or (
            status == 429 and "insufficient_quota" in response.text
        ):  # OpenAI's 429 for an empty account
            return SourceError(what, f"settle the account, {_AGAIN}")
        if status in (408, 425, 429) or status >= 500:
            pause = (
                _seconds(response.headers.get("Retry-After", "")) if status in (429, 503) else None
            )
            return SourceUnavailable(
                what,
                f"wait, or lower embedding.endpoint.requests_per_minute or tokens_per_minute, {_AGAIN}",
                pause,
            )
        if status in (401, 403):
            return SourceError(
                what, f"wrong key: put one that the server accepts into {self.key_place}"
            )
        if status in (404, 405, 410) or status < 400:
            return NotThere(what, "correct embedding.endpoint.url or embedding.endpoint.model")
        remedy = "as the server says; lower embedding.endpoint.batch if it takes fewer texts, embedding.endpoint.max_tokens if one is too long"
        return SourceError(what, remedy)

    def parsed(self, content: bytes) -> Any:
        """Read JSON.

        Raises:
            SourceUnavailable: it is none; most likely cut off on its way.
        """
        try:
            return json.loads(content)
        except ValueError:
            what = f"{self.place} gave {len(content)} bytes that are no whole JSON"
            raise SourceUnavailable(
                what,
                f"check embedding.endpoint.url and what stands between here and the server, {_AGAIN}",
            ) from None

    def vectors(
        self, answer: Any, count: int, width: int | None, *, documents: bool = False
    ) -> Floats:
        """Read the vectors of an answer, in the order of the texts.

        Args:
            answer: parsed JSON.
            count: texts that were sent.
            width: numbers a vector must have; None: any, but all the same.
            documents: the texts are documents, each of which can be set aside: one that the model
                fails on has NaN in its vector.

        Returns:
            ``(count, width)`` float32.

        Raises:
            SourceError: not one vector of the right width for each text, or none of several (of
                queries: not every one) is finite.
        """
        try:
            rows = _listed(
                [one["embedding"] for one in self._ordered(answer["data"], count)]
                if self.api == "openai"
                else answer
            )
            widths = {len(_listed(row)) for row in rows}
            if len(rows) != count:
                raise self._odd(f"gave {len(rows)} vectors for {count} texts")
            if len(widths) != 1 or widths == {0} or widths != {width or max(widths)}:
                raise self._odd(
                    f"gave vectors of {sorted(widths)} numbers where {width or 'one width'} was expected"
                )
            with np.errstate(over="ignore"):
                vectors = np.array(rows, np.float64).astype(
                    np.float32
                )  # null, which is how TEI writes NaN, becomes NaN
        except (KeyError, TypeError, ValueError):
            raise self._odd(f"gave JSON that is no answer of the API {self.api}") from None
        if vectors.ndim != 2:
            raise self._odd(f"gave {vectors.ndim - 1} dimensions a text instead of one vector")
        spoilt = int((~np.isfinite(vectors)).any(axis=1).sum())
        if spoilt and (not documents or 1 < spoilt == count):
            raise self._odd(f"gave NaN or infinite numbers in {spoilt} of {count} vectors")
        return vectors

    def counts(self, answer: Any, texts: Sequence[str]) -> list[int]:
        """Read TEI's lists of tokens.

        Raises:
            SourceError: not one list for each text.
        """
        if (
            not isinstance(answer, list)
            or not all(isinstance(one, list) for one in answer)
            or len(answer) != len(texts)
        ):
            raise self._odd(f"gave no list of tokens for each of {len(texts)} texts")
        return [len(one) for one in answer]

    def _ordered(self, data: Any, count: int) -> list[dict[str, Any]]:
        ordered = sorted(_listed(data), key=lambda one: int(one["index"]))
        numbers = [one["index"] for one in ordered]
        if len(numbers) == count and numbers != list(range(count)):
            raise self._odd(f"numbered the vectors of {count} texts {numbers[:10]}")
        return ordered

    def _odd(self, what: str) -> SourceError:
        return SourceError(
            f"{self.place} {what}",
            "correct url, api, model and dimensions of embedding.endpoint, or the server",
        )


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _said(text: str, secret: str) -> str:
    """Pass on somebody's words: without the key, on one line, and not many."""
    return " ".join((text.replace(secret, "***") if secret else text).split())[:_SAID]


def _seconds(text: str) -> float | None:
    """Read Retry-After: seconds, or a date."""
    with contextlib.suppress(ValueError):
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError, OverflowError):
        date = parsedate_to_datetime(text)
        return max(
            0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        )
    return None


def _message(response: httpx.Response) -> str:
    """Find the message in a refusal.

    OpenAI's ``error.message``, TEI's ``error``, others' ``message`` or ``detail``.
    """
    with contextlib.suppress(ValueError):
        body = json.loads(response.content)
        if isinstance(body, dict):
            inner = body.get("error") or body.get("message") or body.get("detail") or body
            return str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    return str(response.text)
