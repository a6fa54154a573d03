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
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime import filesystems
from cfray.runtime.throttle import Throttle, Unlimited

MIB = 1024 * 1024

#: The consistency a source really offers; the report repeats it word for word.
Consistency = Literal["snapshot", "pinned files", "per-shard live", "none"]

#: Distances that Lance's vector indexes know, too.
Metric = Literal["cosine", "l2", "dot"]

#: Parsed JSON.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def parse_bytes(value: object) -> object:
    """Read ``256MiB``, ``1.5 GB`` or a plain number of bytes."""
    if not isinstance(value, str):
        return value
    text = value.strip().replace(" ", "")
    units = {
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
        "TiB": 2**40,
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "TB": 10**12,
        "B": 1,
    }
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
#: A path or URI as the job file gives it.
Location = Annotated[str, Field(min_length=1), AfterValidator(filesystems.keyless)]


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
        max_record: bytes above which a record must not be loaded whole but rejected
            (``limits.max_document``).
        batch_bytes: bytes of Arrow data a yielded batch aims at; mapping and hashing cost a batch
            3.5 ms whatever its size, which 14,000 rows of 2 KB bear easily.
        throttle: the run-wide budget of requests.
    """

    session: Json = None
    scratch: str = ""
    max_record: int = 128 * MIB
    batch_bytes: int = 32 * MIB
    throttle: Throttle = field(default_factory=Unlimited, compare=False)


@dataclass(frozen=True, slots=True)
class Collection:
    """What a store says of one source collection.

    Attributes:
        name: as in ``Shard.collection``.
        rows: counted; None where it was not.
        dimension: of the vector called ``vector``; None where there is none.
        metric: of that vector; None where the store has none or another than these.
        vectors: name behind ``vectors.`` -> (dimension, metric), for named dense vectors.
        facts: what else is worth keeping (index parameters, partitions, aliases ...), as text;
            recorded in the collection's header.
    """

    name: str
    rows: int | None = None
    dimension: int | None = None
    metric: Metric | None = None
    vectors: dict[str, tuple[int, Metric | None]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


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
        collections: the source collections, by name; none for file kinds.
        references: dotted path of a field that refers to records -> the source collection they are
            in.
    """

    schema: pa.Schema | None
    rows: int | None
    exact: bool
    size: int
    consistency: Consistency
    notes: tuple[str, ...] = field(default_factory=tuple)
    collections: tuple[Collection, ...] = ()
    references: dict[str, str] = field(default_factory=dict)


class Source(BaseModel, ABC):
    """A store we read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Fields that change no record (credentials, limits): they are not part of the fingerprint.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset()

    kind: str
    #: Bytes a shard aims at; 256 MiB makes fragments of 100,000 rows and more, large enough to need
    #: no compaction.
    shard_bytes: ByteSize = 256 * MIB

    def located(self, base: Path) -> Self:
        """Resolve the paths in the job file against its folder."""
        uri = getattr(self, "uri", None)
        return self.model_copy(update={"uri": filesystems.absolute(uri, base)}) if uri else self

    @property
    def place(self) -> str:
        """Give the location as ``source_url`` shows it, without credentials."""
        return filesystems.without_credentials(str(getattr(self, "uri", "")))

    @property
    def is_remote(self) -> bool:
        """Tell whether reading sends requests that count against a budget."""
        return False

    @property
    def request_rate(self) -> float | None:
        """Give the requests a second that all workers together may send.

        None where only the store's own pauses count.
        """
        return None

    def session(self) -> AbstractContextManager[Json]:
        """Hold whatever the whole run needs.

        (a snapshot, a point in time).  Driver, once, around the run.
        """
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
        """Read one shard, streaming.  Worker.

        May be repeated at any time, opens and closes its own client.

        Every record comes exactly once, either in a batch or as a Reject, in an order that a
        repetition repeats.  Batches are bounded in bytes (``context.batch_bytes``), not in rows.

        Raises:
            SourceError: terminal: a file that changed since the plan, bytes that are not the
                format.
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

    def count(self, context: Context) -> int | None:
        """Count the records that a read would give, now.

        None where the store cannot.  Driver, before and after the run.

        Raises:
            SourceError: the store did not answer.
        """
        return None

    def search(self, collection: str, vector: list[float], k: int) -> list[str]:
        """Give the tagged ids (``i:42``) of the k nearest records, nearest first.

        That search quality can be compared later.

        Raises:
            SourceError: the store cannot, or did not.
        """
        raise SourceError(
            f"source kind {self.kind} has no vector search of its own",
            "compare search quality with a store that has one",
        )
