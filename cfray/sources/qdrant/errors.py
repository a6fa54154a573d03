"""What the errors of Qdrant's client mean: terminal, transient, or a page to make smaller.

The client raises gRPC's errors, its HTTP layer's errors, and errors of its REST models;
each is reduced to an HTTP status and a text first.
"""

from __future__ import annotations

import json

from cfray.errors import SourceError, SourceUnavailable

_CORRECT_KEY = (
    "correct what source.api_key names: the key must be valid and may read these collections"
)
_CORRECT_ADDRESS = "check that source.url is Qdrant's REST port and source.grpc_port its gRPC port"
_CHECK_SERVER = (
    "check that the store answers and that source.url is right, then run the same command again"
)
#: Remedies for the statuses that another attempt will not change; all others are transient.
_TERMINAL_REMEDIES: dict[int | None, str] = {
    301: _CORRECT_ADDRESS,
    302: _CORRECT_ADDRESS,
    307: _CORRECT_ADDRESS,
    308: _CORRECT_ADDRESS,
    400: f"{_CORRECT_ADDRESS}, and that its version is supported",
    401: _CORRECT_KEY,
    403: _CORRECT_KEY,
    404: "correct source.collections, or source.url where it is not Qdrant's",
    405: _CORRECT_ADDRESS,
    413: "one point is larger than the proxy before the server lets through: raise its limit",
    422: f"{_CORRECT_ADDRESS}, and that its version is supported",
}
#: gRPC's codes as HTTP statuses; codes that are not listed are transient.
_GRPC_STATUSES = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 400,
}


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error of the client means.

    Args:
        error: as the client raised it.
        address: of the store, for the message.

    Returns:
        The error to raise instead, or None where the store did not cause it.
    """
    import grpc
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    if isinstance(error, json.JSONDecodeError):
        return SourceUnavailable(
            f"{address} gave an answer that is no JSON: {error}", _CHECK_SERVER
        )
    if not isinstance(error, grpc.RpcError | ApiException | QdrantException):
        return None
    status, text = _status_and_text(error)
    message = f"{address}: {text[:500]}"
    # too many requests; the client raises another error where Retry-After is no whole number
    if isinstance(error, QdrantException):
        seconds = getattr(error, "retry_after_s", None)
        return SourceUnavailable(message, "lower source.requests_per_second", seconds)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return SourceError(
            message,
            "name the certificate to trust in source.ca_file, or set source.insecure: true",
        )
    if remedy := _TERMINAL_REMEDIES.get(status):
        return SourceError(message, remedy)
    remedy = _CHECK_SERVER
    if isinstance(error, grpc.RpcError):
        remedy += "; where only the REST port can be reached, set source.prefer_grpc: false"
    return SourceUnavailable(message, remedy)


def is_page_too_large(error: Exception) -> bool:
    """Tell whether the store refuses the size of a page.

    Either it is above the limit of strict mode, or the message is too large for gRPC or a proxy.
    """
    status, text = _status_and_text(error)
    is_above_limit = status in (400, 403) and "limit" in text.lower()
    return is_above_limit or "larger than max" in text or status == 413


def is_timeout(error: Exception) -> bool:
    """Tell whether a page took longer than the time limit."""
    status, text = _status_and_text(error)
    cause = type(getattr(error, "source", None)).__name__
    return (
        status in (408, 504)
        or "timeout" in cause.lower()
        or "deadline" in text.lower()
        or "timed out" in text.lower()
    )


def _status_and_text(error: Exception) -> tuple[int | None, str]:
    """Give the HTTP status of an error, or the status that corresponds to it, and its text."""
    # gRPC's errors have a method ``code``
    code = getattr(error, "code", None)
    if callable(code):
        details = error.details()  # type: ignore[attr-defined]  # an RpcError that is a Call
        return _GRPC_STATUSES.get(code().name), f"{code().name}: {details}"
    # REST: no answer, or an answer of another form than the client's models
    cause = getattr(error, "source", None)
    if cause is not None:
        is_misread = type(cause).__name__ == "ValidationError"
        return (400 if is_misread else None), f"{type(cause).__name__}: {cause}"
    status = getattr(error, "status_code", None)
    if not status:
        return status, str(error)
    return status, f"HTTP {status}: {_error_sentence(getattr(error, 'content', b''))}"


def _error_sentence(content: bytes) -> str:
    """Take the sentence out of an error's JSON."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")
