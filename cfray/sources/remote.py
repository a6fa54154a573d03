"""What every store behind a network has.

An address, a credential that is named and never held, requests that fail.

A store's own file says which of its client's errors mean what (``judge``); here
a request is asked once more after a transient one, within the run's budget,
and no secret leaves in an error's text.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from cfray.errors import CfrayError, SourceError, SourceUnavailable
from cfray.runtime import filesystems, retry
from cfray.runtime.credentials import Secret
from cfray.sources.base import MIB, ByteSize, Context, Location, Source

T = TypeVar("T")


class RemoteSource(Source):
    """A store behind a network, or its own export files."""

    unfingerprinted: ClassVar[frozenset[str]] = frozenset(
        {"api_key", "ca_file", "insecure", "timeout", "requests_per_second"}
    )

    #: Address of the store, or what its client takes; without credentials.
    url: str | None = Field(default=None, min_length=1)
    #: The store's own export files, instead of the store.
    uri: Location | None = None
    #: Source collections to read; default: all.
    collections: list[str] | None = Field(default=None, min_length=1)
    api_key: Secret | None = None
    #: Certificates to trust, PEM.
    ca_file: str | None = None
    #: Do not check the store's certificate.
    insecure: bool = False
    #: Seconds that one request may take.
    timeout: float = Field(default=60, gt=0)
    #: Requests a second of all workers together; default: what the store's own file says.
    requests_per_second: float | None = Field(default=None, gt=0)
    #: A store delivers about a tenth of what a disk does, so its shards are smaller than a file's:
    #: a kill costs less.
    shard_bytes: ByteSize = 64 * MIB

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) is (self.uri is None):
            raise ValueError("give either url (the live store) or uri (its own export files)")
        if self.url and "@" in self.url.split("://")[-1].split("/")[0]:
            raise ValueError(
                "url holds a credential; name it with api_key: {env: NAME} or {file: PATH}"
            )
        return self

    def located(self, base: Path) -> Self:
        """Resolve ``uri`` and the files of the credentials against the job file's folder."""
        at = super().located(base)
        update: dict[str, object] = {}
        if at.ca_file:
            update["ca_file"] = filesystems.absolute(at.ca_file, base)
        if at.api_key and at.api_key.file:
            update["api_key"] = Secret(file=filesystems.absolute(at.api_key.file, base))
        return at.model_copy(update=update)

    @property
    def place(self) -> str:
        """Give the address without credentials."""
        return filesystems.without_credentials(self.url or self.uri or "")

    @property
    def is_remote(self) -> bool:
        """Tell whether the live store is read."""
        return self.url is not None

    @property
    def request_rate(self) -> float | None:
        """Give the job file's budget."""
        return self.requests_per_second

    def secret(self) -> str | None:
        """Read the credential, if the job file names one."""
        return None if self.api_key is None else self.api_key.reveal()

    def chosen(self, there: Iterable[str]) -> list[str]:
        """Give the source collections to read, sorted.

        Raises:
            SourceError: one that is named is not there, or there is none at all.
        """
        known = sorted(there)
        for name in self.collections or []:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = (
                    f"; did you mean {near[0]}?"
                    if near
                    else f"; there are: {', '.join(known[:20]) or 'none'}"
                )
                raise SourceError(
                    f"{self.place} has no collection {name}{hint}",
                    "correct source.collections in the job file",
                )
        if not known:
            raise SourceError(
                f"{self.place} holds no collection",
                "correct the address, or give the credential that may see the collections",
            )
        return sorted(set(self.collections or known))

    @abstractmethod
    def judge(self, error: Exception) -> SourceError | None:
        """Say what an error of the store's client means.

        Terminal, or transient with its Retry-After; None where it is a fault of ours.
        """

    def ask(self, action: Callable[[], T], context: Context) -> T:
        """Send one request, again after a transient error, within the run's budget.

        Raises:
            SourceError: terminal, or transient after the last attempt; its text holds no
                credential.
        """

        def once() -> T:
            context.throttle.take()
            try:
                return action()
            except CfrayError:
                raise
            except Exception as error:
                judged = self.judge(error)
                if judged is None:
                    raise
                if isinstance(judged, SourceUnavailable) and judged.retry_after:
                    context.throttle.hold_off(judged.retry_after)
                raise self.without_secret(judged) from None

        return retry.retried(once)

    def without_secret(self, error: SourceError) -> SourceError:
        """Take the credential out of an error's text: some clients quote the request they sent."""
        secret = self.secret()
        if secret and secret in error.what:
            error.what = error.what.replace(secret, "***")
            error.args = (error.what, *error.args[1:])
        return error


def ahead(pages: Iterator[T]) -> Iterator[T]:
    """Fetch the next page while the current one is converted.

    Errors come where the page would have come.
    """
    with ThreadPoolExecutor(1) as fetcher:
        nothing = object()
        coming = fetcher.submit(next, pages, nothing)
        while (page := coming.result()) is not nothing:
            coming = fetcher.submit(next, pages, nothing)
            yield page  # type: ignore[misc]


class PageSize:
    """How many records to ask for.

    As many as make a page of about ``aim`` bytes, never more than ``most``.
    """

    def __init__(self, first: int, most: int, aim: int) -> None:
        """Start with ``first`` records."""
        self.rows, self.most, self.aim = min(first, most), most, aim

    def learn(self, rows: int, size: int) -> None:
        """Fit the next page to what the last one weighed; it grows at most fourfold."""
        if rows and size:
            self.rows = max(1, min(self.most, 4 * self.rows, self.aim * rows // size))

    def halve(self) -> bool:
        """Ask for half as many after a page that was too large; false if it was one record."""
        if self.rows == 1:
            return False
        self.rows //= 2
        return True
