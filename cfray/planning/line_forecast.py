"""What the two lines of a run will do: shards, pieces, and what is on disk after each step.

The disk is that of a run without ``cleanup``: what a compaction or the swap of the vectors
replaces stays on disk for the versions that refer to it.  Indexes are not counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding
from cfray.planning.piece_rows import RowsToEmbed
from cfray.target.file_sizes import MeasuredFrames, full_fragment_rows, merge_small

#: Bytes of a column file that do not grow with its rows (pylance 14), and of a piece's file.
_COLUMN_FILE = 1_500
#: Bytes of a shard in the ledger, which Lance writes into each file of later steps.
_LEDGER_ENTRY = 40
#: Bytes of a shard in a version of the dataset: in the manifest and in the transaction.
_VERSION_ENTRY = 610
#: Bytes of a version without shards, how many follow the copy, and bytes of a shard's receipt.
_VERSION, _LAST_VERSIONS, _RECEIPT = 6_000, 6, 1_300
#: Bytes of a row's ``x_vector_origin`` in a piece's file, where nothing is compressed.
_ORIGIN = 60


@dataclass(frozen=True, slots=True)
class Disk:
    """What a run leaves on disk, in bytes (estimates).

    Attributes:
        copied: the files of the copy; they stay when the vectors are made.
        compacted: what is written again where small fragments are merged.
        vectors: the columns that the embedding makes.
        books: versions of the dataset, receipts and the plan.
        pieces: beside these while the vectors are made; removed when they are in place.
    """

    copied: int = 0
    compacted: int = 0
    vectors: int = 0
    books: int = 0
    pieces: int = 0

    @property
    def total(self) -> int:
        """Give what stays."""
        return self.copied + self.compacted + self.vectors + self.books

    @property
    def peak(self) -> int:
        """Give the most that is on disk at once, pieces among it."""
        return self.total + self.pieces


@dataclass(frozen=True, slots=True)
class Lines:
    """What the two lines of a run will do.

    Attributes:
        shards: of the copy.
        frames: rows that it writes, chunks among them (estimate).
        pieces: of the embedding (estimate); 0 where no vectors are made.
        piece_rows: that a piece has at most; 0 where no vectors are made.
    """

    shards: int = 0
    frames: int = 0
    pieces: int = 0
    piece_rows: int = 0


@dataclass(frozen=True, slots=True)
class RunShape:
    """What the lines are forecast from.

    Attributes:
        embedding: the job's section.
        recipe: of the vectors as they will be.
        copied_dimension: width of the vectors as the copy writes them.
        shards: how many.
        frames: rows that the copy writes.
        plan_bytes: of the plan as it is saved.
    """

    embedding: Embedding
    recipe: Recipe
    copied_dimension: int
    shards: int
    frames: int
    plan_bytes: int = 0

    @property
    def books(self) -> int:
        """Give the bytes of the dataset's versions, of the receipts and of the plan."""
        # a commit grows with the shards before it, and is made the less often the more it costs:
        # measured with 200 to 10,000 shards
        entries = 16 * self.shards**2 // (self.shards + 150)
        copying = entries * _VERSION_ENTRY
        later = _LAST_VERSIONS * (_VERSION + self.shards * _LEDGER_ENTRY)
        return copying + later + self.shards * _RECEIPT + self.plan_bytes

    @property
    def fragments(self) -> list[int]:
        """Give the rows of each fragment that the copy writes: a shard is a fragment."""
        count = max(1, min(self.shards, self.frames))
        fewer, rest = divmod(self.frames, count)
        return [fewer + (number < rest) for number in range(count)]

    @property
    def vector_bytes(self) -> int:
        """Give the bytes of a row's new vectors."""
        return sum(made_bytes(self.embedding, self.recipe))


def made_bytes(embedding: Embedding, recipe: Recipe) -> list[int]:
    """Give the bytes that a row has of each vector column that the embedding makes."""
    widths = [4 * recipe.dimension]
    for column in embedding.columns.values():
        width = recipe.dimension
        if column.of != "vector" and recipe.model is not None:
            width = recipe.model.dimension  # only the primary vector is reduced
        widths.append(width * (2 if column.dtype == "float16" else 4))
    return widths


