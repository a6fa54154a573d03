"""The books: what the entries of a ledger are, and what their receipts add up to.

Every question of the kind "how many records are in the target", "which rows are still in
quarantine" or "which content must verify find" has its answer here, from one pass over
the committed receipts in the order of their commits.  The order matters: an ``embed``
replaces the vectors of what was committed before it, and of nothing later.

Only this module knows how the names of entries are made and what ``Receipt.resolved``
means for each kind.  It reads; it never writes or commits.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import LedgerMismatch
from cfray.frames import digests
from cfray.frames.digests import add_sums, subtract_sums
from cfray.target.ledger import Ledger
from cfray.target.receipts import Receipt, StagedFile
from cfray.target.state import State

#: Names of the entries that a ledger has at most once.
HEADERS = "headers"
DUPLICATES = "duplicates"
SOURCE_COUNT = "source-count"

Sums = dict[str, int]
#: What came of a check.
Status = Literal["pass", "fail", "not_run"]

#: Counts that describe the vectors as they are now: an embed begins them anew.
_COUNTS_OF_VECTORS = (
    "vectors_kept",
    "vectors_regenerated",
    "vectors_remapped",
    "missing_vectors",
    "texts_truncated",
    "texts_pooled",
    "tokens_lost",
)


class EntryKind(Enum):
    """What an entry of the ledger, or the receipt of that name, stands for.

    The value is the name (headers, duplicates, source count) or the beginning of the name (replay,
    embed, compaction).
    """

    #: A shard of the plan; its name is the shard's number.
    SHARD = "shard"
    #: The rows that describe the dataset and its collections.
    HEADERS = HEADERS
    #: The removal of records that share their identity with an earlier record.
    DUPLICATES = DUPLICATES
    #: What came of asking the source for its count when all of its records were read; no rows.
    SOURCE_COUNT = SOURCE_COUNT
    #: Records that a replay brought in from quarantine.
    REPLAY = "replay-"
    #: A rewriting of every vector.
    EMBED = "embed-"
    #: The files that a compaction wrote; it has a receipt and no entry in the ledger.
    COMPACTION = "compaction-"

    @classmethod
    def of(cls, name: str) -> EntryKind:
        """Tell what the name of an entry stands for.

        Raises:
            LedgerMismatch: this version of cfray makes no such name.
        """
        if name.isdigit():
            return cls.SHARD
        if name in (HEADERS, DUPLICATES, SOURCE_COUNT):
            return cls(name)
        for kind in (cls.REPLAY, cls.EMBED, cls.COMPACTION):
            if name.startswith(kind.value):
                return kind
        raise LedgerMismatch(
            f"this cfray does not know what the ledger entry {name!r} is",
            "use the version of cfray that wrote the target, or a newer one",
        )


def entry_names(ledger: Ledger, kind: EntryKind) -> list[str]:
    """Name the committed entries of a kind, in the order of their commits."""
    return [name for name in ledger.entries if EntryKind.of(name) is kind]


def next_entry_name(ledger: Ledger, kind: EntryKind) -> str:
    """Make the name of the next replay or embed: its number counts from 1."""
    return f"{kind.value}{len(entry_names(ledger, kind)) + 1:04d}"


def compaction_name(version: int) -> str:
    """Make the name of the receipt of a compaction of this version."""
    return f"{EntryKind.COMPACTION.value}{version}"


@dataclass(frozen=True, slots=True)
class Content:
    """Rows, and the sums of their hashes.

    Attributes:
        rows: how many.
        sums: column group -> sum of row hashes modulo 2**64.
    """

    rows: int = 0
    sums: Sums = field(default_factory=dict)

    @classmethod
    def of(cls, frames: pa.RecordBatch) -> Content:
        """Hash frames."""
        return cls(frames.num_rows, digests.add_hashes({}, digests.content_hashes(frames)))

    def __add__(self, other: Content) -> Content:
        """Add rows."""
        return Content(self.rows + other.rows, add_sums(self.sums, other.sums))

    def __sub__(self, other: Content) -> Content:
        """Take rows out."""
        return Content(self.rows - other.rows, subtract_sums(self.sums, other.sums))

    def with_sums(self, sums: Sums) -> Content:
        """Replace the sums of some column groups."""
        return Content(self.rows, {**self.sums, **sums})


@dataclass(frozen=True, slots=True)
class RemovedRows:
    """Rows of one entry that the removal of duplicates took out.

    Attributes:
        content: of all these rows.
        chunks: rows among them that are chunks of a removed record.
    """

    content: Content = field(default_factory=Content)
    chunks: int = 0

    def to_json(self) -> dict[str, Any]:
        """Write the rows as ``Receipt.resolved`` holds them."""
        return {"rows": self.content.rows, "chunks": self.chunks, "sums": self.content.sums}


def removed_by_entry(receipt: Receipt) -> dict[str, RemovedRows]:
    """Read which rows the removal of duplicates took out: name of the entry -> rows.

    Rows that cfray did not write stand under the empty name.
    """
    return {
        name: RemovedRows(Content(body["rows"], body["sums"]), body.get("chunks", 0))
        for name, body in receipt.resolved.items()
    }


def replayed_lines(receipt: Receipt) -> dict[str, list[int]]:
    """Read which rows a replay brought in: file of the quarantine -> line numbers from 0."""
    return {file: list(lines) for file, lines in receipt.resolved.items()}


def vector_sums_by_entry(receipt: Receipt) -> dict[str, Sums]:
    """Read the sums of the vectors that an embed wrote: name of the entry -> sums."""
    return {name: dict(sums) for name, sums in receipt.resolved.items()}


def stated_counts(receipt: Receipt) -> dict[str, int]:
    """Read the counts that the dataset's header row states."""
    return {name: int(count) for name, count in receipt.resolved.items()}


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What came of asking a source for its count; kept, for the source may be gone later.

    Attributes:
        status: of the check, ``pass``, ``fail`` or ``not_run``.
        detail: the sentence of the check.
        asked: when the source answered, UTC.
    """

    status: Status
    detail: str
    asked: str

    @classmethod
    def of(cls, receipt: Receipt) -> SourceCount:
        """Read the answer from the receipt of its entry."""
        return cls(**receipt.resolved)


@dataclass(slots=True)
class CollectionVectors:
    """The vectors of a collection, summed.

    Attributes:
        header_uuid: uuid of the collection's header row.
        count: vectors in the sum.
        total: their sum, ``(d,)`` float64.
    """

    header_uuid: str
    count: int
    total: npt.NDArray[np.float64]

    @property
    def centroid(self) -> npt.NDArray[np.float32]:
        """Give the mean; zeros where the collection has no vector."""
        return (self.total / max(1, self.count)).astype(np.float32)


@dataclass(slots=True)
class Books:
    """What the committed receipts add up to.

    Attributes:
        content: name of the entry -> the rows of it that must be in the target now; an entry
            without rows (duplicates, an embed) has none.
        read, staged, quarantined: records; read is always the sum of the other two.
        frames: rows of records, without headers.
        counts: further counts of the report, by their name in the report.
        collections: name of the collection -> its vectors as they are now.
        replayed: file of the quarantine -> numbers of the lines that a replay brought in.
        shards: the receipts of the shards.
        embeds: how many times every vector was rewritten.
        source_count: what the source said when it was counted again; None where it was not asked
            or did not answer.
    """

    content: dict[str, Content] = field(default_factory=dict)
    read: int = 0
    staged: int = 0
    quarantined: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    collections: dict[str, CollectionVectors] = field(default_factory=dict)
    replayed: dict[str, set[int]] = field(default_factory=dict)
    shards: list[Receipt] = field(default_factory=list)
    embeds: int = 0
    source_count: SourceCount | None = None

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of the next entry."""
        kind = EntryKind.of(receipt.name)
        if kind is EntryKind.SOURCE_COUNT:
            self.source_count = SourceCount.of(receipt)
            return
        if kind is EntryKind.EMBED:
            self._forget_vectors()
        self.counts.update(receipt.counts)
        self._add_centroids(receipt)
        if kind is EntryKind.DUPLICATES:
            self._remove_duplicates(receipt)
            return
        if kind is EntryKind.EMBED:
            self._replace_vectors(receipt)
            return
        self.content[receipt.name] = Content(receipt.frames, receipt.sums)
        if kind is EntryKind.SHARD:
            self.shards.append(receipt)
            self.read += receipt.read
            self.staged += receipt.staged
            self.quarantined += receipt.quarantined
            self.frames += receipt.frames
        elif kind is EntryKind.REPLAY:
            self._move_from_quarantine(receipt)

    def _remove_duplicates(self, receipt: Receipt) -> None:
        self.staged -= receipt.quarantined
        self.quarantined += receipt.quarantined
        # the count of derived frames is negative: the chunks of the records that were removed
        self.frames += receipt.counts.get("derived_frames", 0) - receipt.quarantined
        for name, removed in removed_by_entry(receipt).items():
            if name in self.content:
                self.content[name] -= removed.content

    def _move_from_quarantine(self, receipt: Receipt) -> None:
        self.staged += receipt.staged
        self.quarantined -= receipt.staged
        self.frames += receipt.frames
        self.counts["replayed"] += receipt.staged
        for file, lines in replayed_lines(receipt).items():
            self.replayed.setdefault(file, set()).update(lines)

    def _forget_vectors(self) -> None:
        self.embeds += 1
        self.collections.clear()
        for name in _COUNTS_OF_VECTORS:
            self.counts.pop(name, None)

    def _replace_vectors(self, receipt: Receipt) -> None:
        for name, sums in vector_sums_by_entry(receipt).items():
            if name in self.content:
                self.content[name] = self.content[name].with_sums(sums)

    def _add_centroids(self, receipt: Receipt) -> None:
        for name, (count, header_uuid, text) in receipt.centroids.items():
            total = np.frombuffer(base64.b64decode(text), np.float64)
            vectors = self.collections.setdefault(
                name, CollectionVectors(header_uuid, 0, np.zeros(len(total)))
            )
            vectors.count += count
            vectors.total = vectors.total + total


def add_up(receipts: Iterable[Receipt]) -> Books:
    """Add up receipts; they must come in the order of the ledger's entries."""
    books = Books()
    for receipt in receipts:
        books.add(receipt)
    return books


def read_books(state: State, ledger: Ledger) -> Books:
    """Add up everything that a ledger has committed.

    Raises:
        TargetError: a receipt is missing or damaged.
    """
    return add_up(state.committed_receipts(ledger))


def recorded_files(state: State) -> Iterator[tuple[EntryKind, StagedFile]]:
    """Yield every file that a receipt records, committed or only staged, with the entry's kind.

    Raises:
        TargetError: a receipt is damaged.
    """
    for name, nonces in state.staged_nonces().items():
        for nonce in nonces:
            for file in state.receipt(name, nonce).files:
                yield EntryKind.of(name), file
