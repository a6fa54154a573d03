"""Search a dataset as its readers will.

By vector, by words, or by both, with a query embedded the way the corpus was.

The recipe in the dataset says which model, prompt and projection; a model that
is not the one it names is refused, for its hits would mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from lance import LanceDataset

from cfray.embedders.base import Embedder
from cfray.embedders.open import open_embedder
from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.records.vectors import Floats, unit
from cfray.target.commit import Target
from cfray.target.maps import load_projection
from cfray.target.state import State

Mode = Literal["auto", "vector", "text", "hybrid"]
#: Constant of reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009).
_RRF = 60
#: Hits of each side that a hybrid search fuses, at least.
_DEPTH = 50
#: Candidates re-ranked with exact vectors behind a quantised index (``engine.md`` 4.1: recall .91
#: -> .999).
_REFINE = 10
_COLUMNS = ["uuid", "title", "text_content", "collection", "custom_metadata"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        text: of the query.
        k: hits wanted.
        mode: ``auto`` is hybrid where the model is known, else text.
        where: SQL condition on columns; None: every document.
        embedding: the job file's section, if there is one: how to reach an endpoint.
        model: folder or package of the model, where it is not where the recipe says.
    """

    text: str
    k: int = 10
    mode: Mode = "auto"
    where: str | None = None
    embedding: Embedding | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first: ``uuid, title, text_content, collection, original_id, score``.

    And how they were found.
    """

    mode: str
    told: str
    hits: list[dict[str, Any]]


def search_target(uri: str, question: Question) -> Answer:
    """Search a target.

    Raises:
        ConfigError: the model is not known or not the right one, there is no text index, or the
            condition is wrong.
    """
    if not question.text.strip():
        raise ConfigError("the query is empty", "give some words")
    target = Target(uri)
    dataset, recipe = target.open(), target.recipe()
    known = recipe.model is not None or question.model is not None
    mode = question.mode if question.mode != "auto" else ("hybrid" if known else "text")
    told = (
        ""
        if known or question.mode != "auto"
        else "by words alone: the dataset does not say which model its vectors are from (give --model)"
    )
    try:
        if mode == "text":
            return Answer(mode, told, _hits(_by_text(dataset, question, question.k), "_score"))
        vector, told = _vector(uri, recipe, question)
        depth = question.k if mode == "vector" else max(_DEPTH, 5 * question.k)
        near = _by_vector(uri, dataset, vector, (question, depth))
        if mode == "vector":
            return Answer(mode, told, _hits(near, "_distance"))
        return Answer(
            mode,
            told,
            _fused(
                _hits(near, "_distance"),
                _hits(_by_text(dataset, question, depth), "_score"),
                question.k,
            ),
        )
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{uri} cannot be searched: {str(error).splitlines()[0][:300]}",
            "correct --where (SQL on the columns), or run cfray optimize",
        ) from error


def _condition(question: Question) -> str:
    return "record_type = 'document'" + (f" AND ({question.where})" if question.where else "")


def _by_text(dataset: LanceDataset, question: Question, k: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset.to_table(
        columns=[*_COLUMNS, "_score"],
        full_text_query=question.text,
        limit=k,
        filter=_condition(question),
        prefilter=True,
    ).to_pylist()
    return rows


def _by_vector(
    uri: str, dataset: LanceDataset, vector: Floats, asked: tuple[Question, int]
) -> list[dict[str, Any]]:
    question, k = asked
    plan = State(uri).plan()
    indexed = any(item.name == "vector_idx" for item in dataset.describe_indices())
    nearest = {
        "column": "vector",
        "q": vector,
        "k": k,
        "metric": (plan.metric if plan else None) or "cosine",
    }
    if indexed:
        nearest |= {"refine_factor": _REFINE}
        nearest.pop("metric")  # the index has its own
    rows: list[dict[str, Any]] = dataset.to_table(
        columns=[*_COLUMNS, "_distance"],
        nearest=nearest,
        filter=_condition(question),
        prefilter=True,
    ).to_pylist()
    return rows


def _vector(uri: str, recipe: Recipe, question: Question) -> tuple[Floats, str]:
    """Embed the query as the corpus was; say by what."""
    embedder = _embedder(recipe, question)
    vector = embedder.encode_queries([question.text])
    if recipe.reduction == "truncate":
        vector = unit(vector[:, : recipe.dimension], like=vector)
    elif recipe.reduction:
        vector = load_projection(uri, recipe.reduction).apply(vector)
    if vector.shape[1] != recipe.dimension:
        raise ConfigError(
            f"the model makes vectors of {vector.shape[1]} numbers, the dataset's have {recipe.dimension}",
            "give the model the vectors are from",
        )
    by = embedder.identity.name
    return np.ascontiguousarray(
        vector[0]
    ), f"by {by}" if recipe.model else f"by {by}; nothing says that the stored vectors are its own"


def _embedder(recipe: Recipe, question: Question) -> Embedder:
    """Open the model of the recipe, wherever it is now."""
    one = recipe.model
    if (
        question.embedding is not None
        and question.embedding.endpoint is not None
        and question.model is None
    ):
        return open_embedder(
            question.embedding, throttle.for_endpoint(question.embedding.endpoint, alone=True)
        )
    if one is not None and one.engine in ("openai", "tei") and question.model is None:
        raise ConfigError(
            f"the vectors are made by a server ({recipe.where})",
            "give the job file in place of the target's address: it says how to reach it",
        )
    if one is None:
        if question.model is None:
            raise ConfigError(
                "the dataset does not say which model its vectors are from",
                "give --model, or search with --mode text",
            )
        return open_embedder(
            Embedding(policy="regenerate", model=question.model), throttle.for_endpoint(None)
        )
    spec = Embedding.model_validate(
        {
            "policy": "regenerate",
            "model": question.model or recipe.where,
            "engine": one.engine,
            "prompt": one.prompt,
            "query_prompt": one.query_prompt,
            "truncate_dim": one.truncate_dim,
        }
    )
    embedder = open_embedder(spec, throttle.for_endpoint(None))
    if embedder.identity.sha256 != one.sha256:
        raise ConfigError(
            f"{spec.model} is another model (sha256 {embedder.identity.sha256[:16]}) than the vectors' ({one.name}, {one.sha256[:16]})",
            "give its folder with --model",
        )
    return embedder


def _hits(rows: list[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        entries = {entry["key"]: entry["value"] for entry in row["custom_metadata"] or []}
        found.append(
            {
                "uuid": row["uuid"],
                "title": row["title"],
                "text_content": row["text_content"],
                "collection": row["collection"],
                "original_id": entries.get("original_id"),
                "score": round(float(row[score]), 6),
            }
        )
    return found


def _fused(
    near: list[dict[str, Any]], worded: list[dict[str, Any]], k: int
) -> list[dict[str, Any]]:
    """Fuse two rankings by reciprocal ranks."""
    scores: dict[str, float] = {}
    rows: dict[str, dict[str, Any]] = {}
    for ranking in (near, worded):
        for rank, row in enumerate(ranking, 1):
            scores[row["uuid"]] = scores.get(row["uuid"], 0.0) + 1 / (_RRF + rank)
            rows[row["uuid"]] = row
    best = sorted(scores, key=lambda uuid: (-scores[uuid], uuid))[:k]
    return [{**rows[uuid], "score": round(scores[uuid], 6)} for uuid in best]
