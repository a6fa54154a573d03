"""Learn what a run's vectors need before its first frame is written.

A map into the new model's space, a projection onto fewer numbers.

A map is judged by the gate on records it has not seen; one that is not good
enough stops the run here.  What is learned is saved beside the dataset, named by
its SHA-256, and then noted in the dataset: a run that is killed before that
learns again, one that is killed after it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cfray.embedders.recipe import RECIPE_KEY, Recipe
from cfray.embedders.spec import Remap
from cfray.embedding.sample import Drawn
from cfray.engine import failpoint
from cfray.engine.embedder_pool import EmbedderPool
from cfray.errors import ConfigError, ProofFailed
from cfray.job.mapping import rule_paths
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, matrix
from cfray.remap.learn import learn
from cfray.remap.maps import Map
from cfray.remap.pairs import Pairs
from cfray.remap.projection import Projection, pca
from cfray.report.facts import Report
from cfray.target.commit import SchemaChange, Target, commit
from cfray.target.exact_vectors import ExactVectors
from cfray.target.maps import load_map
from cfray.target.state import State

#: Records a projection is learned from: 20,000 (``embeddings.md`` part 4, "Dimension").
_PROJECTED = 20_000


@dataclass(frozen=True, slots=True)
class Learning:
    """What fitting works on.

    Attributes:
        job, target, report: of the run.
        draw: gives at most so many records with text and old vector.
        rows: records of the corpus, for which the gate answers.
        force: go on although the gate says no; recorded in the dataset.
    """

    job: JobSpec
    target: Target
    report: Report
    draw: Callable[[int], Drawn | None]
    rows: int
    force: bool


def needed(job: JobSpec, recipe: Recipe) -> bool:
    """Tell whether something is still to be learned."""
    spec = job.embedding
    return (recipe.policy == "remap" and not recipe.map) or (
        spec.reduce is not None and spec.reduce.method == "pca" and not recipe.reduction
    )


def fit(learning: Learning, recipe: Recipe, pool: EmbedderPool | None) -> Recipe:
    """Learn what is missing, save it, and give the recipe that names it.

    Raises:
        ProofFailed: the gate refuses the map.
        ConfigError: there are too few records to learn from.
    """
    state = State(learning.target.uri)
    made: Map | None = None
    if recipe.policy == "remap" and not recipe.map:
        assert pool is not None
        made, recipe = _remap(learning, recipe, pool, state)
    spec = learning.job.embedding.reduce
    if spec is not None and spec.method == "pca" and not recipe.reduction:
        projection = _projection(
            learning,
            recipe,
            pool,
            made or (load_map(learning.target.uri, recipe.map) if recipe.map else None),
        )
        state.maps.publish(f"{projection.id}.safetensors", projection.to_bytes())
        recipe = replace(recipe, reduction=projection.id)
    failpoint.reached("learned")
    return recipe


def full_regenerate(seconds: float, sample: int, cached: float, rows: int) -> float | None:
    """Estimate how long a model would take for so many records from the time that a sample took.

    Args:
        seconds: that the sample took, the models' loading included; so rather too long than too
            short.
        sample: its records.
        cached: share of them whose vectors came from the cache, which says nothing of the model.
        rows: records of the whole source.

    Returns:
        Seconds; None where half of the sample or more came from the cache (a choice).
    """
    return None if cached >= 0.5 else round(seconds / max(1.0, sample * (1 - cached)) * rows, 1)


def note(target: Target, recipe: Recipe) -> None:
    """Write the recipe into the dataset."""
    commit(target, lambda ledger: ledger, describe=SchemaChange({RECIPE_KEY: recipe.to_json()}))


def _remap(
    learning: Learning, recipe: Recipe, pool: EmbedderPool, state: State
) -> tuple[Map, Recipe]:
    """Embed a sample with the new model, learn the map and put it before the gate."""
    spec = learning.job.embedding.remap or Remap()
    drawn = learning.draw(spec.pairs)
    there = 0 if drawn is None else drawn.table.num_rows
    if drawn is None or there < Remap.model_fields["pairs"].metadata[0].ge:
        raise ConfigError(
            f"embedding.policy is remap, and only {there:,} records have a text and a vector to learn from; 5,000 are needed",
            "use policy: regenerate, which for so few records takes minutes",
        )
    begin = time.perf_counter()
    table = drawn.table.combine_chunks()
    texts = (
        _column(table, "text").dictionary_encode()
    )  # each distinct text once: twins are told by equal bytes, which differ between batches
    embedded = pool.embed(texts.dictionary)
    pool.flush()  # a gate that refuses ends the run; the sample stays in the cache
    places = texts.indices.to_numpy()
    good = np.flatnonzero(~embedded.missing[places])
    new = embedded.vectors[places[good]]
    seconds = time.perf_counter() - begin
    queries = pool.queries(_column(table, "query").take(pa.array(good)))
    pairs = Pairs(
        old=matrix(_column(table, "old"))[good],
        new=new,
        queries=queries,
        old_queries=_old_queries(learning, _column(table, "query").take(pa.array(good))),
        labelled=bool(rule_paths(learning.job.mapping.title)),
    )
    begin = time.perf_counter()

    found, verdict = learn(pairs, learning.rows)
    learning.report.stage("learn").seconds += time.perf_counter() - begin
    whole = full_regenerate(
        seconds, len(good), embedded.counts["cache_hits"] / len(texts.dictionary), learning.rows
    )
    told = verdict.lines()
    if whole is None:
        told.append(
            "how long a full regenerate would take is not known this time: most of the sample's vectors came from the cache"
        )
    else:
        told.append(
            f"a full regenerate with this pool would take about {whole / 60:,.0f} min ({learning.rows / max(whole, 1e-9):,.0f} records/s)"
        )
    learning.report.notes += told
    learning.report.gate = {
        **verdict.as_json(),
        "min_quality": spec.min_quality,
        "forced": False,
        "regenerate_seconds": whole,
    }
    passed = verdict.passed(spec.min_quality)
    if not passed and not learning.force:
        raise ProofFailed(
            f"the map is not good enough: only {verdict.lower:.3f} of what the new model finds is sure to be found among {learning.rows:,} records, "
            f"embedding.remap.min_quality is {spec.min_quality}; no frame was written\n  "
            + "\n  ".join(told),
            "use policy: regenerate with a new target.uri, or --force to remap all the same, or lower min_quality",
        )
    learning.report.gate["forced"] = not passed
    ExactVectors.save(state, found.id, _column(table, "uuid").take(pa.array(good)), new)
    state.maps.publish(f"{found.id}.safetensors", found.to_bytes())
    return found, replace(recipe, map=found.id, gate=learning.report.gate)


def _old_queries(learning: Learning, queries: pa.StringArray) -> Floats | None:
    """Embed the queries with the old model, where ``embedding.expect`` says which it is.

    Only then is the old space judged end to end.
    """
    expect = learning.job.embedding.expect
    if expect is None:
        return None
    from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
    from cfray.embedders.spec import Embedding

    return SentenceTransformersEmbedder(
        Embedding(policy="regenerate", model=expect.model), "auto"
    ).encode_queries(queries.to_pylist())


def _projection(
    learning: Learning, recipe: Recipe, pool: EmbedderPool | None, made: Map | None
) -> Projection:
    """Learn the projection from vectors of the space it narrows."""
    assert learning.job.embedding.reduce is not None
    drawn = learning.draw(_PROJECTED)
    if drawn is None or drawn.table.num_rows < learning.job.embedding.reduce.dimension:
        raise ConfigError(
            "embedding.reduce: too few records have a text and a vector to learn a projection from",
            "use method: truncate, or leave it out",
        )
    table = drawn.table.combine_chunks()
    if recipe.policy == "regenerate":
        assert pool is not None
        embedded = pool.embed(_column(table, "text"))
        vectors = embedded.vectors[~embedded.missing]
    else:
        vectors = matrix(_column(table, "old"))
        vectors = vectors if made is None else made.apply(vectors)
    return pca(vectors, learning.job.embedding.reduce.dimension)


def _column(table: pa.Table, name: str) -> pa.Array:
    chunks = table[name].chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
