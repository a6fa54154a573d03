"""The indexes of the Pinecone double: they store records as the service does.

Dense and sparse values become float32, sparse indices uint32, and each number of the metadata a
float; ids are sorted bitwise. An index whose schema names only ``_values`` and ``_sparse_values``
holds vectors, and an index with any other schema holds documents: the official SDK distinguishes
the two kinds by the same rule.
"""

from __future__ import annotations

import base64
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
import orjson
from pinecone.models.indexes.deployment import IndexDeployment, PodDeployment
from pinecone.models.indexes.index import IndexModel, IndexStatus
from pinecone.models.indexes.schema import (
    DenseVectorField,
    IndexSchema,
    SparseVectorField,
    StringField,
)

DEFAULT_NAMESPACE = "__default__"
VECTOR_FIELDS = {"_values", "_sparse_values"}
MANAGED = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
METADATA_BYTES = 40_960

Record = dict[str, Any]
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda stored, operand: (
        stored == operand or (isinstance(stored, list) and operand in stored)
    ),
    "$ne": lambda stored, operand: stored != operand,
    "$gt": lambda stored, operand: stored > operand,
    "$gte": lambda stored, operand: stored >= operand,
    "$lt": lambda stored, operand: stored < operand,
    "$lte": lambda stored, operand: stored <= operand,
    "$in": lambda stored, operand: any(
        value in operand for value in (stored if isinstance(stored, list) else [stored])
    ),
    "$nin": lambda stored, operand: stored not in operand,
}


class Refused(Exception):
    """An answer with an error status to a request that the service refuses."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Index:
    """One index, whose records are stored by namespace and id."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.model = IndexModel(
            name=request["name"],
            status=IndexStatus(ready=True, state="Ready"),
            schema=msgspec.convert(request["schema"], IndexSchema),
            deployment=msgspec.convert(request.get("deployment") or MANAGED, IndexDeployment),
            deletion_protection=request.get("deletion_protection") or "disabled",
            tags=request.get("tags"),
        )
        self.namespaces: dict[str, dict[str, Record]] = {}
        # The sorted ids of a namespace; the first list request after a write computes them.
        self.sorted_ids: dict[str, list[str]] = {}
        # Pairs of namespace and id that lists show and fetch does not return.
        self.unfetchable_ids: set[tuple[str, str]] = set()
        self.lock = threading.RLock()

    @property
    def fields(self) -> Mapping[str, Any]:
        return self.model.schema.fields

    @property
    def holds_documents(self) -> bool:
        return not self.fields.keys() <= VECTOR_FIELDS

    @property
    def is_pod(self) -> bool:
        return isinstance(self.model.deployment, PodDeployment)

    def describe(self, host: str) -> bytes:
        """Serialize the index as the service describes it."""
        self.model.host = host
        return msgspec.json.encode(self.model)

    def put(self, namespace: str, records: Iterable[tuple[str, Record]]) -> int:
        """Store all records of a request, or none, and return their number; pairs (id, record)."""
        by_id = dict(records)
        with self.lock:
            self.namespaces.setdefault(namespace, {}).update(by_id)
            self.sorted_ids.pop(namespace, None)
        return len(by_id)

    def ids(
        self, namespace: str, prefix: str, limit: int, token: str | None
    ) -> tuple[list[str], str | None]:
        """Return a page of ids in bitwise order, and the token of the next page."""
        with self.lock:
            if namespace not in self.sorted_ids:
                self.sorted_ids[namespace] = sorted(self.namespaces.get(namespace, {}))
            ids = self.sorted_ids[namespace]
        first = (
            bisect_right(ids, orjson.loads(base64.b64decode(token))["skip_past"])
            if token
            else bisect_left(ids, prefix)
        )
        page = list(
            takewhile(
                lambda record_id: record_id.startswith(prefix), ids[first : first + limit + 1]
            )
        )
        if len(page) <= limit:
            return page, None
        return page[:limit], base64.b64encode(
            orjson.dumps({"skip_past": page[limit - 1], "prefix": prefix})
        ).decode()

    def fetch(self, namespace: str, ids: Iterable[str]) -> dict[str, Record]:
        """Return the stored records that have these ids, without the unfetchable records."""
        records = self.namespaces.get(namespace, {})
        return {
            record_id: records[record_id]
            for record_id in ids
            if record_id in records and (namespace, record_id) not in self.unfetchable_ids
        }

    def delete(
        self, namespace: str, *, ids: list[str] | None, where: Mapping[str, Any] | None
    ) -> None:
        """Delete records by id or by filter, and all records of the namespace without either."""
        with self.lock:
            records = self.namespaces.get(namespace)
            if records is None:
                raise Refused(404, "Namespace not found")
            doomed_ids = (
                ids
                if ids is not None
                else [
                    record_id
                    for record_id, record in records.items()
                    if where is None or matches(record, where)
                ]
            )
            for record_id in doomed_ids:
                records.pop(record_id, None)
            self.sorted_ids.pop(namespace, None)

    def vector(self, upserted: Mapping[str, Any]) -> tuple[str, Record]:
        """Convert a vector of an upsert to its id and the record that the service stores."""
        record: Record = {
            "values": self.dense("_values", upserted.get("values") or [], required=False)
        }
        if sparse := upserted.get("sparseValues"):
            record["sparseValues"] = _sparse(sparse)
        if metadata := upserted.get("metadata"):
            if len(orjson.dumps(metadata)) > METADATA_BYTES:
                raise Refused(
                    400,
                    f"Metadata size is {len(orjson.dumps(metadata))} bytes, "
                    f"which exceeds the limit of {METADATA_BYTES} bytes per vector",
                )
            record["metadata"] = {name: _metadata(name, value) for name, value in metadata.items()}
        return upserted["id"], record

    def document(self, upserted: Mapping[str, Any]) -> tuple[str, Record]:
        """Convert a document of an upsert to its id and the record that the service stores."""
        record: Record = {}
        for name, field in self.fields.items():
            if isinstance(field, DenseVectorField):
                record[name] = self.dense(name, upserted.get(name) or [], required=True)
            elif isinstance(field, SparseVectorField) and upserted.get(name):
                record[name] = _sparse(upserted[name])
            elif (
                isinstance(field, StringField)
                and field.store_text is not False
                and name in upserted
            ):
                record[name] = upserted[name]
        metadata = {
            name: _metadata(name, value)
            for name, value in upserted.items()
            if name not in self.fields and name != "_id"
        }
        return upserted["_id"], record | metadata

    def dense(self, name: str, values: list[float], *, required: bool) -> np.ndarray:
        """Convert dense values to float32, and refuse what does not fit the field ``name``."""
        field = self.fields.get(name)
        vector = np.asarray(values, np.float32)
        if not isinstance(field, DenseVectorField):
            if values:
                raise Refused(400, "Index configuration does not support dense values")
            return vector
        if len(values) != field.dimension and (values or required):
            raise Refused(
                400,
                f"Vector dimension {len(values)} does not match "
                f"the dimension of the index {field.dimension}",
            )
        if values and not vector.any() and field.metric != "euclidean":
            raise Refused(400, "Dense vectors must contain at least one non-zero value")
        return vector

    def nearest(
        self, namespace: str, request: Mapping[str, Any]
    ) -> list[tuple[float, str, Record]]:
        """Compare a query with each record, and return score, id and record of the nearest."""
        records = self.namespaces.get(namespace, {})
        candidates = [
            (record_id, record)
            for record_id, record in records.items()
            if matches(record, request.get("filter") or {})
        ]
        if request.get("id"):
            request = {"vector": records[request["id"]]["values"], "topK": request["topK"]}
        query = np.asarray(request.get("vector") or [], np.float32)
        sparse_query = dict(_pairs(request.get("sparseVector")))
        metric = getattr(self.fields.get("_values"), "metric", "dotproduct")

        def score(record: Record) -> float:
            values = record["values"]
            dense = float(values @ query) if len(values) == len(query) else 0.0
            if metric == "euclidean":
                return float(np.sum((values - query) ** 2))
            if metric == "cosine":
                return dense / float(np.linalg.norm(values) * np.linalg.norm(query))
            return dense + sum(
                float(value) * sparse_query.get(index, 0.0)
                for index, value in _pairs(record.get("sparseValues"))
            )

        scored = sorted(
            ((score(record), record_id, record) for record_id, record in candidates),
            key=lambda candidate: candidate[0],
            reverse=metric != "euclidean",
        )
        return scored[: request["topK"]]


