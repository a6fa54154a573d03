"""Compute the new columns of one piece and keep them until the swap.  Body of a line's item.

A piece is computed when its receipt is there: it names the files that hold the piece's columns,
in the order of its rows.  Usually that is one file; a piece that killed its actor is computed
range by range (``ranges``), and the row that did it is refused.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion import chunk_frames
from cfray.copying.write import new_nonce
from cfray.embedding.pieces import Piece, VectorTask
from cfray.embedding.ranges import RangedItem, RangeFile
from cfray.embedding.vectors import NewVectors, VectorMaker, made_fields
from cfray.errors import TargetUnavailable
from cfray.frames.schema import ORIGIN
from cfray.records.vectors import matrix, vector_lists
from cfray.runtime.filesystems import Folder
from cfray.target.documents import parse_document

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

#: Begin of a new column's name in a piece's file, and while it is joined to a fragment.
NEW = "cfray_new_"
#: A text that every model can embed.
_OTHER_TEXT = "a text"


@dataclass(frozen=True, slots=True)
class PieceReceipt:
    """What came of a piece.

    Attributes:
        piece: its name.
        files: that hold the new columns, in the order of the rows.
        refused: row id -> why the frame cannot have the vector that the job asks for.
        counts: figures for the report.
    """

    piece: str
    files: list[RangeFile]
    refused: dict[int, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Write the receipt as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> PieceReceipt:
        """Read a receipt.

        Raises:
            ValueError, TypeError, LookupError: it is damaged.
        """
        body = json.loads(data)
        refused = {int(row): str(reason) for row, reason in body["refused"].items()}
        files = [RangeFile(**file) for file in body["files"]]
        return cls(body["piece"], files, refused, dict(body["counts"]))

    @classmethod
    def read(cls, folder: Folder, name: str, *, of: str) -> PieceReceipt:
        """Read a receipt from the folder of the receipts.

        Args:
            folder: of the receipts.
            name: of the file.
            of: name of the piece.

        Raises:
            TargetUnavailable: the file is gone.
            TargetError: it is damaged, or another piece's.
        """

        def parse(data: bytes) -> PieceReceipt:
            receipt = cls.from_bytes(data)
            if receipt.piece != of:
                raise ValueError(receipt.piece)
            return receipt

        data = read_scratch(folder, name)
        remedy = "remove this file, then run the same command again"
        return parse_document(data, f"{folder.uri}/{name}", parse, remedy=remedy)


def read_range(task: VectorTask, piece: Piece, file: RangeFile) -> pa.Table:
    """Read the new columns of a finished range; forget a piece that is gone or damaged.

    Raises:
        TargetUnavailable: the same command computes the piece anew.
    """
    folder = task.scratch.child(piece.name)
    data = folder.read(file.name)
    if data is None or not file.is_content(data):
        task.forget(piece)
        state = "is gone" if data is None else "is damaged"
        raise TargetUnavailable(
            f"{folder.uri}/{file.name} {state}: it held vectors that were computed",
            "run the same command again: it computes them anew",
        )
    return pa.ipc.open_file(data).read_all()


def read_scratch(folder: Folder, name: str) -> bytes:
    """Read a file that this command needs.

    Raises:
        TargetUnavailable: it is gone.
    """
    data = folder.read(name)
    if data is None:
        raise TargetUnavailable(
            f"{folder.uri}/{name} was removed during the run", "run the same command again"
        )
    return data


@dataclass(frozen=True)
class ComputePiece:
    """Compute pieces, each with a receipt at the end."""

    task: VectorTask
    maker: VectorMaker

    def __call__(self, piece: Piece) -> PieceReceipt:
        """Make the new columns of a piece's rows and publish the receipt."""
        work = _PieceWork(self, piece)
        files = RangedItem(self.task.scratch, piece.name, piece.rows, epoch=self.task.epoch).run(
            work
        )
        receipt = self._receipt(piece, files)
        self.task.receipts.publish(f"{piece.name}.{new_nonce()}.json", receipt.to_bytes())
        return receipt

    def _receipt(self, piece: Piece, files: list[RangeFile]) -> PieceReceipt:
        counts: Counter[str] = Counter()
        refused: dict[int, str] = {}
        for file in files:
            metadata = read_range(self.task, piece, file).schema.metadata
            counts.update(json.loads(metadata[b"counts"]))
            refused |= json.loads(metadata[b"refused"])
        by_row_id = {int(row): reason for row, reason in refused.items()}
        return PieceReceipt(piece.name, files, by_row_id, dict(counts))

    def read_rows(self, piece: Piece, first: int, rows: int) -> pa.RecordBatch:
        """Read rows of a piece, deleted ones with a null in ``_rowid``."""
        dataset = self.task.dataset
        columns = [*self.maker.read_columns, "record_type"]
        if chunk_frames.FIELD.name in dataset.schema.names:
            columns.append(chunk_frames.FIELD.name)
        scanner = dataset.get_fragment(piece.fragment).scanner(
            columns=columns,
            offset=piece.first + first,
            limit=rows,
            with_row_id=True,
            include_deleted_rows=True,
        )
        return scanner.to_table().combine_chunks().to_batches()[0]

    def new_columns(self, rows: pa.RecordBatch) -> bytes:
        """Make the new columns of rows as the content of a range's file.

        Rows that are deleted or headers have zeros and nulls: a header's vector is a centroid of
        the documents' vectors, and ``headers`` writes it after the swap.
        """
        is_document = pc.and_(
            pc.equal(rows.column("record_type"), "document"), rows.column("_rowid").is_valid()
        ).to_numpy(zero_copy_only=False)
        is_final = is_document & already_final(self.task, rows)
        numbers = np.flatnonzero(is_document & ~is_final)
        frames = rows.take(pa.array(numbers))
        new = self.maker(frames)
        columns = {name: _spread(column, numbers, rows) for name, column in new.columns.items()}
        columns["vector"] = self._vectors(rows, new, numbers, is_final)
        columns[ORIGIN] = pc.if_else(pa.array(is_final), rows.column(ORIGIN), columns[ORIGIN])
        counts = new.counts + Counter({"vectors_left_alone": int(is_final.sum())})
        row_ids = frames.column("_rowid").to_pylist()
        return _range_file(columns, counts, {row_ids[n]: why for n, why in new.refused.items()})

    def _vectors(
        self, rows: pa.RecordBatch, new: NewVectors, numbers: Rows, is_final: Mask
    ) -> pa.FixedSizeListArray:
        """Give the primary vectors: the new ones, those that are final, and zeros."""
        values = np.zeros((rows.num_rows, self.maker.recipe.dimension), np.float32)
        is_null = np.zeros(rows.num_rows, np.bool_)
        values[numbers] = matrix(new.columns["vector"])
        is_null[numbers] = new.columns["vector"].is_null().to_numpy(zero_copy_only=False)
        if is_final.any():
            values[is_final] = matrix(rows.column("vector"))[is_final]
        return vector_lists(values, is_null, pa.float32())


