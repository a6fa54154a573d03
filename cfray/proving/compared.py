"""Which rows and which columns of the target stand beside those of the source in a comparison."""

from __future__ import annotations

from collections import Counter

from cfray.frames.schema import ORIGIN
from cfray.joining.quarantine import rows_of_file
from cfray.proving.read_target import EntryName
from cfray.report.run import Run
from cfray.target.books import Books
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.origins import label_in


def entries_of_shard(books: Books, shard: str) -> frozenset[EntryName]:
    """Name the entries that hold the rows of a shard: its own, and those of its repairs."""
    return frozenset(map(EntryName, [shard, *books.repairs.get(shard, [])]))


def made_columns(run: Run, ledger: Ledger) -> frozenset[str]:
    """Name the columns whose values cfray made after the copy: the source does not hold them."""
    if not ledger.names(EntryKind.EMBED):
        return frozenset()
    vectors = {name for name in run.target.open().schema.names if name.startswith("x_vector_")} - {
        f"x_vector_{name}" for name in run.plan.shape.vectors
    }
    return frozenset({"vector", ORIGIN, *vectors})


def left_for_quarantine(run: Run, ledger: Ledger, books: Books) -> dict[str, Counter[str]]:
    """Count the rows that were copied and left the target for the quarantine later.

    Returns:
        id of a shard -> uuid -> rows.
    """
    shard_of = {
        name: run.plan.shards[int(shard)].id
        for shard, names in books.repairs.items()
        for name in names
    }
    left: dict[str, Counter[str]] = {}
    for name, entry in ledger.entries.items():
        if entry.kind not in (EntryKind.DUPLICATES, EntryKind.EMBED):
            continue
        file = run.state.receipt(name, entry.nonce).quarantine_file
        if file in books.quarantine_files:
            for row in rows_of_file(run.state, file, books.quarantine_files[file]):
                label = label_in(row.content.position)
                shard_rows = left.setdefault(shard_of.get(label, label), Counter())
                shard_rows[row.record.column("uuid")[0].as_py()] += 1
    return left
