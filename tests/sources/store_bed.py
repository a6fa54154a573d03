"""A bed fills a store by the vendor's client, and says which rows cfray must read from it.

The store is a real server, or a double of it.  A bed serves the contract, the whole-run
scenarios and the benchmarks of its store.
"""

from __future__ import annotations

import itertools
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from cfray.sources.remote import RemoteSource
from tests.testbeds.proxy import GrpcProxy, HttpProxy

Row = dict[str, Any]
_collection_numbers = itertools.count(1)


class StoreBed(ABC):
    """A running store that tests fill and read."""

    #: The store's ``kind`` in a job file.
    kind: ClassVar[str]
    #: Whether a double stands in for the server; the README's support table says so, too.
    double: ClassVar[bool] = False
    #: Names the collections of one test run, so that they are not mixed up with
    #: other contents of a user's service.
    run: ClassVar[str] = f"T{secrets.token_hex(3)}"

    @classmethod
    @contextmanager
    @abstractmethod
    def serving(cls, folder: Path) -> Iterator[Self]:
        """Start the server, or use the server that ``CFRAY_<STORE>_ENDPOINT`` names.

        ``CFRAY_<STORE>_KEY`` holds its key.
        """

    @classmethod
    def measured(cls, folder: Path) -> AbstractContextManager[Self]:
        """Start the server with its default settings, for benchmarks.

        ``serving`` may change settings so that tests are quicker.
        """
        return cls.serving(folder)

    @classmethod
    def endpoint(cls) -> str | None:
        """Return the address of a user's service, if the environment names it."""
        return os.environ.get(f"CFRAY_{cls.kind.upper()}_ENDPOINT")

    def fresh(self) -> str:
        """Return the name of a collection that does not exist yet."""
        return f"{self.run}c{next(_collection_numbers)}"

    @abstractmethod
    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        """Create a collection, fill it by the vendor's client, never by cfray, and return its name.

        Rows are those of ``corpus.py`` or of ``awkward``: id, text, vector (a list of floats; may
        be absent) and metadata.  What the store cannot hold is left out or changed here, and
        ``expected`` says the same.
        """

    @abstractmethod
    def drop(self, name: str) -> None:
        """Delete a collection."""

    @abstractmethod
    def source(self, *names: str, **options: Any) -> RemoteSource:
        """Return the source that reads these collections; options replace its fields."""

    @abstractmethod
    def expected(self, row: Row) -> Row:
        """Return a seeded row as ``corpus.plain_rows`` shows it after a read.

        A typed column is a value, a variant is a pair (type, text), and the row lacks missing keys.
        A vector is a list of the float32 values the store holds, as Python floats.
        """

    @abstractmethod
    def awkward(self, count: int, dimension: int) -> list[Row]:
        """Make rows with every kind of id, value and vector the store can hold.

        All rows have float32 vectors of the same width.
        """

    @abstractmethod
    def mapping(self) -> dict[str, Any]:
        """Return the mapping section of a job that moves ``awkward`` rows."""

    @abstractmethod
    def vendor_read(self, name: str) -> int:
        """Read a collection, vectors and payload, as fast as the vendor's client allows a process.

        Returns:
            The number of rows.
        """

    @abstractmethod
    def proxied(self, name: str) -> tuple[HttpProxy | GrpcProxy, RemoteSource]:
        """Start a proxy in front of the server, and return the source that reads pages through it.

        The caller closes the proxy.
        """

    @abstractmethod
    def page_request(self) -> str:
        """Return the text that the proxy matches with a request for a page of records."""

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        """Delete records by the vendor's client, by the ids of the rows as they were seeded."""
        raise NotImplementedError(f"the bed of {self.kind} cannot delete records")
