"""Search a dataset as its readers will: by vector, by words, or by both.

The query is embedded the way the corpus was.  The recipe in the dataset says which model,
prompt and projection; a model that the recipe does not name is refused, for its hits
would mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from lance import LanceDataset

from cfray.embedders.base import Embedder, Identity
from cfray.embedders.open import open_embedder
from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.records.vectors import Floats, unit
from cfray.runtime.error_text import describe_error
from cfray.target.commit import Target
from cfray.target.maps import load_projection
from cfray.target.search_settings import SearchSettings
from cfray.target.state import State

Mode = Literal["auto", "vector", "text", "hybrid"]
#: A row that was found, column -> value.
Row = dict[str, Any]

#: Constant of reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009).
_RRF = 60
#: Hits of each ranking that a hybrid search fuses, at least.
_MIN_DEPTH = 50
#: Candidates per hit that are ranked again with exact vectors behind a quantised index of which no
#: settings are known: recall rises from .91 to .999 (measured with pylance 14.0.2).
_REFINE = 10
#: Engines that are servers.
_SERVED = ("openai", "tei")
_COLUMNS = ["uuid", "title", "text_content", "collection", "custom_metadata"]


@dataclass(frozen=True, slots=True)
class Question:
    """A search.

    Attributes:
        text: of the query.
        k: hits to return.
        mode: ``auto`` is hybrid where the model is known, else text.
        where: SQL condition on columns; None: every document.
        embedding: the job file's section, if a job file is given: how to reach an endpoint.
        model: folder or package of the model, where it is not at the recipe's address.
        metric: distance that the job file asks for; None: the source's, else cosine.  An index has
            a distance of its own, which counts where there is one.
    """

    text: str
    k: int = 10
    mode: Mode = "auto"
    where: str | None = None
    embedding: Embedding | None = None
    model: str | None = None
    metric: str | None = None

    @property
    def condition(self) -> str:
        """Give the SQL condition on rows: only documents are hits."""
        documents = "record_type = 'document'"
        return documents + (f" AND ({self.where})" if self.where else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search found.

    Attributes:
        mode: how it searched.
        note: which model embedded the query, or why none did.
        hits: best first: ``uuid, title, text_content, collection, original_id, score``.
    """

    mode: str
    note: str
    hits: list[Row]


def search_target(uri: str, question: Question) -> Answer:
    """Search a target.

    Raises:
        ConfigError: the model is unknown or another model than the dataset's, the dataset has no
            text index, or the condition is wrong.
    """
    if not question.text.strip():
        raise ConfigError("the query is empty", "give some words")
    target = Target(uri)
    dataset, recipe = target.open(), target.recipe()
    mode, note = _choose_mode(uri, question, recipe)
    try:
        if mode == "text":
            return Answer(mode, note, _hits(_by_text(dataset, question, question.k), "_score"))
        vector, note = _embed_query(uri, recipe, question)
        depth = question.k if mode == "vector" else max(_MIN_DEPTH, 5 * question.k)
        vector_hits = _hits(_by_vector(uri, dataset, vector, question, depth), "_distance")
        if mode == "vector":
            return Answer(mode, note, vector_hits)
        text_hits = _hits(_by_text(dataset, question, depth), "_score")
        return Answer(mode, note, _fuse((vector_hits, text_hits), question.k))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{uri} cannot be searched: {describe_error(error)[:300]}",
            "correct --where (SQL on the columns), or run cfray optimize",
        ) from error


def _choose_mode(uri: str, question: Question, recipe: Recipe) -> tuple[Mode, str]:
    """Choose how to search, and say why it is by words alone where the job file did not ask so.

    Raises:
        ConfigError: vectors are asked for that are still to be made.
    """
    if question.mode != "text" and _awaits_vectors(uri, recipe):
        if question.mode == "auto":
            return "text", "by words alone: the vectors are still to be made (cfray migrate)"
        raise ConfigError(
            f"the records of {uri} are copied, and their vectors are still to be made",
            "run cfray migrate with the target's own job file, or search with --mode text",
        )
    if question.mode != "auto":
        return question.mode, ""
    if recipe.model is not None or question.model is not None:
        return "hybrid", ""
    note = "by words alone: the dataset does not say which model its vectors are from"
    return "text", f"{note} (give --model)"


def _awaits_vectors(uri: str, recipe: Recipe) -> bool:
    """Tell whether a model is to make vectors that no swap has brought yet."""
    plan = State(uri).plan()
    return plan is not None and plan.recipe.policy != "keep" and recipe.policy == "keep"


def _by_text(dataset: LanceDataset, question: Question, k: int) -> list[Row]:
    rows: list[Row] = dataset.to_table(
        columns=[*_COLUMNS, "_score"],
        full_text_query=question.text,
        limit=k,
        filter=question.condition,
        prefilter=True,
    ).to_pylist()
    return rows


