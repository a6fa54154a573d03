"""Say what is worth keeping of a Chroma collection, and what an operator should know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from cfray.errors import SourceError
from cfray.records.record import canonical
from cfray.sources.base import Collection
from cfray.sources.chroma import metric
from cfray.sources.chroma.client import ChromaStore
from cfray.sources.chroma.errors import PageRefused
from cfray.sources.chroma.metric import METRICS, Space
from cfray.sources.chroma.types import (
    CollectionAddress,
    CollectionModel,
    as_mapping,
    parse_answer,
)

#: Records whose vectors are looked at, and records that the search for their distances gives.
_SAMPLE_ROWS, _HITS = 100, 5
#: A setting of an embedding function is a secret if its name contains one of these words.
_SECRET_WORDS = ("key", "token", "secret", "password", "header", "credential")


def measure_space(
    store: ChromaStore,
    address: CollectionAddress,
    model: CollectionModel,
    send_request: Callable[[Callable[[], Any]], Any],
) -> tuple[Space | None, list[str]]:
    """Search a collection, and see by the distances which space it has.

    Returns:
        The space, None where the search does not show it; and notes for the operator.
    """
    sampling = partial(store.get_first_records, address, model, _SAMPLE_ROWS, ("embeddings",))
    try:
        sample = cast("dict[str, Any]", parse_answer(send_request(sampling)))
    except PageRefused:
        note = (
            f"{address}: Chroma has lost the vector of some of the first {_SAMPLE_ROWS} records; "
            "such records are read without a vector"
        )
        return None, [note]
    query = metric.choose_query(sample["embeddings"] or [])
    if query is None:
        return None, []
    searching = partial(store.search_distances, address, model, query, _HITS)
    try:
        vectors, distances = send_request(searching)
    except SourceError as error:
        note = (
            f"{address}: a search, which would show the metric, failed ({error.what}); "
            "the declared metric is taken"
        )
        return None, [note]
    measured = metric.measured_space(query, vectors, distances)
    return measured, [*_disagreements(address, model, measured)]


def _disagreements(
    address: CollectionAddress, model: CollectionModel, measured: Space | None
) -> Iterator[str]:
    """Say where a collection's settings name another space than its searches show."""
    if measured is None:
        return
    facts = _configuration_facts(as_mapping(model.get("configuration_json")))
    spaces = {
        "its configuration": facts.get("hnsw.space") or facts.get("spann.space"),
        "its metadata (hnsw:space)": as_mapping(model.get("metadata")).get("hnsw:space"),
    }
    wrong = [
        f"{name}: {space}" for name, space in spaces.items() if space not in (None, measured.name)
    ]
    if wrong:
        yield (
            f"{address}: its searches measure {measured.name}, which is taken as its metric, "
            f"though it declares another ({'; '.join(wrong)})"
        )


def to_collection(
    address: CollectionAddress, model: CollectionModel, rows: int, measured: Space | None = None
) -> Collection:
    """Describe a collection: its dimension, its metric, and its settings as facts.

    Args:
        address: of the collection.
        model: of the collection.
        rows: counted.
        measured: the space that its searches show; None where they show none.
    """
    configuration = as_mapping(model.get("configuration_json"))
    metadata = as_mapping(model.get("metadata"))
    space = measured or metric.declared_space(configuration, metadata)
    facts = {"id": str(model["id"]), **_configuration_facts(configuration)}
    for key, value in metadata.items():
        facts[f"metadata.{key}"] = _text(value)
    dimension = model.get("dimension")
    # a collection that was emptied still declares the width of what was in it
    if not rows or not isinstance(dimension, int):
        return Collection(str(address), rows=rows, facts=dict(sorted(facts.items())))
    facts |= {"space": space.name, "space_is_from": space.origin}
    return Collection(
        str(address),
        rows=rows,
        dimension=dimension,
        metric=METRICS.get(space.name),
        facts=dict(sorted(facts.items())),
    )


def collection_notes(collection: Collection) -> Iterator[str]:
    """Say what Chroma does to the vectors of a collection."""
    if collection.rows and collection.dimension is None:
        yield (
            f"{collection.name}: Chroma declares no width and gives no vectors for its "
            f"{collection.rows} records; they are read without a vector"
        )
    if collection.metric == "cosine":
        yield (
            f"{collection.name}: Chroma rescales the vectors of a cosine space as it stores "
            "them: they are read as stored, and differ from what was sent in the last bits"
        )


def _configuration_facts(configuration: dict[str, object]) -> dict[str, str]:
    """Write the index parameters and the embedding function as facts, without secrets."""
    facts: dict[str, str] = {}
    for index in ("hnsw", "spann"):
        for key, value in as_mapping(configuration.get(index)).items():
            if value is not None:
                facts[f"{index}.{key}"] = _text(value)
    function = as_mapping(configuration.get("embedding_function"))
    if function:
        facts["embedding_function"] = _text(function.get("name") or function.get("type"))
    for key, value in as_mapping(function.get("config")).items():
        is_secret = any(word in key.lower() for word in _SECRET_WORDS)
        if value is not None and not is_secret:
            facts[f"embedding_function.{key}"] = _text(value)
    return facts


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical(value)
