"""Learn what a run's vectors need before its first frame is written: a map, a projection.

A map leads into the new model's space; a projection makes vectors narrower.  What is
learned is saved beside the dataset, named by its SHA-256, and then noted in the dataset: a
run that is killed before the note learns again, a run that is killed after it does not.
"""

from __future__ import annotations

from dataclasses import replace

from cfray.embedders.batches import TextModel
from cfray.embedders.recipe import RECIPE_KEY, Recipe
from cfray.embedding.learn_map import Learning, learn_map, only_chunk
from cfray.embedding.sample import SourceSampling, draw_from_source
from cfray.engine import failpoint
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, matrix
from cfray.remap.maps import Map
from cfray.remap.projection import Projection, fit_pca
from cfray.report.run import Run
from cfray.sources.base import Context
from cfray.target.commit import SchemaChange, Target, commit
from cfray.target.maps import load_map
from cfray.target.state import State

#: Records that a projection is learned from.  A PCA of 20,000 vectors of all-MiniLM-L6-v2 from 384
#: to 256 numbers kept 0.965 of the ten nearest neighbours (measured on Debian's package
#: descriptions).
_PROJECTION_SAMPLE = 20_000


def learn_for_copy(run: Run, context: Context, pool: TextModel | None, *, force: bool) -> Recipe:
    """Learn what the job needs and no earlier run has learned, and note it in the dataset.

    Args:
        run: the migration.
        context: of the source, which the sample is drawn from.
        pool: the actors that hold the new model; None where no model is needed.
        force: go on although the gate refuses the map.

    Returns:
        The recipe by which the copy makes its vectors.
    """
    recipe = run.target.recipe()
    if not needs_learning(run.job, recipe):
        return recipe
    job, plan = run.job, run.plan
    learning = Learning(
        job,
        run.target,
        run.report,
        draw=lambda max_rows: draw_from_source(
            SourceSampling(job, plan.shape, context, max_rows), plan.shards
        ),
        rows=plan.rows or 0,
        force=force,
    )
    learned = run.timed("learn", lambda: learn_missing(learning, recipe, pool))
    _note(run.target, learned)
    return learned


def needs_learning(job: JobSpec, recipe: Recipe) -> bool:
    """Tell whether a map or a projection is still to be learned."""
    return _needs_map(recipe) or _needs_projection(job, recipe)


def learn_missing(learning: Learning, recipe: Recipe, pool: TextModel | None) -> Recipe:
    """Learn what the recipe lacks, save it, and give the recipe that names it.

    Raises:
        ProofFailed: the gate refuses the map.
        ConfigError: there are too few records to learn from.
    """
    fitted: Map | None = None
    if _needs_map(recipe):
        assert pool is not None
        fitted, recipe = learn_map(learning, recipe, pool)
    elif recipe.map:
        fitted = load_map(learning.target.uri, recipe.map)
    if _needs_projection(learning.job, recipe):
        projection = _learn_projection(learning, recipe, pool, fitted)
        maps = State(learning.target.uri).maps
        maps.publish(f"{projection.id}.safetensors", projection.to_bytes())
        recipe = replace(recipe, reduction=projection.id)
    failpoint.reach("learned")
    return recipe


def _needs_map(recipe: Recipe) -> bool:
    return recipe.policy == "remap" and not recipe.map


def _needs_projection(job: JobSpec, recipe: Recipe) -> bool:
    reduce = job.embedding.reduce
    return reduce is not None and reduce.method == "pca" and not recipe.reduction


def _note(target: Target, recipe: Recipe) -> None:
    """Write the recipe into the dataset."""
    commit(
        target, lambda ledger: ledger, schema_change=SchemaChange({RECIPE_KEY: recipe.to_json()})
    )


def _learn_projection(
    learning: Learning, recipe: Recipe, pool: TextModel | None, fitted: Map | None
) -> Projection:
    """Learn the projection from a sample of the vectors that it will narrow."""
    reduce = learning.job.embedding.reduce
    assert reduce is not None
    sample = learning.draw(_PROJECTION_SAMPLE)
    if sample is None or sample.table.num_rows < reduce.dimension:
        raise ConfigError(
            "embedding.reduce: too few records have a text and a vector to learn a projection from",
            "use method: truncate, or leave it out",
        )
    table = sample.table.combine_chunks()
    vectors: Floats
    if recipe.policy == "regenerate":
        assert pool is not None
        embedded = pool.embed(only_chunk(table, "text"))
        vectors = embedded.vectors[~embedded.missing]
    else:
        vectors = matrix(only_chunk(table, "old"))
        vectors = vectors if fitted is None else fitted.apply(vectors)
    return fit_pca(vectors, reduce.dimension)
