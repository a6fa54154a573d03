"""OpenSearch for the tests: a real node with k-NN, filled by the project's own client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from cfray.sources.opensearch.source import OpenSearch
from tests.sources import lucene_bed
from tests.sources.store_bed import Row
from tests.testbeds import opensearch


class OpenSearchBed(lucene_bed.LuceneBed):
    kind = "opensearch"
    source_class: ClassVar = OpenSearch

    @classmethod
    @contextmanager
    def serving(
        cls, folder: Path, *, version: str = opensearch.NEWEST, quick: bool = True
    ) -> Iterator[Self]:
        if version == opensearch.NEWEST and (url := cls.endpoint()):
            yield cls(url, os.environ.get(cls.key_name()))
            return
        with opensearch.start(folder, version=version, quick=quick) as server:
            yield cls(server.endpoint)

    @classmethod
    def measured(cls, folder: Path) -> Any:
        return cls.serving(folder, quick=False)

    @contextmanager
    def client(self) -> Iterator[Any]:
        from opensearchpy import OpenSearch as Client

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else None
        with Client([self.url], timeout=120, headers=headers) as client:
            yield client

    def vector_mapping(self, element: str, width: int) -> dict[str, Any]:
        dimension = 8 * width if element == "bit" else width
        data_type = "binary" if element == "bit" else element
        method = (
            {"name": "hnsw", "engine": "faiss", "space_type": "hamming"}
            if element == "bit"
            else {"name": "hnsw", "engine": "lucene", "space_type": "l2"}
        )
        return {
            "type": "knn_vector",
            "dimension": dimension,
            "data_type": data_type,
            "method": method,
        }

    def create(self, client: Any, name: str, properties: Row, **settings: Any) -> None:
        index_settings = {"number_of_replicas": 0, "knn": True, **settings}
        client.indices.create(
            index=name,
            body={
                "settings": {"index": index_settings},
                "mappings": {"dynamic": False, "properties": properties},
            },
        )

    def create_with_mapping(self, client: Any, name: str, mapping: Row) -> None:
        settings = {"index": {"knn": True}}
        client.indices.create(index=name, body={"settings": settings, "mappings": mapping})

    def put_cluster_setting(self, client: Any, name: str, value: Any) -> None:
        client.cluster.put_settings(body={"persistent": {name: value}})

    def put_index_setting(self, client: Any, index: str, name: str, value: Any) -> None:
        client.indices.put_settings(index=index, body={name: value})

    def put_filtered_alias(self, client: Any, index: str, alias: str, query: Row) -> None:
        client.indices.put_alias(index=index, name=alias, body={"filter": query})

    def search_all(self, client: Any, name: str) -> Any:
        return client.search(index=name, body={"size": 1_000})

    def bulk(self, client: Any, actions: Iterator[Row]) -> None:
        from opensearchpy import helpers

        helpers.bulk(client, actions, chunk_size=1_000, refresh=True)

    def vendor_read(self, name: str) -> int:
        """Read with the client's own ``scan`` in large pages."""
        from opensearchpy import helpers

        with self.client() as client:
            return sum(1 for _ in helpers.scan(client, index=name, size=2_000))
