"""OpenSearch's own client for one task, and the words in which OpenSearch differs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Context, Json, Metric
from cfray.sources.lucene.facts import IndexFacts
from cfray.sources.lucene.schema import Element, VectorField, walk_fields
from cfray.sources.lucene.server import Server, parse_answer, path_of
from cfray.sources.lucene.settings import LuceneSettings

_METRICS: dict[str, Metric] = {"cosinesimil": "cosine", "l2": "l2", "innerproduct": "dot"}
#: The first version that can sort by ``_shard_doc``; before, pages follow each other by ``_id``.
_SHARD_DOC_SINCE = (3, 3)


class OpenSearchServer(Server):
    """An OpenSearch server."""

    product: ClassVar[str] = "opensearch"

    def __init__(self, client: Any, settings: LuceneSettings, context: Context) -> None:
        """Take an opened client."""
        super().__init__(settings, context)
        self._client = client

    def call(self, method: str, target: str, body: Json) -> Any:
        """Send one request; give the parsed answer."""
        return self._client.transport.perform_request(method, target, body=body)

    def open_view(self, index: str) -> str:
        """Open a point in time of an index, of all its shards or of none."""
        answer = self.send(
            "POST",
            path_of(index, "_search", "point_in_time"),
            keep_alive=self.keep_alive(),
            allow_partial_pit_creation="false",
        )
        view = str(answer["pit_id"])
        if answer["_shards"]["failed"]:
            self.close_quietly(view)
            raise SourceUnavailable(
                f"{self.settings.address}: {answer['_shards']['failed']} shards of {index} failed "
                "to open a point in time",
                "bring the index's shards back, then run the same command again",
            )
        return view

    def close_view(self, view: str) -> None:
        """Let a point in time go."""
        self.send("DELETE", "/_search/point_in_time", {"pit_id": [view]})

    @property
    def order(self) -> str:
        """Name the document's place in its Lucene shard, or the id where the server has none."""
        return "_shard_doc" if self.version >= _SHARD_DOC_SINCE else "_id"

    @property
    def source_filter(self) -> Json:
        """Ask for all of a document."""
        return True

    @staticmethod
    def parse_vector(path: str, declared: Mapping[str, Any]) -> VectorField | None:
        """Read what a mapping declares of a k-NN vector."""
        if declared.get("type") != "knn_vector":
            return None
        named = str(declared.get("data_type", "float")).lower()
        element: Element = "byte" if named == "byte" else "bit" if named == "binary" else "float"
        width = int(declared.get("dimension", 0))
        method = declared.get("method") or {}
        space = declared.get("space_type") or method.get("space_type") or "l2"
        return VectorField(
            path,
            width // 8 if element == "bit" else width,
            element,
            None if element == "bit" else _METRICS.get(str(space)),
        )

    def vector_notes(self, facts: IndexFacts) -> Iterator[str]:
        """Name the vectors whose length the server has thrown away.

        Measured on 3.6.0: faiss with cosinesimil, where the vectors are not kept in ``_source``.
        """
        if facts.settings.get("index.knn.derived_source.enabled") != "true":
            return
        unit = []
        for path, declared, _ in walk_fields(facts.mapping):
            method = declared.get("method") or {}
            space = declared.get("space_type") or method.get("space_type")
            is_faiss = method.get("engine", "faiss") == "faiss"
            if declared.get("type") == "knn_vector" and space == "cosinesimil" and is_faiss:
                unit.append(path)
        if unit:
            yield (
                f"{facts.name}: the server made its cosine vectors unit length and gives them so "
                f"({', '.join(unit)}): their magnitude is gone at the source"
            )

    @staticmethod
    def nearest(
        field: str, vector: list[float], k: int, condition: dict[str, Json] | None
    ) -> dict[str, Json]:
        """Write the search for the k nearest vectors."""
        query: dict[str, Json] = {"vector": list[Json](vector), "k": k}
        if condition is not None:
            query["filter"] = condition
        return {"query": {"knn": {field: query}}}


@contextmanager
def open_server(settings: LuceneSettings, context: Context) -> Iterator[OpenSearchServer]:
    """Open a client, check what answers, and close the client at the end.

    Raises:
        SourceError: the server is not OpenSearch.
    """
    sdk = import_sdk("opensearchpy", "opensearch")
    # what fails is said once, by the source
    logging.getLogger("opensearch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=sdk.OpenSearchWarning)
    try:
        client = sdk.OpenSearch([settings.url], **_options(settings, sdk))
    except (ValueError, sdk.exceptions.ImproperlyConfigured) as error:
        raise SourceError(
            f"cannot open a client for {settings.address}: {error}",
            "correct source.url: http(s)://host:port",
        ) from None
    try:
        server = OpenSearchServer(client, settings, context)
        server.check_product()
        yield server
    finally:
        client.close()


def _options(settings: LuceneSettings, sdk: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "timeout": settings.timeout,
        "max_retries": 0,
        "retry_on_timeout": False,
        "pool_maxsize": 2,
        "serializer": _json_serializer(sdk),
    }
    secret = settings.read_secret()
    if secret is not None:
        if settings.username:
            options["http_auth"] = (settings.username, secret)
        else:
            options["headers"] = {"Authorization": f"Bearer {secret}"}
    if str(settings.url).startswith("https://"):
        options["verify_certs"] = not settings.insecure
        options["ssl_show_warn"] = False
        if settings.ca_file:
            options["ca_certs"] = settings.ca_file
    return options


def _json_serializer(sdk: Any) -> Any:
    """Make a serializer that parses answers exactly."""

    class ExactJson(sdk.JSONSerializer):  # type: ignore[misc]  # the client has no types here
        def loads(self, s: str) -> Any:
            return parse_answer(s)

    return ExactJson()
