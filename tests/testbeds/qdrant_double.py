"""A Qdrant double: the server's wire (REST and gRPC of 1.20) before the vendor's engine.

No package brings a Qdrant server; qdrant_engine.py holds the engine. The double answers for
collections (list, get, create, delete, exists), their aliases (REST only), vectors that a
collection gets later (REST only), shard keys (custom sharding), payload indexes and points (upsert,
scroll, count, retrieve, delete, and a query for the nearest points, for a sample or for the first).
A filter takes each condition but geo, values_count and dates. The double refuses whatever it does
not do, and imitates nothing. A server before 1.19 has no slices, and so refuses them. If
QDRANT__SERVICE__API_KEY is set, each request must bring that key.

The double does not do snapshots (the engine reads them and writes none), update_filter,
order_by, prefetch, parameters of payload indexes, replicas, consistency levels, a write-ahead log,
optimizers, time-outs, JWT or TLS. Each write is applied before it is answered. A collection
reports its ``shard_number`` and ignores it: without shard keys it has a single shard.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

import orjson
from pydantic import TypeAdapter, ValidationError
from qdrant_client import models as m

from tests.testbeds.double import JsonHandler, options, serve
from tests.testbeds.qdrant_double_grpc import serve as serve_grpc
from tests.testbeds.qdrant_engine import Point, Store
from tests.testbeds.qdrant_terms import Refused, key_refusal

SLICES_SINCE = (1, 19)
UNSUPPORTED_OPTIONS = (
    "update_filter",
    "update_mode",
    "order_by",
    "prefetch",
    "lookup_from",
    "score_threshold",
)


def read_points(body: dict[str, Any]) -> list[Point]:
    """Read the points of an upsert, whose body lists points or holds a batch of columns."""
    if batch := body.get("batch"):
        vectors = batch["vectors"]
        if isinstance(vectors, dict):
            vectors = [
                dict(zip(vectors, row, strict=True)) for row in zip(*vectors.values(), strict=True)
            ]
        return list(
            zip(batch["ids"], vectors, batch.get("payloads") or [None] * len(vectors), strict=True)
        )
    return [(point["id"], point["vector"], point.get("payload")) for point in body["points"]]


class Handler(JsonHandler):
    """Answers the REST API from a store of collections."""

    store: Store
    version: str
    api_key: str

    def respond(self, path: list[str], url: SplitResult, body: bytes) -> None:
        if self.api_key and (
            refusal := key_refusal(
                self.headers["api-key"], self.headers["Authorization"], self.api_key
            )
        ):
            return self.send(401, refusal.encode(), "text/plain")
        try:
            request = orjson.loads(body) if body else {}
            if unknown := [name for name in UNSUPPORTED_OPTIONS if request.get(name) is not None]:
                return self.refuse(400, f"the double does not do {unknown}")
            if path == [""]:
                return self.send_json(
                    {
                        "title": "qdrant - vector search engine",
                        "version": self.version,
                        "commit": "double",
                    }
                )
            return self.send_json(
                {"result": self.result(path, request), "status": "ok", "time": 0.0, "usage": None}
            )
        except Refused as error:
            return self.refuse(error.status, str(error))
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            return self.refuse(400, f"Format error in JSON body: {error}")

    def refuse(self, status: int, text: str) -> None:
        self.send_json({"status": {"error": text}, "time": 0.0, "usage": None}, status)

    def send_json(self, answer: Any, status: int = 200) -> None:
        self.send(status, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    def result(self, path: list[str], body: dict[str, Any]) -> Any:  # noqa: PLR0911
        """Perform a request, and return the ``result`` of its answer."""
        match self.command, path:
            case "GET", ["collections"]:
                return {"collections": [{"name": name} for name in self.store.collections]}
            case _, ["aliases"] | ["collections", "aliases"] | ["collections", _, "aliases"]:
                return self.aliases(path, body)
            case "PUT", ["collections", name]:
                self.store.create(name, m.CreateCollection.model_validate(body))
                return True
            case "DELETE", ["collections", name]:
                return self.store.delete(name)
            case "GET", ["collections", name, "exists"]:
                return {"exists": name in self.store.collections}
            case "GET", ["collections", name]:
                return json.loads(self.store.get(name).info().model_dump_json(exclude_none=True))
            case _, ["collections", name, "shards", *verbs]:
                return self.shard_keys(name, verbs, body)
            case "PUT", ["collections", name, "index"]:
                self.store.get(name).create_index(
                    body["field_name"], body.get("field_schema") or "keyword"
                )
                return {"operation_id": 0, "status": "completed"}
            case "PUT", ["collections", name, "vectors", vector_name]:
                config = TypeAdapter(m.VectorNameConfig).validate_python(body)
                self.store.get(name).add_vector(vector_name, config)
                return {"operation_id": 0, "status": "completed"}
            case _, ["collections", name, "points", *verbs]:
                return self.points(name, "/".join(verbs), body)
        raise Refused(f"the double has no route {self.command} {self.path}")

    def aliases(self, path: list[str], body: dict[str, Any]) -> Any:
        """Change aliases, or list those of all collections or of one."""
        if self.command == "POST":
            for action in body["actions"]:
                [(verb, fields)] = action.items()
                self.store.change_alias(verb, fields)
            return True
        chosen = [
            {"alias_name": alias, "collection_name": name}
            for alias, name in self.store.aliases.items()
            if path == ["aliases"] or path[1] == name
        ]
        return {"aliases": chosen}

    def shard_keys(self, name: str, verbs: list[str], body: dict[str, Any]) -> Any:
        collection = self.store.get(name)
        match self.command, verbs:
            case "GET", []:
                return (
                    {"shard_keys": [{"key": key} for key in collection.shards]}
                    if collection.has_shard_keys
                    else {}
                )
            case "PUT", []:
                collection.create_shard_key(body["shard_key"])
            case "POST", ["delete"]:
                collection.delete_shard_key(body["shard_key"])
        return True

    def points(self, name: str, verb: str, body: dict[str, Any]) -> Any:
        collection = self.store.get(name)
        where = m.Filter.model_validate(body["filter"]) if body.get("filter") else None
        shard = body.get("shard_key")
        shown_fields = {
            "payload": body.get("with_payload"),
            "vectors": body.get("with_vector") or False,
            "selector": shard,
        }
        match self.command, verb:
            case "PUT", "":
                collection.upsert(read_points(body), shard)
                return {"operation_id": 0, "status": "completed"}
            case "POST", "scroll":
                shown_fields["payload"] = (
                    True if shown_fields["payload"] is None else shown_fields["payload"]
                )
                points, next_id = collection.scroll(
                    where=where,
                    limit=body.get("limit") or 10,
                    offset=body.get("offset"),
                    **shown_fields,
                )
                return {"points": points, "next_page_offset": next_id}
            case "POST", "count":
                return {"count": collection.count(where, shard)}
            case "POST", "query":
                query = (
                    m.QueryRequest.model_validate({"query": body["query"]}).query
                    if body.get("query") is not None
                    else None
                )
                query = query.nearest if isinstance(query, m.NearestQuery) else query
                shown_fields["payload"] = shown_fields["payload"] or False
                return {
                    "points": collection.query(
                        query,
                        using=body.get("using"),
                        where=where,
                        limit=body.get("limit") or 10,
                        **shown_fields,
                    )
                }
            case "POST", "":
                shown_fields["payload"] = (
                    True if shown_fields["payload"] is None else shown_fields["payload"]
                )
                return collection.retrieve(body["ids"], **shown_fields)
            case "POST", "delete":
                collection.delete(body.get("points"), where, shard)
                return {"operation_id": 0, "status": "completed"}
        raise Refused(f"the double has no route {self.command} {self.path}")


def main() -> None:
    arguments = options(
        __doc__,
        grpc_port={"type": int, "required": True},
        folder={"type": Path, "required": True},
        version={"default": "1.20.0"},
    )
    arguments.folder.mkdir(parents=True, exist_ok=True)
    Handler.version = arguments.version
    Handler.api_key = os.environ.get("QDRANT__SERVICE__API_KEY", "")
    knows_slices = tuple(map(int, arguments.version.split(".")[:2])) >= SLICES_SINCE
    Handler.store = Store(arguments.folder, knows_slices=knows_slices)
    grpc_server = serve_grpc(Handler.store, arguments.grpc_port, Handler.api_key)
    serve(Handler, "qdrant", arguments)
    grpc_server.stop(None)


if __name__ == "__main__":
    main()
