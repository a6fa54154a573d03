"""The pool of embedding actors as the tasks see it: texts in, vectors out.

Only texts and vectors pass through the pool, never records.  So a single large shard uses
every core, and the task of a shard alone still accounts for all of its records.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.embedders.base import Identity
from cfray.embedders.batches import BATCH_ROWS, divide_texts, join_batches
from cfray.embedders.spec import Actors, Embedding
from cfray.embedders.texts import EmbeddedTexts
from cfray.engine import cluster, throttle
from cfray.engine.dispatch import Dispatcher, Figures, LoadRequest
from cfray.engine.tasks import result
from cfray.records.vectors import Floats

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
    yield EmbedderPool(dispatcher, BATCH_ROWS[device])
    # the dispatcher owns the embedding actors: they end with it
    ray.kill(dispatcher)


def _pool_size(spec: Embedding, default_actors: int) -> Actors:
    if isinstance(spec.actors, Actors):
        return spec.actors
    count = default_actors if spec.actors == "auto" else spec.actors
    return Actors(min=count, max=count)
