"""The eight documented requests of Chroma's HTTP API v2 that cfray sends, by httpx.

``chromadb.HttpClient`` is not used: it sets no time limit, and of an error it keeps neither
the status nor Retry-After.  httpx and orjson come with chromadb.  The copy of a persistent
directory answers the same requests (``export.py``).

Source: the server's own ``/openapi.json`` (Chroma 1.5.9).
"""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias, cast
from urllib.parse import quote, urlsplit

from cfray.errors import SourceError
from cfray.runtime.retry_after import retry_after_seconds
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import FieldEquals, Json
from cfray.sources.chroma.errors import ErrorAnswer
from cfray.sources.chroma.settings import ChromaSettings
from cfray.sources.chroma.types import CollectionAddress, CollectionModel, parse_answer

Operation: TypeAlias = Literal["databases", "collections", "collection", "count", "get", "query"]

WITHOUT_VECTORS = ("metadatas", "documents", "uris")
ALL_COLUMNS = ("embeddings", *WITHOUT_VECTORS)
#: Databases or collections that one listing request asks for.
_LIST_LIMIT = 1000


class ChromaStore(ABC):
    """A Chroma that answers requests: a server, or the copy of a persistent directory."""

    #: What the ``where`` of each shard must say of the state that was planned.
    pin: Mapping[str, Json] = {}

    @abstractmethod
    def send(
        self,
        address: CollectionAddress,
        operation: Operation,
        model: CollectionModel | None = None,
        body: Mapping[str, object] | None = None,
    ) -> bytes:
        """Send one request, and give its answer (JSON).

        Args:
            address: the tenant, database or collection that the request is about.
            operation: what the request does.
            model: the collection; for ``count``, ``get`` and ``query``.
            body: what ``get`` and ``query`` ask for; limit and offset of the listings.

        Raises:
            ErrorAnswer: the store refuses.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds."""

    def __enter__(self) -> Self:
        """Give the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def list_databases(self, tenant: str) -> list[str]:
        """List the databases of a tenant."""
        models = self._list_all(CollectionAddress(tenant, "", ""), "databases")
        return [str(model["name"]) for model in models]

    def list_collections(self, tenant: str, database: str) -> list[CollectionModel]:
        """List the collections of a database."""
        return self._list_all(CollectionAddress(tenant, database, ""), "collections")

    def _list_all(self, address: CollectionAddress, operation: Operation) -> list[CollectionModel]:
        models: list[CollectionModel] = []
        while True:
            body = {"limit": _LIST_LIMIT, "offset": len(models)}
            answer = parse_answer(self.send(address, operation, body=body))
            page = cast("list[CollectionModel]", answer)
            models += page
            if len(page) < _LIST_LIMIT:
                return models

    def describe_collection(self, address: CollectionAddress) -> CollectionModel:
        """Describe one collection."""
        return cast("CollectionModel", parse_answer(self.send(address, "collection")))

    def count(self, address: CollectionAddress, model: CollectionModel) -> int:
        """Count the records of a collection."""
        return cast("int", parse_answer(self.send(address, "count", model)))

    def list_ids(self, address: CollectionAddress, model: CollectionModel) -> list[str]:
        """List the ids of a collection in one request.

        One request is one SQL statement, so it sees one state of the collection, whoever writes
        meanwhile.
        """
        answer = parse_answer(self.send(address, "get", model, {"include": []}))
        return cast("dict[str, list[str]]", answer)["ids"]

    def get_records(
        self,
        address: CollectionAddress,
        model: CollectionModel,
        ids: Sequence[str],
        columns: Sequence[str] = ALL_COLUMNS,
    ) -> bytes:
        """Fetch records by id."""
        return self.send(address, "get", model, {"ids": ids, "include": columns})

    def get_first_records(
        self,
        address: CollectionAddress,
        model: CollectionModel,
        rows: int,
        columns: Sequence[str],
    ) -> bytes:
        """Fetch the oldest records."""
        return self.send(address, "get", model, {"limit": rows, "include": columns})

    def search_distances(
        self, address: CollectionAddress, model: CollectionModel, vector: list[float], k: int
    ) -> tuple[list[list[float] | None], list[float | None]]:
        """Give the vectors of the k nearest records, and the distances that Chroma computes."""
        body = {
            "query_embeddings": [vector],
            "n_results": k,
            "include": ["distances", "embeddings"],
        }
        answer = cast(
            "dict[str, list[list[object]]]", parse_answer(self.send(address, "query", model, body))
        )
        vectors, distances = answer["embeddings"][0], answer["distances"][0]
        return cast("list[list[float] | None]", vectors), cast("list[float | None]", distances)

    def nearest_ids(
        self,
        address: CollectionAddress,
        model: CollectionModel,
        vector: list[float],
        k: int,
        where: FieldEquals | None = None,
    ) -> list[str]:
        """Give the ids of the k nearest records, nearest first."""
        body: dict[str, Any] = {
            "query_embeddings": [vector],
            "n_results": k,
            "include": ["distances"],
        }
        if where is not None:
            body["where"] = {where.name: where.text}
        answer = parse_answer(self.send(address, "query", model, body))
        return cast("dict[str, list[list[str]]]", answer)["ids"][0]


class ChromaServer(ChromaStore):
    """A Chroma server."""

    def __init__(self, url: str, settings: ChromaSettings) -> None:
        """Create an HTTP client; nothing is sent yet.

        Raises:
            SourceError: the address is Chroma Cloud's.
        """
        if (urlsplit(url).hostname or "").endswith("trychroma.com"):
            raise SourceError(
                "Chroma Cloud gives 300 records a request, and cfray was never run against it",
                "read a Chroma server of your own",
            )
        certificates = (
            False if settings.insecure else ssl.create_default_context(cafile=settings.ca_file)
        )
        self.http_client = import_sdk("httpx", "chroma").Client(
            base_url=url,
            headers=settings.request_headers(),
            timeout=settings.timeout,
            verify=certificates,
        )

    def close(self) -> None:
        """Close the connections."""
        self.http_client.close()

    def send(
        self,
        address: CollectionAddress,
        operation: Operation,
        model: CollectionModel | None = None,
        body: Mapping[str, object] | None = None,
    ) -> bytes:
        """Send one HTTP request."""
        path = _request_path(address, operation, model)
        if operation in ("get", "query"):
            response = self.http_client.post(
                path,
                content=import_sdk("orjson", "chroma").dumps(body),
                headers={"content-type": "application/json"},
            )
        else:
            response = self.http_client.get(path, params=body)
        if response.is_success:
            return cast("bytes", response.content)
        raise ErrorAnswer(
            response.status_code,
            _error_words(response.text),
            retry_after_seconds(response.headers.get("retry-after")),
        )


def _request_path(
    address: CollectionAddress, operation: Operation, model: CollectionModel | None
) -> str:
    path = f"/api/v2/tenants/{quote(address.tenant, safe='')}/databases"
    if operation != "databases":
        path += f"/{quote(address.database, safe='')}/collections"
    if operation == "collection":
        path += f"/{quote(address.collection, safe='')}"
    if model is not None:
        path += f"/{model['id']}/{operation}"
    return path


def _error_words(text: str) -> str:
    """Take Chroma's own words out of an error's JSON."""
    try:
        error = json.loads(text)
        return f"{error['error']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return text[:200]