def _by_vector(
    uri: str, dataset: LanceDataset, vector: Floats, question: Question, k: int
) -> list[Row]:
    nearest: dict[str, Any] = {"column": "vector", "q": vector, "k": k}
    if any(index.name == "vector_idx" for index in dataset.describe_indices()):
        # an index has its metric
        settings = SearchSettings.from_metadata(dataset.schema.metadata)
        nearest |= (settings or SearchSettings(refine_factor=_REFINE)).as_nearest()
    else:
        plan = State(uri).plan()
        nearest["metric"] = question.metric or (plan.metric if plan else None) or "cosine"
    rows: list[Row] = dataset.to_table(
        columns=[*_COLUMNS, "_distance"],
        nearest=nearest,
        filter=question.condition,
        prefilter=True,
    ).to_pylist()
    return rows


def _embed_query(uri: str, recipe: Recipe, question: Question) -> tuple[Floats, str]:
    """Embed the query as the corpus was; say by which model."""
    embedder = _open_model(recipe, question)
    vector = embedder.encode_queries([question.text])
    if recipe.reduction == "truncate":
        vector = unit(vector[:, : recipe.dimension], like=vector)
    elif recipe.reduction:
        vector = load_projection(uri, recipe.reduction).apply(vector)
    if vector.shape[1] != recipe.dimension:
        raise ConfigError(
            f"the model makes vectors of {vector.shape[1]} numbers, the dataset's have "
            f"{recipe.dimension}",
            "give the model the vectors are from",
        )
    note = f"by {embedder.identity.name}"
    if recipe.model is not None and embedder.identity.sha256 != recipe.model.sha256:
        note += f" at another address than the vectors were made at ({recipe.where})"
    if recipe.model is None:
        note += "; nothing says that the stored vectors are from this model"
    return np.ascontiguousarray(vector[0]), note


def _open_model(recipe: Recipe, question: Question) -> Embedder:
    """Open the model of the recipe, wherever it is now.

    Raises:
        ConfigError: the recipe names no model, or another model than the job file or ``--model``;
            or a server's, and nothing says how to reach it.
    """
    identity = recipe.model
    section = question.embedding
    is_served = identity is None or identity.engine in _SERVED
    if is_served and section is not None and section.endpoint is not None and not question.model:
        return _open_served(section, identity)
    if identity is None:
        if question.model is None:
            raise ConfigError(
                "the dataset does not say which model its vectors are from",
                "give --model, or search with --mode text",
            )
        spec = Embedding(policy="regenerate", model=question.model)
        return open_embedder(spec, throttle.endpoint_budgets(None))
    if identity.engine in _SERVED and question.model is None:
        raise ConfigError(
            f"the vectors are made by a server ({recipe.where})",
            "give the job file in place of the target's address: it says how to reach it",
        )
    spec = Embedding.model_validate(
        {
            "policy": "regenerate",
            "model": question.model or recipe.where,
            "engine": identity.engine,
            "prompt": identity.prompt,
            "query_prompt": identity.query_prompt,
            "truncate_dim": identity.truncate_dim,
        }
    )
    embedder = open_embedder(spec, throttle.endpoint_budgets(None))
    if embedder.identity.sha256 != identity.sha256:
        raise ConfigError(
            f"{spec.model} is another model (sha256 {embedder.identity.sha256[:16]}) than the "
            f"vectors' ({identity.name}, {identity.sha256[:16]})",
            "give its folder with --model",
        )
    return embedder


def _open_served(section: Embedding, identity: Identity | None) -> Embedder:
    """Reach the server that the job file names; its model must be the vectors', where they say so.

    The server may have moved: another address is no other model.
    """
    if identity is not None:
        prompts = {"prompt": identity.prompt, "query_prompt": identity.query_prompt}
        section = section.model_copy(update=prompts)
    embedder = open_embedder(section, throttle.endpoint_budgets(section.endpoint, is_local=True))
    if identity is not None and _served_model(embedder.identity) != _served_model(identity):
        raise ConfigError(
            f"the job file's model is {embedder.identity.name} "
            f"({embedder.identity.dimension} numbers), the vectors are by {identity.name} "
            f"({identity.dimension} numbers)",
            "give the job file that made the vectors, or search with --mode text; cfray embed "
            "makes the vectors anew, as the job file says",
        )
    return embedder


def _served_model(identity: Identity) -> tuple[str, int, int | None]:
    return identity.name, identity.dimension, identity.truncate_dim


def _hits(rows: list[Row], score: str) -> list[Row]:
    hits = []
    for row in rows:
        metadata = {entry["key"]: entry["value"] for entry in row["custom_metadata"] or []}
        hits.append(
            {
                "uuid": row["uuid"],
                "title": row["title"],
                "text_content": row["text_content"],
                "collection": row["collection"],
                "original_id": metadata.get("original_id"),
                "score": round(float(row[score]), 6),
            }
        )
    return hits


def _fuse(rankings: tuple[list[Row], ...], k: int) -> list[Row]:
    """Fuse rankings by reciprocal ranks."""
    scores: dict[str, float] = {}
    hits: dict[str, Row] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            scores[hit["uuid"]] = scores.get(hit["uuid"], 0.0) + 1 / (_RRF + rank)
            hits[hit["uuid"]] = hit
    best = sorted(scores, key=lambda uuid: (-scores[uuid], uuid))[:k]
    return [{**hits[uuid], "score": round(scores[uuid], 6)} for uuid in best]
