"""What the errors of Pinecone's client mean: terminal, transient, or "ask for less".

Some answers have a class here because the reader goes on after them: a request that was
too large is sent in halves, a record that the client cannot read becomes a reject, a
namespace that does not exist is empty.
"""

from __future__ import annotations

import importlib
from typing import Any

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.retry_after import retry_after_seconds


class RequestTooLarge(SourceError):
    """A request or its answer is larger than something between here and Pinecone lets through."""


class UnreadableAnswer(SourceError):
    """The answer arrived complete, but the client cannot make records of it."""


class NamespaceNotFound(SourceError):
    """The index or the namespace does not exist."""


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error of the client means.

    Args:
        error: as the client raised it.
        address: of the store, for the message.

    Returns:
        The error to raise instead, or None where it is a fault of ours.
    """
    sdk_errors = importlib.import_module("pinecone.errors.exceptions")
    no_answer = (sdk_errors.PineconeConnectionError, sdk_errors.PineconeTimeoutError)
    if isinstance(error, sdk_errors.ApiError):
        return _classify_status(error, address)
    if isinstance(error, no_answer) or (
        _is_from_httpx(error) and type(error).__name__ != "InvalidURL"
    ):
        return SourceUnavailable(
            f"{address} did not answer: {error}",
            "check source.url and the network, then run the same command again",
        )
    if isinstance(error, sdk_errors.ResponseParsingError):
        return _classify_parsing_error(error, address)
    if isinstance(error, sdk_errors.PineconeError) or _is_from_httpx(error):
        remedy = (
            "correct what source.api_key names"
            if "key" in str(error).lower()
            else "correct the source in the job file"
        )
        return SourceError(f"cannot send a request to {address}: {error}", remedy)
    # an ssl.SSLError is an OSError, too
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return SourceError(
            f"the certificates for {address} cannot be loaded: {error}",
            "correct source.ca_file: it names a file of certificates in PEM",
        )
    return None


def _is_from_httpx(error: Exception) -> bool:
    """Tell whether the client passes on an error of the HTTP library below it."""
    return type(error).__module__.split(".", 1)[0] == "httpx"


def _classify_parsing_error(error: Any, address: str) -> SourceError:
    # msgspec raises its ValidationError for valid JSON of another form; anything else is no JSON
    if type(error.cause).__name__ == "ValidationError":
        return UnreadableAnswer(
            f"{address} gave an answer that its client cannot read: {error}",
            "upgrade the pinecone package, then run again",
        )
    return SourceUnavailable(
        f"{address} gave an answer that is no JSON: {error}",
        "check the proxies between here and Pinecone, then run again",
    )


def _classify_status(error: Any, address: str) -> SourceError:
    """Classify an answer by its HTTP status."""
    status, message = int(error.status_code), f"{address} answered {error}"
    if status in (408, 429) or status >= 500:
        return SourceUnavailable(
            message,
            "wait, or lower source.requests_per_second; then run the same command again",
            retry_after_seconds((error.headers or {}).get("retry-after")),
        )
    if status in (401, 403):
        return SourceError(
            message,
            "set the environment variable or file that source.api_key names to a key "
            "that may read this project",
        )
    if status == 402:
        return SourceError(
            message, "settle the account with Pinecone, then run the same command again"
        )
    if status == 404:
        return NamespaceNotFound(
            message, "correct source.collections: the index or the namespace does not exist"
        )
    if status in (413, 414, 431):
        return RequestTooLarge(
            message,
            "cfray cannot ask for less: raise the limit of the proxy between here and Pinecone",
        )
    return SourceError(
        message, "correct the source in the job file, or upgrade the pinecone package"
    )
