"""The settings of a PostgreSQL source: what its section of the job file may say.

The client and the plan take these settings and never the source itself, so that the source
can import both.  Nothing is opened here.
"""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.sources.postgres import errors
from cfray.sources.remote import RemoteSource


class PostgresSettings(RemoteSource):
    """Where the tables are, which of them to read, and how they are divided."""

    kind: Literal["postgres"] = "postgres"
    #: A query whose rows are read instead of tables; ``collections`` gives the name of its source
    #: collection.
    query: str | None = Field(default=None, min_length=1)
    #: Columns that no two rows share, in order, for a view, a foreign table or a query; tables
    #: have them in their primary key.
    key: list[str] | None = Field(default=None, min_length=1)
    #: How tables are divided.  ``auto``: by ranges of the key, else by ranges of blocks.
    partition: Literal["auto", "key", "blocks"] = "auto"
    #: Files only: what they are.  ``auto``: a binary COPY and a dump are known by their first
    #: bytes, CSV by its suffix.
    format: Literal["auto", "csv", "tsv", "text", "binary", "dump"] = "auto"
    #: Files only: column -> type as PostgreSQL writes it (``bigint``, ``vector(384)``), in the
    #: order of the columns.  A dump brings its own.
    columns: dict[str, str] = Field(default_factory=dict)
    #: CSV files only: whether the first line names the columns.
    header: bool = True
    #: CSV files only: the text that stands for null where it is not quoted.
    null: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.url:
            scheme = urlsplit(self.url).scheme
            if scheme not in ("postgresql", "postgres"):
                raise ValueError("url is postgresql://user@host:port/database")
        if self.query and (self.uri or len(self.collections or []) > 1):
            raise ValueError("a query is of one source collection of a live server")
        if self.query and self.partition == "blocks":
            raise ValueError("a query has no blocks; name its key with key")
        if self.insecure and self.ca_file:
            raise ValueError("give either ca_file or insecure")
        return self

    @property
    def bare_query(self) -> str:
        """Give the query without the semicolon that may end it; empty where there is none."""
        return (self.query or "").strip().rstrip(";").rstrip()

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of the client means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)
