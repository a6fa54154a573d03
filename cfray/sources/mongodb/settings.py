"""The settings of a MongoDB source: what its section of the job file may say.

The client, the plan and the reader take these settings and never the source itself, so
that the source can import all of them.  Nothing is opened here.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.sources.mongodb import errors
from cfray.sources.remote import RemoteSource


class MongoSettings(RemoteSource):
    """Where the documents are, which of them to read, and how."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {
        "username",
        "auth_source",
        "consistency",
    }

    kind: Literal["mongodb"] = "mongodb"
    #: Name of the user whose password ``api_key`` names.
    username: str | None = Field(default=None, min_length=1)
    #: Database that knows the user.
    auth_source: str = Field(default="admin", min_length=1)
    #: ``snapshot`` reads all shards at one cluster time, which a replica set of version 5.0 or
    #: later keeps for 5 minutes unless it is told to keep it longer.
    consistency: Literal["live", "snapshot"] = "live"
    #: Read mongoexport's relaxed JSON, although it no longer says what type a number had.
    relaxed_json: bool = False

    @model_validator(mode="after")
    def _names_user_and_password(self) -> Self:
        if (self.username is None) is not (self.api_key is None):
            raise ValueError("give username and api_key (which names the password) together")
        return self

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of MongoDB's client means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)

    @property
    def database(self) -> str | None:
        """Give the database that the address names; None where it names none."""
        path = urlsplit(str(self.url)).path.strip("/")
        return path or None

    @property
    def is_encrypted(self) -> bool:
        """Tell whether the deployment is addressed over TLS."""
        options = {key.lower(): value for key, value in parse_qsl(urlsplit(str(self.url)).query)}
        wants_tls = options.get("tls", options.get("ssl", "")).lower() == "true"
        return wants_tls or str(self.url).startswith("mongodb+srv://") or bool(self.ca_file)
