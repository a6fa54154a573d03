"""Read the whole dataset again, without the source: which rows each entry of the ledger has now.

A fragment that cannot be read is named, and the other fragments are read all the same: one
damaged file must not hide what else is damaged, or whose rows lie in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NewType, TypeVar

import lance
import pyarrow as pa
from lance import LanceDataset

from cfray.engine import cluster
from cfray.engine.tasks import run_tasks
from cfray.frames import digests
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.target.books import Content
from cfray.target.commit import Target
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.scans import SCAN_LIMITS

T = TypeVar("T")

#: Name of a ledger entry; empty for rows that cfray did not write.
EntryName = NewType("EntryName", str)
FOREIGN = EntryName("")

#: Tasks per core: the last tasks to end keep few cores waiting.
_TASKS_PER_CORE = 4
#: Characters of an error of Lance's that a report repeats.
_ERROR_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Fragments:
    """Some fragments of one version of a dataset; they travel to workers."""

    uri: str
    version: int
    ids: list[int]
    origins: RowOrigins

    def batches(self, fragment_id: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read some columns of a fragment, with ``_rowid``.

        Raises:
            OSError, pa.ArrowException: it cannot be read; the type depends on where it is damaged.
        """
        options = filesystems.storage_options(self.uri)
        dataset = lance.dataset(self.uri, version=self.version, storage_options=options)
        scanner = dataset.get_fragment(fragment_id).scanner(
            columns=columns,
            with_row_id=True,
            **SCAN_LIMITS,
        )
        yield from scanner.to_batches()

    def rows_of(
        self, entries: frozenset[EntryName], columns: list[str]
    ) -> Iterator[tuple[EntryName, pa.Array, pa.RecordBatch]]:
        """Read the rows of some entries.

        Yields:
            name of the entry, row ids, and as many rows.

        Raises:
            OSError, pa.ArrowException: a fragment cannot be read.
        """
        for number in self.ids:
            for batch in self.batches(number, columns):
                row_ids, start = batch.column("_rowid"), 0
                for name, rows in by_entry(batch, self.origins):
                    if name in entries:
                        yield EntryName(name), row_ids.slice(start, rows.num_rows), rows
                    start += rows.num_rows


@dataclass(slots=True)
class TargetContent:
    """What the dataset holds now.

    Attributes:
        rows: name of an entry -> its rows, of the fragments that can be read.
        fragments: name of an entry -> ids of the fragments its rows lie in.
        unreadable: id of a fragment -> why it cannot be read.
        nulls: name of an entry -> nulls inside the column ``vector``: cfray writes none, and no
            hash of a receipt tells them from zeros.
    """

    rows: dict[EntryName, Content] = field(default_factory=dict)
    fragments: dict[EntryName, set[int]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    nulls: Counter[EntryName] = field(default_factory=Counter)

    def add(self, other: TargetContent) -> None:
        """Add what further fragments hold."""
        for name, content in other.rows.items():
            self.rows[name] = self.rows.get(name, Content()) + content
        for name, ids in other.fragments.items():
            self.fragments.setdefault(name, set()).update(ids)
        self.unreadable.update(other.unreadable)
        self.nulls.update(other.nulls)


def read_target(target: Target, dataset: LanceDataset, origins: RowOrigins) -> TargetContent:
    """Read every fragment again, some a task, and sum the rows by ledger entry."""
    fragment_ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    scans = [
        Fragments(target.uri, dataset.version, group, origins)
        for group in task_groups(fragment_ids)
    ]
    content = TargetContent()
    for partial in run_tasks(sum_fragments, scans):
        content.add(partial)
    return content


def sum_fragments(fragments: Fragments) -> TargetContent:
    """Hash the rows of some fragments and sum them by ledger entry.  Body of a Ray task."""
    options = filesystems.storage_options(fragments.uri)
    dataset = lance.dataset(fragments.uri, version=fragments.version, storage_options=options)
    hashed = [name for names in digests.group_columns(dataset.schema).values() for name in names]
    content = TargetContent()
    for fragment_id in fragments.ids:
        try:
            content.add(_sum_fragment(fragments, fragment_id, ["uuid", *hashed]))
        except (OSError, pa.ArrowException) as error:
            content.unreadable[fragment_id] = describe_error(error)[:_ERROR_LENGTH]
    return content


def _sum_fragment(fragments: Fragments, fragment_id: int, columns: list[str]) -> TargetContent:
    content = TargetContent()
    for batch in fragments.batches(fragment_id, columns):
        for entry, rows in by_entry(batch, fragments.origins):
            name = EntryName(entry)
            content.rows[name] = content.rows.get(name, Content()) + Content.of(rows)
            content.fragments.setdefault(name, set()).add(fragment_id)
            content.nulls[name] += rows.column("vector").flatten().null_count
    return content


def task_groups(items: list[T]) -> list[list[T]]:
    """Divide items among tasks."""
    count = max(1, min(len(items), cluster.cores() * _TASKS_PER_CORE))
    return [items[number::count] for number in range(count)]
