"""Pieces: how the rows of a finished target are divided to make their vectors anew.

A piece is at most 4,096 rows of one fragment.  Its file in ``scratch/`` is there when the
piece is computed, so a kill costs only the pieces in flight.  The name of the file holds
the state of the fragment: a fragment that changed has other pieces, and no old file can be
mistaken for a file of the new pieces.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import lance
from lance import LanceDataset
from lance.fragment import FragmentMetadata

from cfray.conversion.embed import Embed
from cfray.embedders.recipe import Recipe
from cfray.runtime import filesystems
from cfray.target.state import State

#: Rows of one piece: about half a minute of a small model's work on one core.  The environment may
#: set another number, so that a test has many pieces of few rows.
_PIECE_ROWS, _PIECE_ROWS_SETTING = 4_096, "CFRAY_PIECE_ROWS"
#: Names of the new columns in a piece's file and while they are joined to a fragment.
NEW_VECTOR, NEW_ORIGIN = "cfray_new_vector", "cfray_new_origin"


@dataclass(frozen=True)
class Reembedding:
    """One re-embedding of a target, as its tasks need it; travels to workers.

    Attributes:
        embed: the step that makes the vectors.
        version: of the dataset that is read.
        name: of the ledger's entry.
        old_recipe: how the present vectors were made.
    """

    embed: Embed
    version: int
    name: str
    old_recipe: Recipe

    @property
    def uri(self) -> str:
        """Give the address of the target."""
        return self.embed.job.target.uri

    @cached_property
    def dataset(self) -> LanceDataset:
        """Open the version that is read, once in each process."""
        return self.open_dataset()

    def open_dataset(self) -> LanceDataset:
        """Open the version that is read."""
        options = filesystems.storage_options(self.uri)
        return lance.dataset(self.uri, version=self.version, storage_options=options)

    @property
    def scratch(self) -> filesystems.Folder:
        """Name the folder of the pieces' files; another job or another map has another folder."""
        fingerprint, map_id = self.embed.job.fingerprint, self.embed.recipe.map
        return State(self.uri).scratch.child(f"{self.name}-{fingerprint[:16]}-{map_id[:16]}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of rows of one fragment.

    Attributes:
        fragment: its number.
        state: hash of what the fragment consists of (``state_of``).
        first: where the run starts; rows that are deleted do not count.
        rows: how many rows.
    """

    fragment: int
    state: str
    first: int
    rows: int

    @property
    def file(self) -> str:
        """Name the piece's file."""
        return f"{self.fragment}-{self.state}-{self.first}.arrow"


def divide(reembedding: Reembedding) -> list[Piece]:
    """Divide all rows of the target into pieces."""
    piece_rows = int(os.environ.get(_PIECE_ROWS_SETTING, _PIECE_ROWS))
    pieces = []
    for fragment in reembedding.dataset.get_fragments():
        rows, state = fragment.count_rows(), state_of(fragment.metadata)
        pieces += [
            Piece(fragment.fragment_id, state, first, min(piece_rows, rows - first))
            for first in range(0, rows, piece_rows)
        ]
    return pieces


def state_of(metadata: FragmentMetadata) -> str:
    """Give a short hash of what a fragment consists of: its files and its deletions."""
    return hashlib.sha256(json.dumps(metadata.to_json(), sort_keys=True).encode()).hexdigest()[:12]


def group_by_fragment(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Group pieces by fragment, in their order."""
    groups: dict[int, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.fragment, []).append(piece)
    return list(groups.values())
