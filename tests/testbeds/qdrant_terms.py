"""What is said in the client's models, said in the engine's terms, and back."""

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
    """A request that the server refuses; its text is the server's."""

    status = 400


def refusal(given: str | None, bearer: str | None, key: str) -> str | None:
    """Say what the server says to a request with this key, or None if it is the right one."""
    given = given or (bearer or "").removeprefix("Bearer ")
    if not given:
        return "Must provide an API key or an Authorization bearer token"
    return None if given == key else "Invalid API key or JWT"


def told(do: Callable[[], Any]) -> Any:
    """Run a call of the engine, and turn its complaint into the server's answer."""
    try:
        return do()
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"Wrong input: {error}") from error


def name_of(member: Any) -> str:
    return str(member).rpartition(".")[2]


def to_config(wanted: m.CreateCollection) -> edge.EdgeConfig:
    def dense(params: m.VectorParams) -> edge.EdgeVectorParams:
        multi = (
            edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
            if params.multivector_config
            else None
        )
        kind = (
            getattr(edge.VectorStorageDatatype, params.datatype.capitalize())
            if params.datatype
            else None
        )
        return edge.EdgeVectorParams(
            params.size,
            getattr(edge.Distance, params.distance.value),
            multivector_config=multi,
            datatype=kind,
        )

    def sparse(params: m.SparseVectorParams) -> edge.EdgeSparseVectorParams:
        return edge.EdgeSparseVectorParams(
            modifier=edge.Modifier.Idf if params.modifier == m.Modifier.IDF else None
        )

    vectors = (
        wanted.vectors
        if isinstance(wanted.vectors, dict)
        else {"": wanted.vectors}
        if wanted.vectors
        else {}
    )
    return told(
        lambda: edge.EdgeConfig(
            vectors={name: dense(params) for name, params in vectors.items()},
            sparse_vectors={
                name: sparse(params) for name, params in (wanted.sparse_vectors or {}).items()
            },
            wal_enabled=False,  # it would take its full size on disk for each shard
        )
    )


def to_filter(where: m.Filter, *, knows_slices: bool) -> edge.Filter:
    def all_of(conditions: Any) -> list[Any] | None:
        if conditions is None:
            return None
        return [
            _condition(one, knows_slices=knows_slices)
            for one in (conditions if isinstance(conditions, list) else [conditions])
        ]

    least = where.min_should
    return edge.Filter(
        must=all_of(where.must),
        should=all_of(where.should),
        must_not=all_of(where.must_not),
        min_should=edge.MinShould(all_of(least.conditions) or [], least.min_count)
        if least
        else None,
    )


def _condition(one: Any, *, knows_slices: bool) -> Any:  # noqa: PLR0911
    match one:
        case m.Filter():
            return to_filter(one, knows_slices=knows_slices)
        case m.SliceCondition() if not knows_slices:
            raise Refused(
                "Format error in JSON body: data did not match any variant of untagged enum Condition"
            )
        case m.SliceCondition():
            return edge.SliceCondition(total=one.slice.total, index=one.slice.index)
        case m.HasIdCondition():
            return edge.HasIdCondition(
                {str(number) if isinstance(number, UUID) else number for number in one.has_id}
            )
        case m.HasVectorCondition():
            return edge.HasVectorCondition(one.has_vector)
        case m.IsEmptyCondition():
            return edge.IsEmptyCondition(one.is_empty.key)
        case m.IsNullCondition():
            return edge.IsNullCondition(one.is_null.key)
        case m.NestedCondition():
            return edge.NestedCondition(
                one.nested.key, to_filter(one.nested.filter, knows_slices=knows_slices)
            )
        case m.FieldCondition() if one.match or isinstance(one.range, m.Range):
            matched = (
                getattr(edge, type(one.match).__name__)(next(iter(one.match.model_dump().values())))
                if one.match
                else None
            )
            between = edge.RangeFloat(**one.range.model_dump()) if one.range else None
            return edge.FieldCondition(key=one.key, match=matched, range=between)
    raise Refused(f"the double does not know this condition: {one}")


def to_engine(vector: Any) -> Any:
    if isinstance(vector, m.SparseVector):
        vector = vector.model_dump()
    if isinstance(vector, dict) and vector.keys() == {"indices", "values"}:
        indices = vector["indices"]
        if len(set(indices)) != len(indices) or len(indices) != len(vector["values"]):
            raise Refused(
                "Validation error in JSON body: [indices: must be unique and as many as values]"
            )
        return edge.SparseVector(indices, vector["values"])
    return (
        {name: to_engine(one) for name, one in vector.items()}
        if isinstance(vector, dict)
        else vector
        if vector is not None
        else {}
    )


def plain(record: Any, shard_key: Any) -> dict[str, Any]:
    vector = record.vector
    if isinstance(vector, dict):
        vector = {name: _plain_vector(one) for name, one in vector.items()}
    told = {
        "id": wire_id(record.id),
        "payload": record.payload,
        "vector": vector if vector is None else _plain_vector(vector),
    }
    return told if shard_key is None else {**told, "shard_key": shard_key}


def _plain_vector(one: Any) -> Any:
    if isinstance(one, edge.SparseVector):
        return {"indices": one.indices, "values": np.asarray(one.values, np.float32)}
    return np.asarray(one, np.float32) if isinstance(one, list) else one


def wire_id(number: int | UUID) -> Id:
    return number if isinstance(number, int) else str(number)


def in_order(number: int | UUID) -> tuple[bool, int]:
    return (False, number) if isinstance(number, int) else (True, number.int)


def selected(payload: Any) -> Any:
    payload = payload.model_dump() if isinstance(payload, BaseModel) else payload
    if isinstance(payload, dict):
        [(how, keys)] = payload.items()
        return getattr(edge.PayloadSelector, how.capitalize())(keys)
    return payload
