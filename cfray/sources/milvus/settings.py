"""The settings of a Milvus source: what its section of the job file may say.

The client and the plan take these settings and never the source itself, so that the source
can import both.  Nothing is opened here.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.sources.milvus import errors
from cfray.sources.milvus.field_words import check_field_words
from cfray.sources.remote import RemoteSource


class MilvusSettings(RemoteSource):
    """Where the collections are, which of them to read, and how."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {"load"}

    kind: Literal["milvus"] = "milvus"
    database: str = Field(default="default", min_length=1)
    #: What to do with a collection that is not loaded, which cannot be read: refuse it, or load it
    #: for the run and release it at the end.
    load: Literal["refuse", "load"] = "refuse"
    #: A query gives one row for a primary key, and uniqueness is not enforced: set the further rows
    #: aside, each as a reject, or refuse such a collection.
    duplicates: Literal["quarantine", "refuse"] = "quarantine"
    #: Export files only: field -> type as Milvus writes it (``FLOAT_VECTOR``), where the file does
    #: not show it.
    fields: dict[str, str] = Field(default_factory=dict)
    #: Export files only: the primary field.
    primary: str = "id"

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.url:
            address = self.split_url
            if address.scheme not in ("http", "https") or address.path not in ("", "/"):
                raise ValueError(
                    "url is http(s)://host:port of a server; the database goes to database, "
                    "a milvus-lite file is served by milvus-lite"
                )
        if self.uri and len(self.collections or []) > 1:
            raise ValueError("export files hold one collection; name that one in collections")
        check_field_words(self.fields)
        if self.insecure:
            raise ValueError(
                "gRPC cannot skip the check of a certificate; "
                "name the server's certificate with ca_file"
            )
        return self

    @property
    def split_url(self) -> SplitResult:
        """Give the parts of ``url``; an address without a scheme is not encrypted."""
        url = self.url or ""
        return urlsplit(url if "://" in url else f"http://{url}")

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of a call means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)

    def source_collection(self, collection: str) -> str:
        """Give a collection's name as a source collection: with its database, unless default."""
        return collection if self.database == "default" else f"{self.database}/{collection}"

    def collection_name(self, source_collection: str) -> str:
        """Give a source collection's name in its database."""
        return source_collection.removeprefix(self.source_collection(""))
