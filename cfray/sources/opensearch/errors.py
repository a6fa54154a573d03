"""Errors of the client opensearch-py, read as failures that both products share."""

from __future__ import annotations

from cfray.sources.lucene.errors import Failure, body_text


def read_failure(error: Exception) -> Failure | None:
    """Read an error of the client; None where it is a fault of ours."""
    from opensearchpy.exceptions import ConnectionError as NoConnection
    from opensearchpy.exceptions import ConnectionTimeout, SerializationError, TransportError

    if isinstance(error, ConnectionTimeout):
        return Failure(None, f"time-out: {error.error}", is_timeout=True)
    # an answer of another type than JSON
    if isinstance(error, SerializationError):
        return Failure(None, str(error))
    if isinstance(error, NoConnection):
        return Failure(None, str(error.error))
    if isinstance(error, TransportError):
        status = error.status_code if isinstance(error.status_code, int) else None
        text = body_text(error.info) if error.info else str(error.error)
        return Failure(status, text, status in (408, 504))
    return None