def matches(record: Record, where: Mapping[str, Any]) -> bool:
    """Tell whether a record fits a filter; only ``$exists`` fits a record without the field."""
    stored = record.get("metadata", {} if "values" in record else record)
    for name, condition in where.items():
        if name in {"$and", "$or"}:
            combine = all if name == "$and" else any
            if not combine(matches(record, clause) for clause in condition):
                return False
            continue
        comparisons = condition if isinstance(condition, dict) else {"$eq": condition}
        for operator, operand in comparisons.items():
            if operator == "$exists":
                is_match = (name in stored) is operand
            elif operator in OPERATORS:
                is_match = name in stored and OPERATORS[operator](stored[name], operand)
            else:
                raise Refused(400, f"{operator} is not a valid operator")
            if not is_match:
                return False
    return True


def _metadata(name: str, value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, list) and all(isinstance(element, str) for element in value):
        return value
    raise Refused(
        400,
        "Metadata value must be a string, number, boolean or list of strings, "
        f"got '{orjson.dumps(value).decode()}' for field '{name}'",
    )


def _sparse(sparse: Mapping[str, Any]) -> Record:
    if len(sparse["indices"]) != len(sparse["values"]) or not sparse["indices"]:
        raise Refused(
            400, "Sparse vector must contain at least one value, and as many indices as values"
        )
    return {
        "indices": np.asarray(sparse["indices"], np.uint32),
        "values": np.asarray(sparse["values"], np.float32),
    }


def _pairs(sparse: Mapping[str, Any] | None) -> Iterable[tuple[int, float]]:
    return (
        zip(map(int, sparse["indices"]), map(float, sparse["values"]), strict=True)
        if sparse
        else ()
    )
