"""The pool of embedding actors as the rest of cfray sees it.

Texts in, vectors out, on whichever actors are free.

Only texts and vectors pass through here, never records; so a single large shard
uses every core, and a shard's own task keeps its exact account.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.embedders.base import Identity
from cfray.embedders.spec import Actors, Embedding
from cfray.embedders.texts import Chunks, Embedded
from cfray.engine import cluster, throttle
from cfray.engine.dispatch import Dispatcher, Figures, LoadRequest
from cfray.engine.tasks import result
from cfray.records.vectors import Floats

#: Texts of one batch and their bytes: enough for batches of equal length, few enough that a kill
#: costs seconds.
_ROWS = {"cpu": 512, "cuda": 4_096}
_BYTES = 4 * 1024 * 1024
#: Actors that ask a server at once unless the job says otherwise: they wait, and cost no core.
_ASKING = 8


@dataclass(frozen=True)
class EmbedderPool:
    """The pool as a worker sees it; pickles.

    Attributes:
        actor: of the dispatcher.
        rows: texts of one batch.
    """

    actor: Any
    rows: int

    def embed(self, column: pa.StringArray) -> Embedded:
        """Embed texts, batch by batch, on whichever actors are free.

        Raises:
            CfrayError: the model failed as a whole.
        """
        return joined(
            [
                result(reference)
                for reference in [
                    self.actor.embed.remote(part) for part in batches(column, self.rows)
                ]
            ]
        )

    def queries(self, column: pa.StringArray) -> Floats:
        """Embed queries; none of them may be blank.

        Raises:
            CfrayError: the model failed as a whole.
        """
        parts = [
            result(reference)
            for reference in [
                self.actor.queries.remote(part) for part in batches(column, self.rows)
            ]
        ]
        return np.concatenate(parts)

    def flush(self) -> None:
        """Write what the actors' caches hold back."""
        result(self.actor.flush.remote())

    def figures(self) -> Figures:
        """Ask what the pool did."""
        figures: Figures = result(self.actor.account.remote())
        return figures


@contextmanager
def running(spec: Embedding, identity: Identity) -> Iterator[EmbedderPool]:
    """Have the pool up for the block.

    Args:
        spec: the job's section, ``dtype`` as the plan resolved it.
        identity: what the plan found.
    """
    import ray

    gpus = (
        int(ray.cluster_resources().get("GPU", 0))
        if spec.endpoint is None and spec.engine == "torch"
        else 0
    )
    device = "cuda" if gpus else "cpu"
    opening = LoadRequest(
        spec, identity.key, identity.dimension, device, throttle.for_endpoint(spec.endpoint)
    )
    units = _ASKING if spec.endpoint else gpus or cluster.cores()
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Dispatcher).remote(
        opening, _size(spec, units)
    )
    yield EmbedderPool(actor, _ROWS[device])
    ray.kill(
        actor
    )  # its actors end with it, for it owns them; after an error the run ends, and they with it


def _size(spec: Embedding, units: int) -> Actors:
    if isinstance(spec.actors, Actors):
        return spec.actors
    count = units if spec.actors == "auto" else spec.actors
    return Actors(min=count, max=count)


def batches(column: pa.StringArray, rows: int) -> Iterator[pa.StringArray]:
    """Divide texts into batches of at most so many rows and about 4 MiB.

    At least one, so that no text is an answer, too.
    """
    sizes = np.cumsum(pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64))
    start = 0
    while start < len(column):
        before = int(sizes[start - 1]) if start else 0
        end = min(
            start + rows, max(start + 1, int(np.searchsorted(sizes, before + _BYTES, "right")))
        )
        yield pa.concat_arrays(
            [column.slice(start, end - start)]
        )  # a copy: a slice would take its whole buffer along
        start = end
    if not len(column):
        yield column


def joined(parts: list[Embedded]) -> Embedded:
    """Put batches together again."""
    firsts = np.cumsum([0, *(len(part.missing) for part in parts)])
    faults = {
        int(first) + row: reason
        for first, part in zip(firsts, parts, strict=False)
        for row, reason in part.faults.items()
    }
    counts = sum((part.counts for part in parts), Counter[str]())
    found = [
        (first, part.chunks)
        for first, part in zip(firsts, parts, strict=False)
        if part.chunks is not None
    ]
    chunks = (
        Chunks(
            np.concatenate([each.owner + first for first, each in found]),
            np.concatenate([each.number for _, each in found]),
            [text for _, each in found for text in each.texts],
            np.concatenate([each.vectors for _, each in found]),
        )
        if found
        else None
    )
    return Embedded(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.missing for part in parts]),
        faults,
        counts,
        chunks,
    )
