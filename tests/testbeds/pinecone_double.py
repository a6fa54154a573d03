"""A Pinecone double for the official SDK 10: both planes of serverless and pod indexes over REST.

No emulator is published as a package and no description of the wire ships with the SDK: its code
was read, the vendor's documentation and issues. So it shows what our code does with these answers,
and proves nothing about the service. Knows: indexes (list, describe, create, delete); vectors
(upsert, list, fetch, fetch_by_metadata, query, delete); namespaces (list, describe, create,
delete); describe_index_stats; documents (upsert, list, fetch, delete). An index is told by its
path: its ``host`` is ``<address of the request>/data/<name>``, so a proxy in front stays in front.
A pod index answers list and namespaces with a bare 200 and ``grpc-status: 12``, as reported in
python-sdk#331 (2024). With a key (PINECONE_API_KEY) it wants that one.

Faults: ``/__double__/throttle?every=N&retry_after=S`` makes every N-th request a 429, 0 none;
``/__double__/forget?index=&namespace=&id=`` keeps an id in lists that fetch no longer gives.

Not here: eventual consistency, quotas and request sizes, read units that mean anything, update,
search, embedding of text (a field with ``embed`` keeps its text and gets no vector),
create_for_model, backups, imports, gRPC, TLS. The texts of errors are the documented ones where
there are any. An address over 16 kB is refused; where the service draws that line is not known.
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

LONGEST_ADDRESS = 16_384
MOST_IDS = 1000
PAGE = 100
CODES = {
    400: (3, "INVALID_ARGUMENT"),
    401: (16, "UNAUTHENTICATED"),
    404: (5, "NOT_FOUND"),
    409: (6, "ALREADY_EXISTS"),
    429: (8, "RESOURCE_EXHAUSTED"),
}


class Service:
    """The indexes of the process, and the faults that were asked for."""

    def __init__(self) -> None:
        self.indexes: dict[str, Index] = {}
        self.lock = threading.Lock()
        self.requests = 0
        self.every, self.retry_after = 0, "0"

    def is_throttled(self) -> bool:
        with self.lock:
            self.requests += 1
            return self.every > 0 and self.requests % self.every == 0

    def index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refused(404, f"Resource {name} not found")
        return self.indexes[name]


class Handler(JsonHandler):
    service = Service()
    api_key = ""

    def respond(self, path: list[str], url: SplitResult, body: bytes) -> None:
        query = {
            name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        if path[0] == "__double__":
            self.told(path[1], query)
        elif self.api_key and self.headers["Api-Key"] != self.api_key:
            self.refuse(401, "Invalid API key")
        elif self.service.is_throttled():
            self.refuse(429, "Request limit exceeded", Retry_After=self.service.retry_after)
        elif len(self.path) > LONGEST_ADDRESS:
            self.send(414, b"URI Too Long", "text/plain")
        else:
            try:
                asked = orjson.loads(body) if body else {}
                self.control(path[1:], asked) if path[0] == "indexes" else self.data(
                    path, url, query, asked
                )
            except Refused as error:
                self.refuse(error.status, str(error))
            except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
                self.refuse(400, f"{type(error).__name__}: {error}")

    def data(
        self, path: list[str], url: SplitResult, query: dict[str, str], asked: dict[str, Any]
    ) -> None:
        if path[0] != "data":
            raise Refused(404, f"no such path: {url.path}")
        index = self.service.index(path[1])
        if index.is_pod and (path[2] == "namespaces" or path[2:] == ["vectors", "list"]):
            return self.send(
                200, b"", "application/grpc", grpc_status="12", grpc_message="unimplemented"
            )
        return self.tell(
            Data(index, query, asked, parse_qs(url.query).get("ids", [])).answer(
                self.command, path[2:]
            )
        )

    def told(self, what: str, query: dict[str, str]) -> None:
        """Do what a test asks of the double itself."""
        if what == "throttle":
            self.service.every, self.service.retry_after = (
                int(query["every"]),
                query.get("retry_after", "0"),
            )
        elif what == "forget":
            self.service.index(query["index"]).forgotten.add(
                (query.get("namespace") or DEFAULT_NAMESPACE, query["id"])
            )
        self.tell({})

    def control(self, path: list[str], asked: dict[str, Any]) -> None:
        indexes = self.service.indexes
        match self.command, path:
            case "GET", []:
                return self.send(
                    200,
                    b'{"indexes":['
                    + b",".join(self.described(index) for index in indexes.values())
                    + b"]}",
                )
            case "POST", []:
                if asked["name"] in indexes:
                    raise Refused(409, "Resource already exists")
                indexes[asked["name"]] = Index(asked)
                return self.send(201, self.described(indexes[asked["name"]]))
            case "GET", [name]:
                return self.send(200, self.described(self.service.index(name)))
            case "DELETE", [name]:
                self.service.index(name)
                del indexes[name]
                return self.send(202, b"")
        raise Refused(404, f"no such path: {self.path}")

    def described(self, index: Index) -> bytes:
        return index.described(f"http://{self.headers['Host']}/data/{index.model.name}")

    def tell(self, answer: Any) -> None:
        self.send(200, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    def refuse(self, status: int, text: str, **headers: str) -> None:
        """Answer with an error in the shape of its plane: named for indexes, numbered for data."""
        number, name = CODES[status]
        numbered = {"code": number, "message": text, "details": []}
        named = {"error": {"code": name, "message": text}, "status": status}
        self.send(
            status, orjson.dumps(numbered if self.path.startswith("/data/") else named), **headers
        )


class Data:
    """One request to the data plane of an index."""

    def __init__(
        self, index: Index, query: dict[str, str], asked: dict[str, Any], ids: list[str]
    ) -> None:
        self.index, self.query, self.asked, self.ids = index, query, asked, ids
        self.namespace = asked.get("namespace") or query.get("namespace") or DEFAULT_NAMESPACE

    def answer(self, method: str, path: list[str]) -> Any:
        match path:
            case ["describe_index_stats"]:
                return self.stats()
            case ["namespaces", *rest] if len(rest) <= 1:
                return self.namespaces(method, *rest)
            case ["namespaces", namespace, "documents", verb]:
                self.require(documents=True)
                self.namespace = namespace
                return self.documents(verb)
            case ["vectors", verb]:
                self.require(documents=False)
                return self.vectors(verb)
            case ["query"]:
                self.require(documents=False)
                return self.queried()
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
        known = (
            {"dimension": dense.dimension, "metric": dense.metric, "vectorType": "dense"}
            if dense
            else {"vectorType": "sparse"}
        )
        total = sum(count["vectorCount"] for count in counts.values())
        return {
            "namespaces": counts,
            "indexFullness": 0.0,
            "totalVectorCount": total,
            **({} if self.index.holds_documents else known),
        }

    def namespaces(self, method: str, name: str | None = None) -> dict[str, Any]:
        held = self.index.namespaces
        if method == "POST":
            held.setdefault(self.asked["name"], {})
            return self.namespace_told(self.asked["name"])
        if name is None:
            names = sorted(one for one in held if one.startswith(self.query.get("prefix", "")))
            first, limit = (
                int(self.query.get("paginationToken") or 0),
                int(self.query.get("limit") or PAGE),
            )
            page = {
                "namespaces": [self.namespace_told(one) for one in names[first : first + limit]],
                "total_count": len(names),
            }
            return page | (
                {"pagination": {"next": str(first + limit)}} if len(names) > first + limit else {}
            )
        if name not in held:
            raise Refused(404, "Namespace not found")
        if method == "DELETE":
            self.index.delete(name, ids=None, where=None)
            del held[name]
            return {}
        return self.namespace_told(name)

    def namespace_told(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "record_count": str(len(self.index.namespaces[name])),
        }  # a string, as in the service's JSON

    def vectors(self, verb: str) -> dict[str, Any]:
        given = {"namespace": self.namespace, "usage": {"readUnits": 1}}
        match verb:
            case "upsert":
                return {
                    "upsertedCount": self.index.put(
                        self.namespace, [self.index.vector(one) for one in self.asked["vectors"]]
                    )
                }
            case "list":
                page, following = self.page(self.query, "paginationToken")
                return {"vectors": [{"id": one} for one in page], **following, **given}
            case "fetch":
                return {
                    "vectors": _with_ids(self.index.fetch(self.namespace, self.few(self.ids))),
                    **given,
                }
            case "fetch_by_metadata":
                found, following = self.filtered("paginationToken")
                return {"vectors": _with_ids(found), **following, **given}
            case "delete":
                self.delete(everything="deleteAll")
                return {}
        raise Refused(404, f"no such path: vectors/{verb}")

    def documents(self, verb: str) -> dict[str, Any]:
        given = {"namespace": self.namespace, "usage": {"read_units": 1}}
        match verb:
            case "upsert":
                return {
                    "upserted_count": self.index.put(
                        self.namespace,
                        [self.index.document(one) for one in self.asked["documents"]],
                    )
                }
            case "list":
                page, following = self.page(self.asked, "pagination_token")
                return {"documents": [{"_id": one} for one in page], **following, **given}
            case "fetch":
                following = {}
                if self.asked.get("ids"):
                    found = self.index.fetch(self.namespace, self.few(self.asked["ids"]))
                else:
                    found, following = self.filtered("pagination_token")
                wanted = self.asked.get("include_fields")
                shown = {
                    number: {
                        "_id": number,
                        **{
                            name: value
                            for name, value in record.items()
                            if wanted is None or name in wanted
                        },
                    }
                    for number, record in found.items()
                }
                return {"documents": shown, **following, **given}
            case "delete":
                self.delete(everything="delete_all")
                return {}
        raise Refused(404, f"no such path: documents/{verb}")

    def page(self, asked: dict[str, Any], token: str) -> tuple[list[str], dict[str, Any]]:
        limit = int(asked.get("limit") or PAGE)
        if limit > PAGE:
            raise Refused(400, f"limit must be at most {PAGE}")
        page, following = self.index.ids(
            self.namespace, asked.get("prefix") or "", limit, asked.get(token)
        )
        return page, {"pagination": {"next": following}} if following else {}

    def filtered(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give a page of the records that fit the filter."""
        if not self.asked.get("filter"):
            raise Refused(400, "Filter must not be empty")
        held = self.index.namespaces.get(self.namespace, {})
        fitting = sorted(
            number for number, record in held.items() if matches(record, self.asked["filter"])
        )
        first, limit = int(self.asked.get(token) or 0), int(self.asked.get("limit") or PAGE)
        following = (
            {"pagination": {"next": str(first + limit)}} if len(fitting) > first + limit else {}
        )
        return self.index.fetch(self.namespace, fitting[first : first + limit]), following

    def few(self, ids: list[str]) -> list[str]:
        if not ids or len(ids) > MOST_IDS:
            raise Refused(400, f"fetch takes 1 to {MOST_IDS} ids, not {len(ids)}")
        return ids

    def delete(self, *, everything: str) -> None:
        where = None if self.asked.get(everything) else self.asked.get("filter")
        ids = None if where or self.asked.get(everything) else self.asked["ids"]
        self.index.delete(self.namespace, ids=ids, where=where)

    def queried(self) -> dict[str, Any]:
        shown = [
            name
            for name, flag in (
                ("values", "includeValues"),
                ("sparseValues", "includeValues"),
                ("metadata", "includeMetadata"),
            )
            if self.asked.get(flag)
        ]
        found = [
            {
                "id": number,
                "score": score,
                **{name: record[name] for name in shown if name in record},
            }
            for score, number, record in self.index.nearest(self.namespace, self.asked)
        ]
        return {"matches": found, "namespace": self.namespace, "usage": {"readUnits": 5}}


def _with_ids(records: dict[str, Any]) -> dict[str, Any]:
    return {number: {"id": number, **record} for number, record in records.items()}


if __name__ == "__main__":
    given = options(__doc__)
    Handler.api_key = os.environ.get("PINECONE_API_KEY", "")
    serve(Handler, "pinecone", given)
