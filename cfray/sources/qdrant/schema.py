"""What a Qdrant collection declares: its vectors, their Arrow types, and its configuration.

A vector keeps the number type in which Qdrant stores it: what travels as float32 is exact
for all of them.  A configuration is the parsed JSON that each shard carries in its
``where``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import points
from cfray.records.record import canonical
from cfray.sources.base import Collection, Json, Metric, Shard

#: Arrow types of Qdrant's datatypes; all others are read as float32, also TurboQuant's (turbo4, 8
#: and 16).
_NUMBER_TYPES: dict[str, pa.DataType] = {"float16": pa.float16(), "uint8": pa.uint8()}
METRICS: dict[str, Metric] = {"Cosine": "cosine", "Euclid": "l2", "Dot": "dot"}
#: Sections of a collection's configuration beside its parameters.
_CONFIG_SECTIONS = (
    "hnsw_config",
    "optimizer_config",
    "quantization_config",
    "strict_mode_config",
    "metadata",
)
#: Keys whose values change by the hour: they are no facts of a collection.
_MOMENTARY_KEYS = ("status", "update_queue")


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """What a collection declares of one vector.

    Attributes:
        form: one vector a point, several, or a sparse vector.
        dimension: numbers a vector; 0 for sparse vectors.
        datatype: Qdrant's name of the stored number type.
        distance: Qdrant's name; empty for sparse vectors.
    """

    form: Literal["dense", "multi", "sparse"]
    dimension: int = 0
    datatype: str = "float32"
    distance: str = ""

    def arrow_type(self) -> pa.DataType:
        """Give the Arrow type of one dense vector."""
        return pa.list_(_NUMBER_TYPES.get(self.datatype, pa.float32()), self.dimension)

    def build_column(self, values: list[Any]) -> pa.Array:
        """Make the column of a page; a point without the vector is null."""
        if self.form == "dense":
            return points.dense_column(values, self.arrow_type())
        if self.form == "multi":
            return _multi_vector_column(values, self.arrow_type())
        return points.sparse_column(values)


def parse_vectors(config: Mapping[str, Json]) -> dict[str, VectorConfig]:
    """Read the vectors that a configuration declares; "" is the unnamed vector.

    REST and the engine's ``edge_config.json`` write them in the same way.
    """
    vectors, sparse_vectors = config.get("vectors"), config.get("sparse_vectors")
    configs: dict[str, VectorConfig] = {}
    if isinstance(vectors, dict) and isinstance(vectors.get("size"), int):
        vectors = {"": vectors}
    if isinstance(vectors, dict):
        for name, parameters in sorted(vectors.items()):
            assert isinstance(parameters, dict)
            configs[name] = VectorConfig(
                "multi" if parameters.get("multivector_config") else "dense",
                int(str(parameters["size"])),
                str(parameters.get("datatype") or "float32"),
                str(parameters["distance"]),
            )
    if isinstance(sparse_vectors, dict):
        for name in sorted(sparse_vectors):
            configs[name] = VectorConfig("sparse")
    return configs


def shard_config(shard: Shard) -> dict[str, Json]:
    """Give the configuration that a shard carries."""
    config = shard.where["config"]
    assert isinstance(config, dict)
    return config


def collection_config(info: Any) -> dict[str, Json]:
    """Flatten the server's description of a collection.

    The parameters stand beside the other sections of the configuration, the payload's schema
    and the present state.
    """
    described = info.model_dump(mode="json", exclude_none=True)
    config = described["config"]
    return {
        **config["params"],
        **{name: config[name] for name in _CONFIG_SECTIONS if config.get(name)},
        "payload_schema": described.get("payload_schema"),
        "status": described.get("status"),
        "update_queue": described.get("update_queue") or {},
    }


def max_page_rows(config: Mapping[str, Json]) -> int | None:
    """Give the largest page that strict mode allows; None where it sets no limit."""
    strict_mode = config.get("strict_mode_config")
    if not isinstance(strict_mode, dict) or not strict_mode.get("enabled"):
        return None
    rows = strict_mode.get("max_query_limit")
    return rows if isinstance(rows, int) else None


def estimate_row_bytes(vectors: Mapping[str, VectorConfig]) -> int:
    """Estimate the bytes of a point.

    It is assumed to have 1 KiB of payload, its dense vectors, eight vectors of each multi-vector,
    and 100 numbers (800 bytes) of each sparse vector.
    """
    row_bytes = 1024
    for vector in vectors.values():
        if vector.form == "dense":
            row_bytes += 4 * vector.dimension
        elif vector.form == "multi":
            row_bytes += 8 * 4 * vector.dimension
        else:
            row_bytes += 800
    return row_bytes


def to_collection(name: str, config: Mapping[str, Json], rows: int | None) -> Collection:
    """Describe a collection; every key that has no attribute becomes a fact, as canonical JSON."""
    dense = {
        vector_name: (vector.dimension, METRICS.get(vector.distance))
        for vector_name, vector in parse_vectors(config).items()
        if vector.form == "dense"
    }
    dimension, metric = dense.pop("", (None, None))
    facts = {
        key: canonical(value)
        for key, value in config.items()
        if value not in (None, {}, []) and key not in _MOMENTARY_KEYS
    }
    return Collection(name, rows, dimension, metric, dense, facts)


def choose_search_vector(name: str, config: Mapping[str, Json], dimension: int) -> str:
    """Choose the vector that a search of this dimension asks for: the unnamed or the only one.

    Raises:
        SourceError: no vector has this dimension, or several have.
    """
    fitting_names = [
        vector_name
        for vector_name, vector in parse_vectors(config).items()
        if vector.form == "dense" and vector.dimension == dimension
    ]
    if "" in fitting_names:
        return ""
    if len(fitting_names) == 1:
        return fitting_names[0]
    raise SourceError(
        f"{name} has {len(fitting_names)} vectors of {dimension} numbers, "
        "so it is not clear which of them to search",
        "compare search quality by hand",
    )


def collection_notes(
    name: str, config: Mapping[str, Json], *, replicas_must_agree: bool
) -> Iterator[str]:
    """Say what an operator should know of a collection before it is read."""
    yield from _vector_notes(name, parse_vectors(config))
    replicas, queue = config.get("replication_factor"), config.get("update_queue")
    if isinstance(replicas, int) and replicas > 1 and not replicas_must_agree:
        yield (
            f"{name} has {replicas} replicas and one of them answers; "
            "set source.consistency: majority where they may differ"
        )
    if config.get("sharding_method") == "custom":
        yield (
            f"{name}: an id that is under two shard keys is two points at the source "
            "and one record id here"
        )
    deferred_points = queue.get("deferred_points") if isinstance(queue, dict) else None
    if deferred_points:
        yield (
            f"{name}: {deferred_points} points wait for the optimizer "
            "and are hidden from every read until then"
        )
    if config.get("status") == "red":
        yield f"{name} is red: the server says that some operations failed and were not recovered"


def _vector_notes(name: str, vectors: Mapping[str, VectorConfig]) -> Iterator[str]:
    """Say which vectors the source has changed, or cannot be searched in the target as before."""
    named = {
        vector_name or "(unnamed)": vector
        for vector_name, vector in vectors.items()
        if vector.form != "sparse"
    }
    cosine = [label for label, vector in named.items() if vector.distance == "Cosine"]
    rounded = [label for label, vector in named.items() if vector.datatype.startswith("turbo")]
    unknown = [label for label, vector in named.items() if vector.distance not in METRICS]
    if cosine:
        yield (
            f"{name}: Qdrant made its cosine vectors unit length when they were inserted "
            f"({', '.join(cosine)}): their magnitude is gone at the source"
        )
    if rounded:
        yield (
            f"{name}: TurboQuant keeps its vectors rounded ({', '.join(rounded)}): "
            "what was inserted is gone at the source"
        )
    if unknown:
        yield (
            f"{name}: the distance of {', '.join(unknown)} has no counterpart "
            "in Lance's vector indexes; it is kept as a fact"
        )


def _multi_vector_column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of lists of vectors.

    A vector of another dimension than declared makes the whole page a column of lists of lists,
    so that each row is judged by itself.
    """
    vector_lists = [[] if value is None else list(value) for value in values]
    vectors = [vector for vector_list in vector_lists for vector in vector_list]
    is_missing = pa.array([value is None for value in values], pa.bool_())
    if any(len(vector) != kind.list_size for vector in vectors):
        rows = [
            None if value is None else [list(vector) for vector in vector_list]
            for value, vector_list in zip(values, vector_lists, strict=True)
        ]
        return pa.array(rows, pa.list_(pa.list_(kind.value_type)))
    inner = points.dense_column(vectors, kind)
    offsets = np.cumsum([0, *map(len, vector_lists)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), inner, mask=is_missing)
