"""What a Qdrant collection declares.

Its vectors and their Arrow types, and what of its configuration is worth carrying.

A vector keeps the number type it is stored in; what the wire carries as float32 is exact for all of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import points
from cfray.records.record import canonical
from cfray.sources.base import Collection, Json, Metric

#: What is stored in another width than float32; TurboQuant's types (turbo4/8/16) are read back as
#: float32.
_WIDTHS: dict[str, pa.DataType] = {"float16": pa.float16(), "uint8": pa.uint8()}
METRICS: dict[str, Metric] = {"Cosine": "cosine", "Euclid": "l2", "Dot": "dot"}
#: Parts of a collection's configuration beside its parameters, and what of it all passes with the
#: hour.
_REST = ("hnsw_config", "optimizer_config", "quantization_config", "strict_mode_config", "metadata")
_PASSING = ("status", "update_queue")


@dataclass(frozen=True, slots=True)
class Vector:
    """What a collection declares of one vector.

    Attributes:
        form: one vector a point, several, or a sparse one.
        width: numbers a vector; 0 for sparse ones.
        number: Qdrant's ``datatype``.
        distance: Qdrant's name; empty for sparse ones.
    """

    form: Literal["dense", "multi", "sparse"]
    width: int = 0
    number: str = "float32"
    distance: str = ""

    def kind(self) -> pa.DataType:
        """Give the Arrow type of one dense vector."""
        return pa.list_(_WIDTHS.get(self.number, pa.float32()), self.width)

    def column(self, values: list[Any]) -> pa.Array:
        """Make the column of a page; a point without the vector is null."""
        if self.form == "dense":
            return points.dense(values, self.kind())
        if self.form == "multi":
            return _multi(values, self.kind())
        return points.sparse(values)


def declared(vectors: Json, sparse: Json) -> dict[str, Vector]:
    """Read the vectors of a collection from its parameters.

    As REST and ``edge_config.json`` write them; "" is the unnamed one.
    """
    found: dict[str, Vector] = {}
    if isinstance(vectors, dict) and isinstance(vectors.get("size"), int):
        vectors = {"": vectors}
    for name, params in sorted((vectors or {}).items() if isinstance(vectors, dict) else ()):
        assert isinstance(params, dict)
        form: Literal["dense", "multi"] = "multi" if params.get("multivector_config") else "dense"
        found[name] = Vector(
            form,
            int(str(params["size"])),
            str(params.get("datatype") or "float32"),
            str(params["distance"]),
        )
    return found | {
        name: Vector("sparse") for name in sorted(sparse if isinstance(sparse, dict) else ())
    }


def config_of(info: Any) -> dict[str, Json]:
    """Flatten what the server says of a collection.

    Its parameters and, beside them, the rest of its configuration.
    """
    told = info.model_dump(mode="json", exclude_none=True)
    config = told["config"]
    rest = {name: config[name] for name in _REST if config.get(name)}
    queue = told.get("update_queue") or {}
    return {
        **config["params"],
        **rest,
        "payload_schema": told.get("payload_schema"),
        "status": told.get("status"),
        "update_queue": queue,
    }


def limit(config: Mapping[str, Json]) -> int | None:
    """Give the largest page that strict mode allows."""
    strict = config.get("strict_mode_config")
    most = (
        strict.get("max_query_limit")
        if isinstance(strict, dict) and strict.get("enabled")
        else None
    )
    return most if isinstance(most, int) else None


def row_bytes(declares: Mapping[str, Vector]) -> int:
    """Guess the bytes of a point.

    Its vectors, eight of each multi-vector, 100 numbers of each sparse one, and 1 KB of payload.
    """
    many = {"dense": 1, "multi": 8, "sparse": 0}
    return 1024 + sum(
        4 * vector.width * many[vector.form] + (800 if vector.form == "sparse" else 0)
        for vector in declares.values()
    )


def collection(name: str, config: Mapping[str, Json], rows: int | None) -> Collection:
    """Say what a collection is; whatever has no place of its own becomes a fact.

    As canonical JSON.
    """
    found = declared(config.get("vectors"), config.get("sparse_vectors"))
    dense = {
        each: (vector.width, METRICS.get(vector.distance))
        for each, vector in found.items()
        if vector.form == "dense"
    }
    width, metric = dense.pop("", (None, None))
    facts = {
        key: canonical(value)
        for key, value in config.items()
        if value not in (None, {}, []) and key not in _PASSING
    }
    return Collection(name, rows, width, metric, dense, facts)


def searched(name: str, config: Mapping[str, Json], width: int) -> str:
    """Choose the vector that a search of this width asks for: the unnamed one, or the only one.

    Raises:
        SourceError: there is none, or more than one.
    """
    found = declared(config.get("vectors"), None)
    fitting = [
        each for each, vector in found.items() if vector.form == "dense" and vector.width == width
    ]
    if "" in fitting or len(fitting) == 1:
        return "" if "" in fitting else fitting[0]
    raise SourceError(
        f"{name} has {len(fitting)} vectors of {width} numbers, so there is no one search to compare with",
        "compare search quality by hand",
    )


def notes(name: str, config: Mapping[str, Json], *, consistent: bool) -> list[str]:
    """Say what an operator should know of a collection before it is read."""
    found = declared(config.get("vectors"), config.get("sparse_vectors"))
    names = {
        each or "(unnamed)": vector for each, vector in found.items() if vector.form != "sparse"
    }
    cosine = ", ".join(each for each, vector in names.items() if vector.distance == "Cosine")
    rounded = ", ".join(each for each, vector in names.items() if vector.number.startswith("turbo"))
    other = ", ".join(each for each, vector in names.items() if vector.distance not in METRICS)
    replicas, queue = config.get("replication_factor"), config.get("update_queue")
    hidden = queue.get("deferred_points") if isinstance(queue, dict) else None
    said = {
        f"{name}: Qdrant made its cosine vectors unit length when they were inserted ({cosine}): their magnitude is gone at the source": cosine,
        f"{name}: TurboQuant keeps its vectors rounded ({rounded}): what was inserted is gone at the source": rounded,
        f"{name}: the distance of {other} has no counterpart in Lance's vector indexes; it is kept as a fact": other,
        f"{name} has {replicas} replicas and one of them answers; set source.consistency: majority where they may differ": isinstance(
            replicas, int
        )
        and replicas > 1
        and not consistent,
        f"{name}: an id that is under two shard keys is two points at the source and one record id here": config.get(
            "sharding_method"
        )
        == "custom",
        f"{name}: {hidden} points wait for the optimizer and are hidden from every read until then": hidden,
        f"{name} is red: the server says that some operations failed and were not recovered": config.get(
            "status"
        )
        == "red",
    }
    return [note for note, holds in said.items() if holds]


def _multi(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of lists of vectors.

    A vector of another width than declared makes the whole page a column of lists of lists, so that
    each row is judged for itself.
    """
    there = [[] if one is None else list(one) for one in values]
    flat = [vector for several in there for vector in several]
    missing = pa.array([one is None for one in values], pa.bool_())
    if any(len(vector) != kind.list_size for vector in flat):
        whole = [
            None if one is None else [list(vector) for vector in several]
            for one, several in zip(values, there, strict=True)
        ]
        return pa.array(whole, pa.list_(pa.list_(kind.value_type)))
    numbers = np.asarray(flat, kind.value_type.to_pandas_dtype()).reshape(-1)
    inner = pa.FixedSizeListArray.from_arrays(pa.array(numbers, kind.value_type), kind.list_size)
    offsets = np.cumsum([0, *map(len, there)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), inner, mask=missing)
