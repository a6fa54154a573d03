"""What cfray asks of Chroma: eight documented requests of its HTTP API v2, sent by httpx.

Not through ``chromadb.HttpClient``: it sets no time limit, and of an error it keeps
neither the status nor Retry-After.  httpx and orjson come with chromadb.  A copied
persistent directory answers the same requests (``chroma_export``).

Source: the server's own ``/openapi.json`` (Chroma 1.5.9).
"""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self, cast
from urllib.parse import quote, urlsplit

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Json
from cfray.sources.chroma.types import Model, Place, parsed

EVERYTHING = ("embeddings", "metadatas", "documents", "uris")
#: What Chroma 1.5.9 says of a page that holds a record whose vector it lost
#: (chroma-core/chroma#2905): the whole page fails.
LOST_VECTOR = "Error finding id"
#: Its words where a request names more records than SQLite takes variables
#: (chroma-core/chroma#1861).
TOO_MANY = "too many SQL variables"
#: Collections asked for at once when they are listed.
_LISTED = 1000


class Refused(Exception):
    """An answer that is no success: HTTP status, Chroma's own words, seconds of Retry-After."""

    def __init__(self, status: int, words: str, retry_after: float | None = None) -> None:
        """Keep the three in ``args``."""
        super().__init__(status, words, retry_after)
        self.status, self.words, self.retry_after = status, words, retry_after


class SmallerPage(SourceError):
    """The store refuses this page and may give a smaller one."""


class Store(ABC):
    """A Chroma that answers: a server, or the copy of a persistent directory."""

    #: What a shard must say of the state it was planned on.
    pinned: Mapping[str, Json] = {}

    @abstractmethod
    def answer(
        self,
        place: Place,
        what: str,
        model: Model | None = None,
        body: Mapping[str, object] | None = None,
    ) -> bytes:
        """Send one request, give its answer (JSON).

        Args:
            place: whose tenant, database or collection it is about.
            what: ``databases``, ``collections``, ``collection``, ``count``, ``get`` or ``query``.
            model: the collection, for the last three.
            body: what ``get`` and ``query`` ask for; limit and offset of the first two.

        Raises:
            Refused: the store says no.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""

    def __enter__(self) -> Self:
        """Give the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def databases(self, tenant: str) -> list[str]:
        """List the databases of a tenant."""
        return [str(one["name"]) for one in self._all(Place(tenant, "", ""), "databases")]

    def collections(self, tenant: str, database: str) -> list[Model]:
        """List the collections of a database."""
        return self._all(Place(tenant, database, ""), "collections")

    def _all(self, place: Place, what: str) -> list[Model]:
        found: list[Model] = []
        while True:
            page = cast(
                "list[Model]",
                parsed(self.answer(place, what, body={"limit": _LISTED, "offset": len(found)})),
            )
            found += page
            if len(page) < _LISTED:
                return found

    def collection(self, place: Place) -> Model:
        """Describe one collection."""
        return cast("Model", parsed(self.answer(place, "collection")))

    def count(self, place: Place, model: Model) -> int:
        """Count the records of a collection."""
        return cast("int", parsed(self.answer(place, "count", model)))

    def ids(self, place: Place, model: Model) -> list[str]:
        """List the ids of a collection in one request.

        One SQL statement, so one state of the collection, whoever writes meanwhile.
        """
        page = cast(
            "dict[str, list[str]]", parsed(self.answer(place, "get", model, {"include": []}))
        )
        return page["ids"]

    def get(
        self, place: Place, model: Model, ids: Sequence[str], include: Sequence[str] = EVERYTHING
    ) -> bytes:
        """Fetch records by id."""
        return self.answer(place, "get", model, {"ids": ids, "include": include})

    def first(self, place: Place, model: Model, rows: int, include: Sequence[str]) -> bytes:
        """Fetch the oldest records."""
        return self.answer(place, "get", model, {"limit": rows, "include": include})

    def nearest(self, place: Place, model: Model, vector: list[float], k: int) -> list[str]:
        """Give the ids of the k nearest records, nearest first."""
        body = {"query_embeddings": [vector], "n_results": k, "include": ["distances"]}
        return cast("dict[str, list[list[str]]]", parsed(self.answer(place, "query", model, body)))[
            "ids"
        ][0]


class Live(Store):
    """A Chroma server."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        ca_file: str | None,
        insecure: bool,
    ) -> None:
        """Open a client; nothing is sent yet.

        Raises:
            SourceError: the address is Chroma Cloud's.
        """
        if (urlsplit(url).hostname or "").endswith("trychroma.com"):
            raise SourceError(
                "Chroma Cloud gives 300 records a request, and cfray was never run against it",
                "read a Chroma server of your own",
            )
        verify = False if insecure else ssl.create_default_context(cafile=ca_file)
        self.client = import_sdk("httpx", "chroma").Client(
            base_url=url, headers=dict(headers), timeout=timeout, verify=verify
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def answer(
        self,
        place: Place,
        what: str,
        model: Model | None = None,
        body: Mapping[str, object] | None = None,
    ) -> bytes:
        """Send one HTTP request."""
        path = f"/api/v2/tenants/{quote(place.tenant, safe='')}/databases"
        if what != "databases":
            path += f"/{quote(place.database, safe='')}/collections"
        if what == "collection":
            path += f"/{quote(place.collection, safe='')}"
        if model is not None:
            path += f"/{model['id']}/{what}"
        if what in ("get", "query"):
            sent = import_sdk("orjson", "chroma").dumps(body)
            response = self.client.post(
                path, content=sent, headers={"content-type": "application/json"}
            )
        else:
            response = self.client.get(path, params=body)
        if response.is_success:
            return cast("bytes", response.content)
        raise Refused(
            response.status_code,
            _words(response.text),
            _seconds(response.headers.get("retry-after")),
        )


def _words(text: str) -> str:
    try:
        told = json.loads(text)
        return f"{told['error']}: {told['message']}"
    except (ValueError, KeyError, TypeError):
        return text[:200]


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def judged(error: Exception, place: str) -> SourceError | None:
    """Say what an error means: terminal, transient, or that a smaller page may do."""
    if isinstance(error, Refused):
        return _of_status(error, place)
    httpx = import_sdk("httpx", "chroma")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return SourceError(
            f"{place} is no address: {error}",
            "correct source.url: http://host:port or https://host:port",
        )
    if isinstance(error, httpx.TransportError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return SourceError(
                f"the certificate of {place} is not trusted",
                "name the certificates to trust with source.ca_file",
            )
        return SourceUnavailable(
            f"{place} did not answer: {type(error).__name__}: {error}",
            "check that Chroma runs and is reachable, or raise source.timeout",
        )
    return None


def _of_status(error: Refused, place: str) -> SourceError:
    told = f"{place} answered {error.status}: {error.words or 'nothing'}"
    if error.status == 413 or TOO_MANY in error.words or LOST_VECTOR in error.words:
        return SmallerPage(
            told, "report this: cfray asks for less at a time and did not get it either"
        )
    if error.status in (401, 403):
        return SourceError(
            told,
            "let source.api_key name a credential that may read, and source.api_key_header the header it travels in",
        )
    if error.status == 404:
        what = (
            "source.collections (or source.tenant and source.database)"
            if error.words
            else "source.url"
        )
        return SourceError(told, f"correct {what} in the job file")
    if error.status in (408, 429) or error.status >= 500:
        return SourceUnavailable(
            told, "look into the server's log, then run the same command again", error.retry_after
        )
    return SourceError(
        told, "correct the job file; where it is right, Chroma's own data is damaged"
    )
