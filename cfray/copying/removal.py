"""What leaves a target with some of its documents: their chunks, and what the books say of them.

A document that leaves goes to quarantine as a frame, and its chunks leave with it.  Nothing is
committed here: the step that refuses the documents takes the rows out in its own commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from lance import LanceDataset

from cfray.conversion import chunk_frames
from cfray.conversion.convert import Fault
from cfray.conversion.rejects import RejectedRow, reject_frame
from cfray.copying.write import Tally, add_vectors
from cfray.target.books import Content
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.receipts import LeftRows


@dataclass(slots=True)
class Removal:
    """What is known of the rows that will be removed.

    Attributes:
        reasons: row id of each document that leaves -> why; every other row is a chunk of one.
        stage: that refused the documents.
        origins: of the dataset.
        row_ids: of all rows that leave.
        left: name of the ledger entry -> its rows that leave.
        rejected: the documents as the quarantine holds them.
        tally: the rows' vectors, negative.
    """

    reasons: dict[int, str]
    stage: str
    origins: RowOrigins
    row_ids: list[int] = field(default_factory=list)
    left: dict[str, LeftRows] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows, with their column ``_rowid``."""
        row_ids = batch.column("_rowid").to_pylist()
        frames = batch.drop_columns(["_rowid"])
        for row, row_id in enumerate(row_ids):
            if row_id in self.reasons:
                fault = Fault(row, self.stage, self.reasons[row_id])
                position, collection = (
                    self.origins.position(row_id),
                    self.origins.collection(row_id),
                )
                self.rejected.append(reject_frame(frames, fault, position, collection))
        for name, rows in by_entry(batch, self.origins):
            content, chunk_rows = Content.of(rows), _count_chunks(rows)
            leaving = LeftRows(content.rows - chunk_rows, chunk_rows, content.sums)
            self.left[name] = self.left.get(name, LeftRows()) + leaving
            add_vectors(self.tally.collections, rows, -1)


def remove_documents(
    dataset: LanceDataset, origins: RowOrigins, reasons: dict[int, str], stage: str
) -> Removal:
    """Gather what leaves with some documents.

    Args:
        dataset: the version that they leave.
        origins: of its rows.
        reasons: row id of each document -> why it leaves.
        stage: that refused them.
    """
    removal = Removal(reasons, stage, origins)
    removal.row_ids = [*reasons, *_chunks_of(dataset, list(reasons))]
    for batch in read_rows(dataset, removal.row_ids):
        removal.add(batch)
    return removal


def documents_of(dataset: LanceDataset, reasons: dict[int, str]) -> dict[int, str]:
    """Blame the documents of refused rows: a refused chunk refuses its document.

    Args:
        dataset: that holds the rows.
        reasons: row id of a document or a chunk -> why it was refused.

    Returns:
        Row id of each document -> the first reason that it, or a chunk of it, was refused for.
    """
    if chunk_frames.FIELD.name not in dataset.schema.names or not reasons:
        return reasons
    columns = ["uuid", chunk_frames.FIELD.name, "position"]
    refused = dataset.to_table(columns=columns, filter=_are(reasons), with_row_id=True).to_pylist()
    documents = {
        row["_rowid"]: reasons[row["_rowid"]]
        for row in refused
        if row[chunk_frames.FIELD.name] is None
    }
    by_uuid = {
        row[chunk_frames.FIELD.name]: f"chunk {row['position']}: {reasons[row['_rowid']]}"
        for row in refused
        if row[chunk_frames.FIELD.name] is not None
    }
    if by_uuid:
        names = ",".join(f"'{uuid}'" for uuid in by_uuid)
        owners = dataset.to_table(columns=["uuid"], filter=f"uuid IN ({names})", with_row_id=True)
        for owner in owners.to_pylist():
            documents.setdefault(owner["_rowid"], by_uuid[owner["uuid"]])
    return dict(sorted(documents.items()))


def read_rows(dataset: LanceDataset, row_ids: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Read rows whole, blobs included, with their column ``_rowid``."""
    if row_ids:
        yield from dataset.scanner(
            filter=_are(row_ids), with_row_id=True, blob_handling="all_binary", batch_size=1024
        ).to_batches()


def _are(row_ids: Sequence[int] | dict[int, str]) -> str:
    return f"_rowid IN ({','.join(map(str, row_ids))})"


def _chunks_of(dataset: LanceDataset, documents: list[int]) -> list[int]:
    """Find the row ids of the chunks that were cut from documents: they follow their document."""
    if chunk_frames.FIELD.name not in dataset.schema.names:
        return []
    scanner = dataset.scanner(
        columns=[], filter=f"{chunk_frames.FIELD.name} IS NOT NULL", with_row_id=True
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
    if chunk_frames.FIELD.name not in frames.schema.names:
        return 0
    return int(frames.num_rows - frames.column(chunk_frames.FIELD.name).null_count)
