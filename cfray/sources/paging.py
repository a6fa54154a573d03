"""Read a store page by page: how many records to ask for, and the next page in the background.

Stores limit a request by bytes or by time, and we know neither before a page has come.
So the size of a page follows the weight of the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def fetch_ahead(pages: Iterator[T]) -> Iterator[T]:
    """Fetch the next page in a thread while the caller converts the current page.

    An error of ``pages`` is raised where its page would have come.
    """
    with ThreadPoolExecutor(1) as fetcher:
        exhausted = object()
        next_page = fetcher.submit(next, pages, exhausted)
        while (page := next_page.result()) is not exhausted:
            next_page = fetcher.submit(next, pages, exhausted)
            yield page  # type: ignore[misc]  # it is a page: the sentinel ends the loop


class PageSize:
    """How many records to ask for: as many as weigh about ``target_bytes``.

    Attributes:
        rows: records to ask for next.
        max_rows: records to ask for at most.
        target_bytes: bytes that a page aims at.
    """

    def __init__(self, first_rows: int, max_rows: int, target_bytes: int) -> None:
        """Start with ``first_rows`` records, or with ``max_rows`` if that is less."""
        self.rows = min(first_rows, max_rows)
        self.max_rows = max_rows
        self.target_bytes = target_bytes

    def adjust(self, rows: int, size: int) -> None:
        """Fit the next page to the last page's rows and bytes; it grows at most fourfold."""
        if rows and size:
            fitting_rows = self.target_bytes * rows // size
            self.rows = max(1, min(self.max_rows, 4 * self.rows, fitting_rows))

    def halve(self) -> bool:
        """Ask for half as many records after a page that was too large.

        Returns:
            False if the page was a single record already.
        """
        if self.rows == 1:
            return False
        self.rows //= 2
        return True
