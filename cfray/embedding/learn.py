"""Learn what the new vectors need before the first one is made: a map, a projection.

A map leads into the new model's space; a projection makes vectors narrower.  Both are learned
from a sample of the target's own documents, and saved beside the dataset, named by their SHA-256.
"""

from __future__ import annotations

from dataclasses import replace

from cfray.embedders.batches import TextModel
from cfray.embedders.recipe import Recipe
from cfray.embedding.learn_map import Learning, learn_map, only_chunk
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, matrix
from cfray.remap.maps import Map
from cfray.remap.projection import Projection, fit_pca
from cfray.target.maps import load_map
from cfray.target.state import State

#: Records that a projection is learned from.  A PCA of 20,000 vectors of all-MiniLM-L6-v2 from 384
#: to 256 numbers kept 0.965 of the ten nearest neighbours (measured on Debian's package
#: descriptions).
_PROJECTION_SAMPLE = 20_000


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
    return recipe


def _needs_map(recipe: Recipe) -> bool:
    return recipe.policy == "remap" and not recipe.map


def _needs_projection(job: JobSpec, recipe: Recipe) -> bool:
    reduce = job.embedding.reduce
    return reduce is not None and reduce.method == "pca" and not recipe.reduction


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
