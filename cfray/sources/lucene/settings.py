"""The settings that both products share: what their section of the job file may say.

The server, the plan and the readers take these settings and never the source itself, so that the
source can import all of them.  Nothing is opened here.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import Field

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.models import MIB, ByteSize
from cfray.sources.lucene.errors import Failure, InexactAnswer, InvalidAnswer
from cfray.sources.remote import RemoteSource


class LuceneSettings(RemoteSource):
    """Where the indices are, which of them to read, and how."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {
        "username",
        "keep_alive_seconds",
    }

    #: The name that goes with the password in ``api_key``; without it the secret is a key.
    username: str | None = Field(default=None, min_length=1)
    #: What shards are slices of: one point in time for the whole run, or, where the server or the
    #: credential has none, a scroll for each shard, which sees its slice as it is when it begins.
    read_by: Literal["point_in_time", "scroll"] = "point_in_time"
    #: Seconds for which the server keeps a point in time or a scroll that nobody asks for.
    keep_alive_seconds: int = Field(default=300, ge=1)
    #: Slices of each index; default: as many as ``shard_bytes`` asks for.
    slices: int | None = Field(default=None, ge=1)
    #: A server looks at every id of a Lucene shard to find those of a slice, until its cache knows
    #: the slice: fewer and larger slices cost it less.
    shard_bytes: ByteSize = 256 * MIB

    @abstractmethod
    def read_failure(self, error: Exception) -> Failure | None:
        """Read an error of the client; None where it is a fault of ours."""

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of the client means."""
        if isinstance(error, InvalidAnswer):
            return SourceUnavailable(
                f"{self.address} gave an answer that is no JSON: {error}",
                "check what answers at source.url, then run the same command again",
            )
        if isinstance(error, InexactAnswer):
            return SourceError(
                f"{self.address} gave an answer whose meaning cannot be kept: {error.reason}",
                "correct the document at the source, or leave its index out of source.collections",
            )
        failure = self.read_failure(error)
        return None if failure is None else failure.to_error(self.address)
