"""Join the pieces of one fragment to a new data file, and hash it as verify will.

Body of a Ray task.  Nothing refers to the new file before the swap commits it, so a task
that Ray repeats leaves at most a file that ``cleanup`` removes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceFragment

from cfray.conversion.embed import ORIGIN
from cfray.copying.write import Tally, staged_files
from cfray.embedding.pieces import NEW_ORIGIN, NEW_VECTOR, Piece, Reembedding
from cfray.errors import TargetUnavailable
from cfray.frames import digests
from cfray.target.books import CollectionVectors
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.receipts import StagedFile


@dataclass(frozen=True, slots=True)
class JoinedFragment:
    """The new data file of one fragment, and what it holds.

    Attributes:
        fragment: its number.
        state: of the fragment as it was read (``pieces.state_of``).
        file: Lance's entry for the new data file (parsed JSON), with the ids of the new columns in
            the order vector, origin.
        files: the digests of the new file.
        sums: name of the ledger's entry -> sum of the hashes of the column group ``vector``.
        collections: name -> its vectors in the fragment, summed.
        counts: of the pieces.
        size: bytes of Arrow data.
    """

    fragment: int
    state: str
    file: dict[str, Any]
    files: list[StagedFile]
    sums: dict[str, int]
    collections: dict[str, CollectionVectors]
    counts: dict[str, int]
    size: int


@dataclass(slots=True)
class _Figures:
    """What is counted while the pieces of a fragment pass by."""

    sums: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class JoinFragment:
    """Write the new columns of one fragment from its pieces."""

    reembedding: Reembedding
    origins: RowOrigins

    def __call__(self, pieces: list[Piece]) -> JoinedFragment:
        """Write the new data file of the fragment that the pieces belong to."""
        dataset, number = self.reembedding.dataset, pieces[0].fragment
        # Lance locks a fragment object while merge_columns writes to it, so the rows that the new
        # columns are hashed with are read through a second object of the same fragment.
        writable, readable = dataset.get_fragment(number), dataset.get_fragment(number)
        figures = _Figures()
        reader = pa.RecordBatchReader.from_batches(
            self._schema, self._new_columns(readable, pieces, figures)
        )
        metadata, _ = writable.merge_columns(reader)
        file = metadata.to_json()["files"][-1]
        return JoinedFragment(
            fragment=number,
            state=pieces[0].state,
            file=file,
            files=staged_files(self.reembedding.uri, [{"files": [file]}]),
            sums=figures.sums,
            collections=figures.tally.collections,
            counts=dict(figures.counts),
            size=figures.tally.size,
        )

    @property
    def _schema(self) -> pa.Schema:
        vectors = pa.list_(pa.float32(), self.reembedding.embed.shape.dimension)
        return pa.schema([(NEW_VECTOR, vectors), (NEW_ORIGIN, pa.string())])

    def _new_columns(
        self, fragment: LanceFragment, pieces: list[Piece], figures: _Figures
    ) -> Iterator[pa.RecordBatch]:
        """Yield the new columns piece by piece, and count them as they pass."""
        for piece in pieces:
            columns = self._read(piece)
            figures.counts.update(json.loads(columns.schema.metadata[b"counts"]))
            self._hash(fragment, piece, columns, figures)
            yield columns.replace_schema_metadata(None).select([NEW_VECTOR, NEW_ORIGIN])

    def _read(self, piece: Piece) -> pa.RecordBatch:
        scratch = self.reembedding.scratch
        data = scratch.read(piece.file)
        if data is None:
            raise TargetUnavailable(
                f"{scratch.uri}/{piece.file} was removed during the run",
                "run the same command again",
            )
        return pa.ipc.open_file(data).read_all().combine_chunks().to_batches()[0]

    def _hash(
        self, fragment: LanceFragment, piece: Piece, columns: pa.RecordBatch, figures: _Figures
    ) -> None:
        """Add a piece's hashes by entry of the ledger, and its vectors by collection."""
        rows = self._rows_to_hash(fragment, piece, columns)
        for name, entry_rows in by_entry(rows, self.origins):
            hashes = {name: digests.group_hashes(entry_rows, "vector")}
            figures.sums |= digests.add_hashes(figures.sums, hashes)
        documents = rows.filter(pc.equal(rows.column("record_type"), "document"))
        if documents.num_rows:
            figures.tally.add_vectors_only(documents)

    def _rows_to_hash(
        self, fragment: LanceFragment, piece: Piece, columns: pa.RecordBatch
    ) -> pa.RecordBatch:
        """Give the new columns and those that are hashed with them, in the order of the schema."""
        schema = self.reembedding.dataset.schema
        group = [
            name
            for name in digests.group_columns(schema)["vector"]
            if name not in ("vector", ORIGIN)
        ]
        scanner = fragment.scanner(
            columns=["uuid", "collection", "collection_id", "record_type", *group],
            offset=piece.first,
            limit=piece.rows,
            with_row_id=True,
        )
        rows = scanner.to_table().combine_chunks().to_batches()[0]
        rows = rows.append_column("vector", columns.column(NEW_VECTOR))
        rows = rows.append_column(ORIGIN, columns.column(NEW_ORIGIN))
        # The hash of a row depends on the order of its columns.
        names = dict.fromkeys([*schema.names, ORIGIN, "_rowid"])
        return rows.select([name for name in names if name in rows.schema.names])
