"""Translates the official client's models to the terms of the vendor's engine, and back.

Both wires of the Qdrant double use it. It must not imitate what the engine lacks: it refuses each
condition that it cannot translate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from pydantic import BaseModel
from qdrant_client import models as m

Id = int | str


class Refused(Exception):
    """A refusal of a request in the words of the server."""

    status = 400


def key_refusal(api_key: str | None, bearer: str | None, expected_key: str) -> str | None:
    """Return the server's answer to a request without the expected key, or None with it."""
    request_key = api_key or (bearer or "").removeprefix("Bearer ")
    if not request_key:
        return "Must provide an API key or an Authorization bearer token"
    return None if request_key == expected_key else "Invalid API key or JWT"


def call_engine(operation: Callable[[], Any]) -> Any:
    """Call the engine, and convert its error to the server's refusal."""
    try:
        return operation()
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"Wrong input: {error}") from error


def member_name(member: Any) -> str:
    """Return the name of an engine's enum member, without the name of the enum."""
    return str(member).rpartition(".")[2]


def _multivector(params: m.VectorParams) -> edge.MultiVectorConfig | None:
    is_multi = params.multivector_config is not None
    return edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if is_multi else None


def _datatype(params: m.VectorParams) -> edge.VectorStorageDatatype | None:
    if not params.datatype:
        return None
    return getattr(edge.VectorStorageDatatype, params.datatype.capitalize())


def _modifier(params: m.SparseVectorParams) -> edge.Modifier | None:
    return edge.Modifier.Idf if params.modifier == m.Modifier.IDF else None


def to_vector_operation(
    name: str,
    *,
    dense: m.VectorParams | None = None,
    sparse: m.SparseVectorParams | None = None,
) -> edge.UpdateOperation:
    """Convert the parameters of a vector that a collection gets later to an operation."""
    if dense is None:
        assert sparse
        return edge.UpdateOperation.create_sparse_vector(name, _modifier(sparse))
    distance = getattr(edge.Distance, dense.distance.value)
    return edge.UpdateOperation.create_dense_vector(
        name, dense.size, distance, _multivector(dense), _datatype(dense)
    )


def to_config(request: m.CreateCollection) -> edge.EdgeConfig:
    """Convert a request that creates a collection to the configuration of a shard."""

    def dense(params: m.VectorParams) -> edge.EdgeVectorParams:
        return edge.EdgeVectorParams(
            params.size,
            getattr(edge.Distance, params.distance.value),
            multivector_config=_multivector(params),
            datatype=_datatype(params),
        )

    vectors = request.vectors or {}
    if not isinstance(vectors, dict):
        vectors = {"": vectors}
    return call_engine(
        lambda: edge.EdgeConfig(
            vectors={name: dense(params) for name, params in vectors.items()},
            sparse_vectors={
                name: edge.EdgeSparseVectorParams(modifier=_modifier(params))
                for name, params in (request.sparse_vectors or {}).items()
            },
            # A write-ahead log occupies its full size on disk for each shard.
            wal_enabled=False,
        )
    )


def to_filter(where: m.Filter, *, knows_slices: bool) -> edge.Filter:
    """Convert a filter, and refuse slices if the imitated server does not know them."""

    def all_of(conditions: Any) -> list[Any] | None:
        if conditions is None:
            return None
        return [
            _condition(condition, knows_slices=knows_slices)
            for condition in (conditions if isinstance(conditions, list) else [conditions])
        ]

    minimum = where.min_should
    return edge.Filter(
        must=all_of(where.must),
        should=all_of(where.should),
        must_not=all_of(where.must_not),
        min_should=edge.MinShould(all_of(minimum.conditions) or [], minimum.min_count)
        if minimum
        else None,
    )


def _condition(condition: Any, *, knows_slices: bool) -> Any:  # noqa: PLR0911
    match condition:
        case m.Filter():
            return to_filter(condition, knows_slices=knows_slices)
        case m.SliceCondition() if not knows_slices:
            raise Refused(
                "Format error in JSON body: "
                "data did not match any variant of untagged enum Condition"
            )
        case m.SliceCondition():
            return edge.SliceCondition(total=condition.slice.total, index=condition.slice.index)
        case m.HasIdCondition():
            return edge.HasIdCondition(
                {
                    str(point_id) if isinstance(point_id, UUID) else point_id
                    for point_id in condition.has_id
                }
            )
        case m.HasVectorCondition():
            return edge.HasVectorCondition(condition.has_vector)
        case m.IsEmptyCondition():
            return edge.IsEmptyCondition(condition.is_empty.key)
        case m.IsNullCondition():
            return edge.IsNullCondition(condition.is_null.key)
        case m.NestedCondition():
            return edge.NestedCondition(
                condition.nested.key, to_filter(condition.nested.filter, knows_slices=knows_slices)
            )
        case m.FieldCondition() if condition.match or isinstance(condition.range, m.Range):
            matched = (
                getattr(edge, type(condition.match).__name__)(
                    next(iter(condition.match.model_dump().values()))
                )
                if condition.match
                else None
            )
            between = edge.RangeFloat(**condition.range.model_dump()) if condition.range else None
            return edge.FieldCondition(key=condition.key, match=matched, range=between)
    raise Refused(f"the double does not know this condition: {condition}")


def to_engine(vector: Any) -> Any:
    """Convert a vector, or each of a point's named vectors, to the engine's types."""
    if isinstance(vector, m.SparseVector):
        vector = vector.model_dump()
    if isinstance(vector, dict) and vector.keys() == {"indices", "values"}:
        indices = vector["indices"]
        if len(set(indices)) != len(indices) or len(indices) != len(vector["values"]):
            raise Refused(
                "Validation error in JSON body: [indices: must be unique and as many as values]"
            )
        return edge.SparseVector(indices, vector["values"])
    if isinstance(vector, dict):
        return {name: to_engine(named_vector) for name, named_vector in vector.items()}
    return {} if vector is None else vector


def to_wire(record: Any, shard_key: Any) -> dict[str, Any]:
    """Convert a record of the engine to a point of the REST API."""
    vector = record.vector
    if isinstance(vector, dict):
        vector = {name: _wire_vector(named_vector) for name, named_vector in vector.items()}
    point = {
        "id": wire_id(record.id),
        "payload": record.payload,
        "vector": vector if vector is None else _wire_vector(vector),
    }
    return point if shard_key is None else {**point, "shard_key": shard_key}


def _wire_vector(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": vector.indices, "values": np.asarray(vector.values, np.float32)}
    return np.asarray(vector, np.float32) if isinstance(vector, list) else vector


def wire_id(point_id: int | UUID) -> Id:
    """Convert a point's id to the form that it has in JSON."""
    return point_id if isinstance(point_id, int) else str(point_id)


def sort_key(point_id: int | UUID) -> tuple[bool, int]:
    """Order ids as the server does: numbers before UUIDs."""
    return (False, point_id) if isinstance(point_id, int) else (True, point_id.int)


def to_payload_selector(payload: Any) -> Any:
    """Convert the ``with_payload`` of a request: a flag, a list of keys, or a selector."""
    payload = payload.model_dump() if isinstance(payload, BaseModel) else payload
    if isinstance(payload, dict):
        [(mode, keys)] = payload.items()
        return getattr(edge.PayloadSelector, mode.capitalize())(keys)
    return payload
