"""Pinecone's own client: opened with its retries off, asked page by page.

Its answers compared with what was asked for.

Its iterators over pages are not used: one that failed in the middle ends like
one that is finished, and the rest of the ids would be lost in silence.  So each
page is a request of its own, with the token of the page before.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

from cfray.errors import SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources import manifests
from cfray.sources.base import Context, Shard
from cfray.sources.pinecone.types import (
    DEFAULT,
    Gone,
    Home,
    PineconeIndex,
    TooLarge,
    Unreadable,
    batch,
    given_ids,
    is_fit,
    judge,
)
from cfray.sources.remote import PageSize

if TYPE_CHECKING:
    from cfray.sources.pinecone.source import Pinecone

T = TypeVar("T")

#: Ids that one list request gives at most:
#: https://docs.pinecone.io/reference/api/latest/data-plane/list
LIST_LIMIT = 100
#: Bytes of ids in the address of a fetch of vectors, which is a GET; 8 KB is what common front ends
#: take (nginx, Apache), Pinecone names no limit.
_ADDRESS = 7 * 1024
#: Records that are weighed where the index does not say its bytes (one read unit), and shards of a
#: collection at most.
_SAMPLE, _SHARDS = 10, 4000
MISSING = "listed when the plan was made and not returned: deleted meanwhile or lost"
UNFIT = (
    "an id that Pinecone's client does not ask for: ids are 1 to 512 ASCII characters without NUL"
)


class Ask(Protocol):
    """``RemoteSource.ask``, bound to a run's budget."""

    def __call__(self, action: Callable[[], T], /) -> T:
        """Send one request."""


@contextmanager
def control(source: Pinecone) -> Iterator[Any]:
    """Open the control plane: which indexes there are, and where."""
    pinecone = import_sdk("pinecone", "pinecone")
    never = pinecone.RetryConfig(max_retries=0)
    with _judged(source), contextlib.ExitStack() as opened:
        yield opened.enter_context(
            pinecone.Pinecone(host=source.url, retry_config=never, **_settings(source))
        )


@contextmanager
def data(source: Pinecone, host: str) -> Iterator[Any]:
    """Open one index."""
    pinecone = import_sdk("pinecone", "pinecone")
    with _judged(source), contextlib.ExitStack() as opened:
        index = opened.enter_context(pinecone.Index(host=host, **_settings(source)))
        with contextlib.suppress(AttributeError):
            # Its data plane has no setting for this (RetryConfig reaches the control plane and gRPC
            # only), and a client that sleeps through a 429 by itself keeps the Retry-After from all
            # other workers.  If the attribute moves, requests are retried twice over.
            index._http._client._transport._config = pinecone.RetryConfig(max_retries=0)  # noqa: SLF001
        yield index


def _settings(source: Pinecone) -> dict[str, Any]:
    return {
        "api_key": source.secret(),
        "timeout": source.timeout,
        "ssl_ca_certs": source.ca_file,
        "ssl_verify": not source.insecure,
    }


@contextmanager
def _judged(source: Pinecone) -> Iterator[None]:
    """Judge what opening a client raises; requests are judged where they are asked."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        judged = judge(error, source.place)
        if judged is None:
            raise
        raise source.without_secret(judged) from None


def indexes(client: Any, ask: Ask) -> tuple[list[Any], list[str]]:
    """List the indexes, and what the client says of those that it leaves out because it cannot read their description."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "indexes_adapter" in record.name:
                said.append(record.getMessage())

    # the client leaves an index of an unknown kind out of its list, with a warning only
    log, ear = logging.getLogger("pinecone"), Ear(logging.WARNING)
    log.addHandler(ear)
    try:
        return ask(lambda: list(client.indexes.list())), said
    finally:
        log.removeHandler(ear)


def namespaces(index: Any, stats: Any, ask: Ask, *, pod: bool) -> dict[str, tuple[int, int]]:
    """Give each namespace's number of records and its bytes, 0 where it does not say.

    "" is the default one.

    A pod index knows no list of namespaces, only statistics.
    """
    if pod:
        return {_plain(name): (int(one.vector_count), 0) for name, one in stats.namespaces.items()}
    found: dict[str, tuple[int, int]] = {}
    token: str | None = None
    while True:
        page = ask(
            partial(index.list_namespaces_paginated, limit=LIST_LIMIT, pagination_token=token)
        )
        found |= {
            _plain(one.name): (int(one.record_count), int(one.size_bytes))
            for one in page.namespaces
        }
        token = page.pagination.next if page.pagination else None
        if not token:
            return found


def _plain(namespace: str) -> str:
    return "" if namespace == DEFAULT else namespace


