"""What a source is: two methods, and a session where the store needs one.

A Source is a frozen pydantic model: its fields are its configuration, its
methods its behaviour.  It holds no client and no secret, travels to workers
by pickle, and imports its vendor's SDK only inside a method.  Adding a store
is one file here, one test class that seeds and inherits, one spec, one extra.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cfray.records import Reject

MIB = 1024 * 1024

#: The consistency a source really offers; the report repeats it word for word.
Consistency = Literal["snapshot", "pinned files", "per-shard live", "none"]

#: Parsed JSON.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def parse_bytes(value: object) -> object:
    """Read ``256MiB``, ``1.5 GB`` or a plain number of bytes."""
    if not isinstance(value, str):
        return value
    text = value.strip().replace(" ", "")
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "B": 1}
    for unit, factor in units.items():
        if text.lower().endswith(unit.lower()):
            try:
                return int(float(text[: -len(unit)]) * factor)
            except ValueError:
                break
    if text.isdigit():
        return int(text)
    raise ValueError(f"{value!r} is not a size; write a number of bytes or one like 256MiB or 2GB")


ByteSize = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Shard:
    """One independently readable slice of a source: the unit of read, retry, resume and commit.

    Attributes:
        id: stable name; depends on the source and the job file only, never on cluster size.
        where: whatever ``read`` needs to find the slice again (parsed JSON).
        rows: number of records, if it is known exactly without reading them.
        size: bytes at the source (an estimate where the store knows no better).
        collection: the source collection the shard belongs to; empty for file kinds.
        splittable: false where the format forced the whole file into one shard.
    """

    id: str
    where: Mapping[str, Json]
    rows: int | None = None
    size: int = 0
    collection: str = ""
    splittable: bool = True


@dataclass(frozen=True, slots=True)
class Context:
    """What a run hands to a source; it travels to workers.

    Attributes:
        session: what the source's session yielded (JSON).
        scratch: URI of a durable folder beside the target, for what several shards share.
        max_record: bytes above which a record must not be loaded whole but rejected (``limits.max_document``).
        batch_bytes: bytes of Arrow data a yielded batch aims at; 16 MiB is 8,000 rows of 2 KB, from where on writing is no faster (``engine.md`` 8).
    """

    session: Json = None
    scratch: str = ""
    max_record: int = 128 * MIB
    batch_bytes: int = 16 * MIB


@dataclass(frozen=True, slots=True)
class Description:
    """What a source says of itself before it is read.

    Attributes:
        schema: Arrow schema of the records, or None where the source has no fixed one.
        rows: number of records; None where unknown.
        exact: whether ``rows`` was counted (true) or estimated.
        size: bytes at the source.
        consistency: what a read of this source guarantees.
        notes: facts the operator should read (one sentence each).
    """

    schema: pa.Schema | None
    rows: int | None
    exact: bool
    size: int
    consistency: Consistency
    notes: tuple[str, ...] = field(default_factory=tuple)


class Source(BaseModel, ABC):
    """A store we read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    #: Bytes a shard aims at; 256 MiB makes fragments of 100,000 rows and more, large enough to need no compaction.
    shard_bytes: ByteSize = 256 * MIB

    def session(self) -> AbstractContextManager[Json]:
        """Hold whatever the whole run needs (a snapshot, a point in time).  Driver, once, around the run."""
        return nullcontext(None)

    @abstractmethod
    def shards(self, context: Context) -> list[Shard]:
        """Divide the source.  Driver, once a run (the plan is saved and reused on resume).

        Must be pure: the same source gives the same shards with the same ids, whoever asks.

        Raises:
            SourceError: nothing to read, no access, or a layout that cannot be read.
            SourceUnavailable: the store did not answer.
        """

    @abstractmethod
    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read one shard, streaming.  Worker; may be repeated at any time, opens and closes its own client.

        Every record comes exactly once, either in a batch or as a Reject, in an order that a repetition
        repeats.  Batches are bounded in bytes (``context.batch_bytes``), not in rows.

        Raises:
            SourceError: terminal: a file that changed since the plan, bytes that are not the format.
            SourceUnavailable: transient: the caller will read the whole shard again.
        """

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what ``inspect`` and ``plan`` can tell without reading the records.  Driver."""
        known = [shard.rows for shard in shards]
        exact = all(rows is not None for rows in known)
        total = sum(rows or 0 for rows in known)
        return Description(
            schema=None,
            rows=total if exact else None,
            exact=exact,
            size=sum(shard.size for shard in shards),
            consistency="none",
        )
