"""The indexes that the Pinecone double keeps, and how the service changes what it stores.

Vectors are float32, sparse indices uint32, every number of metadata a float, ids sorted bitwise. A
schema of ``_values`` and ``_sparse_values`` only is an index of vectors, any other one of
documents: so the official SDK tells them apart.
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
    "$eq": lambda held, wanted: held == wanted or (isinstance(held, list) and wanted in held),
    "$ne": lambda held, wanted: held != wanted,
    "$gt": lambda held, wanted: held > wanted,
    "$gte": lambda held, wanted: held >= wanted,
    "$lt": lambda held, wanted: held < wanted,
    "$lte": lambda held, wanted: held <= wanted,
    "$in": lambda held, wanted: any(
        one in wanted for one in (held if isinstance(held, list) else [held])
    ),
    "$nin": lambda held, wanted: held not in wanted,
}


class Refused(Exception):
    """A request that the service refuses."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Index:
    """One index: records by namespace and id."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self.model = IndexModel(
            name=wanted["name"],
            status=IndexStatus(ready=True, state="Ready"),
            schema=msgspec.convert(wanted["schema"], IndexSchema),
            deployment=msgspec.convert(wanted.get("deployment") or MANAGED, IndexDeployment),
            deletion_protection=wanted.get("deletion_protection") or "disabled",
            tags=wanted.get("tags"),
        )
        self.namespaces: dict[str, dict[str, Record]] = {}
        self.order: dict[str, list[str]] = {}  # ids sorted, made at the first list after a write
        self.forgotten: set[tuple[str, str]] = set()
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

    def described(self, host: str) -> bytes:
        self.model.host = host
        return msgspec.json.encode(self.model)

    def put(self, namespace: str, records: Iterable[Record]) -> int:
        """Store all of them, or none."""
        ready = {record.pop("id"): record for record in records}
        with self.lock:
            self.namespaces.setdefault(namespace, {}).update(ready)
            self.order.pop(namespace, None)
        return len(ready)

    def ids(
        self, namespace: str, prefix: str, limit: int, token: str | None
    ) -> tuple[list[str], str | None]:
        """Give a page of ids in bitwise order, and the token of the next."""
        with self.lock:
            if namespace not in self.order:
                self.order[namespace] = sorted(self.namespaces.get(namespace, {}))
            ids = self.order[namespace]
        first = (
            bisect_right(ids, orjson.loads(base64.b64decode(token))["skip_past"])
            if token
            else bisect_left(ids, prefix)
        )
        page = list(
            takewhile(lambda number: number.startswith(prefix), ids[first : first + limit + 1])
        )
        if len(page) <= limit:
            return page, None
        return page[:limit], base64.b64encode(
            orjson.dumps({"skip_past": page[limit - 1], "prefix": prefix})
        ).decode()

    def fetch(self, namespace: str, ids: Iterable[str]) -> dict[str, Record]:
        """Give the records that are there; a forgotten one is listed and not given."""
        held = self.namespaces.get(namespace, {})
        return {
            number: held[number]
            for number in ids
            if number in held and (namespace, number) not in self.forgotten
        }

    def delete(
        self, namespace: str, *, ids: list[str] | None, where: Mapping[str, Any] | None
    ) -> None:
        """Delete by id or by filter; with neither, everything in the namespace."""
        with self.lock:
            held = self.namespaces.get(namespace)
            if held is None:
                raise Refused(404, "Namespace not found")
            doomed = (
                ids
                if ids is not None
                else [
                    number
                    for number, record in held.items()
                    if where is None or matches(record, where)
                ]
            )
            for number in doomed:
                held.pop(number, None)
            self.order.pop(namespace, None)

    def vector(self, given: Mapping[str, Any]) -> Record:
        """Turn a vector of an upsert into what is kept of it."""
        record: Record = {
            "id": given["id"],
            "values": self.dense("_values", given.get("values") or [], required=False),
        }
        if sparse := given.get("sparseValues"):
            record["sparseValues"] = _sparse(sparse)
        if metadata := given.get("metadata"):
            if len(orjson.dumps(metadata)) > METADATA_BYTES:
                raise Refused(
                    400,
                    f"Metadata size is {len(orjson.dumps(metadata))} bytes, which exceeds the limit of {METADATA_BYTES} bytes per vector",
                )
            record["metadata"] = {name: _metadata(name, value) for name, value in metadata.items()}
        return record

    def document(self, given: Mapping[str, Any]) -> Record:
        """Turn a document of an upsert into what is kept of it."""
        record: Record = {"id": given["_id"]}
        for name, field in self.fields.items():
            if isinstance(field, DenseVectorField):
                record[name] = self.dense(name, given.get(name) or [], required=True)
            elif isinstance(field, SparseVectorField) and given.get(name):
                record[name] = _sparse(given[name])
            elif isinstance(field, StringField) and field.store_text is not False and name in given:
                record[name] = given[name]
        free = {
            name: _metadata(name, value)
            for name, value in given.items()
            if name not in self.fields and name != "_id"
        }
        return record | free

    def dense(self, name: str, values: list[float], *, required: bool) -> np.ndarray:
        field = self.fields.get(name)
        vector = np.asarray(values, np.float32)
        if not isinstance(field, DenseVectorField):
            if values:
                raise Refused(400, "Index configuration does not support dense values")
            return vector
        if len(values) != field.dimension and (values or required):
            raise Refused(
                400,
                f"Vector dimension {len(values)} does not match the dimension of the index {field.dimension}",
            )
        if values and not vector.any() and field.metric != "euclidean":
            raise Refused(400, "Dense vectors must contain at least one non-zero value")
        return vector

    def nearest(self, namespace: str, asked: Mapping[str, Any]) -> list[tuple[float, str, Record]]:
        """Give the nearest vectors of a query: every one is compared."""
        held = [
            (number, record)
            for number, record in self.namespaces.get(namespace, {}).items()
            if matches(record, asked.get("filter") or {})
        ]
        if asked.get("id"):
            asked = {"vector": self.namespaces.get(namespace, {})[asked["id"]]["values"]} | {
                "topK": asked["topK"]
            }
        wanted, sparse = (
            np.asarray(asked.get("vector") or [], np.float32),
            dict(_pairs(asked.get("sparseVector"))),
        )
        metric = getattr(self.fields.get("_values"), "metric", "dotproduct")

        def score(record: Record) -> float:
            values = record["values"]
            dense = float(values @ wanted) if len(values) == len(wanted) else 0.0
            if metric == "euclidean":
                return float(np.sum((values - wanted) ** 2))
            if metric == "cosine":
                return dense / float(np.linalg.norm(values) * np.linalg.norm(wanted))
            return dense + sum(
                float(value) * sparse.get(index, 0.0)
                for index, value in _pairs(record.get("sparseValues"))
            )

        scored = sorted(
            ((score(record), number, record) for number, record in held),
            key=lambda one: one[0],
            reverse=metric != "euclidean",
        )
        return scored[: asked["topK"]]


def matches(record: Record, where: Mapping[str, Any]) -> bool:
    """Tell whether a record fits a filter; without the field it only fits ``$exists``."""
    held = record.get("metadata", {} if "values" in record else record)
    for name, wanted in where.items():
        if name in {"$and", "$or"}:
            if not (all if name == "$and" else any)(matches(record, part) for part in wanted):
                return False
            continue
        for operator, value in wanted.items() if isinstance(wanted, dict) else [("$eq", wanted)]:
            if operator == "$exists":
                fits = (name in held) is value
            elif operator in OPERATORS:
                fits = name in held and OPERATORS[operator](held[name], value)
            else:
                raise Refused(400, f"{operator} is not a valid operator")
            if not fits:
                return False
    return True


def _metadata(name: str, value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise Refused(
        400,
        f"Metadata value must be a string, number, boolean or list of strings, got '{orjson.dumps(value).decode()}' for field '{name}'",
    )


def _sparse(given: Mapping[str, Any]) -> Record:
    if len(given["indices"]) != len(given["values"]) or not given["indices"]:
        raise Refused(
            400, "Sparse vector must contain at least one value, and as many indices as values"
        )
    return {
        "indices": np.asarray(given["indices"], np.uint32),
        "values": np.asarray(given["values"], np.float32),
    }


def _pairs(sparse: Mapping[str, Any] | None) -> Iterable[tuple[int, float]]:
    return (
        zip(map(int, sparse["indices"]), map(float, sparse["values"]), strict=True)
        if sparse
        else ()
    )
