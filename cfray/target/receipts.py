"""Receipts: what was written for one entry of the ledger, and what commit and verify need of it.

A receipt is published beside the target after its files are written and before the
commit that takes them in.  Its name has two halves: the entry, and a nonce that no other
writing of the entry has; the ledger states the nonce it committed.  So a slow worker of
a run that lost its lease can publish what it likes: no reader takes it for the committed
receipt.

Each kind has a class with exactly its fields.  Receipts of earlier versions must stay
readable: a field is added with a default, and none is renamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from cfray.frames.digests import add_sums
from cfray.target.ledger import EntryKind

#: Column group -> sum of row hashes modulo 2**64.
Sums = dict[str, int]
#: Collection -> (vectors summed, uuid of the header row, base64 of the float64 sums).
Centroids = dict[str, tuple[int, str, str]]
#: What came of a check.
Status = Literal["pass", "fail", "not_run"]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A data or blob file as written: path below the dataset, bytes, XXH3-128 as hex."""

    path: str
    size: int
    digest: str


def data_file_of(path: str) -> str:
    """Name the data file that a path below the dataset belongs to.

    Lance keeps the blobs of ``data/x.lance`` as files in the folder ``data/x``: both
    belong to the data file ``x``.
    """
    return PurePosixPath(path).parts[1].removesuffix(".lance")


