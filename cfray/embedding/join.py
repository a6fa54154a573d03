"""Join the pieces of one fragment to a new data file, and hash it as verify will.

Body of a Ray task.  Nothing refers to the new file before the swap commits it, so a task
that Ray repeats leaves at most a file that ``cleanup`` removes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceFragment

from cfray.copying.write import Tally, staged_files
from cfray.embedding.compute import NEW, PieceReceipt, read_range
from cfray.embedding.pieces import Piece, VectorTask, state_of
from cfray.embedding.ranges import RangeFile
from cfray.embedding.vectors import count_origins, made_fields
from cfray.errors import CfrayError
from cfray.frames import digests
from cfray.frames.schema import ORIGIN
from cfray.runtime.storage_errors import classify_write_error
from cfray.target.books import CollectionVectors
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.receipts import StagedFile


@dataclass(frozen=True, slots=True)
class PiecesOfFragment:
    """What is joined to one data file.

    Attributes:
        pieces: of a fragment, in the order of its rows, each with its receipt.
        leaving: row ids of the fragment's rows that leave with the swap.
    """

    pieces: Sequence[tuple[Piece, PieceReceipt]]
    leaving: frozenset[int] = frozenset()

    @property
    def fragment(self) -> int:
        """Give the number of the fragment."""
        return self.pieces[0][0].fragment


@dataclass(frozen=True, slots=True)
class JoinedFragment:
    """The new data file of one fragment, and what it holds.

    Attributes:
        fragment: its number.
        state: of the fragment as it was read (``pieces.state_of``).
        file: Lance's entry for the new data file (parsed JSON), with the ids of the new columns in
            the order of ``made_fields``.
        files: the digests of the new file.
        sums: name of the ledger's entry -> sum of the hashes of the column group ``vector``, of the
            rows that stay.
        collections: name -> the vectors of its rows that stay, summed.
        counts: of its documents and chunks that stay, by how their vectors were made.
        size: bytes of Arrow data.
    """

    fragment: int
    state: str
    file: dict[str, Any]
    files: list[StagedFile]
    sums: dict[str, int]
    collections: dict[str, CollectionVectors]
    counts: Counter[str]
    size: int


@dataclass(slots=True)
class _Figures:
    """What is counted while the pieces of a fragment pass by, and why no further one could."""

    sums: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)
    error: CfrayError | None = None


@dataclass(frozen=True)
class JoinFragment:
    """Write the new columns of one fragment from its pieces."""

    task: VectorTask
    origins: RowOrigins

    def __call__(self, work: PiecesOfFragment) -> JoinedFragment:
        """Write the new data file of a fragment."""
        dataset = self.task.dataset
        # Lance locks a fragment object while merge_columns writes to it, so the rows that the new
        # columns are hashed with are read through a second object of the same fragment.
        writable = dataset.get_fragment(work.fragment)
        readable = dataset.get_fragment(work.fragment)
        figures = _Figures()
        reader = pa.RecordBatchReader.from_batches(
            self._schema, self._new_columns(readable, work, figures)
        )
        try:
            metadata, _ = writable.merge_columns(reader)
        except (OSError, RuntimeError) as error:
            # Lance gives no error of ours back as it was
            if figures.error is not None:
                raise figures.error from None
            if not isinstance(error, OSError):
                raise
            what = f"could not write new columns of {self.task.uri}"
            raise classify_write_error(error, what) from error
        file = metadata.to_json()["files"][-1]
        return JoinedFragment(
            fragment=work.fragment,
            state=state_of(readable.metadata),
            file=file,
            files=staged_files(self.task.uri, [{"files": [file]}]),
            sums=figures.sums,
            collections=figures.tally.collections,
            counts=figures.counts,
            size=figures.tally.size,
        )

    @property
    def _schema(self) -> pa.Schema:
        fields = made_fields(self.task.embedding, self.task.recipe)
        return pa.schema([item.with_name(f"{NEW}{item.name}") for item in fields])

    def _new_columns(
        self, fragment: LanceFragment, work: PiecesOfFragment, figures: _Figures
    ) -> Iterator[pa.RecordBatch]:
        """Yield the new columns of the rows that are not deleted, and count them as they pass."""
        for piece, receipt in work.pieces:
            for file in receipt.files:
                columns = self._read(piece, file, figures).combine_chunks().to_batches()[0]
                rows = self._rows_to_hash(fragment, piece.first + file.first, file.rows)
                is_live = rows.column("_rowid").is_valid()
                columns = columns.replace_schema_metadata(None).select(self._schema.names)
                columns, rows = columns.filter(is_live), rows.filter(is_live)
                # behind its last row Lance takes no further batch, not even an empty one
                if columns.num_rows:
                    self._hash(rows, columns, work.leaving, figures)
                    yield columns

    def _read(self, piece: Piece, file: RangeFile, figures: _Figures) -> pa.Table:
        try:
            return read_range(self.task, piece, file)
        except CfrayError as error:
            figures.error = error
            raise

    def _hash(
        self,
        rows: pa.RecordBatch,
        columns: pa.RecordBatch,
        leaving: frozenset[int],
        figures: _Figures,
    ) -> None:
        """Add the hashes of rows by entry of the ledger, and their vectors by collection."""
        for item in made_fields(self.task.embedding, self.task.recipe):
            rows = rows.append_column(item.name, columns.column(f"{NEW}{item.name}"))
        if leaving:
            leaves = pc.is_in(rows.column("_rowid"), pa.array(sorted(leaving), pa.uint64()))
            rows = rows.filter(pc.invert(leaves))
        # The hash of a row depends on the order of its columns.
        made = [item.name for item in made_fields(self.task.embedding, self.task.recipe)]
        names = dict.fromkeys([*self.task.dataset.schema.names, *made, "_rowid"])
        rows = rows.select([name for name in names if name in rows.schema.names])
        for name, entry_rows in by_entry(rows, self.origins):
            hashes = {name: digests.group_hashes(entry_rows, "vector")}
            figures.sums |= digests.add_hashes(figures.sums, hashes)
        documents = rows.filter(pc.equal(rows.column("record_type"), "document"))
        if documents.num_rows:
            origins = documents.column(ORIGIN)
            figures.counts.update(count_origins(origins))
            figures.counts["missing_vectors"] += origins.null_count
            figures.tally.add_vectors_only(documents)

    def _rows_to_hash(self, fragment: LanceFragment, first: int, rows: int) -> pa.RecordBatch:
        """Read the columns that are hashed with the new ones; a deleted row has no ``_rowid``."""
        made = {item.name for item in made_fields(self.task.embedding, self.task.recipe)}
        group = digests.group_columns(self.task.dataset.schema)["vector"]
        scanner = fragment.scanner(
            columns=[
                *("uuid", "collection", "collection_id", "record_type"),
                *(name for name in group if name not in made),
            ],
            offset=first,
            limit=rows,
            with_row_id=True,
            include_deleted_rows=True,
        )
        return scanner.to_table().combine_chunks().to_batches()[0]