def forecast_lines(shape: RunShape, frames: Sequence[pa.RecordBatch]) -> tuple[Lines, Disk]:
    """Say what the lines will do, and what is on disk after them.

    Args:
        shape: of the run.
        frames: the sample as the copy would write it.
    """
    frames = [batch for batch in frames if batch.num_rows]
    if not shape.frames or not frames:
        return Lines(shape.shards), Disk()
    steps = _Steps(MeasuredFrames(frames), shape.fragments, shape.shards * _LEDGER_ENTRY)
    copied = steps.copy()
    if not shape.embedding.makes_vectors:
        steps.finish()
        return Lines(shape.shards, shape.frames), Disk(copied, steps.rewritten, 0, shape.books)
    steps.merge()
    rows = RowsToEmbed(shape.embedding, shape.recipe, shape.copied_dimension, shape.frames)
    piece_rows = rows.in_a_piece(device_here(shape.embedding))
    pieces = sum(-(-size // piece_rows) for size in steps.fragments)
    vectors = steps.replace_vectors(4 * shape.copied_dimension, shape.vector_bytes)
    steps.finish()
    scratch = pieces_bytes(shape.frames, pieces, shape.vector_bytes)
    disk = Disk(copied, steps.rewritten, vectors, shape.books, scratch)
    return Lines(shape.shards, shape.frames, pieces, piece_rows), disk


def pieces_bytes(rows: int, pieces: int, vector_bytes: int) -> int:
    """Give the bytes of the pieces' files while the vectors are made."""
    return rows * (vector_bytes + _ORIGIN) + pieces * _COLUMN_FILE


def device_here(embedding: Embedding) -> str:
    """Tell what a model that this process has loaded would run on: ``cpu`` or ``cuda``."""
    is_torch = embedding.endpoint is None and embedding.engine == "torch"
    torch = sys.modules.get("torch")
    return "cuda" if is_torch and torch is not None and torch.cuda.is_available() else "cpu"


@dataclass(slots=True)
class _Steps:
    """The fragments of a target while a run goes on.

    Attributes:
        measured: what the frames of the copy take on disk.
        fragments: rows of each.
        ledger: bytes that each file of the steps after the copy has of the ledger.
        added: bytes of a row that the frames of the copy do not have.
        size: bytes of the fragments' files, replaced columns among them.
        rewritten: bytes that compactions wrote so far.
    """

    measured: MeasuredFrames
    fragments: list[int]
    ledger: int
    added: int = 0
    size: int = 0
    rewritten: int = 0

    def copy(self) -> int:
        """Give the bytes that the copy writes."""
        counts = Counter(self.fragments)
        self.size = round(sum(self.measured.file_bytes(n) * count for n, count in counts.items()))
        return self.size

    def merge(self) -> None:
        """Merge small fragments: what is merged is written again."""
        rows = sum(self.fragments)
        groups = merge_small(self.fragments, full_fragment_rows(rows, self.size))
        merged = [sum(group) for group in groups if len(group) > 1]
        written = sum(map(self._file_bytes, merged))
        self.rewritten += written
        self.size = round(self.size * (rows - sum(merged)) / rows) + written
        self.fragments = [sum(group) for group in groups]

    def replace_vectors(self, old_bytes: int, new_bytes: int) -> int:
        """Put new vectors in place of the old ones, whose bytes stay in the old files.

        Returns:
            the bytes of the new files.
        """
        files = len(self.fragments) * (_COLUMN_FILE + self.ledger)
        written = sum(self.fragments) * new_bytes + files
        self.size += written
        self.added = new_bytes - old_bytes
        return written

    def finish(self) -> None:
        """Add the headers, a fragment of few rows, and merge again."""
        self.fragments = [*self.fragments, 1]
        self.size += self._file_bytes(1)
        self.rewritten += self._file_bytes(1)
        self.merge()

    def _file_bytes(self, rows: int) -> int:
        """Give the bytes of a file that holds all columns, written after the copy."""
        return round(self.measured.file_bytes(rows)) + self.added * rows + self.ledger
