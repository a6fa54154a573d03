"""The settings of a Chroma source: what its section of the job file may say.

They also know how a collection is named: a bare name in ``source.collections`` belongs to
the tenant and database of the settings.  Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

from cfray.errors import SourceError
from cfray.sources.chroma import errors
from cfray.sources.chroma.types import DATABASE, TENANT, CollectionAddress
from cfray.sources.remote import RemoteSource

#: ``database: "*"`` reads every database of the tenant.
ALL_DATABASES = "*"


class ChromaSettings(RemoteSource):
    """Where the records are, which of them to read, and with which credential."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {"api_key_header"}

    kind: Literal["chroma"] = "chroma"
    tenant: str = TENANT
    #: ``*`` for every database of the tenant.
    database: str = DATABASE
    #: Header the credential travels in; ``Authorization`` makes it a bearer token.
    api_key_header: str = "x-chroma-token"

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of Chroma means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)

    def chosen_addresses(self) -> list[CollectionAddress]:
        """Give the addresses of the collections that the job file names."""
        database = DATABASE if self.database == ALL_DATABASES else self.database
        return [
            CollectionAddress.parse(name, self.tenant, database) for name in self.collections or []
        ]

    def choose_collections(
        self,
        available_names: Iterable[str],
        list_aliases: Callable[[], Mapping[str, str]] = dict,
    ) -> list[str]:
        """Give the source collections to read, sorted, by their full names."""
        if not self.collections:
            return super().choose_collections(available_names, list_aliases)
        full_names = [str(address) for address in self.chosen_addresses()]
        with_full_names = self.model_copy(update={"collections": full_names})
        return RemoteSource.choose_collections(with_full_names, available_names, list_aliases)

    def request_headers(self) -> dict[str, str]:
        """Give the headers of every request: the credential, if the job file names it."""
        secret = self.read_secret()
        if secret is None:
            return {}
        prefix = "Bearer " if self.api_key_header.lower() == "authorization" else ""
        return {self.api_key_header: f"{prefix}{secret}"}
