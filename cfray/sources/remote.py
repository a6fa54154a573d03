"""What every store behind a network has: an address, a credential, and requests that fail.

A store's folder says which of its client's errors mean what (``classify_error``).  Here a
request is sent again after a transient error, within the run's budget, and no secret leaves
in an error's text.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from cfray.errors import CfrayError, SourceError, SourceUnavailable
from cfray.runtime import filesystems, retry
from cfray.runtime.credentials import Secret, check_no_secret_in_url
from cfray.runtime.models import MIB, ByteSize, Location
from cfray.sources.base import Context, Source

T = TypeVar("T")

#: Names of source collections that an error lists at most.
_LISTED_NAMES = 20


class RemoteSource(Source):
    """A store behind a network, or the store's own export files."""

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
    #: Requests a second of all workers together; default: no limit but the store's own pauses.
    requests_per_second: float | None = Field(default=None, gt=0)
    #: A store delivers about a tenth of what a disk does, so its shards are smaller than a file's:
    #: a kill costs less.
    shard_bytes: ByteSize = 64 * MIB

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if (self.url is None) is (self.uri is None):
            raise ValueError("give either url (the live store) or uri (its own export files)")
        if self.url:
            check_no_secret_in_url(
                self.url, "name it with source.api_key: {env: NAME} or {file: PATH}"
            )
        return self

    def resolve_paths(self, base: Path) -> Self:
        """Resolve ``uri`` and the files of the credentials against the job file's folder."""
        resolved = super().resolve_paths(base)
        update: dict[str, object] = {}
        if resolved.ca_file:
            update["ca_file"] = filesystems.resolve_path(resolved.ca_file, base)
        if resolved.api_key and resolved.api_key.file:
            update["api_key"] = Secret(file=filesystems.resolve_path(resolved.api_key.file, base))
        return resolved.model_copy(update=update)

    @property
    def address(self) -> str:
        """Give the address of the store or of its export, without credentials."""
        return filesystems.strip_credentials(self.url or self.uri or "")

    @property
    def is_remote(self) -> bool:
        """Tell whether the live store is read."""
        return self.url is not None

    @property
    def request_rate(self) -> float | None:
        """Give the job file's budget."""
        return self.requests_per_second

    def read_secret(self) -> str | None:
        """Read the credential, if the job file names one.

        Raises:
            SourceError: the environment variable is not set, or the file cannot be read.
        """
        return None if self.api_key is None else self.api_key.reveal()

    def choose_collections(
        self,
        available_names: Iterable[str],
        list_aliases: Callable[[], Mapping[str, str]] = dict,
    ) -> list[str]:
        """Give the names of the source collections to read, sorted; an alias gives its collection.

        Args:
            available_names: the names of the store's collections.
            list_aliases: gives alias -> name of its collection; asked only where the job file
                names something that is no collection.

        Raises:
            SourceError: the job file names a collection that the store does not have, or one
                collection by two names; or the store has none.
        """
        available = sorted(available_names)
        if not set(self.collections or ()) <= set(available):
            return self._resolve_aliases(available, list_aliases())
        if not available:
            raise SourceError(
                f"{self.address} holds no collection",
                "correct the address, or give the credential that may see the collections",
            )
        return sorted(set(self.collections or available))

    def _resolve_aliases(self, available: list[str], aliases: Mapping[str, str]) -> list[str]:
        """Give the collections that the job file names, some of them by an alias.

        Args:
            available: the names of the store's collections.
            aliases: alias -> name of its collection.

        Raises:
            SourceError: a name is neither a collection nor an alias, or two are of one collection.
        """
        requested_names: dict[str, str] = {}
        for requested_name in dict.fromkeys(self.collections or ()):
            name = requested_name
            if name not in available:
                name = aliases.get(name, name)
            if name not in available:
                hint = (
                    f"it is an alias of {name}, which is not among its collections"
                    if requested_name in aliases
                    else _hint(requested_name, sorted({*available, *aliases}))
                )
                raise SourceError(
                    f"{self.address} has no collection {requested_name}; {hint}",
                    "correct source.collections in the job file",
                )
            first_name = requested_names.setdefault(name, requested_name)
            if first_name != requested_name:
                raise SourceError(
                    f"source.collections names the collection {name} twice, as {first_name} and "
                    f"as {requested_name}",
                    "name it once: its records would be read twice",
                )
        return sorted(requested_names)

    @abstractmethod
    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of the store's client means.

        Called wherever a request failed, on the driver and on workers.  Must be pure.

        Returns:
            A terminal SourceError, or a SourceUnavailable with the pause that the store asked for.
            None for an error that is a fault of cfray's, which is then raised as it is.
        """

    def send_request(self, action: Callable[[], T], context: Context) -> T:
        """Send a request, again after a transient error, within the run's budget.

        Args:
            action: sends one request and returns the answer; may be called five times.
            context: of the run.

        Raises:
            SourceError: terminal, or transient after the last attempt; its text holds no
                credential.
        """

        def attempt() -> T:
            context.throttle.take()
            try:
                return action()
            except CfrayError:
                raise
            except Exception as error:
                source_error = self.classify_error(error)
                if source_error is None:
                    raise
                if isinstance(source_error, SourceUnavailable) and source_error.retry_after:
                    context.throttle.hold_off(source_error.retry_after)
                raise self.remove_secret(source_error) from None

        return retry.run_with_retries(attempt)

    def remove_secret(self, error: SourceError) -> SourceError:
        """Take the credential out of an error's text: some clients quote the request they sent."""
        secret = self.read_secret()
        if secret and secret in error.what:
            error.what = error.what.replace(secret, "***")
            error.args = (error.what, *error.args[1:])
        return error


def _hint(name: str, available: list[str]) -> str:
    nearest = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {nearest[0]}?"
    if not available:
        return "it holds none at all"
    more = f" and {len(available) - _LISTED_NAMES} more" if len(available) > _LISTED_NAMES else ""
    return f"there are: {', '.join(available[:_LISTED_NAMES])}{more}"
