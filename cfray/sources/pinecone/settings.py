"""The settings of a Pinecone source: what its section of the job file may say.

The client, the plan and the reader take these settings and never the source itself, so
that the source can import all of them.  Nothing is opened here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.credentials import Secret
from cfray.sources.pinecone import errors
from cfray.sources.pinecone.types import collection_name
from cfray.sources.remote import RemoteSource

CONTROL_PLANE = "https://api.pinecone.io"


class PineconeSettings(RemoteSource):
    """Where the records are, which of them to read, and with which credential."""

    kind: Literal["pinecone"] = "pinecone"
    api_key: Secret | None = Secret(env="PINECONE_API_KEY")
    #: Pinecone lets 100 fetches a second through, and 200 lists, per index.
    requests_per_second: float | None = Field(default=100, gt=0)
    #: File of ids to read instead of listing them: one id a line, in ``.jsonl`` as JSON strings.
    ids: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _default_address(cls, data: Any) -> Any:
        if isinstance(data, dict) and not {"url", "uri"} & data.keys():
            return {"url": CONTROL_PLANE, **data}
        return data

    @field_validator("collections")
    @classmethod
    def _name_default_namespaces(cls, names: list[str] | None) -> list[str] | None:
        """Write ``index/__default__`` as its collection is called: ``index``."""
        return names and list(dict.fromkeys(map(collection_name, names)))

    @model_validator(mode="after")
    def _is_no_index_host(self) -> Self:
        host = urlsplit(self.url or "").hostname or ""
        if host.endswith(".pinecone.io") and ".svc." in host:
            raise ValueError(
                f"{host} is the host of one index, which tells nothing of the index; leave url "
                "out, and name the index in source.collections"
            )
        return self

    def resolve_paths(self, base: Path) -> Self:
        """Resolve the file of ids and all other paths against the job file's folder."""
        resolved = super().resolve_paths(base)
        if not resolved.ids:
            return resolved
        return resolved.model_copy(update={"ids": filesystems.resolve_path(resolved.ids, base)})

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of Pinecone's client means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)
