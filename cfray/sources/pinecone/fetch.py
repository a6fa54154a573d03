"""Fetch Pinecone's records by id, and account for every id that was asked for.

A fetch leaves out what it does not find, and nothing in its answer says so.  So the answer
is compared with the request, missing ids are asked for once more, and each id that is
still missing gets a reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

from cfray.sources.paging import PageSize
from cfray.sources.pinecone.client import SendRequest
from cfray.sources.pinecone.errors import RequestTooLarge, UnreadableAnswer
from cfray.sources.pinecone.ids import INVALID_ID, is_valid_id
from cfray.sources.pinecone.types import PineconeNamespace

T = TypeVar("T")

#: Bytes of ids in the address of a fetch of vectors, which is a GET request; common front ends
#: (nginx, Apache) take 8 KB, and Pinecone names no limit.
_MAX_ADDRESS_BYTES = 7 * 1024
NOT_RETURNED = "listed when the plan was made and not returned: deleted meanwhile or lost"


@dataclass(frozen=True, slots=True)
class FetchedRecords:
    """The answer to a request for some ids: each id has either a record or a reason.

    Attributes:
        ids: the ids that were asked for, in their order.
        records: id -> record, as the client gives it.
        reasons: id -> why there is no record.
    """

    ids: list[str]
    records: dict[str, Any]
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class RecordFetcher:
    """Fetches records of one namespace.

    Attributes:
        index: the opened index.
        namespace: whose records are fetched.
        page_size: how many ids a request names; a request that was too large halves it.
        send: sends a request within the budget.
    """

    index: Any
    namespace: PineconeNamespace
    page_size: PageSize
    send: SendRequest

    def fetch(self, ids: list[str]) -> FetchedRecords:
        """Fetch the records of some ids; ask once more for those that are missing."""
        reasons = {record_id: INVALID_ID for record_id in ids if not is_valid_id(record_id)}
        records: dict[str, Any] = {}
        for _attempt in range(2):
            missing_ids = [
                record_id
                for record_id in ids
                if record_id not in records and record_id not in reasons
            ]
            if missing_ids:
                answer = self._fetch_or_halve(missing_ids)
                records |= answer.records
                reasons |= answer.reasons
        for record_id in ids:
            if record_id not in records:
                reasons.setdefault(record_id, NOT_RETURNED)
        return FetchedRecords(ids, records, reasons)

    def _fetch_or_halve(self, ids: list[str]) -> FetchedRecords:
        """Send one request, or two halves of it.

        A request is halved where it is too large, or where its answer holds a record that the
        client cannot read, so that this record takes no other with it.
        """
        try:
            return FetchedRecords(ids, self.send(partial(self._request, ids)), {})
        except UnreadableAnswer as error:
            if len(ids) == 1:
                return FetchedRecords(ids, {}, {ids[0]: error.what})
        except RequestTooLarge:
            if len(ids) == 1:
                raise
            self.page_size.halve()
        middle = len(ids) // 2
        first, second = self._fetch_or_halve(ids[:middle]), self._fetch_or_halve(ids[middle:])
        return FetchedRecords(ids, first.records | second.records, first.reasons | second.reasons)

    def _request(self, ids: list[str]) -> dict[str, Any]:
        if self.namespace.holds_documents:
            documents = self.index.documents.fetch(namespace=self.namespace.api_name, ids=ids)
            return {
                record_id: document.to_dict() for record_id, document in documents.documents.items()
            }
        answer = self.index.fetch(ids=ids, namespace=self.namespace.name)
        vectors: dict[str, Any] = answer.vectors
        return vectors

    def split_into_requests(self, ids: Iterable[str]) -> Iterator[list[str]]:
        """Split ids into requests of at most a page, whose addresses are not too long.

        Only the ids of vectors travel in the address; those of documents travel in the body.
        """
        request: list[str] = []
        free_bytes = _MAX_ADDRESS_BYTES
        for record_id in ids:
            id_bytes = (
                0
                if self.namespace.holds_documents
                else len(quote(record_id, safe="")) + len("&ids=")
            )
            if request and (len(request) >= self.page_size.rows or id_bytes > free_bytes):
                yield request
                request, free_bytes = [], _MAX_ADDRESS_BYTES
            request.append(record_id)
            free_bytes -= id_bytes
        if request:
            yield request

    def fetch_in_order(self, ids: Iterable[str], parallel: int) -> Iterator[FetchedRecords]:
        """Fetch many ids with several requests at once; yield the answers in order."""
        requests = self.split_into_requests(ids)
        return run_in_order((partial(self.fetch, request) for request in requests), parallel)


def run_in_order(tasks: Iterator[Callable[[], T]], parallel: int) -> Iterator[T]:
    """Run ``parallel`` tasks at once, and yield their results in the order of the tasks."""
    with ThreadPoolExecutor(parallel) as pool:
        running = deque(pool.submit(task) for task in islice(tasks, parallel))
        try:
            while running:
                result = running.popleft().result()
                running.extend(pool.submit(task) for task in islice(tasks, 1))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
