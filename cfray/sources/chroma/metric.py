"""The distance that a Chroma collection is really searched with.

Chroma names the space of a collection in three places: its configuration, its metadata
(``hnsw:space``), and the metadata of its index, which no request gives.  They may disagree.  A
collection from before 1.0 has its space in the two last ones: chromadb 1.5.9 then shows the
default configuration (l2) and searches by cosine, and metadata that were replaced later name no
space at all.  So the collection is asked: the distances that a search gives show its formula.

Source: trials with chromadb 0.4.24, 0.5.5, 0.5.23, 0.6.3 and 1.0.0, whose directories 1.5.9 read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cfray.sources.base import Metric

Vector: TypeAlias = "npt.NDArray[np.float64]"

#: Chroma's space -> Lance's metric.
METRICS: dict[str, Metric] = {"l2": "l2", "cosine": "cosine", "ip": "dot"}
#: Chroma's formulas (its documentation, "Configure Collections"): the query, a record -> distance.
_FORMULAS: dict[str, Callable[[Vector, Vector], float]] = {
    "l2": lambda query, record: float(np.sum((query - record) ** 2)),
    "cosine": lambda query, record: (
        1 - float(query @ record) / float(np.linalg.norm(query) * np.linalg.norm(record))
    ),
    "ip": lambda query, record: 1 - float(query @ record),
}
#: The configuration that a collection has by default; beside it, the metadata count.
_DEFAULTS = {"space": "l2", "ef_construction": 100, "ef_search": 100, "max_neighbors": 16}
#: The query is this many times as long as the record that it is made of, and at least this long:
#: so the three distances between them differ, but for a record that is 1 / 2.7 long.
_STRETCH = 2.7
#: Share of its scale by which a distance may differ from its formula: float32 and its sums.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Space:
    """The space of a collection.

    Attributes:
        name: in Chroma's words: ``l2``, ``cosine`` or ``ip``.
        origin: what says so.
    """

    name: str
    origin: Literal["its searches", "its configuration", "its metadata", "Chroma's default"]


def declared_space(configuration: Mapping[str, object], metadata: Mapping[str, object]) -> Space:
    """Give the space that a collection declares.

    Metadata count where the configuration is the default one, as they do for Chroma itself.

    Args:
        configuration: ``configuration_json``; empty for a server before 0.6.
        metadata: of the collection.
    """
    space_in_metadata = metadata.get("hnsw:space")
    named_in_metadata = isinstance(space_in_metadata, str) and space_in_metadata in METRICS
    for index in ("hnsw", "spann"):
        parameters = configuration.get(index)
        space = parameters.get("space") if isinstance(parameters, Mapping) else None
        if isinstance(parameters, Mapping) and isinstance(space, str):
            is_default = index == "hnsw" and all(
                parameters.get(key, value) == value for key, value in _DEFAULTS.items()
            )
            if not (is_default and named_in_metadata):
                return Space(space, "its configuration")
    if isinstance(space_in_metadata, str):
        return Space(space_in_metadata, "its metadata")
    return Space("l2", "Chroma's default")


def is_usable(vector: Sequence[float]) -> bool:
    """Tell a vector that has a length: it is not zero, and all its numbers are finite."""
    length = float(np.linalg.norm(np.asarray(vector, np.float64)))
    return bool(np.isfinite(length)) and length > 0


def choose_query(vectors: Sequence[Sequence[float] | None]) -> list[float] | None:
    """Make the query that tells the spaces apart: a record's vector, stretched.

    Returns:
        None where no record has a vector with a length.
    """
    for numbers in vectors:
        if numbers is not None and is_usable(numbers):
            vector = np.asarray(numbers, np.float64)
            length = float(np.linalg.norm(vector))
            stretched: list[float] = (vector * (_STRETCH * max(1.0, length) / length)).tolist()
            return stretched
    return None


def measured_space(
    query: Sequence[float],
    vectors: Sequence[Sequence[float] | None],
    distances: Sequence[float | None],
) -> Space | None:
    """Find the space whose formula gives all distances of a search.

    Args:
        query: the vector that was searched for.
        vectors: those of the records that the search gave; None where Chroma gives none.
        distances: those of the same records; None where JSON cannot write it.

    Returns:
        None where no formula, or more than one, gives them.
    """
    pairs = [
        (np.asarray(vector, np.float64), distance)
        for vector, distance in zip(vectors, distances, strict=True)
        if vector is not None and distance is not None and is_usable(vector)
    ]
    fitting = [
        space
        for space in _FORMULAS
        if pairs
        and all(
            _fits(space, np.asarray(query, np.float64), vector, distance)
            for vector, distance in pairs
        )
    ]
    return Space(fitting[0], "its searches") if len(fitting) == 1 else None


def _fits(space: str, query: Vector, vector: Vector, distance: float) -> bool:
    lengths = float(np.linalg.norm(query)), float(np.linalg.norm(vector))
    scale = {
        "l2": lengths[0] ** 2 + lengths[1] ** 2,
        "cosine": 1.0,
        "ip": 1.0 + lengths[0] * lengths[1],
    }[space]
    return abs(_FORMULAS[space](query, vector) - distance) <= _TOLERANCE * scale
