"""Pieces: how the rows of a target are divided to make their vectors.

A piece is a run of physical rows of one fragment, named by the fragment's data files: a piece
reads the same however often it is read, and a row that is deleted later voids nothing.  What an
actor makes of a piece lies in ``scratch/`` until the vectors are swapped, so a kill costs only the
pieces in flight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import lance
import pyarrow.fs as pafs
from lance import LanceDataset
from lance.fragment import FragmentMetadata

from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding
from cfray.job.spec import JobSpec
from cfray.planning.piece_rows import RowsToEmbed
from cfray.report.run import Run
from cfray.runtime import filesystems
from cfray.runtime.filesystems import Folder
from cfray.target.ledger import EntryKind
from cfray.target.state import State


@dataclass(frozen=True)
class VectorTask:
    """One making of a target's vectors, as its tasks need it; travels to workers.

    Attributes:
        job: whose section ``embedding`` says what is made.
        recipe: of the new vectors.
        old_recipe: how the present vectors were made.
        version: of the dataset that is read.
        name: of the ledger's entry.
        epoch: of the run.
    """

    job: JobSpec
    recipe: Recipe
    old_recipe: Recipe
    version: int
    name: str
    epoch: int

    @classmethod
    def of(cls, run: Run, job: JobSpec, recipe: Recipe, kind: EntryKind) -> VectorTask:
        """Give the task of a command whose next entry of a kind brings the vectors."""
        target = run.target
        name = target.ledger().next_name(kind)
        return cls(job, recipe, target.recipe(), target.open().version, name, target.epoch)

    @property
    def uri(self) -> str:
        """Give the address of the target."""
        return self.job.target.uri

    @property
    def embedding(self) -> Embedding:
        """Give the section that says what is made."""
        return self.job.embedding

    @cached_property
    def dataset(self) -> LanceDataset:
        """Open the version that is read, once in each process."""
        options = filesystems.storage_options(self.uri)
        return lance.dataset(self.uri, version=self.version, storage_options=options)

    @property
    def scratch(self) -> Folder:
        """Name the folder of the pieces; another job or another recipe has another folder.

        The content of a model's folder may change while the job file stays: pieces of the old
        model must not be taken for the new one's.  What the gate says of a map changes no vector.
        """
        recipe = _hash(replace(self.recipe, gate={}).to_json())
        return State(self.uri).scratch.child(f"{self.name}-{self.job.fingerprint[:16]}-{recipe}")

    @property
    def receipts(self) -> Folder:
        """Name the folder of the pieces' receipts."""
        return self.scratch.child("receipts")

    def forget(self, piece: Piece) -> None:
        """Remove what was computed of a piece, its receipts first: it is computed anew."""
        for name in self.receipts.list_names():
            if name.startswith(f"{piece.name}."):
                self.receipts.remove(name)
        folder = self.scratch.child(piece.name)
        for name in folder.list_names():
            folder.remove(name)

    def remove_scratch(self, pieces: Sequence[Piece]) -> None:
        """Remove what was computed of pieces, marks and receipts included."""
        for folder in (*(self.scratch.child(piece.name) for piece in pieces), self.receipts):
            for file in folder.list_names():
                folder.remove(file)


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of physical rows of one fragment.

    Attributes:
        fragment: its number.
        files: hash of the fragment's data files (``files_of``).
        first: number of the first row; deleted rows count.
        rows: how many.
    """

    fragment: int
    files: str
    first: int
    rows: int

    @property
    def name(self) -> str:
        """Name the piece; another division of the same files has other names."""
        return f"{self.files}-{self.first}-{self.rows}"


def divide(task: VectorTask, rows: int) -> list[Piece]:
    """Divide all rows of the target into pieces of at most so many rows."""
    return [
        Piece(fragment.fragment_id, files_of(fragment.metadata), first, min(rows, size - first))
        for fragment in task.dataset.get_fragments()
        for size in [fragment.metadata.physical_rows]
        for first in range(0, size, rows)
    ]


def piece_rows(task: VectorTask, device: str) -> int:
    """Give the most rows of a piece of the target."""
    fragments = task.dataset.get_fragments()
    rows = sum(fragment.metadata.physical_rows for fragment in fragments)
    return _rows_to_embed(task, rows).in_a_piece(device)


def joining_piece_rows(task: VectorTask, device: str, rows: int) -> int:
    """Give the most rows of a piece of so many frames that will join the target."""
    return _rows_to_embed(task, rows).in_a_piece(device)


def waiting_pieces(state: State) -> int:
    """Count the pieces of a target whose vectors are computed and wait for their swap."""
    system, path = filesystems.open_filesystem(state.scratch.uri)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    receipts = (file.path.split("/") for file in system.get_file_info(selector))
    names = {
        (folder, name.split(".")[0])
        for *_, folder, kind, name in receipts
        if kind == "receipts" and folder.startswith(f"{EntryKind.EMBED}-")
    }
    return len(names)


def _rows_to_embed(task: VectorTask, rows: int) -> RowsToEmbed:
    return RowsToEmbed(task.embedding, task.recipe, task.old_recipe.dimension, rows)


def files_of(metadata: FragmentMetadata) -> str:
    """Give a short hash of a fragment's data files: of what its physical rows hold."""
    return _hash([file["path"] for file in metadata.to_json()["files"]])


def state_of(metadata: FragmentMetadata) -> str:
    """Give a short hash of what a fragment consists of: its files and its deletions."""
    return _hash(metadata.to_json())


def group_by_fragment(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Group pieces by fragment, in their order."""
    groups: dict[int, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.fragment, []).append(piece)
    return list(groups.values())


def _hash(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
