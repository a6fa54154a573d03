"""Find records that share an identity, and references that point nowhere; remove duplicates.

The first record by (shard id, ordinal) stays.  The later records leave the target in one
commit after the last shard and go to quarantine, so there are never two rows with one
uuid and never a silent choice.  ``identities`` searches the uuids, on the workers where
they are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from lance import LanceDataset

from cfray.conversion import chunks
from cfray.conversion.rejects import RejectedRow, reject_frame
from cfray.copying.identities import SearchLimits, search_target
from cfray.copying.write import Tally, add_vectors, new_nonce, publish
from cfray.errors import LimitReached
from cfray.runtime.plurals import counted
from cfray.target.books import Content
from cfray.target.commit import Target, commit, without_rows
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.quarantine_counts import SAME_IDENTITY
from cfray.target.receipts import DuplicatesReceipt, LeftRows
from cfray.target.state import Plan, State


@dataclass(frozen=True, slots=True)
class Identities:
    """What a look at every uuid found.

    Attributes:
        duplicates: row id of every record that is not the first of its identity -> the reason.
        dangling: references to a uuid that no row has.
    """

    duplicates: dict[int, str]
    dangling: int


def find_duplicates(
    target: Target, plan: Plan, *, references: bool, limits: SearchLimits | None = None
) -> Identities:
    """Look at every uuid of the target.

    Args:
        target: the dataset.
        plan: its shards.
        references: count references that point nowhere, too.
        limits: of the processes that search.
    """
    found = search_target(target, limits or SearchLimits(), references=references)
    origins = RowOrigins(plan, target.ledger())
    duplicates: dict[int, str] = {}
    for row_ids in found.groups():
        first_row, *later_rows = sorted(row_ids, key=origins.order)
        reason = f"same identity as the record at {origins.position(first_row)}"
        duplicates |= dict.fromkeys(later_rows, reason)
    return Identities(dict(sorted(duplicates.items())), found.dangling)


def remove_duplicates(
    target: Target, state: State, plan: Plan, identities: Identities, allowed: float
) -> DuplicatesReceipt:
    """Remove duplicates and their chunks in one commit and put the records in quarantine.

    Raises:
        LimitReached: they are more than ``limits.max_quarantined`` still allows; nothing was
            removed.
    """
    duplicates = identities.duplicates
    if len(duplicates) > allowed:
        raise LimitReached(
            f"{counted(len(duplicates), 'record shares its', 'records share their')} identity with "
            f"another record ({next(iter(duplicates.values()))}, ...), more than "
            "limits.max_quarantined allows",
            "choose another mapping.id for a new target, or raise limits.max_quarantined and run "
            "the same command again",
        )
    dataset = target.open()
    chunk_rows = _chunks_of(dataset, list(duplicates))
    row_ids = [*duplicates, *chunk_rows]
    removal = _Removal(duplicates, RowOrigins(plan, target.ledger()))
    for batch in _read_rows(dataset, row_ids):
        removal.add(batch)
    quarantined = len(removal.rejected)
    receipt = DuplicatesReceipt(
        name=EntryKind.DUPLICATES.value,
        nonce=new_nonce(),
        quarantined=quarantined,
        centroids=removal.tally.centroids(),
        counts={SAME_IDENTITY: quarantined},
        removed=removal.removed,
    )
    publish(state, receipt, removal.rejected)

    def change(ledger: Ledger) -> Ledger | None:
        if receipt.name in ledger.entries:
            return None
        return ledger.with_entry(EntryKind.DUPLICATES, receipt.name, 0, receipt.nonce)

    commit(target, change, rewrite=lambda latest: without_rows(latest, row_ids))
    return receipt


@dataclass(slots=True)
class _Removal:
    """What is known of the rows that will be removed.

    Attributes:
        duplicates: row id -> reason; every other row is a chunk of a duplicate.
        origins: of the dataset.
        removed: name of the ledger entry -> its rows that will be removed.
        rejected: the duplicates as the quarantine holds them.
        tally: the rows' vectors, negative.
    """

    duplicates: dict[int, str]
    origins: RowOrigins
    removed: dict[str, LeftRows] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows, with their column ``_rowid``."""
        row_ids = batch.column("_rowid").to_pylist()
        frames = batch.drop_columns(["_rowid"])
        for row, row_id in enumerate(row_ids):
            if row_id in self.duplicates:
                reason, position = self.duplicates[row_id], self.origins.position(row_id)
                self.rejected.append(reject_frame(frames.slice(row, 1), reason, position))
        for name, rows in by_entry(batch, self.origins):
            content, chunk_rows = Content.of(rows), _count_chunks(rows)
            leaving = LeftRows(content.rows - chunk_rows, chunk_rows, content.sums)
            self.removed[name] = self.removed.get(name, LeftRows()) + leaving
            add_vectors(self.tally.collections, rows, -1)


def _chunks_of(dataset: LanceDataset, documents: list[int]) -> list[int]:
    """Find the row ids of the chunks that were cut from documents: they follow their document."""
    if chunks.FIELD.name not in dataset.schema.names:
        return []
    scanner = dataset.scanner(
        columns=[], filter=f"{chunks.FIELD.name} IS NOT NULL", with_row_id=True
    )
    chunk_ids = {
        row_id for batch in scanner.to_batches() for row_id in batch.column("_rowid").to_pylist()
    }
    chunks_of_documents: list[int] = []
    for document in documents:
        following = document + 1
        while following in chunk_ids:
            chunks_of_documents.append(following)
            following += 1
    return chunks_of_documents


def _count_chunks(frames: pa.RecordBatch) -> int:
    if chunks.FIELD.name not in frames.schema.names:
        return 0
    return int(frames.num_rows - frames.column(chunks.FIELD.name).null_count)


def _read_rows(dataset: LanceDataset, row_ids: list[int]) -> Iterator[pa.RecordBatch]:
    if row_ids:
        yield from dataset.scanner(
            filter=f"_rowid IN ({','.join(map(str, row_ids))})",
            with_row_id=True,
            blob_handling="all_binary",
            batch_size=1024,
        ).to_batches()
