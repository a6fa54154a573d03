"""How pages of a slice are asked for: at a point in time, or by a scroll.

Pages follow each other by ``_shard_doc``, or by ``_id`` where the server does not know that: by
``_doc`` documents vanish without an error where a slice is of several Lucene shards (4,989 of
5,000, measured on OpenSearch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeAlias

from cfray.errors import SourceError, SourceUnavailable
from cfray.sources.base import Json
from cfray.sources.lucene.errors import InexactAnswer
from cfray.sources.lucene.odd_hits import parse_hits
from cfray.sources.lucene.records import Hit
from cfray.sources.lucene.server import Server, path_of
from cfray.sources.lucene.slices import Slice
from cfray.sources.paging import PageSize

#: A value of ``sort``, by which the next page is asked for.
SortKey: TypeAlias = int | str
#: The documents of a page, and of those whose JSON cannot be kept: id -> why.
RawPage: TypeAlias = tuple[list[Hit], dict[str, str]]


class Reader(ABC):
    """How pages of a slice are asked for.

    Attributes:
        total: documents of the slice, as the first page said.
    """

    def __init__(self, server: Server, part: Slice) -> None:
        self.server, self.part = server, part
        self.total: int | None = None

    @abstractmethod
    def pages(self, page_size: PageSize) -> Generator[RawPage]:
        """Read the slice; what is held open for it is let go at the end."""

    @abstractmethod
    def search(self, body: dict[str, Json]) -> Any:
        """Search in what this reader sees."""

    def fetch(self, page_size: PageSize, ask: Callable[[int], Any]) -> tuple[Any, dict[str, str]]:
        """Fetch a page; a smaller one where the server refuses its size or takes too long.

        Returns:
            the answer, and of the documents whose JSON cannot be kept: id -> why.
        """
        settings = self.server.settings

        def attempt() -> tuple[Any, dict[str, str]]:
            while True:
                try:
                    return self._parsed(lambda: ask(page_size.rows))
                except Exception as error:
                    failure = settings.read_failure(error)
                    shrinks = failure is not None and (
                        failure.is_page_too_large or failure.is_timeout
                    )
                    if not shrinks or not page_size.halve():
                        raise
                    page_size.max_rows = page_size.rows
                    assert failure is not None
                    # a breaker that tripped needs a pause
                    if failure.status == 429 or failure.is_timeout:
                        raise
                self.server.context.throttle.take()

        return settings.send_request(attempt, self.server.context)

    def _parsed(self, ask: Callable[[], Any]) -> tuple[Any, dict[str, str]]:
        """Ask once; an answer whose JSON cannot be kept as a whole is parsed hit by hit."""
        try:
            answer, faults = ask(), dict[str, str]()
        except InexactAnswer as error:
            answer, faults = parse_hits(error.data)
        return _checked(answer, self.server.settings.address, self.part), faults

    def note_total(self, answer: Any) -> None:
        """Remember how many documents the slice has, from the first page's answer."""
        total = answer["hits"].get("total")
        if self.total is None and isinstance(total, dict) and total["relation"] == "eq":
            self.total = int(total["value"])

    def has_all(self, rows: int) -> bool:
        """Tell whether so many documents are all of the slice."""
        return self.total is not None and rows >= self.total


