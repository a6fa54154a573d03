"""Elasticsearch for the tests: a real node, filled by the vendor's own client."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from cfray.sources.elasticsearch.source import Elasticsearch
from tests.sources import lucene_bed
from tests.sources.store_bed import Row
from tests.testbeds import elasticsearch


def compatible(media_type: str) -> str:
    """Say version 8 where client 9 says 9: servers of version 9 understand it, too."""
    return re.sub(
        "^application/(x-nd)?json$",
        lambda found: f"application/vnd.elasticsearch+{found[1] or ''}json; compatible-with=8",
        media_type,
    )


class ElasticsearchBed(lucene_bed.LuceneBed):
    kind = "elasticsearch"
    version: str = elasticsearch.NEWEST
    source_class: ClassVar = Elasticsearch

    @classmethod
    @contextmanager
    def serving(
        cls, folder: Path, *, version: str = elasticsearch.NEWEST, quick: bool = True
    ) -> Iterator[Self]:
        if version == elasticsearch.NEWEST and (url := cls.endpoint()):
            bed = cls(url, os.environ.get(cls.key_name()))
            bed.version = version
            yield bed
            return
        with elasticsearch.start(folder, version=version, quick=quick) as server:
            bed = cls(server.endpoint)
            bed.version = version
            yield bed

    @classmethod
    def measured(cls, folder: Path) -> Any:
        return cls.serving(folder, quick=False)

    @contextmanager
    def client(self) -> Iterator[Any]:
        from elasticsearch import Elasticsearch as Client

        class Compatible(Client):
            """Speaks to servers of version 8 and 9."""

            def perform_request(self, *arguments: Any, **options: Any) -> Any:
                headers = options.get("headers") or {}
                options["headers"] = {name: compatible(text) for name, text in headers.items()}
                return super().perform_request(*arguments, **options)

        with Compatible(self.url, api_key=self.key, request_timeout=120) as client:
            yield client

    def vector_mapping(self, element: str, width: int) -> dict[str, Any]:
        dimensions = 8 * width if element == "bit" else width
        kind = {"type": "dense_vector", "dims": dimensions, "element_type": element}
        return {**kind, "similarity": "l2_norm", "index": True}

    def create(self, client: Any, name: str, properties: Row, **settings: Any) -> None:
        client.indices.create(
            index=name,
            settings={"number_of_replicas": 0, **settings},
            mappings={"dynamic": False, "properties": properties},
        )

    def create_with_mapping(self, client: Any, name: str, mapping: Row) -> None:
        # else the server puts excluded vectors back
        newest = self.version != elasticsearch.OLDER
        settings = {"index.mapping.exclude_source_vectors": False} if newest else {}
        client.indices.create(index=name, mappings=mapping, settings=settings)

    def put_cluster_setting(self, client: Any, name: str, value: Any) -> None:
        client.cluster.put_settings(persistent={name: value})

    def put_index_setting(self, client: Any, index: str, name: str, value: Any) -> None:
        client.indices.put_settings(index=index, settings={name: value})

    def put_filtered_alias(self, client: Any, index: str, alias: str, query: Row) -> None:
        client.indices.put_alias(index=index, name=alias, filter=query)

    def search_all(self, client: Any, name: str) -> Any:
        whole = {"exclude_vectors": False} if self.version != elasticsearch.OLDER else True
        return client.search(index=name, size=1_000, source=whole)

    def exact_slices(self, lucene_shards: int) -> list[int]:
        """Elasticsearch 8 cuts an index into no more slices than Lucene shards."""
        slices = super().exact_slices(lucene_shards)
        if self.version != elasticsearch.OLDER:
            return slices
        return [number for number in slices if number <= lucene_shards]

    def bulk(self, client: Any, actions: Iterator[Row]) -> None:
        from elasticsearch import helpers

        helpers.bulk(client, actions, chunk_size=1_000, refresh=True)

    def vendor_read(self, name: str) -> int:
        """Read with the vendor's own ``scan`` in large pages."""
        from elasticsearch import helpers

        whole = {"_source": {"exclude_vectors": False}}
        with self.client() as client:
            return sum(1 for _ in helpers.scan(client, query=whole, index=name, size=2_000))
