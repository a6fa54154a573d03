"""What a refusal of Milvus, or an error of gRPC, means, and how to remedy it.

Milvus answers a refused call with a reply whose status holds a code; gRPC raises an error
only where the call itself failed.

Source: milvus, pkg/util/merr/errors.go.
"""

from __future__ import annotations

from typing import Any

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk

#: Phrases in which servers, gateways and gRPC say that an answer is too large.
_TOO_LARGE_TEXTS = ("larger than max", "maxOutputSize", "RST_STREAM", "message size")
#: Codes of refusals that may pass: not ready, unavailable, out of memory, too many requests, rate
#: and quota, no replica, channel or node just now.
_TRANSIENT_CODES = {1, 2, 3, 4, 8, 9, 12, 400, 401, 500, 502, 503, 901, 902, 903, 904, 905}
NO_INDEX_CODE = 700
#: Codes of other refusals, and what the operator can do.
_REMEDIES = (
    ({100}, "correct source.collections, or do not drop a collection during the run"),
    ({800}, "correct source.database"),
    ({101, 102, 103, 201, 202}, "load the collection, or set source.load: load"),
    (
        {1400, 1401},
        "grant the user of source.api_key the right to query, or name another user",
    ),
    (
        {NO_INDEX_CODE},
        "create an index on each vector field: Milvus loads no collection without one",
    ),
)
#: gRPC codes of a call that the server does not know or accept.
_BAD_CALL_CODES = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND", "FAILED_PRECONDITION")


class RefusedError(Exception):
    """A reply whose status is an error."""

    def __init__(self, code: int, reason: str, *, is_retriable: bool) -> None:
        """Keep the server's code and reason, and whether it calls the error retriable."""
        super().__init__(code, reason)
        self.code, self.reason, self.is_retriable = code, reason, is_retriable


def is_too_large(error: Exception) -> bool:
    """Tell whether a call failed because of the size of its answer."""
    if isinstance(error, RefusedError):
        text = error.reason
    else:
        text = str(getattr(error, "details", str)())
    return any(phrase in text for phrase in _TOO_LARGE_TEXTS)


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error means; None for an error that is neither the server's nor gRPC's."""
    if isinstance(error, RefusedError):
        return _classify_refusal(error, address)
    if isinstance(error, import_sdk("grpc", "milvus").RpcError):
        return _classify_grpc_error(error, address)
    return None


def _classify_grpc_error(error: Any, address: str) -> SourceError:
    code, details = str(error.code().name), error.details()
    if code == "UNAUTHENTICATED":
        return SourceError(
            f"{address} does not accept the credential",
            "set source.api_key to a token: user:password, or an API key",
        )
    if code == "PERMISSION_DENIED":
        return SourceError(
            f"{address} forbids the call: {details}",
            "grant the user of source.api_key Query, DescribeCollection, ShowCollections "
            "and GetLoadState",
        )
    if code in _BAD_CALL_CODES:
        return SourceError(
            f"{address} refused a call: {code}: {details}",
            "check that source.url is a Milvus server of 2.3 or later",
        )
    return SourceUnavailable(
        f"{address} did not answer: {code}: {details}",
        "check that the server runs and that source.url and source.timeout fit it",
    )


def _classify_refusal(error: RefusedError, address: str) -> SourceError:
    what = f"{address}: {error.reason} (code {error.code})"
    for codes, remedy in _REMEDIES:
        if error.code in codes:
            return SourceError(what, remedy)
    if error.is_retriable or error.code in _TRANSIENT_CODES:
        return SourceUnavailable(
            what, "wait until the server is ready, or lower source.requests_per_second"
        )
    return SourceError(
        what,
        "see the server's log; if the request is at fault, report it with the server's version",
    )