class PointInTimeReader(Reader):
    """Pages at the session's point in time; without a session, at one of their own."""

    view = ""

    def pages(self, page_size: PageSize) -> Generator[RawPage]:
        """Read the slice from the first document to the last."""
        with self.server.view_of(self.part.index) as view:
            self.view = view
            rows, last = 0, None
            while True:
                ask = partial(self._ask, last)
                answer, faults = self.fetch(page_size, ask)
                hits = answer["hits"]["hits"]
                self.note_total(answer)
                if not hits:
                    return
                last = self._check_order(hits, last)
                rows += len(hits)
                yield hits, faults
                if self.has_all(rows):
                    return

    def _ask(self, last: SortKey | None, size: int) -> Any:
        body: dict[str, Json] = {
            "size": size,
            **self.part.condition(),
            "sort": [{self.server.order: "asc"}],
            "track_total_hits": last is None and self.total is None,
            "_source": self.server.source_filter,
        }
        if last is not None:
            body["search_after"] = [last]
        return self._call(body)

    def _call(self, body: dict[str, Json]) -> Any:
        view: dict[str, Json] = {"id": self.view, "keep_alive": self.server.keep_alive()}
        target = "/_search?allow_partial_search_results=false"
        answer = self.server.call("POST", target, {**body, "pit": view})
        # a server may give the point in time another id with any answer
        self.view = answer.get("pit_id") or self.view
        return answer

    def search(self, body: dict[str, Json]) -> Any:
        """Search at the point in time."""
        settings = self.server.settings
        return settings.send_request(partial(self._call, body), self.server.context)

    def _check_order(self, hits: list[Hit], last: SortKey | None) -> SortKey:
        """Give the last document's place; refuse an order that repeats or goes back."""
        for hit in hits:
            key: SortKey = hit["sort"][0]
            if last is not None and key <= last:  # type: ignore[operator]  # both of one order
                raise SourceError(
                    f"{self.server.settings.address}, {self.part}: the document {hit['_id'][:80]} "
                    f"came behind {last!r} with the place {key!r}: documents would be lost or "
                    "doubled",
                    "set source.read_by: scroll, and name the server's version in a report of a "
                    "fault",
                )
            last = key
        assert last is not None
        return last


class ScrollReader(Reader):
    """Pages of a scroll, which sees its slice as it is when it begins.

    A page that was lost on its way cannot be asked for again, so the shard is read anew.
    """

    def pages(self, page_size: PageSize) -> Generator[RawPage]:
        """Read the slice, and let the scroll go."""
        answer, faults = self.fetch(page_size, self._start)
        self.note_total(answer)
        rows = 0
        try:
            while hits := answer["hits"]["hits"]:
                rows += len(hits)
                yield hits, faults
                if self.has_all(rows):
                    return
                answer, faults = self._next(answer["_scroll_id"])
        finally:
            self._clear(answer["_scroll_id"])

    def _start(self, size: int) -> Any:
        body: dict[str, Json] = {
            "size": size,
            **self.part.condition(),
            "sort": ["_doc"],
            "track_total_hits": True,
            "_source": self.server.source_filter,
        }
        target = f"{path_of(self.part.index, '_search')}?scroll={self.server.keep_alive()}"
        return self.server.call("POST", f"{target}&allow_partial_search_results=false", body)

    def _next(self, scroll: str) -> tuple[Any, dict[str, str]]:
        """Fetch the next page, once.

        Raises:
            SourceUnavailable: it did not come; the caller reads the whole shard again.
        """
        settings, context = self.server.settings, self.server.context
        context.throttle.take()
        body: dict[str, Json] = {"scroll_id": scroll, "scroll": self.server.keep_alive()}
        try:
            return self._parsed(lambda: self.server.call("POST", "/_search/scroll", body))
        except SourceError:
            raise
        except Exception as error:
            source_error = settings.classify_error(error)
            if source_error is None:
                raise
            raise settings.remove_secret(source_error) from None

    def _clear(self, scroll: str) -> None:
        body: dict[str, Json] = {"scroll_id": [scroll]}
        try:
            self.server.send("DELETE", "/_search/scroll", body)
        except SourceError:
            return

    def search(self, body: dict[str, Json]) -> Any:
        """Search in the index as it is now: a scroll cannot be searched."""
        return self.server.send("POST", path_of(self.part.index, "_search"), body)


def _checked(answer: Any, address: str, part: Slice) -> Any:
    """Refuse an answer that some shards have no part in.

    Raises:
        SourceUnavailable: a shard failed, or the search was cut off.
    """
    shards = answer.get("_shards") or {}
    if answer.get("timed_out") or shards.get("failed"):
        raise SourceUnavailable(
            f"{address}, {part}: {shards.get('failed', 0)} of {shards.get('total')} shards failed "
            f"to answer{' in time' if answer.get('timed_out') else ''}",
            "bring the index's shards back, then run the same command again",
        )
    return answer