def shards(source: Pinecone, index: Any, home: Home, ask: Ask, context: Context) -> list[Shard]:
    """Write down the ids of a collection."""
    layout, rows = home.layout, home.collection.rows or 0
    stream = iter(given_ids(source.ids)) if source.ids else ids(index, layout, ask)
    try:
        first = list(islice(stream, _SAMPLE))
    except Gone:
        if rows:
            raise
        return []  # a namespace into which nothing was ever written
    row_bytes = home.row_bytes or _weight(index, layout, first, ask)
    per_shard = max(source.shard_bytes // row_bytes, rows // _SHARDS, 1)
    written = manifests.shards(
        home.collection.name, chain(first, stream), per_shard, context, row_bytes
    )
    return [replace(shard, where={**shard.where, **layout.as_json()}) for shard in written]


def _weight(index: Any, layout: PineconeIndex, some: list[str], ask: Ask) -> int:
    """Weigh a few records."""
    page = PageSize(_SAMPLE, _SAMPLE, 1)
    _, found = reconciled(index, layout, next(chunks(some, page, layout), []), page, ask)
    there = {one: record for one, record in found.items() if not isinstance(record, str)}
    return (
        batch(layout, list(there), list(there.values())).nbytes // len(there) + 1 if there else 1024
    )


def ids(index: Any, layout: PineconeIndex, ask: Ask) -> Iterator[str]:
    """List the ids of a namespace, in the order Pinecone promises: by their bytes.

    Raises:
        SourceError: an id out of order or twice, or a list that does not go on: what it leaves out
            cannot be known.
    """
    token: str | None = None
    last = ""
    while True:
        page, following = ask(partial(_id_page, index, layout, token))
        for one in page:
            if one <= last:
                raise SourceError(
                    f"the list of ids of namespace {layout.namespace or DEFAULT} is not in order: {one[:80]!r} came after {last[:80]!r}",
                    "run again; if it stays so, give the ids in a file with source.ids",
                )
            last = one
            yield one
        if not following:
            return
        if following == token:
            raise SourceError(
                f"the list of ids of namespace {layout.namespace or DEFAULT} does not go on",
                "run the same command again",
            )
        token = following


def _id_page(index: Any, layout: PineconeIndex, token: str | None) -> tuple[list[str], str | None]:
    if layout.documents:
        pages = index.documents.list(
            namespace=layout.namespace or DEFAULT, limit=LIST_LIMIT, pagination_token=token
        ).pages()
        first = next(iter(pages))
        return [one.id for one in first.items], first.pagination_token
    answer = index.list_paginated(
        namespace=layout.namespace, limit=LIST_LIMIT, pagination_token=token
    )
    return [
        str(one.id or "") for one in answer.vectors
    ], answer.pagination.next if answer.pagination else None


def reconciled(
    index: Any, layout: PineconeIndex, wanted: list[str], page: PageSize, ask: Ask
) -> tuple[list[str], dict[str, Any]]:
    """Fetch some ids: each with its record, or with the reason (a str) why there is none."""
    found: dict[str, Any] = {one: UNFIT for one in wanted if not is_fit(one)}
    for _ in range(
        2
    ):  # what is missing is asked for once more: a fetch leaves it out without a word
        missing = [one for one in wanted if one not in found]
        if missing:
            found |= _whole(index, layout, missing, page, ask)
    return wanted, {one: found.get(one, MISSING) for one in wanted}


def _whole(
    index: Any, layout: PineconeIndex, wanted: list[str], page: PageSize, ask: Ask
) -> dict[str, Any]:
    """Send one fetch, in halves where it is too large or holds a record that the client cannot read."""
    try:
        return ask(partial(_fetched, index, layout, wanted))
    except (TooLarge, Unreadable) as error:
        if len(wanted) == 1 and isinstance(error, Unreadable):
            return {wanted[0]: error.what}
        if len(wanted) == 1:
            raise
        if isinstance(error, TooLarge):
            page.halve()
    half = len(wanted) // 2
    return _whole(index, layout, wanted[:half], page, ask) | _whole(
        index, layout, wanted[half:], page, ask
    )


def _fetched(index: Any, layout: PineconeIndex, wanted: list[str]) -> dict[str, Any]:
    if layout.documents:
        documents = index.documents.fetch(
            namespace=layout.namespace or DEFAULT, ids=wanted
        ).documents
        return {one: found.to_dict() for one, found in documents.items()}
    vectors: dict[str, Any] = index.fetch(ids=wanted, namespace=layout.namespace).vectors
    return vectors


def nearest(index: Any, layout: PineconeIndex, vector: list[float], k: int) -> list[str]:
    """Give the ids of the k nearest records, by the first dense vector that the index declares.

    Raises:
        SourceError: it declares none.
    """
    if not layout.dense:
        raise SourceError(
            f"{layout.host} has no dense vectors to search",
            "compare search quality on another collection",
        )
    if not layout.documents:
        return [
            str(match.id)
            for match in index.query(vector=vector, top_k=k, namespace=layout.namespace).matches
        ]
    scoring = {"type": "dense_vector", "field": next(iter(layout.dense)), "values": vector}
    found = index.documents.search(
        namespace=layout.namespace or DEFAULT, score_by=[scoring], top_k=k
    ).matches
    return [str(match.id) for match in found]


def chunks(wanted: list[str], page: PageSize, layout: PineconeIndex) -> Iterator[list[str]]:
    """Cut ids into requests of a page's rows, and, for vectors, of so many bytes of address."""
    chunk: list[str] = []
    room = _ADDRESS
    for one in wanted:
        size = 0 if layout.documents else len(quote(one, safe="")) + len("&ids=")
        if chunk and (len(chunk) >= page.rows or size > room):
            yield chunk
            chunk, room = [], _ADDRESS
        chunk.append(one)
        room -= size
    if chunk:
        yield chunk


def in_order(tasks: Iterator[Callable[[], T]], width: int) -> Iterator[T]:
    """Run so many tasks at once, and give their results in order."""
    with ThreadPoolExecutor(width) as pool:
        coming = deque(pool.submit(task) for task in islice(tasks, width))
        try:
            while coming:
                result = coming.popleft().result()
                coming.extend(pool.submit(task) for task in islice(tasks, 1))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
