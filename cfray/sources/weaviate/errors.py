"""What an error of Weaviate's REST or gRPC interface means, and how to remedy it.

Weaviate answers the gRPC code UNKNOWN to whatever goes wrong inside it, so the code alone does
not tell whether a request is worth sending again: the text decides, too.

Sources: https://docs.weaviate.io/weaviate/api/rest and https://docs.weaviate.io/weaviate/api/grpc
"""

from __future__ import annotations

import json
import ssl
from typing import Any

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.retry_after import retry_after_seconds
from cfray.runtime.sdk import import_sdk

#: gRPC codes of errors that may pass.
_TRANSIENT_CODES = {
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "UNKNOWN",
    "DATA_LOSS",
}
#: Texts of gRPC errors about a collection or a tenant that does not exist.
_NOT_FOUND_TEXTS = ("could not find class", "class not found", "tenant not found")
#: Texts of gRPC errors about a request that fails again however often it is sent.
_BAD_REQUEST_TEXTS = (
    "tenant not active",
    "multi-tenancy",
    "vector lengths",
    "target vectors",
    "multi vectors",
    "no such prop",
    "invalid pagination",
)
#: The gRPC message limit (104,858,000 bytes unless configured) and QUERY_MAXIMUM_RESULTS (10,000).
_TOO_LARGE_TEXTS = ("larger than max", "query maximum results exceeded")
#: Characters of a refusal that the error quotes.
_QUOTED = 2_000


class TooLargeError(SourceError):
    """The page is larger than the server may send: ask for fewer records."""


class NotFoundError(SourceError):
    """The server knows nothing at this address."""


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error of REST or gRPC means; None for an error that neither of them raises."""
    httpx = import_sdk("httpx", "weaviate")
    if isinstance(error, httpx.HTTPStatusError):
        return _classify_response(error.response, address)
    certificate_error = _find_cause(error, ssl.SSLCertVerificationError)
    if certificate_error is not None:
        return SourceError(
            f"the certificate of {address} is not trusted: {certificate_error}",
            "name the authority that signed it with source.ca_file",
        )
    # an answer that was cut short is no JSON
    if isinstance(error, httpx.RequestError | OSError | json.JSONDecodeError | UnicodeDecodeError):
        return _unavailable(f"{address} did not answer: {type(error).__name__}: {error}")
    if isinstance(error, import_sdk("grpc", "weaviate").RpcError):
        return _classify_grpc_error(error, address)
    return None


def _find_cause(error: BaseException | None, kind: type[Exception]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _classify_response(response: Any, address: str) -> SourceError:
    status, text = response.status_code, response.text[:_QUOTED]
    if status == 401:
        return SourceError(f"{address} does not accept the key (401)", "correct source.api_key")
    if status == 403:
        return SourceError(
            f"{address} forbids the request to this key (403): {text}",
            "name a key in source.api_key that may read the collections",
        )
    if status == 404:
        return NotFoundError(
            f"{address} does not know what was requested (404) {text}",
            "correct source.url and source.collections",
        )
    if status == 429 or status >= 500:
        return _unavailable(
            f"{address} answered {status}: {text}",
            retry_after_seconds(response.headers.get("retry-after")),
        )
    return SourceError(
        f"{address} refused a request ({status}): {text}",
        "correct source.url and source.collections",
    )


def _classify_grpc_error(error: Any, address: str) -> SourceError:
    code, text = str(error.code().name), str(error.details() or "")
    if _names_any(_TOO_LARGE_TEXTS, text):
        return TooLargeError(
            f"{address}: {text}",
            "raise GRPC_MAX_MESSAGE_SIZE or QUERY_MAXIMUM_RESULTS of the server",
        )
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return SourceError(f"{address} refuses the key ({code}): {text}", "correct source.api_key")
    if _names_any(_NOT_FOUND_TEXTS, text):
        return SourceError(
            f"{address}: {text}",
            "correct source.collections; a collection or a tenant does not exist any more",
        )
    if code not in _TRANSIENT_CODES or _names_any(_BAD_REQUEST_TEXTS, text):
        return SourceError(
            f"{address} refused a request ({code}): {text}",
            "correct source.collections and source.inactive_tenants",
        )
    pause = str(dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms", ""))
    return _unavailable(
        f"{address} did not answer ({code}): {text}",
        int(pause) / 1000 if pause.isdigit() else None,
    )


def _names_any(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)


def _unavailable(what: str, retry_after: float | None = None) -> SourceUnavailable:
    return SourceUnavailable(
        what,
        "see that the server runs, and that source.url and source.grpc_port are right",
        retry_after,
    )
