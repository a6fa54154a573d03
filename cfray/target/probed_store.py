"""What the trial of conditional PUT asks of a store, and what an error of a store means.

No conditional request is sent twice: one that won, and whose answer was lost, would be refused when
it is sent again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from cfray.errors import CfrayError, ConfigError, TargetUnavailable

#: Threads that race, each on a connection of its own.
RACERS = 8
#: Seconds to connect.
CONNECT_TIMEOUT = 10
#: Seconds for an answer; SeaweedFS 4.48 takes some 3 s under this race.
TIMEOUT = 60
#: Statuses with which a store refuses a condition: 409 is a conflict that is still under way, 412 a
#: condition that does not hold, 400 and 501 a condition that the store does not understand.
REFUSALS = frozenset({400, 409, 412, 501})


class ProbedStore(Protocol):
    """Objects beside a target that are written with and without conditions.

    ``put_if_unchanged`` and ``put_if_absent`` give the HTTP status: 200, or one with which the
    store refuses a condition.
    """

    def explaining(self) -> AbstractContextManager[None]:
        """Turn the client's errors into errors of ours: no answer, no bucket, no permission.

        What the store itself says is left out, for it may repeat a key.
        """
        ...

    def put(self, name: str, body: bytes) -> str:
        """Write an object; give the tag of what is there now."""
        ...

    def put_if_unchanged(self, name: str, body: bytes, tag: str) -> int:
        """Write an object if it still has a tag."""
        ...

    def put_if_absent(self, name: str, body: bytes) -> int:
        """Write an object if there is none, as Lance's commit does."""
        ...

    def read(self, name: str) -> bytes:
        """Read an object."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object; one that is missing is no error."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects of a trial lie, and whom to blame where they cannot.

    Attributes:
        location: URI of the target.
        folder: name of the trial's own folder, which nobody else has.
        endpoint: the variable that says where the store is.
        credentials: the variables that hold its credential.
        container: what such a store calls a bucket.
    """

    location: str
    folder: str
    endpoint: str
    credentials: str
    container: str = "bucket"

    @property
    def bucket(self) -> str:
        """Name the bucket or container."""
        return self.location.partition("://")[2].partition("/")[0]

    @property
    def prefix(self) -> str:
        """Give the beginning of the objects' keys."""
        key = unquote(self.location.partition("://")[2].partition("/")[2])
        return f"{key}.cfray/probe/{self.folder}/"

    def explain(self, status: int, reason: str) -> CfrayError:
        """Give the error of a request that the store refused, or did not answer.

        Args:
            status: of the answer; 0 where there was none.
            reason: what is known of it; no words of the store.
        """
        if not status or status in (408, 429) or status >= 500:
            return TargetUnavailable(
                f"the store of {self.location} does not answer: {reason}",
                f"check {self.endpoint} and the network, then run the same command again",
            )
        if status == 404:
            return ConfigError(
                f"there is no {self.container} for {self.location}: {reason}",
                f"create the {self.container}, correct target.uri, or set {self.endpoint} to its "
                "store",
            )
        return ConfigError(
            f"the store of {self.location} refused a test object: {status} {reason}",
            f"set {self.credentials} to a key that may write and delete there",
        )
