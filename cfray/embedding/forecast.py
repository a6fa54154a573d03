"""``cfray embed --plan``: what making the vectors of a target anew would do; nothing is written.

A sample of the target's own rows, documents and chunks alike, is shown to the new model on the
driver, without Ray.  Pieces and rows are counted; time, cost and disk are estimates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset, LanceFragment

from cfray.conversion import chunk_frames
from cfray.embedders.recipe import Recipe
from cfray.embedding.compute import already_final
from cfray.embedding.pieces import VectorTask, divide, piece_rows
from cfray.embedding.reembed import plan_reembedding
from cfray.embedding.sample import spread_evenly
from cfray.frames.schema import ORIGIN
from cfray.planning.forecast import Forecast
from cfray.planning.line_forecast import device_here, made_bytes, pieces_bytes
from cfray.planning.model_forecast import ModelForecast
from cfray.planning.show import size_text
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.target.file_sizes import full_fragment_rows, merge_small
from cfray.target.ledger import EntryKind

#: Rows that are looked at, and fragments and places in each that they are read from.
_SAMPLE_ROWS, _SAMPLE_FRAGMENTS, _PLACES = 4_096, 16, 8


@dataclass(frozen=True, slots=True)
class EmbeddingForecast:
    """What ``cfray embed`` would do.

    Attributes:
        target: its address.
        old: how the present vectors were made.
        recipe: of the new ones; None where they are as the job file says.
        rows: whose vectors would be made.
        chunks: rows among these that are chunks.
        sampled: rows that the model was shown.
        pieces: of the embedding.
        piece_rows: that a piece has at most.
        vectors: bytes of the new columns' files.
        compacted: bytes that merging small fragments would write again.
        scratch: bytes beside these while the vectors are made.
        embedding: what the model would do with the sample; the keys of ``plan --json``.
        notes: facts for the operator.
    """

    target: str
    old: Recipe
    recipe: Recipe | None
    rows: int = 0
    chunks: int = 0
    sampled: int = 0
    pieces: int = 0
    piece_rows: int = 0
    vectors: int = 0
    compacted: int = 0
    scratch: int = 0
    embedding: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Give what ``cfray embed --plan --json`` prints, as parsed JSON."""
        new = self.recipe or self.old
        return {
            "target": self.target,
            "nothing_to_do": self.recipe is None,
            "policy": new.policy,
            "model": new.model.name if new.model else None,
            "dimension": new.dimension,
            "old_dimension": self.old.dimension,
            "rows": self.rows,
            "chunks": self.chunks,
            "lines": {"pieces": self.pieces, "piece_rows": self.piece_rows},
            "disk": self.vectors + self.compacted,
            "disk_parts": {
                "vectors": self.vectors,
                "compacted": self.compacted,
                "pieces": self.scratch,
            },
            "disk_peak": self.vectors + self.compacted + self.scratch,
            "sampled": self.sampled,
            "embedding": self.embedding,
            "notes": self.notes,
        }

    def sentences(self) -> list[str]:
        """Say the same for people."""
        if self.recipe is None:
            return [f"{self.target}: {sentence}" for sentence in self.notes]
        chunks = f", {counted(self.chunks, 'chunk')} among them" if self.chunks else ""
        seconds = self.embedding.get("seconds")
        time = f"; the model needs about {seconds:,.0f} s on this machine" if seconds else ""
        return [
            (
                f"{self.target}: {counted(self.rows, 'row')}{chunks}, in "
                f"{counted(self.pieces, 'piece')} of at most {self.piece_rows:,} rows{time}"
            ),
            f"vectors: {_vectors(self.old)} now, {_vectors(self.recipe)} then",
            *self.notes,
            (
                f"writes about {size_text(self.vectors)} of new vectors and "
                f"{size_text(self.compacted)} where small files are merged, with "
                f"{size_text(self.scratch)} more while the vectors are made; the old vectors' "
                "bytes stay until cfray cleanup finds no version that refers to them"
            ),
            "nothing was written",
        ]


