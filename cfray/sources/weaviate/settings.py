"""The settings of a Weaviate source: what its section of the job file may say.

The client, the tenants and the export take these settings and never the source itself, so
that the source can import all of them.  Nothing is opened here.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.sources.remote import RemoteSource
from cfray.sources.weaviate import errors

#: gRPC ports of a server of the user's and of Weaviate Cloud, unless the job file names another.
_GRPC_PORT, _CLOUD_GRPC_PORT = 50_051, 443


class WeaviateSettings(RemoteSource):
    """Where the objects are, which of them to read, and how."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {
        "grpc_port",
        "grpc_host",
        "consistency_level",
    }

    kind: Literal["weaviate"] = "weaviate"
    #: Port of gRPC; default: 50051, in Weaviate Cloud 443.
    grpc_port: int | None = Field(default=None, ge=1, le=65_535)
    #: Host of gRPC; default: that of ``url``, in Weaviate Cloud its ``grpc-`` twin.
    grpc_host: str | None = Field(default=None, min_length=1)
    #: What to do about tenants that are not active, or that an export skipped.
    inactive_tenants: Literal["refuse", "skip", "activate"] = "refuse"
    #: How many replicas must agree on what is read; default: the server's setting.
    consistency_level: Literal["ONE", "QUORUM", "ALL"] | None = None
    #: Whether records say when their object was created and updated: ``_creation_time`` and
    #: ``_update_time``.
    object_times: bool = True

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.url and urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError("url of a weaviate source starts with http:// or https://")
        if self.insecure:
            raise ValueError(
                "gRPC always checks the server's certificate; "
                "name the authority that signed it with ca_file"
            )
        if self.uri and self.inactive_tenants == "activate":
            raise ValueError(
                "an export has no tenants to activate; write inactive_tenants: refuse or skip"
            )
        return self

    @property
    def grpc_target(self) -> str:
        """Give the host and port of gRPC."""
        host = urlsplit(self.url or "").hostname or ""
        is_cloud = host.endswith(".weaviate.cloud")
        grpc_host = self.grpc_host or (f"grpc-{host}" if is_cloud else host)
        return f"{grpc_host}:{self.grpc_port or (_CLOUD_GRPC_PORT if is_cloud else _GRPC_PORT)}"

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of REST or gRPC means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)
