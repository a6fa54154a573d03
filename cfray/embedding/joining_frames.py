"""Make the vectors of frames that are about to join a finished target.

The frames are few, and no dataset holds them yet: they lie in ``scratch/`` as pieces, and the
same line computes them.  Whatever the policy, a model makes their vectors of their texts: since a
record was set aside, the map may have been learned anew, from another space than its old vector's.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cfray.conversion import chunk_frames
from cfray.embedders.recipe import Recipe
from cfray.embedding.compute import NEW, ComputePiece, PieceReceipt, read_range, read_scratch
from cfray.embedding.line import EmbeddingLine
from cfray.embedding.pieces import Piece, VectorTask, joining_piece_rows
from cfray.embedding.vectors import made_fields
from cfray.engine import failpoint
from cfray.errors import ConfigError
from cfray.frames.schema import ORIGIN
from cfray.job.spec import JobSpec
from cfray.report.run import Run
from cfray.target.ledger import EntryKind


@dataclass(frozen=True)
class ComputeFrames(ComputePiece):
    """Compute pieces of frames that lie in the scratch folder; a row's id is its number."""

    def read_rows(self, piece: Piece, first: int, rows: int) -> pa.RecordBatch:
        """Read rows of a piece."""
        data = read_scratch(self.task.scratch, f"{piece.files}.arrow")
        frames = pa.ipc.open_file(data).read_all().combine_chunks().to_batches()[0]
        return frames.slice(piece.first + first, rows)


@dataclass(frozen=True, slots=True)
class JoiningVectors:
    """The vectors of frames that will join.

    Attributes:
        columns: name of the target's column -> its values.
        refused: row -> why it cannot have the vector that the job asks for.
        counts: figures of the texts that the model was given, refused ones included.
    """

    columns: dict[str, pa.Array]
    refused: dict[int, str]
    counts: Counter[str]


def joining_job(run: Run) -> JobSpec:
    """Give the job by which records are converted that join: a remapped target embeds their text.

    Raises:
        ConfigError: the job's policy is not the policy that made the target's vectors, or it asks
            for other columns than the target has.
    """
    recipe, embedding = run.target.recipe(), run.job.embedding
    if recipe.policy != embedding.policy:
        raise ConfigError(
            f"policy {recipe.policy} made the vectors of {run.job.target.uri}, but the job file "
            f"says {embedding.policy}",
            "use the job file of the last cfray embed (or migrate)",
        )
    _check_columns(run, recipe)
    if embedding.policy != "remap":
        return run.job
    from_text = embedding.model_copy(update={"policy": "regenerate", "remap": None})
    return run.job.with_embedding(from_text)


def _check_columns(run: Run, recipe: Recipe) -> None:
    """Refuse rows of other columns than the target has.

    Raises:
        ConfigError: names what was changed in the section ``embedding``.
    """
    spec, schema = run.job.embedding, run.target.open().schema
    fields = {field.name: field for field in made_fields(spec, recipe)}
    names = {name for name in schema.names if name.startswith("x_vector_")}
    of_source = {f"x_vector_{name}" for name in run.plan.shape.vectors}
    further = {*names, *fields} - {"vector", ORIGIN} - of_source
    is_same = all(
        name in names and name in fields and schema.field(name).type == fields[name].type
        for name in further
    )
    reduced = "" if spec.reduce is None else f"{spec.reduce.method} {spec.reduce.dimension}"
    method = "truncate" if recipe.reduction == "truncate" else "pca"
    changed = {
        "columns": not is_same,
        "reduce": reduced != (f"{method} {recipe.dimension}" if recipe.reduction else ""),
        "chunk": (spec.chunk is not None) != (chunk_frames.FIELD.name in schema.names),
    }
    for key, is_changed in changed.items():
        if is_changed:
            raise ConfigError(
                f"embedding.{key} is not what made the rows of {run.job.target.uri}, and a replay "
                "brings rows in that are like them",
                "undo the change; cfray embed changes columns and reduce for all rows",
            )


def make_joining_vectors(
    run: Run, frames: pa.RecordBatch, kind: EntryKind = EntryKind.REPLAY
) -> JoiningVectors:
    """Make the vectors of frames.

    Args:
        run: a command that brings rows into a finished target.
        frames: documents and their chunks, as the copy would have written them.
        kind: of the entry that brings them.

    Raises:
        CfrayError: the model failed as a whole; nothing was committed.
    """
    recipe = _recipe(run)
    task = VectorTask.of(run, joining_job(run), recipe, kind)
    line = EmbeddingLine.of(run, recipe)
    pieces = _publish(task, frames, joining_piece_rows(task, line.settings.device, frames.num_rows))
    receipts: dict[str, PieceReceipt] = {}
    with closing(line.compute(task, pieces, ComputeFrames)) as computed:
        for receipt in computed:
            receipts[receipt.piece] = receipt
            failpoint.reach("piece")
    line.report(run)
    columns = _read_columns(task, [(piece, receipts[piece.name]) for piece in pieces])
    refused = {row: why for receipt in receipts.values() for row, why in receipt.refused.items()}
    # a row that is refused now is tried again by the next replay: the model may be mended by then
    task.remove_scratch(pieces)
    counts = sum((Counter(receipt.counts) for receipt in receipts.values()), Counter())
    return JoiningVectors(columns, refused, counts)


def _recipe(run: Run) -> Recipe:
    """Give how the vectors are made: by the target's model, long texts as the job says now."""
    recipe = run.target.recipe()
    if recipe.model is not None:
        model = replace(recipe.model, on_long_text=run.job.embedding.on_long_text)
        recipe = replace(recipe, model=model)
    return replace(recipe, policy="regenerate") if recipe.policy == "remap" else recipe


def _publish(task: VectorTask, frames: pa.RecordBatch, rows: int) -> list[Piece]:
    """Put what vectors are made of into the scratch folder, and divide it."""
    columns = ["uuid", "text_content", "title", "context", "vector", "record_type"]
    columns += [name for name in frames.schema.names if name in ("x_vector_origin", "x_chunk_of")]
    frames = frames.select(columns)
    frames = frames.append_column("_rowid", pa.array(np.arange(frames.num_rows), pa.uint64()))
    file = io.BytesIO()
    with pa.ipc.new_file(file, frames.schema) as writer:
        writer.write_batch(frames)
    digest = hashlib.sha256(file.getvalue()).hexdigest()[:12]
    task.scratch.publish(f"{digest}.arrow", file.getvalue())
    return [
        Piece(0, digest, first, min(rows, frames.num_rows - first))
        for first in range(0, frames.num_rows, rows)
    ]


def _read_columns(
    task: VectorTask, computed: list[tuple[Piece, PieceReceipt]]
) -> dict[str, pa.Array]:
    tables = [
        read_range(task, piece, file) for piece, receipt in computed for file in receipt.files
    ]
    table = pa.concat_tables([item.replace_schema_metadata(None) for item in tables])
    names = [item.name for item in made_fields(task.embedding, task.recipe)]
    return {name: pa.concat_arrays(table[f"{NEW}{name}"].chunks) for name in names}
