"""Errors of the client elasticsearch, read as failures that both products share."""

from __future__ import annotations

from cfray.runtime.retry_after import retry_after_seconds
from cfray.sources.lucene.errors import Failure, body_text


def read_failure(error: Exception) -> Failure | None:
    """Read an error of the client; None where it is a fault of ours."""
    from elastic_transport import ApiError, ConnectionTimeout, TransportError
    from elasticsearch import UnsupportedProductError

    if isinstance(error, UnsupportedProductError):
        return Failure(406, "the server is not Elasticsearch")
    if isinstance(error, ApiError):
        return Failure(
            error.meta.status,
            body_text(error.body),
            error.meta.status in (408, 504),
            retry_after_seconds(error.meta.headers.get("retry-after")),
        )
    if isinstance(error, TransportError):
        return Failure(None, str(error), isinstance(error, ConnectionTimeout))
    return None