@dataclass(frozen=True, slots=True)
class LeftRows:
    """Rows of one entry that left the target in the commit of a later entry.

    Attributes:
        records: rows that are documents; each of them is in the quarantine file of the later entry.
        chunks: rows that were cut from these documents.
        sums: of all these rows, as they were when they left.
    """

    records: int = 0
    chunks: int = 0
    sums: Sums = field(default_factory=dict)

    def __add__(self, other: LeftRows) -> LeftRows:
        """Add further rows of the same entry."""
        return LeftRows(
            self.records + other.records,
            self.chunks + other.chunks,
            add_sums(self.sums, other.sums),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What every receipt says.

    Attributes:
        kind: of the entry, or ``compaction``.
        name: of the entry in the ledger; of a shard its number in the plan.
        nonce: no other writing of the entry has it.
        files: every file that was written.
        counts: what the entry adds to the counts of the report, by their name in the report.
        seconds: stage -> seconds of the worker.
        size: bytes of Arrow data that were written.
    """

    kind: ClassVar[str]
    #: A field that this version does not know is refused when a receipt is read.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    nonce: str
    files: list[StagedFile] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    size: int = 0

    @property
    def quarantine_file(self) -> str:
        """Name the file in ``quarantine/`` for the rows that this writing refused, if any."""
        return f"{self.name}.{self.nonce}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsReceipt(Receipt):
    """An entry that brings rows.

    Attributes:
        frames: rows in ``fragments``.
        fragments: Lance's metadata of the fragments (parsed JSON).
        sums: of the rows.
    """

    frames: int = 0
    fragments: list[dict[str, Any]] = field(default_factory=list)
    sums: Sums = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReceipt(RowsReceipt):
    """A shard of the plan, as a worker wrote it.

    Attributes:
        shard: the shard's id.
        read, staged, quarantined: records; read is the sum of the other two.
        centroids: of the staged rows.
        session: id of the source's session that the shard was read under; empty in receipts of
            earlier versions.
        epoch: of the run that read the shard; 0 in receipts of earlier versions.
        raw_sum: sum of the hashes of the bytes of ``raw_data``, modulo 2**64; None in receipts of
            earlier versions.
    """

    kind = EntryKind.SHARD
    shard: str
    read: int = 0
    staged: int = 0
    quarantined: int = 0
    centroids: Centroids = field(default_factory=dict)
    session: str = ""
    epoch: int = 0
    raw_sum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersReceipt(RowsReceipt):
    """The rows that describe the dataset and its collections.

    Attributes:
        stated: the counts that the dataset's header row states.
    """

    kind = EntryKind.HEADERS
    stated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReceipt(RowsReceipt):
    """Records that a replay brought in from quarantine.

    Attributes:
        staged: records.
        centroids: of the staged rows.
        lines: file of the quarantine -> numbers of the lines that came in, from 0.
    """

    kind = EntryKind.REPLAY
    staged: int = 0
    centroids: Centroids = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesReceipt(Receipt):
    """The removal of records that share their identity with an earlier record.

    Attributes:
        quarantined: records that were removed, in the quarantine file of the receipt.
        centroids: of the removed rows, negative.
        removed: name of an entry -> its rows that left; empty name: rows that cfray did not write.
    """

    kind = EntryKind.DUPLICATES
    quarantined: int = 0
    centroids: Centroids = field(default_factory=dict)
    removed: dict[str, LeftRows] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReceipt(Receipt):
    """A rewriting of every vector.

    Attributes:
        quarantined: records that left because their text or the model refused them, in the
            quarantine file of the receipt.
        centroids: of the new vectors.
        vector_sums: name of an entry -> sums of the column groups that were rewritten, of the rows
            that stayed; empty name: rows that cfray did not write.
        left: name of an entry -> its rows that left.
    """

    kind = EntryKind.EMBED
    quarantined: int = 0
    centroids: Centroids = field(default_factory=dict)
    vector_sums: dict[str, Sums] = field(default_factory=dict)
    left: dict[str, LeftRows] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReceipt(RowsReceipt):
    """Rows of a shard that were copied anew from the source, in place of damaged or lost rows.

    Attributes:
        shard: name of the shard's entry.
        left: name of an entry -> the rows of it in whose place these come, with the sums that they
            had when they were written; none of them is in quarantine.
    """

    kind = EntryKind.REPAIR
    shard: str
    left: dict[str, LeftRows] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReceipt(RowsReceipt):
    """What the source has changed since it was copied, or since the sync before.

    ``counts`` are of the whole source, in place of those that earlier entries have counted of it.

    Attributes:
        read, staged, quarantined: records of the whole source; read is the sum of the other two.
            The quarantine file holds all of the quarantined, in place of earlier files.
        added, changed, gone: documents that came in, came in place of others, left or were marked.
        unfit: documents that left because their records fit no longer.
        remaining: documents that the target keeps although the source has them no more.
        remaining_digest: sum of hashes of their uuids, modulo 2**64.
        centroids: of the rows that came in, less those of the rows that left.
        left: name of an entry -> its rows that left; only the refused are in the quarantine.
        vector_counts: what this entry adds to the counts of vectors and texts.
        emptied: collections that have no document any more, and so no header.
        rejects: sum of the hashes of what is in quarantine, modulo 2**64.
        collections: source collection -> records; empty where the source has none.
        sessions: id of a session of the source -> shards that were read under it.
        marks: of the source (``Source.marks``), taken before it was read.
        counted_before, counted_after: records that the source itself counted; None where it did
            not count.
        shards: of the source, as it was divided.
    """

    kind = EntryKind.SYNC
    read: int
    staged: int
    quarantined: int
    added: int = 0
    changed: int = 0
    gone: int = 0
    unfit: int = 0
    remaining: int = 0
    remaining_digest: int = 0
    centroids: Centroids = field(default_factory=dict)
    left: dict[str, LeftRows] = field(default_factory=dict)
    vector_counts: dict[str, int] = field(default_factory=dict)
    emptied: list[str] = field(default_factory=list)
    rejects: int = 0
    collections: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    counted_before: int | None = None
    counted_after: int | None = None
    shards: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCountReceipt(Receipt):
    """What came of asking a source for its count; kept, for the source may be gone later.

    Attributes:
        status: of the check.
        detail: the sentence of the check.
        asked: when the source answered, UTC.
        consistency: what the read of the whole source guarantees; empty in receipts of earlier
            versions.
    """

    kind = EntryKind.SOURCE_COUNT
    status: Status
    detail: str
    asked: str
    consistency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReceipt(Receipt):
    """The files that a compaction wrote; it has no entry in the ledger."""

    kind = "compaction"


AnyReceipt = (
    ShardReceipt
    | HeadersReceipt
    | DuplicatesReceipt
    | ReplayReceipt
    | EmbedReceipt
    | RepairReceipt
    | SyncReceipt
    | SourceCountReceipt
    | CompactionReceipt
)
