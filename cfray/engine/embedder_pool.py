"""The pool of embedding actors as the tasks see it: texts in, vectors out.

Only texts and vectors pass through the pool, never records.  So a single large shard uses
every core, and the task of a shard alone still accounts for all of its records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.embedders.base import Identity
from cfray.embedders.spec import Actors, Embedding
from cfray.embedders.texts import Chunks, EmbeddedTexts
from cfray.engine import cluster, throttle
from cfray.engine.dispatch import Dispatcher, Figures, LoadRequest
from cfray.engine.tasks import result
from cfray.records.vectors import Floats

#: Texts of a batch, and their bytes: enough to sort texts into groups of equal length, and few
#: enough that a kill costs seconds.
_BATCH_ROWS = {"cpu": 512, "cuda": 4_096}
_BATCH_BYTES = 4 * 1024 * 1024
#: Actors that ask a server at once unless the job says otherwise: they wait, and cost no core.
_ENDPOINT_ACTORS = 8


@dataclass(frozen=True)
class EmbedderPool:
    """The pool as a worker sees it; pickles.

    Attributes:
        actor: of the dispatcher.
        batch_rows: texts of a batch.
    """

    actor: Any
    batch_rows: int

    def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed texts, batch by batch, on whichever actors are free.

        Raises:
            CfrayError: the model failed as a whole.
        """
        batches = divide_texts(column, self.batch_rows)
        references = [self.actor.embed.remote(batch) for batch in batches]
        return join_batches([result(reference) for reference in references])

    def embed_queries(self, column: pa.StringArray) -> Floats:
        """Embed queries; none of them may be blank.

        Raises:
            CfrayError: the model failed as a whole.
        """
        batches = divide_texts(column, self.batch_rows)
        references = [self.actor.embed_queries.remote(batch) for batch in batches]
        return np.concatenate([result(reference) for reference in references])

    def flush(self) -> None:
        """Write what the actors' caches hold back."""
        result(self.actor.flush.remote())

    def figures(self) -> Figures:
        """Ask what the pool did."""
        figures: Figures = result(self.actor.figures_so_far.remote())
        return figures


@contextmanager
def start_pool(spec: Embedding, identity: Identity) -> Iterator[EmbedderPool]:
    """Keep a pool up for the block.

    After an error in the block the run ends, and Ray stops the actors with it.

    Args:
        spec: the job's section, ``dtype`` as the plan resolved it.
        identity: what the plan found.
    """
    import ray

    gpus = 0
    if spec.endpoint is None and spec.engine == "torch":
        gpus = int(ray.cluster_resources().get("GPU", 0))
    device = "cuda" if gpus else "cpu"
    budgets = throttle.endpoint_budgets(spec.endpoint)
    request = LoadRequest(spec, identity.key, identity.dimension, device, budgets)
    default_actors = _ENDPOINT_ACTORS if spec.endpoint else gpus or cluster.cores()
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Dispatcher)
    dispatcher = remote.remote(request, _pool_size(spec, default_actors))
    yield EmbedderPool(dispatcher, _BATCH_ROWS[device])
    # the dispatcher owns the embedding actors: they end with it
    ray.kill(dispatcher)


def _pool_size(spec: Embedding, default_actors: int) -> Actors:
    if isinstance(spec.actors, Actors):
        return spec.actors
    count = default_actors if spec.actors == "auto" else spec.actors
    return Actors(min=count, max=count)


def divide_texts(column: pa.StringArray, max_rows: int) -> Iterator[pa.StringArray]:
    """Divide texts into batches of at most so many rows and about 4 MiB.

    A column without texts is a batch, too: its vectors still have a width.
    """
    ends = np.cumsum(pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64))
    start = 0
    while start < len(column):
        bytes_before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, bytes_before + _BATCH_BYTES, "right"))
        end = min(start + max_rows, max(start + 1, fitting))
        # copied, for a slice would take its whole buffer along
        yield pa.concat_arrays([column.slice(start, end - start)])
        start = end
    if not len(column):
        yield column


def join_batches(batches: Sequence[EmbeddedTexts]) -> EmbeddedTexts:
    """Put the vectors of batches together again."""
    first_rows = np.cumsum([0, *(len(batch.missing) for batch in batches)])[:-1].tolist()
    faults: dict[int, str] = {}
    counts: Counter[str] = Counter()
    chunks: list[Chunks] = []
    for first_row, batch in zip(first_rows, batches, strict=True):
        counts += batch.counts
        faults |= {first_row + row: reason for row, reason in batch.faults.items()}
        if batch.chunks is not None:
            chunks.append(_moved(batch.chunks, first_row))
    return EmbeddedTexts(
        np.concatenate([batch.vectors for batch in batches]),
        np.concatenate([batch.missing for batch in batches]),
        faults,
        counts,
        _join_chunks(chunks) if chunks else None,
    )


def _moved(chunks: Chunks, first_row: int) -> Chunks:
    """Count the documents of a batch's chunks from the first row of all batches."""
    return Chunks(chunks.owner + first_row, chunks.number, chunks.texts, chunks.vectors)


def _join_chunks(chunks: Sequence[Chunks]) -> Chunks:
    return Chunks(
        np.concatenate([item.owner for item in chunks]),
        np.concatenate([item.number for item in chunks]),
        [text for item in chunks for text in item.texts],
        np.concatenate([item.vectors for item in chunks]),
    )
