"""Where the rows of the target came from: which entry of the ledger a row id belongs to.

Lance's stable row ids survive compaction and updates, and the ledger states the range of
ids of each entry.  So a row needs no column that names its shard, and a row in no range
was written by somebody else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.target.ledger import EntryKind, Ledger
from cfray.target.state import Plan


class RowOrigins:
    """Tells which entry of the ledger a row of the target belongs to."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        """Sort the ledger's ranges of row ids."""
        self.ranges = sorted(
            ((name, entry) for name, entry in ledger.entries.items() if entry.rows),
            key=lambda item: item[1].start,
        )
        self.starts = np.array([entry.start for _, entry in self.ranges], np.int64)
        self.ends = np.array([entry.start + entry.rows for _, entry in self.ranges], np.int64)
        self.plan = plan

    def range_indices(self, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give the range each row id is in; -1 for a row that cfray did not commit."""
        if not self.ranges:
            return np.full(len(row_ids), -1)
        indices = np.searchsorted(self.starts, row_ids, "right") - 1
        return np.where((indices >= 0) & (row_ids < self.ends[indices]), indices, -1)

    def name(self, row_id: int) -> str | None:
        """Name the entry a row belongs to; None for a row that cfray did not commit."""
        index = self._range_index(row_id)
        return None if index is None else self.ranges[index][0]

    def order(self, row_id: int) -> tuple[int, int]:
        """Give (shard number, row id): rows of replays and of other writers come last."""
        index = self._range_index(row_id)
        if index is None or self.ranges[index][1].kind is not EntryKind.SHARD:
            return (len(self.plan.shards), row_id)
        return (int(self.ranges[index][0]), row_id)

    def position(self, row_id: int) -> str:
        """Describe where a row came from."""
        index = self._range_index(row_id)
        if index is None:
            return f"row id {row_id}"
        name, entry = self.ranges[index]
        return f"{entry_label(self.plan, name, entry.kind)}, frame {row_id - entry.start}"

    def collection(self, row_id: int) -> str:
        """Name the source collection of a row; empty where the ledger does not know it."""
        index = self._range_index(row_id)
        if index is None or self.ranges[index][1].kind is not EntryKind.SHARD:
            return ""
        return self.plan.shards[int(self.ranges[index][0])].collection

    def _range_index(self, row_id: int) -> int | None:
        index = int(self.range_indices(np.array([row_id], np.int64))[0])
        return None if index < 0 else index


def label_in(position: str) -> str:
    """Give the label of the entry that a position names, as ``RowOrigins.position`` wrote it."""
    return position.rpartition(", frame ")[0]


def entry_label(plan: Plan, name: str, kind: EntryKind) -> str:
    """Name an entry for people: a shard by its id, a pseudo-shard by its name."""
    return plan.shards[int(name)].id if kind is EntryKind.SHARD else name


def by_entry(batch: pa.RecordBatch, origins: RowOrigins) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Split a batch by the entry its rows belong to, in runs: an entry's row ids are contiguous.

    Args:
        batch: with the column ``_rowid``, which the runs no longer have.
        origins: of the dataset.

    Yields:
        name of the entry (empty for rows that cfray did not write) and its rows.
    """
    row_ids = batch.column("_rowid").to_numpy()
    rows = batch.drop_columns(["_rowid"])
    if not len(row_ids):
        return
    indices = origins.range_indices(row_ids.astype(np.int64))
    cuts = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(row_ids)]
    for start, end in itertools.pairwise(cuts):
        yield origins.name(int(row_ids[start])) or "", rows.slice(start, end - start)
