"""The embedding actors of a run: which model they load, and what the report says of them.

A run that needs no model has no actors.  The actors live for the block of a ``with``
statement and not longer, so that no model holds memory while the target is compacted and
indexed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cfray.embedders.recipe import Recipe
from cfray.engine.embedder_pool import EmbedderPool, start_pool
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.report.run import Run


@contextmanager
def running_pool(job: JobSpec, recipe: Recipe) -> Iterator[EmbedderPool | None]:
    """Keep the embedding actors up for the block; give None where no model is needed."""
    if recipe.model is None:
        yield None
        return
    # The plan resolved "auto", and every actor must compute in the type that it resolved to.
    dtype = recipe.model.dtype if job.embedding.endpoint is None else job.embedding.dtype
    with start_pool(job.embedding.model_copy(update={"dtype": dtype}), recipe.model) as pool:
        yield pool


@contextmanager
def pool_for(run: Run) -> Iterator[EmbedderPool | None]:
    """Keep the actors up that the recipe of the target needs; give None where it needs none.

    Raises:
        ConfigError: the job's policy is not the policy that made the target's vectors.
    """
    recipe = run.target.recipe()
    if recipe.policy != run.job.embedding.policy:
        raise ConfigError(
            f"policy {recipe.policy} made the vectors of {run.job.target.uri}, but the job file "
            f"says {run.job.embedding.policy}",
            "use the job file of the last cfray embed (or migrate)",
        )
    with running_pool(run.job, recipe) as pool:
        yield pool


def report_pool(run: Run, pool: EmbedderPool | None) -> None:
    """Add to the report what the actors did in this run."""
    if pool is None:
        return
    figures = pool.figures()
    counts = {name: float(count) for name, count in sorted(figures.counts.items())}
    run.report.pool = {
        "actors": figures.actors,
        "loaded": figures.loaded,
        "busy": round(figures.busy, 2),
        "alive": round(figures.alive, 2),
        **counts,
    }
    busy_share = figures.busy / figures.alive if figures.alive else 0.0
    run.report.notes.append(
        f"embedding: {figures.actors} actors, models loaded {figures.loaded} times, "
        f"{busy_share:.0%} busy, {figures.counts['texts_embedded']:,} texts through the model, "
        f"{figures.counts['texts_repeated']:,} repeated, "
        f"{figures.counts['cache_hits']:,} from the cache"
    )
