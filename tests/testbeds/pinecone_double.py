"""A Pinecone double for the official SDK 10: both planes of serverless and pod indexes over REST.

No emulator is published as a package, and no description of the wire ships with the SDK. The
double follows the SDK's code and the vendor's documentation and issues: it shows what cfray does
with such answers, and proves nothing about the service.

The double answers for indexes (list, describe, create, delete), vectors (upsert, list, fetch,
fetch_by_metadata, query, delete), namespaces (list, describe, create, delete),
describe_index_stats, and documents (upsert, list, fetch, delete). The path names the index: its
``host`` is ``<address of the request>/data/<name>``, so that a proxy in front stays in front. A
pod index answers list and namespaces with a bare 200 and ``grpc-status: 12``, as reported in
python-sdk#331 (2024). If PINECONE_API_KEY is set, each request must bring that key.

Two paths cause faults. ``/__double__/throttle?every=N&retry_after=S`` answers each N-th request
with 429, and no request where N is 0. ``/__double__/forget?index=&namespace=&id=`` makes an id
that lists show and fetch does not return.

The double does not imitate eventual consistency, quotas, request sizes, read units, update,
search, embedding of text (a field with ``embed`` stores its text and gets no vector),
create_for_model, backups, imports, gRPC or TLS. Error texts are the documented texts where the
vendor documents them. An address over 16 kB is refused; the service's limit is not documented.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from urllib.parse import SplitResult, parse_qs

import msgspec
import orjson

from tests.testbeds.double import JsonHandler, options, serve
from tests.testbeds.pinecone_indexes import DEFAULT_NAMESPACE, Index, Refused, matches

MAX_ADDRESS_BYTES = 16_384
MAX_FETCHED_IDS = 1000
MAX_PAGE_IDS = 100
CODES = {
    400: (3, "INVALID_ARGUMENT"),
    401: (16, "UNAUTHENTICATED"),
    404: (5, "NOT_FOUND"),
    409: (6, "ALREADY_EXISTS"),
    429: (8, "RESOURCE_EXHAUSTED"),
}


class Service:
    """The indexes of the process, and the faults that a test requested."""

    def __init__(self) -> None:
        self.indexes: dict[str, Index] = {}
        self.lock = threading.Lock()
        self.requests = 0
        self.throttle_interval, self.retry_after = 0, "0"

    def is_throttled(self) -> bool:
        with self.lock:
            self.requests += 1
            return self.throttle_interval > 0 and self.requests % self.throttle_interval == 0

    def index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refused(404, f"Resource {name} not found")
        return self.indexes[name]


class Handler(JsonHandler):
    """Checks the key and the faults, then answers from the plane that the path names."""

    service = Service()
    api_key = ""

    def respond(self, path: list[str], url: SplitResult, body: bytes) -> None:
        query = {
            name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        if path[0] == "__double__":
            self.control_double(path[1], query)
        elif self.api_key and self.headers["Api-Key"] != self.api_key:
            self.refuse(401, "Invalid API key")
        elif self.service.is_throttled():
            self.refuse(429, "Request limit exceeded", Retry_After=self.service.retry_after)
        elif len(self.path) > MAX_ADDRESS_BYTES:
            self.send(414, b"URI Too Long", "text/plain")
        else:
            try:
                request = orjson.loads(body) if body else {}
                if path[0] == "indexes":
                    self.control_plane(path[1:], request)
                else:
                    self.data_plane(path, url, query, request)
            except Refused as error:
                self.refuse(error.status, str(error))
            except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
                self.refuse(400, f"{type(error).__name__}: {error}")

    def data_plane(
        self, path: list[str], url: SplitResult, query: dict[str, str], request: dict[str, Any]
    ) -> None:
        """Answer a request to the data plane of an index."""
        if path[0] != "data":
            raise Refused(404, f"no such path: {url.path}")
        index = self.service.index(path[1])
        if index.is_pod and (path[2] == "namespaces" or path[2:] == ["vectors", "list"]):
            return self.send(
                200, b"", "application/grpc", grpc_status="12", grpc_message="unimplemented"
            )
        data_request = DataRequest(index, query, request, parse_qs(url.query).get("ids", []))
        return self.send_json(data_request.answer(self.command, path[2:]))

    def control_double(self, fault: str, query: dict[str, str]) -> None:
        """Cause a fault at the request of a test."""
        if fault == "throttle":
            self.service.throttle_interval = int(query["every"])
            self.service.retry_after = query.get("retry_after", "0")
        elif fault == "forget":
            self.service.index(query["index"]).unfetchable_ids.add(
                (query.get("namespace") or DEFAULT_NAMESPACE, query["id"])
            )
        self.send_json({})

    def control_plane(self, path: list[str], request: dict[str, Any]) -> None:
        """Answer a request that lists, describes, creates or deletes indexes."""
        indexes = self.service.indexes
        match self.command, path:
            case "GET", []:
                descriptions = b",".join(self.describe(index) for index in indexes.values())
                return self.send(200, b'{"indexes":[' + descriptions + b"]}")
            case "POST", []:
                if request["name"] in indexes:
                    raise Refused(409, "Resource already exists")
                indexes[request["name"]] = Index(request)
                return self.send(201, self.describe(indexes[request["name"]]))
            case "GET", [name]:
                return self.send(200, self.describe(self.service.index(name)))
            case "DELETE", [name]:
                self.service.index(name)
                del indexes[name]
                return self.send(202, b"")
        raise Refused(404, f"no such path: {self.path}")

    def describe(self, index: Index) -> bytes:
        """Describe an index whose host is the address that this request came to."""
        return index.describe(f"http://{self.headers['Host']}/data/{index.model.name}")

    def send_json(self, answer: Any) -> None:
        self.send(200, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    def refuse(self, status: int, text: str, **headers: str) -> None:
        """Answer with an error: the control plane names its code, the data plane numbers it."""
        number, name = CODES[status]
        numbered = {"code": number, "message": text, "details": []}
        named = {"error": {"code": name, "message": text}, "status": status}
        self.send(
            status, orjson.dumps(numbered if self.path.startswith("/data/") else named), **headers
        )


class DataRequest:
    """One request to the data plane of an index."""

    def __init__(
        self, index: Index, query: dict[str, str], body: dict[str, Any], ids: list[str]
    ) -> None:
        self.index, self.query, self.body, self.ids = index, query, body, ids
        self.namespace = body.get("namespace") or query.get("namespace") or DEFAULT_NAMESPACE

    def answer(self, method: str, path: list[str]) -> Any:
        match path:
            case ["describe_index_stats"]:
                return self.stats()
            case ["namespaces"]:
                return self.namespaces(method)
            case ["namespaces", namespace]:
                return self.namespaces(method, namespace)
            case ["namespaces", namespace, "documents", verb]:
                self.require(documents=True)
                self.namespace = namespace
                return self.documents(verb)
            case ["vectors", verb]:
                self.require(documents=False)
                return self.vectors(verb)
            case ["query"]:
                self.require(documents=False)
                return self.nearest()
        raise Refused(404, f"no such path: {path}")

    def require(self, *, documents: bool) -> None:
        if self.index.holds_documents != documents:
            kinds = ("documents", "vectors")
            raise Refused(
                400, f"this index holds {kinds[documents]}; its API is that of {kinds[documents]}"
            )

    def stats(self) -> dict[str, Any]:
        counts = {
            name: {"vectorCount": len(records)} for name, records in self.index.namespaces.items()
        }
        dense = self.index.fields.get("_values")
        dense_shape = (
            {"dimension": dense.dimension, "metric": dense.metric, "vectorType": "dense"}
            if dense
            else {"vectorType": "sparse"}
        )
        total = sum(count["vectorCount"] for count in counts.values())
        return {
            "namespaces": counts,
            "indexFullness": 0.0,
            "totalVectorCount": total,
            **({} if self.index.holds_documents else dense_shape),
        }

    def namespaces(self, method: str, name: str | None = None) -> dict[str, Any]:
        namespaces = self.index.namespaces
        if method == "POST":
            namespaces.setdefault(self.body["name"], {})
            return self.describe_namespace(self.body["name"])
        if name is None:
            return self.list_namespaces()
        if name not in namespaces:
            raise Refused(404, "Namespace not found")
        if method == "DELETE":
            self.index.delete(name, ids=None, where=None)
            del namespaces[name]
            return {}
        return self.describe_namespace(name)

    def list_namespaces(self) -> dict[str, Any]:
        prefix = self.query.get("prefix", "")
        names = sorted(name for name in self.index.namespaces if name.startswith(prefix))
        first = int(self.query.get("paginationToken") or 0)
        end = first + int(self.query.get("limit") or MAX_PAGE_IDS)
        page = {
            "namespaces": [self.describe_namespace(name) for name in names[first:end]],
            "total_count": len(names),
        }
        return page | ({"pagination": {"next": str(end)}} if len(names) > end else {})

    def describe_namespace(self, name: str) -> dict[str, Any]:
        # The service writes the count as a string.
        return {"name": name, "record_count": str(len(self.index.namespaces[name]))}

    def vectors(self, verb: str) -> dict[str, Any]:
        request_facts = {"namespace": self.namespace, "usage": {"readUnits": 1}}
        match verb:
            case "upsert":
                return {
                    "upsertedCount": self.index.put(
                        self.namespace,
                        [self.index.vector(vector) for vector in self.body["vectors"]],
                    )
                }
            case "list":
                page, next_page = self.list_page(self.query, "paginationToken")
                return {
                    "vectors": [{"id": record_id} for record_id in page],
                    **next_page,
                    **request_facts,
                }
            case "fetch":
                return {
                    "vectors": _with_ids(
                        self.index.fetch(self.namespace, self.check_ids(self.ids))
                    ),
                    **request_facts,
                }
            case "fetch_by_metadata":
                records, next_page = self.fetch_filtered("paginationToken")
                return {"vectors": _with_ids(records), **next_page, **request_facts}
            case "delete":
                self.delete(all_flag="deleteAll")
                return {}
        raise Refused(404, f"no such path: vectors/{verb}")

    def documents(self, verb: str) -> dict[str, Any]:
        request_facts = {"namespace": self.namespace, "usage": {"read_units": 1}}
        match verb:
            case "upsert":
                return {
                    "upserted_count": self.index.put(
                        self.namespace,
                        [self.index.document(document) for document in self.body["documents"]],
                    )
                }
            case "list":
                page, next_page = self.list_page(self.body, "pagination_token")
                return {
                    "documents": [{"_id": record_id} for record_id in page],
                    **next_page,
                    **request_facts,
                }
            case "fetch":
                next_page = {}
                if self.body.get("ids"):
                    records = self.index.fetch(self.namespace, self.check_ids(self.body["ids"]))
                else:
                    records, next_page = self.fetch_filtered("pagination_token")
                field_names = self.body.get("include_fields")
                documents = {
                    record_id: {
                        "_id": record_id,
                        **{
                            name: value
                            for name, value in record.items()
                            if field_names is None or name in field_names
                        },
                    }
                    for record_id, record in records.items()
                }
                return {"documents": documents, **next_page, **request_facts}
            case "delete":
                self.delete(all_flag="delete_all")
                return {}
        raise Refused(404, f"no such path: documents/{verb}")

    def list_page(
        self, parameters: dict[str, Any], token_name: str
    ) -> tuple[list[str], dict[str, Any]]:
        """Return a page of ids, and the answer's pagination if another page follows."""
        limit = int(parameters.get("limit") or MAX_PAGE_IDS)
        if limit > MAX_PAGE_IDS:
            raise Refused(400, f"limit must be at most {MAX_PAGE_IDS}")
        ids, next_token = self.index.ids(
            self.namespace, parameters.get("prefix") or "", limit, parameters.get(token_name)
        )
        return ids, {"pagination": {"next": next_token}} if next_token else {}

    def fetch_filtered(self, token_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a page of records that fit the filter, and pagination if another page follows."""
        if not self.body.get("filter"):
            raise Refused(400, "Filter must not be empty")
        records = self.index.namespaces.get(self.namespace, {})
        matching_ids = sorted(
            record_id
            for record_id, record in records.items()
            if matches(record, self.body["filter"])
        )
        first, limit = (
            int(self.body.get(token_name) or 0),
            int(self.body.get("limit") or MAX_PAGE_IDS),
        )
        next_page = (
            {"pagination": {"next": str(first + limit)}}
            if len(matching_ids) > first + limit
            else {}
        )
        return self.index.fetch(self.namespace, matching_ids[first : first + limit]), next_page

    def check_ids(self, ids: list[str]) -> list[str]:
        """Return the ids of a fetch, and refuse none or too many."""
        if not ids or len(ids) > MAX_FETCHED_IDS:
            raise Refused(400, f"fetch takes 1 to {MAX_FETCHED_IDS} ids, not {len(ids)}")
        return ids

    def delete(self, *, all_flag: str) -> None:
        """Delete what the body names; ``all_flag`` is the key that asks for all records."""
        where = None if self.body.get(all_flag) else self.body.get("filter")
        ids = None if where or self.body.get(all_flag) else self.body["ids"]
        self.index.delete(self.namespace, ids=ids, where=where)

    def nearest(self) -> dict[str, Any]:
        returned_fields = [
            name
            for name, flag in (
                ("values", "includeValues"),
                ("sparseValues", "includeValues"),
                ("metadata", "includeMetadata"),
            )
            if self.body.get(flag)
        ]
        neighbours = [
            {
                "id": record_id,
                "score": score,
                **{name: record[name] for name in returned_fields if name in record},
            }
            for score, record_id, record in self.index.nearest(self.namespace, self.body)
        ]
        return {"matches": neighbours, "namespace": self.namespace, "usage": {"readUnits": 5}}


def _with_ids(records: dict[str, Any]) -> dict[str, Any]:
    return {record_id: {"id": record_id, **record} for record_id, record in records.items()}


if __name__ == "__main__":
    arguments = options(__doc__)
    Handler.api_key = os.environ.get("PINECONE_API_KEY", "")
    serve(Handler, "pinecone", arguments)
