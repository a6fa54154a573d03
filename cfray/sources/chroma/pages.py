"""Fetch the listed ids of a Chroma collection, page by page.

Chroma refuses a page that names too many records or weighs too much, and a page with a record
whose vector it has lost.  Such a page is asked for again with fewer ids; no id is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from cfray.sources.chroma.client import ALL_COLUMNS, WITHOUT_VECTORS, ChromaStore
from cfray.sources.chroma.errors import LOST_VECTOR, PageRefused
from cfray.sources.chroma.types import CollectionAddress, CollectionModel
from cfray.sources.paging import PageSize

#: Ids in one request; SQLite takes 32,766 variables, and larger pages were no faster.
MAX_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class PageFetcher:
    """Fetches records of one collection by id.

    Attributes:
        store: the server or the copy of a directory.
        address: of the collection.
        model: of the collection.
        send_request: sends one request within the run's budget.
    """

    store: ChromaStore
    address: CollectionAddress
    model: CollectionModel
    send_request: Callable[[Callable[[], bytes]], bytes]

    def fetch_pages(self, ids: list[str], page_bytes: int) -> Iterator[tuple[list[str], bytes]]:
        """Fetch the ids in their order; yield the ids of each page and its answer."""
        page_size = PageSize(MAX_PAGE_ROWS // 2, MAX_PAGE_ROWS, page_bytes)
        start = 0
        while start < len(ids):
            page_ids, answer = self._fetch_page(ids[start : start + page_size.rows], page_size)
            yield page_ids, answer
            start += len(page_ids)
            page_size.adjust(len(page_ids), len(answer))

    def _fetch_page(self, ids: list[str], page_size: PageSize) -> tuple[list[str], bytes]:
        """Fetch one page; ask for half as many ids as long as the store refuses the page.

        Raises:
            PageRefused: the store refuses a page of one record.
        """
        columns: tuple[str, ...] = ALL_COLUMNS
        while True:
            request = partial(self.store.get_records, self.address, self.model, ids, columns)
            try:
                return ids, self.send_request(request)
            except PageRefused as error:
                if page_size.halve():
                    ids = ids[: page_size.rows]
                elif LOST_VECTOR in error.what and columns == ALL_COLUMNS:
                    # the record whose vector is lost keeps its other columns
                    columns = WITHOUT_VECTORS
                else:
                    raise
