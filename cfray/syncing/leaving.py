"""Rows that leave the target in a sync: what the books must know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion.chunk_frames import document_rows
from cfray.copying.write import Tally, add_vectors, new_nonce
from cfray.embedding.vectors import count_origins
from cfray.engine.tasks import TaskOptions, run_tasks
from cfray.errors import TargetError
from cfray.frames.schema import ORIGIN
from cfray.proving.read_target import task_groups
from cfray.report.run import Run
from cfray.runtime.filesystems import Folder, storage_options
from cfray.runtime.storage_errors import classify_write_error
from cfray.syncing.folder import RowIds
from cfray.target.books import Content
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.receipts import LeftRows
from cfray.target.scans import SCAN_LIMITS


@dataclass(slots=True)
class Leaving:
    """What is known of the rows that leave.

    Attributes:
        left: name of the ledger's entry -> its rows that leave.
        documents, chunks: rows.
        tally: the rows' vectors, negative.
        counts: of the rows by how their vectors were made.
    """

    left: dict[str, LeftRows] = field(default_factory=dict)
    documents: int = 0
    chunks: int = 0
    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)

    def add_rows(self, name: str, rows: pa.RecordBatch) -> None:
        """Add rows of an entry."""
        content, documents = Content.of(rows), len(document_rows(rows))
        leaving = LeftRows(documents, content.rows - documents, content.sums)
        self.left[name] = self.left.get(name, LeftRows()) + leaving
        self.documents += documents
        self.chunks += content.rows - documents
        add_vectors(self.tally.collections, rows, -1)
        origins = rows.column(ORIGIN)
        self.counts.update(count_origins(origins))
        self.counts["missing_vectors"] += origins.null_count

    def add(self, other: Leaving) -> None:
        """Add the rows of further fragments."""
        for name, rows in other.left.items():
            self.left[name] = self.left.get(name, LeftRows()) + rows
        self.documents += other.documents
        self.chunks += other.chunks
        self.tally.merge(other.tally.collections)
        self.counts.update(other.counts)


def sum_leaving(run: Run, folder: Folder, row_ids: RowIds) -> Leaving:
    """Read the rows that leave.

    Args:
        run: a command that holds the target.
        folder: of the comparison; the row ids travel in a file.
        row_ids: sorted.

    Raises:
        TargetError: the target cannot be read.
    """
    leaving = Leaving()
    if not len(row_ids):
        return leaving
    name = f"{new_nonce()}.leaving"
    folder.publish(name, row_ids.tobytes())
    dataset = run.target.open()
    groups = task_groups([fragment.fragment_id for fragment in dataset.get_fragments()])
    origins = RowOrigins(run.plan, run.target.ledger())
    work = _SumLeaving(run.target.uri, dataset.version, origins, folder, name)
    for part in run_tasks(work, groups, TaskOptions()):
        leaving.add(part)
    if leaving.documents + leaving.chunks != len(row_ids):
        raise TargetError(
            f"{len(row_ids):,} rows of {run.target.uri} are to leave, and "
            f"{leaving.documents + leaving.chunks:,} of them can be read",
            "another program has removed rows; run the same command again",
        )
    return leaving


@dataclass(frozen=True, slots=True)
class _SumLeaving:
    uri: str
    version: int
    origins: RowOrigins
    folder: Folder
    file: str

    def __call__(self, fragment_ids: list[int]) -> Leaving:
        """Sum the rows of some fragments that leave.  Body of a Ray task."""
        leaving = Leaving()
        row_ids = np.frombuffer(self.folder.read(self.file) or b"", np.uint64)
        try:
            for number in fragment_ids:
                for batch in self._leaving_rows(number, row_ids):
                    for name, rows in by_entry(batch, self.origins):
                        leaving.add_rows(name, rows)
        except OSError as error:
            raise classify_write_error(error, f"could not read {self.uri}") from error
        return leaving

    def _leaving_rows(self, fragment_id: int, row_ids: RowIds) -> Iterator[pa.RecordBatch]:
        dataset = lance.dataset(
            self.uri, version=self.version, storage_options=storage_options(self.uri)
        )
        fragment = dataset.get_fragment(fragment_id)
        present = fragment.scanner(columns=[], with_row_id=True).to_table()["_rowid"].to_numpy()
        if not _are_in(present, row_ids).any():
            return
        # no hash of a row covers raw_data
        columns = [name for name in dataset.schema.names if name != "raw_data"]
        batches = fragment.scanner(
            columns=columns,
            with_row_id=True,
            **SCAN_LIMITS,
        ).to_batches()
        for batch in batches:
            leaves = _are_in(batch.column("_rowid").to_numpy(), row_ids)
            if leaves.any():
                yield batch.filter(pa.array(leaves))


def _are_in(values: RowIds, ordered: RowIds) -> npt.NDArray[np.bool_]:
    """Tell which values are among sorted ones."""
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: npt.NDArray[np.bool_] = ordered[places] == values
    return found
