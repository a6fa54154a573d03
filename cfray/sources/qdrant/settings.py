"""The settings of a Qdrant source: what its section of the job file may say.

The client, the plan and the reader take these settings and never the source itself, so
that the source can import all of them.  Nothing is opened here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cfray.errors import SourceError
from cfray.sources.qdrant import errors
from cfray.sources.remote import RemoteSource


class QdrantSettings(RemoteSource):
    """Where the points are, which of them to read, and how."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {
        "prefer_grpc",
        "grpc_port",
    }

    kind: Literal["qdrant"] = "qdrant"
    #: Read pages over gRPC, which takes a fraction of REST's time; all other requests use REST.
    prefer_grpc: bool = True
    grpc_port: int = Field(default=6334, ge=1, le=65_535)
    #: Replicas that must agree on what is read (``all``, ``majority``, ``quorum`` or a number);
    #: default: one replica answers.
    consistency: Literal["all", "majority", "quorum"] | Annotated[int, Field(ge=1)] | None = None

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of Qdrant's client means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)

    @property
    def is_encrypted(self) -> bool:
        """Tell whether the server is addressed over TLS."""
        return str(self.url).startswith("https://")

    @property
    def uses_grpc(self) -> bool:
        """Tell whether pages come over gRPC, which cannot leave a certificate unchecked."""
        return self.prefer_grpc and not (self.insecure and self.is_encrypted)