def already_final(task: VectorTask, rows: pa.RecordBatch) -> Mask:
    """Tell which rows have a vector already that the new recipe would make.

    Under ``regenerate`` with the model and the reduction that the target has, these are the
    vectors that this model made of a text: for example the exact vectors of a remapped target.

    Args:
        task: what is made.
        rows: of the target, with ``x_vector_origin``.
    """
    recipe, old = task.recipe, task.old_recipe
    same_model = (recipe.model, recipe.reduction) == (old.model, old.reduction)
    if recipe.policy != "regenerate" or not same_model or task.embedding.columns:
        return np.zeros(rows.num_rows, np.bool_)
    is_regenerated = pc.equal(rows.column(ORIGIN), recipe.origins["regenerated"])
    return cast("Mask", pc.fill_null(is_regenerated, False).to_numpy(zero_copy_only=False))


class _PieceWork:
    """The work on the ranges of one piece."""

    def __init__(self, compute: ComputePiece, piece: Piece) -> None:
        self.computing, self.piece = compute, piece

    def compute(self, first: int, rows: int) -> bytes:
        return self.computing.new_columns(self.computing.read_rows(self.piece, first, rows))

    def refuse(self, row: int, reason: str) -> bytes:
        """Give the row zeros and nulls; it leaves the target with the swap."""
        rows = self.computing.read_rows(self.piece, row, 1)
        fields = made_fields(self.computing.maker.embedding, self.computing.maker.recipe)
        columns = {field.name: pa.nulls(1, field.type) for field in fields}
        zeros = np.zeros((1, self.computing.maker.recipe.dimension), np.float32)
        columns["vector"] = vector_lists(zeros, np.zeros(1, np.bool_), pa.float32())
        return _range_file(columns, Counter(), {rows.column("_rowid")[0].as_py(): reason})

    def embed_another(self, row: int) -> None:
        """Embed a text of no record, with the model itself: the cache could answer for it."""
        if self.computing.maker.model is not None:
            self.computing.maker.model.embed_queries(pa.array([_OTHER_TEXT]))


def _spread(column: pa.Array, numbers: Rows, rows: pa.RecordBatch) -> pa.Array:
    """Put values at their rows, and nulls between them."""
    positions = np.zeros(rows.num_rows, np.int64)
    positions[numbers] = np.arange(len(numbers))
    is_elsewhere = np.ones(rows.num_rows, np.bool_)
    is_elsewhere[numbers] = False
    return column.take(pa.array(positions, mask=is_elsewhere))


def _range_file(
    columns: dict[str, pa.Array], counts: Counter[str], refused: dict[int, str]
) -> bytes:
    table = pa.table({f"{NEW}{name}": column for name, column in columns.items()})
    metadata = {"counts": json.dumps(counts), "refused": json.dumps(refused)}
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema.with_metadata(metadata)) as writer:
        writer.write_table(table)
    return file.getvalue()
