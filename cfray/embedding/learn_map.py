"""Learn a map from the old vectors to the new model's, and put it before the gate.

A sample of the records is embedded with the new model.  The gate judges the map on
records that the map was not learned from; a map that is not good enough ends the run
here, before a vector is changed.  The map and the sample's exact vectors are saved beside
the dataset.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.embedders.batches import TextModel
from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import LEAST_PAIRS, Embedding, Remap
from cfray.embedding.sample import Sample
from cfray.errors import ConfigError, ProofFailed
from cfray.job.mapping import rule_paths
from cfray.job.spec import JobSpec
from cfray.records.vectors import Floats, matrix
from cfray.remap.learn import learn_best_map
from cfray.remap.maps import Map
from cfray.remap.pairs import Pairs
from cfray.remap.verdict import Verdict
from cfray.report.facts import Report
from cfray.target.commit import Target
from cfray.target.exact_vectors import ExactVectors
from cfray.target.state import State


@dataclass(frozen=True, slots=True)
class Learning:
    """What learning works on.

    Attributes:
        job, target, report: of the run.
        draw: gives a sample of at most so many records; None where no record can be learned from.
        rows: records of the corpus, for which the gate answers.
        force: go on although the gate refuses the map; recorded in the dataset.
    """

    job: JobSpec
    target: Target
    report: Report
    draw: Callable[[int], Sample | None]
    rows: int
    force: bool


@dataclass(frozen=True, slots=True)
class _EmbeddedSample:
    """A sample as the new model embedded it.

    Attributes:
        rows: of the sample, those that the model made a vector of ``(n,)``.
        vectors: ``(n, d)`` float32.
        seconds: that the sample took, the loading of the models included.
        cached_share: share of the texts whose vectors came from the cache.
    """

    rows: npt.NDArray[np.intp]
    vectors: Floats
    seconds: float
    cached_share: float


def learn_map(learning: Learning, recipe: Recipe, pool: TextModel) -> tuple[Map, Recipe]:
    """Learn a map, judge it and save it; give it with the recipe that names it.

    Raises:
        ConfigError: there are too few records to learn from.
        ProofFailed: the gate refuses the map.
    """
    spec = learning.job.embedding.remap or Remap()
    sample = _draw(learning, spec)
    table = sample.table.combine_chunks()
    embedded = _embed(pool, only_chunk(table, "text"))
    pairs = _pairs(learning, pool, table, embedded)
    begin = time.perf_counter()
    fitted, verdict = learn_best_map(pairs, learning.rows)
    learning.report.stage("learn").seconds += time.perf_counter() - begin
    gate = _judge(learning, spec, verdict, embedded)
    state = State(learning.target.uri)
    uuids = only_chunk(table, "uuid").take(pa.array(embedded.rows))
    ExactVectors.save(state, fitted.id, uuids, embedded.vectors)
    state.maps.publish(f"{fitted.id}.safetensors", fitted.to_bytes())
    return fitted, replace(recipe, map=fitted.id, gate=gate)


def estimate_regenerate_seconds(
    seconds: float, sample_rows: int, cached_share: float, rows: int
) -> float | None:
    """Estimate how long the model would take for every record, from what the sample took.

    Args:
        seconds: that the sample took.  The loading of the models is part of it, so the estimate is
            rather too high than too low.
        sample_rows: records of the sample.
        cached_share: share of them whose vectors came from the cache, which says nothing of the
            model's speed.
        rows: records of the source.

    Returns:
        Seconds; None where half of the sample or more came from the cache (a choice).
    """
    if cached_share >= 0.5:
        return None
    return round(seconds / max(1.0, sample_rows * (1 - cached_share)) * rows, 1)


def only_chunk(table: pa.Table, name: str) -> pa.Array:
    """Give a column of a table as one array."""
    chunks = table[name].chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _draw(learning: Learning, spec: Remap) -> Sample:
    sample = learning.draw(spec.pairs)
    rows = 0 if sample is None else sample.table.num_rows
    if sample is None or rows < LEAST_PAIRS:
        raise ConfigError(
            f"embedding.policy is remap, and only {rows:,} records have a text and a vector to "
            f"learn from; {LEAST_PAIRS:,} are needed",
            "use policy: regenerate, which for so few records takes minutes",
        )
    return sample


def _embed(pool: TextModel, texts: pa.StringArray) -> _EmbeddedSample:
    """Embed the texts of a sample with the new model.

    Each distinct text is embedded once: twins are recognised by equal bytes of their vectors, and
    the vectors that a model makes of one text differ from batch to batch.
    """
    begin = time.perf_counter()
    distinct = texts.dictionary_encode()
    embedded = pool.embed(distinct.dictionary)
    # A gate that refuses the map ends the run; the sample's vectors stay in the cache.
    pool.flush()
    text_numbers = distinct.indices.to_numpy()
    rows = np.flatnonzero(~embedded.missing[text_numbers])
    vectors = embedded.vectors[text_numbers[rows]]
    cached_share = embedded.counts["cache_hits"] / len(distinct.dictionary)
    return _EmbeddedSample(rows, vectors, time.perf_counter() - begin, cached_share)


def _pairs(
    learning: Learning, pool: TextModel, table: pa.Table, embedded: _EmbeddedSample
) -> Pairs:
    """Pair the old vectors with the new vectors, and embed the queries."""
    queries = only_chunk(table, "query").take(pa.array(embedded.rows))
    return Pairs(
        old=matrix(only_chunk(table, "old"))[embedded.rows],
        new=embedded.vectors,
        queries=pool.embed_queries(queries),
        old_queries=_old_queries(learning, queries),
        labelled=bool(rule_paths(learning.job.mapping.title)),
    )


def _old_queries(learning: Learning, queries: pa.StringArray) -> Floats | None:
    """Embed the queries with the old model; None where the job does not say which it is.

    ``embedding.expect`` names the old model.  Only then is the old space judged end to end.
    """
    expect = learning.job.embedding.expect
    if expect is None:
        return None
    from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder

    old_model = Embedding(policy="regenerate", model=expect.model)
    embedder = SentenceTransformersEmbedder(old_model, "auto")
    return embedder.encode_queries(queries.to_pylist())


def _judge(
    learning: Learning, spec: Remap, verdict: Verdict, embedded: _EmbeddedSample
) -> dict[str, Any]:
    """Put the verdict into the report, and give what the recipe records of it.

    Raises:
        ProofFailed: the gate refuses the map, and the run is not forced.
    """
    seconds = estimate_regenerate_seconds(
        embedded.seconds, len(embedded.rows), embedded.cached_share, learning.rows
    )
    lines = [*verdict.lines(), _regenerate_line(seconds, learning.rows)]
    passes = verdict.passes(spec.min_quality)
    gate = {
        **verdict.as_json(),
        "min_quality": spec.min_quality,
        "forced": not passes and learning.force,
        "regenerate_seconds": seconds,
    }
    learning.report.notes += lines
    learning.report.gate = gate
    if not passes and not learning.force:
        raise _refusal(gate, lines)
    return gate


def judge_again(report: Report, job: JobSpec, recipe: Recipe, *, force: bool) -> Recipe:
    """Hold a map that an earlier command learned to the quality that the job asks for now.

    Args:
        report: of the command.
        job: whose ``min_quality`` may be another than that command's.
        recipe: that names the map.
        force: go on although the gate refuses the map; recorded in the dataset.

    Raises:
        ProofFailed: the gate refuses the map.
    """
    spec = job.embedding.remap or Remap()
    passes = recipe.gate["lower"] >= spec.min_quality
    forced = not passes and force
    report.gate = {**recipe.gate, "min_quality": spec.min_quality, "forced": forced}
    if not passes and not force:
        raise _refusal(report.gate, [])
    return replace(recipe, gate=report.gate)


def _refusal(gate: dict[str, Any], lines: list[str]) -> ProofFailed:
    """Say why the gate refuses a map; lines explain the verdict."""
    return ProofFailed(
        f"the map is not good enough: only {gate['lower']:.3f} of what the new model finds is sure "
        f"to be found among {gate['rows']:,} records, embedding.remap.min_quality is "
        f"{gate['min_quality']}; no vector was changed" + "".join(f"\n  {line}" for line in lines),
        "use policy: regenerate, or --force to remap all the same, or lower min_quality; the "
        "same command then goes on from what is copied, without the source",
    )


def _regenerate_line(seconds: float | None, rows: int) -> str:
    if seconds is None:
        return (
            "how long a full regenerate would take is not known this time: most of the sample's "
            "vectors came from the cache"
        )
    return (
        f"a full regenerate with this pool would take about {seconds / 60:,.0f} min "
        f"({rows / max(seconds, 1e-9):,.0f} records/s)"
    )
