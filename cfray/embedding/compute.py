"""Compute the vectors of one piece and keep them.  Body of a Ray task.

A piece is computed when its file is there.  A task that Ray repeats writes the same file
again, and nothing in the target refers to it.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.embed import ORIGIN, count_origins
from cfray.embedding.pieces import NEW_ORIGIN, NEW_VECTOR, Piece, Reembedding
from cfray.records.vectors import matrix, vector_lists

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ComputePiece:
    """Compute the vectors of one piece."""

    reembedding: Reembedding

    def __call__(self, piece: Piece) -> None:
        """Read the piece's rows, make their vectors and publish the piece's file."""
        rows = self._read(piece)
        vectors, origins, counts = self._new_columns(rows)
        table = pa.table({NEW_VECTOR: vectors, NEW_ORIGIN: origins}).replace_schema_metadata(
            {"counts": json.dumps(dict(counts))}
        )
        file = io.BytesIO()
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        self.reembedding.scratch.publish(piece.file, file.getvalue())

    def _read(self, piece: Piece) -> pa.RecordBatch:
        dataset = self.reembedding.dataset
        columns = ["uuid", "text_content", "vector", "record_type"]
        if ORIGIN in dataset.schema.names:
            columns.append(ORIGIN)
        scanner = dataset.get_fragment(piece.fragment).scanner(
            columns=columns, offset=piece.first, limit=piece.rows
        )
        return scanner.to_table().combine_chunks().to_batches()[0]

    def _new_columns(
        self, rows: pa.RecordBatch
    ) -> tuple[pa.FixedSizeListArray, pa.StringArray, Counter[str]]:
        """Make the vectors of the documents among the rows, and say how each was made.

        A header's vector stays zero here: it is a centroid of the documents' vectors, and
        ``headers`` writes it after the swap.
        """
        embed = self.reembedding.embed
        values = np.zeros((rows.num_rows, embed.shape.dimension), np.float32)
        origins = np.full(rows.num_rows, None, object)
        is_null = np.zeros(rows.num_rows, np.bool_)
        is_final = self._already_final(rows)
        counts = Counter({"vectors_left_alone": int(is_final.sum())})
        if is_final.any():
            values[is_final] = matrix(rows.column("vector"))[is_final]
            origins[is_final] = embed.recipe.origins["regenerated"]
        is_document = pc.equal(rows.column("record_type"), "document")
        remaining = np.flatnonzero(is_document.to_numpy(zero_copy_only=False) & ~is_final)
        if len(remaining):
            batch = rows.take(pa.array(remaining))
            new = embed.make_vectors(batch, _without_vector(batch))
            values[remaining] = embed.reduce(new.values)
            origins[remaining] = new.origin.to_pylist()
            # The vectors' origins are counted below, over all rows of the piece.
            counts.update(
                {name: n for name, n in new.counts.items() if not name.startswith("vectors_")}
            )
            counts["missing_vectors"] += int(new.missing.sum())
            if embed.job.embedding.missing_vector == "null":
                is_null[remaining] = new.missing
        origin_column = pa.array(origins, pa.string())
        counts.update(count_origins(origin_column))
        return vector_lists(values, is_null, pa.float32()), origin_column, +counts

    def _already_final(self, rows: pa.RecordBatch) -> Mask:
        """Tell which vectors are already what the new recipe would make.

        Under ``regenerate`` with the model and the reduction that the target has, these are the
        vectors that this model made of a text: for example the exact vectors of a remapped target.
        """
        recipe, old = self.reembedding.embed.recipe, self.reembedding.old_recipe
        if recipe.policy != "regenerate" or (recipe.model, recipe.reduction) != (
            old.model,
            old.reduction,
        ):
            return np.zeros(rows.num_rows, np.bool_)
        is_regenerated = pc.equal(rows.column(ORIGIN), recipe.origins["regenerated"])
        return cast("Mask", pc.fill_null(is_regenerated, False).to_numpy(zero_copy_only=False))


def _without_vector(frames: pa.RecordBatch) -> Mask:
    """Tell which frames of the target have no vector; a zero vector stands for none."""
    return np.logical_not(matrix(frames.column("vector")).any(axis=1))
