"""Elasticsearch's own client for one task, and the words in which Elasticsearch differs.

Requests say ``compatible-with=8``, which servers of version 8 and 9 understand; the client's own
header would be of its version alone, and server 8.19 refuses that of client 9.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from cfray.errors import SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Context, Json, Metric
from cfray.sources.lucene.errors import InvalidAnswer
from cfray.sources.lucene.facts import IndexFacts
from cfray.sources.lucene.schema import Element, VectorField, walk_fields
from cfray.sources.lucene.server import Server, parse_answer, path_of
from cfray.sources.lucene.settings import LuceneSettings

_JSON = "application/vnd.elasticsearch+json; compatible-with=8"
_HEADERS = {"accept": _JSON, "content-type": _JSON}
_METRICS: dict[str, Metric] = {
    "cosine": "cosine",
    "l2_norm": "l2",
    "dot_product": "dot",
    "max_inner_product": "dot",
}
#: The first version that leaves vectors out of ``_source`` unless it is asked for them.
_HIDES_VECTORS_SINCE = (9, 2)


class ElasticServer(Server):
    """An Elasticsearch server."""

    product: ClassVar[str] = "elasticsearch"

    def __init__(self, client: Any, settings: LuceneSettings, context: Context) -> None:
        """Take an opened client."""
        super().__init__(settings, context)
        self._client = client

    def call(self, method: str, target: str, body: Json) -> Any:
        """Send one request; give the parsed answer."""
        answer = self._client.perform_request(method, target, headers=_HEADERS, body=body).body
        if isinstance(answer, bytes):
            raise InvalidAnswer(answer[:200].decode(errors="replace"))
        return answer

    def open_view(self, index: str) -> str:
        """Open a point in time of an index."""
        answer = self.send("POST", path_of(index, "_pit"), keep_alive=self.keep_alive())
        return str(answer["id"])

    def close_view(self, view: str) -> None:
        """Let a point in time go."""
        self.send("DELETE", "/_pit", {"id": view})

    @property
    def order(self) -> str:
        """Name the document's place in its Lucene shard at a point in time."""
        return "_shard_doc"

    @property
    def source_filter(self) -> Json:
        """Ask for all of a document."""
        return {"exclude_vectors": False} if self.version >= _HIDES_VECTORS_SINCE else True

    @staticmethod
    def parse_vector(path: str, declared: Mapping[str, Any]) -> VectorField | None:
        """Read what a mapping declares of a dense vector, or of a list of them."""
        kind = declared.get("type")
        if kind not in ("dense_vector", "rank_vectors"):
            return None
        named = str(declared.get("element_type", "float"))
        element: Element = "byte" if named == "byte" else "bit" if named == "bit" else "float"
        width = int(declared.get("dims", 0))
        metric = _METRICS.get(str(declared.get("similarity", "cosine")))
        return VectorField(
            path,
            width // 8 if element == "bit" else width,
            element,
            None if element == "bit" else metric,
            is_multi=kind == "rank_vectors",
        )

    def restores_vectors(self, facts: IndexFacts) -> bool:
        """Tell whether the server puts vectors back that a mapping keeps out of ``_source``."""
        keeps_source = facts.settings.get("index.mapping.exclude_source_vectors") == "false"
        return self.version >= _HIDES_VECTORS_SINCE and not keeps_source

    def vector_notes(self, facts: IndexFacts) -> Iterator[str]:
        """Name the vectors that are kept in the index alone, at unit length or rounded.

        Measured on 9.5.3: cosine vectors differ from what was written by 1.2e-7, bfloat16 by
        3.9e-3; all others, and all of 8.19, are exact.
        """
        if not self.restores_vectors(facts):
            return
        fields = [
            (path, declared)
            for path, declared, _ in walk_fields(facts.mapping)
            if declared.get("type") == "dense_vector" and declared.get("index") is not False
        ]
        cosine = [
            path
            for path, declared in fields
            if declared.get("similarity", "cosine") == "cosine"
            and declared.get("element_type", "float") == "float"
        ]
        if cosine:
            yield (
                f"{facts.name}: the server keeps its cosine vectors at unit length and gives them "
                f"back with a relative error of 1e-7 ({', '.join(cosine)}); "
                "index.mapping.exclude_source_vectors: false at the index's creation keeps them"
            )
        rounded = [path for path, declared in fields if declared.get("element_type") == "bfloat16"]
        if rounded:
            names = ", ".join(rounded)
            yield f"{facts.name}: the server keeps its bfloat16 vectors rounded: {names}"

    @staticmethod
    def nearest(
        field: str, vector: list[float], k: int, condition: dict[str, Json] | None
    ) -> dict[str, Json]:
        """Write the search for the k nearest vectors."""
        return {
            "knn": {
                "field": field,
                "query_vector": list[Json](vector),
                "k": k,
                "num_candidates": max(100, 2 * k),
                **({} if condition is None else {"filter": condition}),
            }
        }


@contextmanager
def open_server(settings: LuceneSettings, context: Context) -> Iterator[ElasticServer]:
    """Open a client, check what answers, and close the client at the end.

    Raises:
        SourceError: the server is not Elasticsearch, or older than its points in time.
    """
    sdk = import_sdk("elasticsearch", "elasticsearch")
    # what fails is said once, by the source
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    logging.getLogger("elasticsearch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=sdk.ElasticsearchWarning)
    try:
        client = sdk.Elasticsearch(settings.url, **_options(settings, sdk))
    except ValueError as error:
        raise SourceError(
            f"cannot open a client for {settings.address}: {error}",
            "correct source.url: http(s)://host:port",
        ) from None
    try:
        server = ElasticServer(client, settings, context)
        server.check_product()
        yield server
    finally:
        client.close()


def _options(settings: LuceneSettings, sdk: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "request_timeout": settings.timeout,
        "max_retries": 0,
        "retry_on_timeout": False,
        "connections_per_node": 2,
        "serializers": {"application/json": _json_serializer(sdk)},
    }
    secret = settings.read_secret()
    if secret is not None:
        if settings.username:
            options["basic_auth"] = (settings.username, secret)
        else:
            options["api_key"] = secret
    if str(settings.url).startswith("https://"):
        if settings.ca_file:
            options["ca_certs"] = settings.ca_file
        if settings.insecure:
            options |= {"verify_certs": False, "ssl_show_warn": False}
    return options


def _json_serializer(sdk: Any) -> Any:
    """Make a serializer that parses answers exactly.

    What is no JSON stays bytes, for the client still has to look at the answer's status.
    """

    class ExactJson(sdk.JsonSerializer):  # type: ignore[misc]  # the client has no types here
        def loads(self, data: bytes) -> Any:
            try:
                return parse_answer(data)
            except InvalidAnswer:
                return data

    return ExactJson()
