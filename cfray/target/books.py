"""The books: which shard each row of the target came from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from cfray.target.ledger import Ledger
from cfray.target.state import Plan


class RowOrigins:
    """Where a row id came from."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        """Sort the ledger's ranges of row ids."""
        self.entries = sorted(
            (
                (entry.start, entry.rows, name)
                for name, entry in ledger.entries.items()
                if entry.rows
            ),
            key=lambda item: item[0],
        )
        self.starts = np.array([start for start, _, _ in self.entries], np.int64)
        self.plan = plan

    def name(self, row: int) -> str | None:
        """Name the shard a row belongs to; None for a row that cfray did not commit."""
        place = int(np.searchsorted(self.starts, row, "right")) - 1
        if place < 0 or row >= self.entries[place][0] + self.entries[place][1]:
            return None
        return self.entries[place][2]

    def order(self, row: int) -> tuple[int, int]:
        """Give (shard number, row id): rows of replays and strangers come last."""
        name = self.name(row)
        return (int(name) if name is not None and name.isdigit() else len(self.plan.shards), row)

    def position(self, row: int) -> str:
        """Describe where a row came from."""
        name = self.name(row)
        if name is None:
            return f"row id {row}"
        place = int(np.searchsorted(self.starts, row, "right")) - 1
        shard = self.plan.shards[int(name)].id if name.isdigit() else name
        return f"{shard}, frame {row - self.entries[place][0]}"


def by_shard(batch: pa.RecordBatch, places: RowOrigins) -> Iterable[tuple[str, pa.RecordBatch]]:
    """Split a batch by the shard its rows came from; runs of rows, since ids are contiguous."""
    rows = batch.column("_rowid").to_numpy()
    plain = batch.drop_columns(["_rowid"])
    if not len(rows):
        return
    owner = np.searchsorted(places.starts, rows.astype(np.int64), "right")
    cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(rows)]
    for start, end in itertools.pairwise(cuts):
        yield places.name(int(rows[start])) or "", plain.slice(start, end - start)
