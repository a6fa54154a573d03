"""The books: what the receipts of a ledger's entries add up to.

Every question of the kind "how many records are in the target", "which rows are still in
quarantine" or "which content must verify find" has its answer here, from one pass over
the committed receipts in the order of their commits.  The order matters: an ``embed``
replaces the vectors of what was committed before it, and of nothing later.

This module reads; it never writes or commits.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.frames import digests
from cfray.frames.digests import add_sums, subtract_sums
from cfray.target.ledger import Ledger
from cfray.target.receipts import (
    AnyReceipt,
    Centroids,
    CompactionReceipt,
    DuplicatesReceipt,
    EmbedReceipt,
    HeadersReceipt,
    LeftRows,
    RepairReceipt,
    ReplayReceipt,
    RowsReceipt,
    ShardReceipt,
    SourceCountReceipt,
    Sums,
    SyncReceipt,
)
from cfray.target.state import State

#: Counts that describe the vectors as they are now: an embed begins them anew.
COUNTS_OF_VECTORS = (
    "vectors_kept",
    "vectors_regenerated",
    "vectors_remapped",
    "missing_vectors",
    "texts_truncated",
    "texts_pooled",
    "tokens_lost",
    "texts_embedded",
    "texts_repeated",
    "cache_hits",
    "column_texts_truncated",
    "vectors_left_alone",
    "pieces",
    "pieces_adopted",
)
#: Those of them that count rows of the target; the others are of what a model was given last.
_COUNTS_OF_ROWS = ("vectors_kept", "vectors_regenerated", "vectors_remapped", "missing_vectors")


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
        if not self.count:
            # what came in and left again leaves its rounding behind
            return np.zeros(len(self.total), np.float32)
        return (self.total / self.count).astype(np.float32)


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
        quarantine_files: name of a committed file of the quarantine -> its lines, a line for each
            row that was refused.
        replayed: file of the quarantine -> numbers of the lines that a replay brought in.
        shards: the receipts of the shards.
        repairs: name of a shard's entry -> names of the entries that hold rows of it in place of
            damaged rows.
        sessions: id of a source's session -> shards that were read under it; empty id: shards
            whose receipt names no session.
        headers: the receipt of the headers; None before they are written.
        embeds: how many times every vector was rewritten.
        source_count: what the source said when it was counted again; None where it was not asked
            or did not answer.
        synced: the last receipt that brought changes of the source; None before the first.
    """

    content: dict[str, Content] = field(default_factory=dict)
    read: int = 0
    staged: int = 0
    quarantined: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    collections: dict[str, CollectionVectors] = field(default_factory=dict)
    quarantine_files: dict[str, int] = field(default_factory=dict)
    replayed: dict[str, set[int]] = field(default_factory=dict)
    shards: list[ShardReceipt] = field(default_factory=list)
    repairs: dict[str, list[str]] = field(default_factory=dict)
    sessions: Counter[str] = field(default_factory=Counter)
    headers: HeadersReceipt | None = None
    embeds: int = 0
    source_count: SourceCountReceipt | None = None
    synced: SyncReceipt | None = None

    def add(self, receipt: AnyReceipt) -> None:
        """Add the receipt of the next entry."""
        match receipt:
            case ShardReceipt():
                self._add_shard(receipt)
            case HeadersReceipt():
                self.headers = receipt
                self._add_rows(receipt)
            case DuplicatesReceipt():
                self._remove_duplicates(receipt)
            case ReplayReceipt():
                self._bring_in(receipt)
            case EmbedReceipt():
                self._replace_vectors(receipt)
            case RepairReceipt():
                self._replace_rows(receipt)
            case SyncReceipt():
                self._follow_source(receipt)
            case SourceCountReceipt():
                self.source_count = receipt
            case CompactionReceipt():
                pass  # the rows are the same, only in other files
            case _:
                assert_never(receipt)

    def _add_shard(self, receipt: ShardReceipt) -> None:
        self.shards.append(receipt)
        self.sessions[receipt.session] += 1
        self.read += receipt.read
        self.staged += receipt.staged
        self.quarantined += receipt.quarantined
        self.frames += receipt.frames
        self.counts.update(receipt.counts)
        self._add_rows(receipt)
        self._add_centroids(receipt.centroids)
        self._add_quarantine_file(receipt)

    def _bring_in(self, receipt: ReplayReceipt) -> None:
        """Move the records of a replay from quarantine to the staged records."""
        self.staged += receipt.staged
        self.quarantined -= receipt.staged
        self.frames += receipt.frames
        self.counts.update(receipt.counts)
        self.counts["replayed"] += receipt.staged
        self._add_rows(receipt)
        self._add_centroids(receipt.centroids)
        for file, lines in receipt.lines.items():
            self.replayed.setdefault(file, set()).update(lines)

    def _remove_duplicates(self, receipt: DuplicatesReceipt) -> None:
        self.counts.update(receipt.counts)
        self._add_centroids(receipt.centroids)
        self._take_out(receipt, receipt.removed)

    def _replace_vectors(self, receipt: EmbedReceipt) -> None:
        """Begin everything anew that describes vectors; take out the records that were refused."""
        self.embeds += 1
        self.collections.clear()
        for name in COUNTS_OF_VECTORS:
            self.counts.pop(name, None)
        self.counts.update(receipt.counts)
        self._add_centroids(receipt.centroids)
        self._take_out(receipt, receipt.left)
        for name, sums in receipt.vector_sums.items():
            if name in self.content:
                self.content[name] = self.content[name].with_sums(sums)

    def _replace_rows(self, receipt: RepairReceipt) -> None:
        """Put rows in place of others: no record more and none less."""
        for name, rows in receipt.left.items():
            self.content[name] -= Content(rows.records + rows.chunks, rows.sums)
        self.repairs.setdefault(receipt.shard, []).append(receipt.name)
        self.counts.update(receipt.counts)
        self._add_rows(receipt)

    def _follow_source(self, receipt: SyncReceipt) -> None:
        """Count the source anew; only rows and vectors add to what was there."""
        self.synced, self.source_count = receipt, None
        self.read, self.staged, self.quarantined = receipt.read, receipt.staged, receipt.quarantined
        self.sessions = Counter(receipt.sessions)
        self.quarantine_files.clear()
        self.replayed.clear()
        self._add_quarantine_file(receipt)
        # a model's vectors are counted as they come and go, the source's with its records
        kept = _COUNTS_OF_ROWS if self.embeds else ()
        self.counts = Counter({name: self.counts[name] for name in kept if self.counts[name]})
        self.counts.update(receipt.counts)
        self.counts.update(receipt.vector_counts)
        self.frames += receipt.frames
        for name, rows in receipt.left.items():
            self.frames -= rows.records + rows.chunks
            self.content[name] -= Content(rows.records + rows.chunks, rows.sums)
        self._add_rows(receipt)
        self._add_centroids(receipt.centroids)
        for name in receipt.emptied:
            self.collections.pop(name, None)

    def _take_out(
        self, receipt: DuplicatesReceipt | EmbedReceipt, left: Mapping[str, LeftRows]
    ) -> None:
        """Move records from the staged records to quarantine; their chunks leave with them."""
        chunks = sum(rows.chunks for rows in left.values())
        self.staged -= receipt.quarantined
        self.quarantined += receipt.quarantined
        self.frames -= receipt.quarantined + chunks
        if chunks:
            self.counts["derived_frames"] -= chunks
        for name, rows in left.items():
            if name in self.content:
                self.content[name] -= Content(rows.records + rows.chunks, rows.sums)
        self._add_quarantine_file(receipt)

    def _add_rows(self, receipt: RowsReceipt) -> None:
        self.content[receipt.name] = Content(receipt.frames, receipt.sums)

    def _add_quarantine_file(
        self, receipt: ShardReceipt | DuplicatesReceipt | EmbedReceipt | SyncReceipt
    ) -> None:
        if receipt.quarantined:
            self.quarantine_files[receipt.quarantine_file] = receipt.quarantined

    def _add_centroids(self, centroids: Centroids) -> None:
        for name, (count, header_uuid, text) in centroids.items():
            total = np.frombuffer(base64.b64decode(text), np.float64)
            vectors = self.collections.setdefault(
                name, CollectionVectors(header_uuid, 0, np.zeros(len(total)))
            )
            vectors.count += count
            vectors.total = vectors.total + total


def add_up(receipts: Iterable[AnyReceipt]) -> Books:
    """Add up receipts; they must come in the order of the ledger's entries."""
    books = Books()
    for receipt in receipts:
        books.add(receipt)
    return books


def read_books(state: State, ledger: Ledger) -> Books:
    """Add up everything that a ledger has committed.

    Raises:
        TargetError: a receipt is missing or damaged.
        LedgerMismatch: a newer cfray wrote a receipt.
    """
    return add_up(state.committed_receipts(ledger))
