"""Read a range of ``_id`` page by page, each page with a command of its own.

No cursor is open between two pages: the next page begins at the last ``_id``, inclusive, for
the option ``min`` is inclusive, and that document is left out if it is still there.  The
bounds are the index's (``min``, ``max`` and ``hint``): a query with ``$gte`` and ``$lt``
compares within one type only and loses documents of the others.  A short page is no end, for
an answer holds 16 MB at most; the end is a page without a new document.

Source: https://www.mongodb.com/docs/manual/reference/command/find/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cfray.errors import SourceError
from cfray.sources.base import Json
from cfray.sources.mongodb import ids
from cfray.sources.mongodb.client import Connection
from cfray.sources.mongodb.elements import DamagedBsonError, Element, find_element
from cfray.sources.mongodb.records import Page
from cfray.sources.paging import PageSize

_IDENTITY = {"_id": 1}


@dataclass(frozen=True, slots=True)
class Range:
    """Documents of a collection from ``lower`` on, up to and without ``upper``.

    Attributes:
        database: of the collection.
        collection: its name in the database.
        lower: bound as ``ids.encode_bound`` writes it; None for the start.
        upper: likewise; None for the end.
    """

    database: str
    collection: str
    lower: Json = None
    upper: Json = None

    @property
    def name(self) -> str:
        """Give the name of the source collection."""
        return f"{self.database}.{self.collection}"

    def command(self, limit: int, *, start: Json = None) -> dict[str, Any]:
        """Write the command for a page.

        Args:
            limit: documents at most.
            start: bound to begin at instead of ``lower``.
        """
        lower = self.lower if start is None else start
        command: dict[str, Any] = {
            "find": self.collection,
            "filter": {},
            "sort": _IDENTITY,
            "hint": _IDENTITY,
            "limit": limit,
            "batchSize": limit,
            "singleBatch": True,
        }
        if lower is not None:
            command["min"] = ids.bound_document(str(lower))
        if self.upper is not None:
            command["max"] = ids.bound_document(str(self.upper))
        return command


def read_pages(connection: Connection, documents: Range, page_size: PageSize) -> Iterator[Page]:
    """Yield the documents of a range in the order of their ids.

    Raises:
        SourceError: the server ignored the bounds or the order, refused, or did not answer.
    """
    address = f"{connection.settings.address} {documents.name}"
    upper = ids.bound_order(documents.upper)
    lower, start = ids.bound_order(documents.lower), documents.lower
    last: ids.Order | None = None
    while True:
        overlap = 0 if last is None else 1
        command = documents.command(page_size.rows + overlap, start=start)
        answer = connection.find(documents.database, command)
        identities = [_identity(answer.data, at, to, address) for at, to in answer.spans]
        orders = [
            ids.order_of(answer.data, identity.kind, identity.start, identity.end)
            for identity in identities
        ]
        ids.check_order(orders, address, lower=lower if last is None else last, upper=upper)
        first = 1 if overlap and orders and orders[0] == last else 0
        if len(orders) == first:
            return
        start, last = ids.encode_bound(answer.data, identities[-1]), orders[-1]
        yield Page(
            answer.data,
            answer.spans[first:],
            lambda row, found=identities[first:], data=answer.data: (  # type: ignore[misc]
                f"{documents.name}, _id {ids.describe_id(data, found[row])}"
            ),
        )


def _identity(data: bytes, start: int, end: int, address: str) -> Element:
    try:
        identity = find_element(data, start, end, b"_id")
    except DamagedBsonError as error:
        raise SourceError(
            f"{address}: the server sent a damaged document: {error}",
            "run validate on the collection at the server, and repair it",
        ) from None
    if identity is None:
        raise SourceError(
            f"{address}: the server sent a document without an _id",
            "read a collection, and no view: name it in source.collections",
        )
    return identity
