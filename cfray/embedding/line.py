"""The embedding line: pieces of the target, or texts of a sample, to actors that hold the model.

Ray Data runs it, in a pool that grows and shrinks with the work.  A piece leaves its vectors in
a file and gives back what it took; the vectors of a sample, at most some 20,000, come back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.embedders.batches import BATCH_ROWS, divide_texts, join_batches
from cfray.embedders.recipe import Recipe
from cfray.embedders.texts import EmbeddedTexts
from cfray.embedding.compute import ComputePiece, PieceReceipt
from cfray.embedding.model import ActorModel, Figures, ModelSettings, Starts, Work
from cfray.embedding.pieces import Piece, VectorTask
from cfray.embedding.vectors import VectorMaker
from cfray.engine.lines import ActorLine, LineOptions
from cfray.records.vectors import Floats
from cfray.report.run import Run


@dataclass(slots=True)
class EmbeddingLine:
    """The line of one command.

    Attributes:
        job: its name.
        settings: of the model.
        figures: what the actors did so far.
        operators: of the line's executions so far, from Ray Data's statistics.
    """

    job: str
    settings: ModelSettings
    figures: Figures = field(default_factory=Figures)
    operators: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, recipe: Recipe) -> EmbeddingLine:
        """Give the line of a command whose vectors a model makes."""
        marks = run.state.scratch.child(f"starts-{run.target.epoch}/embedding")
        return cls(run.job.name, ModelSettings.of(run.job, recipe.model, marks))

    def report(self, run: Run) -> None:
        """Add to the report what the line did in this run."""
        run.report.operators["embed"] = self.operators
        if self.figures.spans:
            self.figures.report(run)

    def compute(
        self,
        task: VectorTask,
        pieces: Sequence[Piece],
        how: type[ComputePiece] = ComputePiece,
    ) -> Generator[PieceReceipt]:
        """Compute pieces; yield the receipt of each when it is published.

        Args:
            task: what is made.
            pieces: that are still to be computed.
            how: reads the rows of a piece and computes them.

        Raises:
            CfrayError: the model failed as a whole; the receipts that are there stay.
        """
        open_work = partial(_PieceActor, self.settings, task, how)
        with closing(self._run("embed_piece", open_work, pieces)) as results:
            for receipt, work in results:
                self.figures.add(work)
                yield receipt

    def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed the texts of a sample.

        Raises:
            CfrayError: the model failed as a whole.
        """
        return join_batches(self._embed_batches(column, "embed"))

    def embed_queries(self, column: pa.StringArray) -> Floats:
        """Embed the queries of a sample, none of them blank.

        Raises:
            CfrayError: the model failed as a whole.
        """
        return np.concatenate(self._embed_batches(column, "embed_queries"))

    def flush(self) -> None:
        """Do nothing: each item's vectors are in the cache when the item is done."""

    def _embed_batches(self, column: pa.StringArray, method: str) -> list[Any]:
        batches = list(enumerate(divide_texts(column, BATCH_ROWS[self.settings.device])))
        open_work = partial(_SampleActor, self.settings, method)
        by_number = {}
        with closing(self._run("embed_sample", open_work, batches)) as results:
            for number, vectors, work in results:
                self.figures.add(work)
                by_number[number] = vectors
        return [by_number[number] for number, _ in batches]

    def _run(
        self, step: str, open_work: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Generator[Any]:
        loads_before = len(self.settings.loads.list_names())
        options = LineOptions(
            self.job,
            step,
            cpus=self.settings.cpus,
            gpus=1 if self.settings.device == "cuda" else 0,
        )
        line = ActorLine[Any, Any](options, open_work=open_work, pool=self.settings.pool)
        try:
            with closing(line.run(items)) as results:
                yield from results
        finally:
            self.operators += line.operators
            self.figures.loaded += len(self.settings.loads.list_names()) - loads_before


class _PieceActor:
    """Computes pieces with a model that it loads once."""

    def __init__(self, settings: ModelSettings, task: VectorTask, how: type[ComputePiece]) -> None:
        self.model, self.task = ActorModel(settings), task
        # without a model in the recipe no text is embedded, not even to try whether an actor lives
        model = None if task.recipe.model is None else self.model
        self.compute = how(task, VectorMaker(task.embedding, task.recipe, task.uri, model))

    def __call__(self, piece: Piece) -> tuple[PieceReceipt, Work]:
        begin = self.model.begin(piece.name)
        if self.task.recipe.policy == "regenerate":
            # loaded before a range is begun: an actor that dies over the model blames no row
            _ = self.model.model
        receipt = self.compute(piece)
        return receipt, self.model.account(begin)


class _SampleActor:
    """Embeds batches of a sample with a model that it loads once."""

    def __init__(self, settings: ModelSettings, method: str) -> None:
        self.model, self.method = ActorModel(settings), method

    def __call__(
        self, batch: tuple[int, pa.StringArray]
    ) -> tuple[int, EmbeddedTexts | Floats, Work]:
        number, column = batch
        item = f"{self.method}-{number}"
        begin = self.model.begin(item)
        marks = Starts(self.model.settings.marks.child(f"starts/{item}"))
        marks.begin("embedding actors died {times} times over the same texts of the sample")
        vectors = getattr(self.model, self.method)(column)
        marks.end()
        return number, vectors, self.model.account(begin)