def forecast_embedding(run: Run) -> EmbeddingForecast:
    """Say what making the vectors anew would do.

    Args:
        run: a command that only looks at a target which ``check_reembeddable`` accepts.

    Raises:
        ConfigError: the model cannot be loaded.
        EmbeddingError: the embedding server refuses.
        EmbeddingUnavailable: the embedding server does not answer.
    """
    old = run.target.recipe()
    with closing(ModelForecast(run.job)) as model:
        recipe = plan_reembedding(run, model)
        if recipe is None:
            return EmbeddingForecast(run.job.target.uri, old, None, notes=run.report.notes)
        task = VectorTask.of(run, run.job, recipe, EntryKind.EMBED)
        rows, chunks = _count_rows(task.dataset)
        forecast = _measure(task, model, rows)
    size = piece_rows(task, device_here(run.job.embedding))
    pieces = len(divide(task, size))
    new_bytes = sum(made_bytes(run.job.embedding, recipe))
    return EmbeddingForecast(
        *(run.job.target.uri, old, recipe, rows, chunks),
        sampled=forecast.sampled,
        pieces=pieces,
        piece_rows=size,
        vectors=rows * new_bytes,
        compacted=_compacted_bytes(task, new_bytes),
        scratch=pieces_bytes(rows, pieces, new_bytes),
        embedding=forecast.embedding,
        notes=forecast.notes,
    )


def _measure(task: VectorTask, model: ModelForecast, rows: int) -> Forecast:
    """Show the model a sample of the rows whose vectors it has not made already."""
    sample = list(_sample(task))
    sampled = sum(batch.num_rows for batch in sample)
    frames = [batch.filter(pa.array(~already_final(task, batch))) for batch in sample]
    rows_to_make = rows * sum(batch.num_rows for batch in frames) // max(1, sampled)
    forecast = Forecast(notes=model.notes(), sampled=sampled)
    if rows_to_make < rows:
        left_alone = counted(rows - rows_to_make, "row has", "rows have")
        forecast.notes.append(f"about {left_alone} this model's vector already")
    model.measure(forecast, frames, rows_to_make)
    return forecast


def _vectors(recipe: Recipe) -> str:
    by = f" by {recipe.model.name}" if recipe.model else ""
    return f"{recipe.dimension} wide{by} (policy {recipe.policy})"


def _count_rows(dataset: LanceDataset) -> tuple[int, int]:
    """Count the rows that have vectors of their own, and the chunks among them."""
    rows = dataset.count_rows("record_type = 'document'")
    name = chunk_frames.FIELD.name
    has_chunks = name in dataset.schema.names
    return rows, dataset.count_rows(f"{name} IS NOT NULL") if has_chunks else 0


def _sample(task: VectorTask) -> Iterator[pa.RecordBatch]:
    """Read documents and chunks at some places of some fragments."""
    dataset = task.dataset
    further = {column.of for column in task.embedding.columns.values()} - {"vector"}
    columns = ["text_content", "record_type", ORIGIN, *sorted(further)]
    if chunk_frames.FIELD.name in dataset.schema.names:
        columns.append(chunk_frames.FIELD.name)
    fragments = spread_evenly(dataset.get_fragments(), _SAMPLE_FRAGMENTS)
    share = -(-_SAMPLE_ROWS // max(1, len(fragments)))
    for fragment in fragments:
        for batch in _read_places(fragment, columns, share):
            yield batch.filter(pc.equal(batch.column("record_type"), "document"))


def _read_places(
    fragment: LanceFragment, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Read so many rows of a fragment, in runs that are spread evenly; all where it has fewer."""
    present = fragment.count_rows()
    places = _PLACES if present > rows else 1
    run_rows = -(-min(rows, present) // places)
    for place in range(places):
        first = (present - run_rows) * place // max(1, places - 1)
        yield from fragment.to_batches(columns=list(columns), offset=first, limit=run_rows)


def _compacted_bytes(task: VectorTask, new_bytes: int) -> int:
    """Give the bytes that merging small fragments writes after the swap, headers among them."""
    fragments = [fragment.metadata for fragment in task.dataset.get_fragments()]
    rows = [fragment.physical_rows for fragment in fragments]
    sizes = [
        sum(file.file_size_bytes or 0 for file in fragment.files) + count * new_bytes
        for fragment, count in zip(fragments, rows, strict=True)
    ]
    full_rows = full_fragment_rows(sum(rows), sum(sizes))
    groups = merge_small([*rows, 1], full_rows)  # the new headers are a fragment of few rows
    live = [
        size - count * 4 * task.old_recipe.dimension
        for size, count in zip(sizes, rows, strict=True)
    ]
    first, written = 0, 0
    for group in groups:
        if len(group) > 1:
            written += sum(live[first : first + len(group)])
        first += len(group)
    return written
