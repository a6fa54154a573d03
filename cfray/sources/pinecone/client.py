"""Pinecone's own client: open it with its retries off, and list indexes and namespaces.

The client's iterators over pages are not used: an iterator that failed in the middle ends
like an iterator that is finished, and the remaining ids would be lost in silence.  So each
page is a request by itself, with the token of the page before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from cfray.errors import CannotFilter, SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import FieldEquals
from cfray.sources.pinecone.settings import PineconeSettings
from cfray.sources.pinecone.types import DEFAULT_NAMESPACE, NamespaceSize, PineconeNamespace

T = TypeVar("T")

#: Ids or namespaces that a list request gives at most:
#: https://docs.pinecone.io/reference/api/latest/data-plane/list
LIST_LIMIT = 100


class SendRequest(Protocol):
    """``RemoteSource.send_request``, bound to the budget of a run."""

    def __call__(self, action: Callable[[], T], /) -> T:
        """Send one request."""


@contextmanager
def open_control_plane(settings: PineconeSettings) -> Iterator[Any]:
    """Open the control plane, which says what indexes exist and at which hosts."""
    sdk = import_sdk("pinecone", "pinecone")
    with _explain_errors(settings):
        client = sdk.Pinecone(
            host=settings.url,
            retry_config=sdk.RetryConfig(max_retries=0),
            **_connection_options(settings),
        )
        with client as opened:
            yield opened


@contextmanager
def open_index(settings: PineconeSettings, host: str) -> Iterator[Any]:
    """Open the data plane of one index."""
    sdk = import_sdk("pinecone", "pinecone")
    with _explain_errors(settings):
        index = sdk.Index(host=host, **_connection_options(settings))
        with index as opened:
            _turn_off_retries(opened, sdk.RetryConfig(max_retries=0))
            yield opened


def _turn_off_retries(index: Any, no_retries: Any) -> None:
    """Turn off the retries of an index's data plane through a private attribute of the client.

    The client has no public setting for them (``RetryConfig`` reaches the control plane and
    gRPC only), and a client that sleeps through a 429 by itself would keep the Retry-After
    from all other workers.  If the attribute moves, client and cfray both retry; a test
    notices.
    """
    with suppress(AttributeError):
        index._http._client._transport._config = no_retries  # noqa: SLF001


def _connection_options(settings: PineconeSettings) -> dict[str, Any]:
    return {
        "api_key": settings.read_secret(),
        "timeout": settings.timeout,
        "ssl_ca_certs": settings.ca_file,
        "ssl_verify": not settings.insecure,
    }


@contextmanager
def _explain_errors(settings: PineconeSettings) -> Iterator[None]:
    """Classify what opening a client raises; ``send_request`` classifies all later errors."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        classified = settings.classify_error(error)
        if classified is None:
            raise
        raise settings.remove_secret(classified) from None


def list_indexes(client: Any, send: SendRequest) -> tuple[list[Any], list[str]]:
    """List the indexes of a project.

    Returns:
        The client's models, and a warning for each index that the client left out because it
        could not read its description.
    """
    with _collect_skipped_indexes() as warnings:
        return send(lambda: list(client.indexes.list())), warnings


@contextmanager
def _collect_skipped_indexes() -> Iterator[list[str]]:
    """Collect the client's log records on indexes that it leaves out of a list.

    A log record is the only trace of such an index: the client drops an index of a kind that
    it does not know with a warning and no error, and a whole index would be missed.
    """
    warnings: list[str] = []

    class WarningCollector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "indexes_adapter" in record.name:
                warnings.append(record.getMessage())

    sdk_logger, collector = logging.getLogger("pinecone"), WarningCollector(logging.WARNING)
    sdk_logger.addHandler(collector)
    try:
        yield warnings
    finally:
        sdk_logger.removeHandler(collector)


def list_namespaces(
    index: Any, stats: Any, send: SendRequest, *, is_pod: bool
) -> dict[str, NamespaceSize]:
    """List the namespaces of an index with their sizes; the default namespace is "".

    Args:
        index: the opened index.
        stats: its statistics; the only list of namespaces that a pod index has.
        send: sends a request within the budget.
        is_pod: whether the index runs on pods.
    """
    if is_pod:
        return {
            _without_default(name): NamespaceSize(int(summary.vector_count))
            for name, summary in stats.namespaces.items()
        }
    sizes: dict[str, NamespaceSize] = {}
    token: str | None = None
    while True:
        page = send(
            partial(index.list_namespaces_paginated, limit=LIST_LIMIT, pagination_token=token)
        )
        for summary in page.namespaces:
            sizes[_without_default(summary.name)] = NamespaceSize(
                int(summary.record_count), int(summary.size_bytes)
            )
        token = page.pagination.next if page.pagination else None
        if not token:
            return sizes


def _without_default(namespace: str) -> str:
    return "" if namespace == DEFAULT_NAMESPACE else namespace


def nearest_ids(
    index: Any,
    namespace: PineconeNamespace,
    vector: list[float],
    k: int,
    where: FieldEquals | None = None,
) -> list[str]:
    """Give the ids of the k nearest records by the first dense vector that the index declares.

    Raises:
        SourceError: the index declares no dense vector.
        CannotFilter: a condition is given for an index of documents.
    """
    if not namespace.dense:
        raise SourceError(
            f"{namespace.host} has no dense vectors to search",
            "compare search quality on another collection",
        )
    condition = None if where is None else {where.name: {"$eq": where.text}}
    if namespace.holds_documents and condition is not None:
        raise CannotFilter(
            f"cfray does not search the documents of {namespace.host} with a condition",
            "compare such searches by hand",
        )
    if namespace.holds_documents:
        field = next(iter(namespace.dense))
        scoring = {"type": "dense_vector", "field": field, "values": vector}
        answer = index.documents.search(namespace=namespace.api_name, score_by=[scoring], top_k=k)
    else:
        answer = index.query(vector=vector, top_k=k, namespace=namespace.name, filter=condition)
    return [str(match.id) for match in answer.matches]
