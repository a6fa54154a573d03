"""Pieces of a rewriting of the vectors.

Computed a few thousand rows at a time and kept, then joined to one column file a fragment.

Bodies of Ray tasks.  A piece is done when its file is there, so a kill costs the
pieces in flight; a fragment that changed since has other pieces.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset
from lance.fragment import FragmentMetadata

from cfray.conversion.convert import Converted
from cfray.conversion.embed import ORIGIN, Embed, origins_of
from cfray.copying.write import Tally, staged_files
from cfray.embedders.recipe import Recipe
from cfray.errors import TargetUnavailable
from cfray.frames import digests
from cfray.records.vectors import matrix, vector_lists
from cfray.runtime import filesystems
from cfray.target.books import RowOrigins, by_shard
from cfray.target.receipts import StagedFile
from cfray.target.state import State

#: Rows of one piece: about half a minute of a small model's work.
_PIECE = 4_096
#: Names of the new columns while they are written.
_VECTOR, _ORIGIN = "cfray_new_vector", "cfray_new_origin"


@dataclass(frozen=True)
class Rewriting:
    """One rewriting of the vectors; travels to workers.

    Attributes:
        embed: what makes the vectors.
        version: of the dataset that is read.
        name: of the ledger's entry.
        old: how the present vectors came to be.
    """

    embed: Embed
    version: int
    name: str
    old: Recipe

    @property
    def uri(self) -> str:
        """Give the target."""
        return self.embed.job.target.uri

    @cached_property
    def dataset(self) -> LanceDataset:
        """Open the version that is read."""
        return lance.dataset(
            self.uri, version=self.version, storage_options=filesystems.storage_options(self.uri)
        )

    @property
    def scratch(self) -> filesystems.Folder:
        """Name the folder of the pieces; another job's pieces stand in another one."""
        return State(self.uri).scratch.child(
            f"{self.name}-{self.embed.job.fingerprint[:16]}-{self.embed.recipe.map[:16]}"
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of rows of one fragment: ``first`` counts its rows that are not deleted."""

    fragment: int
    state: str
    first: int
    rows: int

    @property
    def file(self) -> str:
        """Name the piece's file; a fragment that changed since has other pieces."""
        return f"{self.fragment}-{self.state}-{self.first}.arrow"


def divided(rewriting: Rewriting) -> list[Piece]:
    """Divide the dataset's rows."""
    found = []
    for fragment in rewriting.dataset.get_fragments():
        rows, state = fragment.count_rows(), seal(fragment.metadata)
        found += [
            Piece(fragment.fragment_id, state, first, min(_PIECE, rows - first))
            for first in range(0, rows, _PIECE)
        ]
    return found


def seal(metadata: FragmentMetadata) -> str:
    """Give a short hash of what a fragment consists of: files and deletions."""
    return hashlib.sha256(json.dumps(metadata.to_json(), sort_keys=True).encode()).hexdigest()[:12]


def by_fragment(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Group pieces by fragment, in their order."""
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.fragment, []).append(piece)
    return list(found.values())


@dataclass(frozen=True)
class Compute:
    """Compute the vectors of one piece and keep them.  Body of a Ray task."""

    rewriting: Rewriting

    def __call__(self, piece: Piece) -> None:
        """Publish the piece's file."""
        dataset = self.rewriting.dataset
        there = [name for name in (ORIGIN,) if name in dataset.schema.names]
        scanner = dataset.get_fragment(piece.fragment).scanner(
            columns=["uuid", "text_content", "vector", "record_type", *there],
            offset=piece.first,
            limit=piece.rows,
        )
        batch = scanner.to_table().combine_chunks().to_batches()[0]
        vectors, origin, counts = self._made(batch)
        sink = io.BytesIO()
        table = pa.table({_VECTOR: vectors, _ORIGIN: origin}).replace_schema_metadata(
            {"counts": json.dumps(dict(counts))}
        )
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.rewriting.scratch.publish(piece.file, sink.getvalue())

    def _made(
        self, batch: pa.RecordBatch
    ) -> tuple[pa.FixedSizeListArray, pa.StringArray, Counter[str]]:
        """Make vectors for the documents of a batch; headers get theirs later, from these."""
        embed = self.rewriting.embed
        values = np.zeros((batch.num_rows, embed.layout.dimension), np.float32)
        origin = np.full(batch.num_rows, None, object)
        documents = pc.equal(batch.column("record_type"), "document").to_numpy(zero_copy_only=False)
        finished = np.zeros(batch.num_rows, np.bool_)
        if (
            embed.recipe.policy == "regenerate"
            and self.rewriting.old.model == embed.recipe.model
            and self.rewriting.old.reduction == embed.recipe.reduction
        ):
            finished = pc.fill_null(
                pc.equal(batch.column(ORIGIN), embed.recipe.origins["regenerated"]), False
            ).to_numpy(zero_copy_only=False)
            values[finished], origin[finished] = (
                matrix(batch.column("vector"))[finished],
                embed.recipe.origins["regenerated"],
            )
        rows = np.flatnonzero(documents & ~finished)
        counts = Counter({"vectors_left_alone": int(finished.sum())})
        hidden = np.zeros(batch.num_rows, np.bool_)
        if len(rows):
            part = batch.take(pa.array(rows))
            missing = np.logical_not(matrix(part.column("vector")).any(axis=1))
            made = embed.made(Converted(part, rows, [], Counter(), missing, part.column("uuid")))
            values[rows], origin[rows] = embed.reduced(made.values), made.origin.to_pylist()
            counts += Counter(
                {
                    name: count
                    for name, count in made.counts.items()
                    if not name.startswith("vectors_")
                }
            )
            counts["missing_vectors"] += int(made.missing.sum())
            if embed.job.embedding.missing_vector == "null":
                hidden[rows] = made.missing
        origins = pa.array(origin, pa.string())
        return vector_lists(values, hidden, pa.float32()), origins, counts + origins_of(origins)


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of one fragment.

    Attributes:
        fragment: its number.
        seal: of the fragment as it was read.
        file: Lance's entry for the new data file (parsed JSON), with the ids of the new columns in
            the order vector, origin.
        files: its digests.
        sums: shard -> sum of the column group ``vector``.
        centroids: of a receipt.
        counts: of the pieces.
        size: bytes of Arrow data.
    """

    fragment: int
    seal: str
    file: dict[str, Any]
    files: list[StagedFile]
    sums: dict[str, int]
    centroids: dict[str, tuple[int, str, Any]]
    counts: dict[str, int]
    size: int


@dataclass(frozen=True)
class Join:
    """Write one fragment's new columns from its pieces.

    Hash them as verify will.  Body of a Ray task.
    """

    rewriting: Rewriting
    places: RowOrigins

    def __call__(self, pieces: list[Piece]) -> Joined:
        """Write the fragment's new data file; nothing refers to it before the commit."""
        fragment, same = (
            self.rewriting.dataset.get_fragment(pieces[0].fragment) for _ in range(2)
        )  # one is borrowed while it takes columns
        counts: Counter[str] = Counter()
        account = Tally()
        sums: dict[str, int] = {}

        def columns() -> Iterator[pa.RecordBatch]:
            for piece in pieces:
                new = self._read(piece)
                counts.update(json.loads(new.schema.metadata[b"counts"]))
                self._hash(same, piece, new, (sums, account))
                yield new.replace_schema_metadata(None).select([_VECTOR, _ORIGIN])

        kind = pa.list_(pa.float32(), self.rewriting.embed.layout.dimension)
        reader = pa.RecordBatchReader.from_batches(
            pa.schema([(_VECTOR, kind), (_ORIGIN, pa.string())]), columns()
        )
        metadata, _ = fragment.merge_columns(reader)
        made = metadata.to_json()["files"][-1]
        files = staged_files(self.rewriting.uri, [{"files": [made]}])
        return Joined(
            pieces[0].fragment,
            pieces[0].state,
            made,
            files,
            sums,
            account.vectors,
            dict(counts),
            account.size,
        )

    def _read(self, piece: Piece) -> pa.RecordBatch:
        data = self.rewriting.scratch.read(piece.file)
        if data is None:
            raise TargetUnavailable(
                f"{self.rewriting.scratch.uri}/{piece.file} is gone", "run the same command again"
            )
        return pa.ipc.open_file(data).read_all().combine_chunks().to_batches()[0]

    def _hash(
        self, fragment: Any, piece: Piece, new: pa.RecordBatch, into: tuple[dict[str, int], Tally]
    ) -> None:
        """Add up the column group ``vector`` by shard, and the vectors of each collection."""
        sums, account = into
        group = [
            name
            for name in digests.group_columns(self.rewriting.dataset.schema)["vector"]
            if name not in ("vector", ORIGIN)
        ]
        columns = ["uuid", "collection", "collection_id", "record_type", *group]
        scanner = fragment.scanner(
            columns=columns, offset=piece.first, limit=piece.rows, with_row_id=True
        )
        batch = scanner.to_table().combine_chunks().to_batches()[0]
        batch = batch.append_column("vector", new.column(_VECTOR)).append_column(
            ORIGIN, new.column(_ORIGIN)
        )
        order = dict.fromkeys(
            [*self.rewriting.dataset.schema.names, ORIGIN, "_rowid"]
        )  # hashes depend on the order of columns
        batch = batch.select([name for name in order if name in batch.schema.names])
        for name, part in by_shard(batch, self.places):
            sums[name] = (
                sums.get(name, 0)
                + digests.add({}, {"vector": digests.group_hashes(part, "vector")})["vector"]
            ) % 2**64
        documents = batch.filter(pc.equal(batch.column("record_type"), "document"))
        if documents.num_rows:
            account.gather(documents)
