"""Pinecone for the tests: the double, or a project of the user's.

CFRAY_PINECONE_ENDPOINT and CFRAY_PINECONE_KEY name such a project.  A project has room for few
indexes, so each dimension and metric has an index, and each collection is a namespace.  What
Pinecone cannot hold is left out or changed: an id that is not 1 to 512 ASCII characters becomes a
digest, and the id itself a metadata key; null is left out; nested values and lists that do not hold
strings become JSON texts; numbers become floats; a record without a vector gets a vector.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from cfray.runtime.credentials import Secret
from cfray.sources.pinecone.settings import CONTROL_PLANE
from cfray.sources.pinecone.source import Pinecone
from tests.sources.corpus import as_json
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import pinecone
from tests.testbeds.proxy import HttpProxy
from tests.testbeds.server import Server, until

KEY = "CFRAY_PINECONE_KEY"
_BATCH = 100


class PineconeBed(StoreBed):
    kind = "pinecone"
    double = True

    def __init__(self, url: str, key: str, server: Server | None = None) -> None:
        self.url, self.key, self.server = url, key, server
        self.indexes: set[str] = set()

    @classmethod
    @contextmanager
    def serving(cls, folder: Path, *, api_key: str | None = None) -> Iterator[Self]:
        if os.environ.get(KEY) and cls.endpoint():
            yield cls(cls.endpoint() or CONTROL_PLANE, os.environ[KEY])
            return
        with pinecone.start(folder, api_key=api_key) as server:
            yield cls(
                server.env["PINECONE_CONTROLLER_HOST"], server.env["PINECONE_API_KEY"], server
            )

    @contextmanager
    def client(self) -> Iterator[Any]:
        from pinecone import Pinecone as Client

        with Client(api_key=self.key, host=self.url) as client:
            yield client

    @contextmanager
    def index(self, name: str) -> Iterator[Any]:
        """Open the index of a collection."""
        with self.client() as client, client.index(name=name.split("/", maxsplit=1)[0]) as index:
            yield index

    def create_index(self, index: str, **options: Any) -> str:
        """Create an index if it does not exist."""
        if index not in self.indexes:
            with self.client() as client:
                client.indexes.create(name=index, **options)
            self.indexes.add(index)
        return index

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        width = width_of(rows)
        metric = "dotproduct" if any("sparse" in row for row in rows) else "cosine"
        name = name or f"{self.run}-{metric}-{width}/{self.fresh()}".lower()
        index, _, namespace = name.partition("/")
        self.create_index(index, dimension=width, metric=metric)
        with self.index(name) as index_client:
            if not rows and namespace:
                index_client.create_namespace(name=namespace)
            for start in range(0, len(rows), _BATCH):
                index_client.upsert(
                    vectors=[storable(row, width) for row in rows[start : start + _BATCH]],
                    namespace=namespace,
                )
            if self.server is None:
                ids = {store_id(row["id"]) for row in rows}
                until(
                    lambda: (
                        {
                            record.id
                            for page in index_client.list(namespace=namespace)
                            for record in page.vectors
                        }
                        == ids
                    ),
                    seconds=300,
                    what=f"{name} lists all its ids",
                )
        return name

    def drop(self, name: str) -> None:
        index, _, namespace = name.partition("/")
        if namespace:
            with self.index(name) as index_client:
                index_client.delete_namespace(name=namespace)
            return
        with self.client() as client:
            client.indexes.delete(index)
        self.indexes.discard(index)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        with self.index(name) as index_client:
            index_client.delete(
                ids=[store_id(record_id) for record_id in ids], namespace=name.partition("/")[2]
            )

    def source(self, *names: str, **options: Any) -> Pinecone:
        os.environ[KEY] = self.key
        return Pinecone(
            **{
                "url": self.url,
                "collections": list(names) or None,
                "api_key": Secret(env=KEY),
                **options,
            }
        )

    def expected(self, row: Row) -> Row:
        stored = storable(row, width_of([row]))
        read_metadata = {
            key: float(value) if type(value) is int else value
            for key, value in stored["metadata"].items()
        }
        empty_lists = {key: ("list", "[]") for key, value in read_metadata.items() if value == []}
        expected_row = {
            "id": stored["id"],
            "vector": [float(number) for number in np.float32(stored["values"])],
            **as_json(read_metadata | dict.fromkeys(empty_lists)),
            **empty_lists,
        }
        if "sparse" not in row:
            return expected_row
        sparse = row["sparse"] and {
            key: [
                float(np.float32(number)) if key == "values" else number
                for number in row["sparse"][key]
            ]
            for key in row["sparse"]
        }
        return {**expected_row, "vectors": {"sparse": sparse}}

    def awkward(self, count: int, dimension: int) -> list[Row]:
        vectors = np.random.default_rng(7).standard_normal((count, dimension), np.float32).tolist()
        return [awkward_row(n, vectors[n]) for n in range(count)]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id",
            "text_content": "text",
            "title": "title",
            "tags": "tags",
            "created_at": "created",
            "vector": "vector",
        }

    def vendor_read(self, name: str) -> int:
        """List the ids, and fetch as many at once as an address of 15 kB can hold.

        Four fetches run at a time, which is the fastest way that the client offers.
        """
        namespace = name.partition("/")[2]
        with self.index(name) as index, ThreadPoolExecutor(4) as pool:
            ids = [
                record.id
                for page in index.list(namespace=namespace, limit=100)
                for record in page.vectors
            ]
            pages: list[list[str]] = [[]]
            free_bytes = 15_000
            for record_id in ids:
                size = len(quote(record_id, safe="")) + len("&ids=")
                if size > free_bytes or len(pages[-1]) == 1_000:
                    pages.append([])
                    free_bytes = 15_000
                pages[-1].append(record_id)
                free_bytes -= size
            return sum(
                pool.map(
                    lambda page: len(index.fetch(ids=page, namespace=namespace).vectors), pages
                )
            )

    def proxied(self, name: str) -> tuple[HttpProxy, Pinecone]:
        """Start a proxy in front of the double, which finds an index by the request's ``Host``."""
        proxy = HttpProxy(self.url)
        proxy.open()
        return proxy, self.source(name, url=proxy.endpoint, shard_bytes=20_000)

    def page_request(self) -> str:
        return "/vectors/fetch"


def width_of(rows: Sequence[Row]) -> int:
    return next((len(row["vector"]) for row in rows if row.get("vector")), 2)


def store_id(text: str) -> str:
    """Compute an id that Pinecone accepts."""
    fits = 1 <= len(text) <= 512 and text.isascii() and "\0" not in text
    return text if fits else f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def storable(row: Row, width: int) -> Row:
    """Return the record that is written into Pinecone for a row."""
    record_id = store_id(row["id"])
    metadata = {
        key: _storable_value(value)
        for key, value in row.items()
        if key not in ("id", "vector", "sparse") and value is not None
    }
    if record_id != row["id"]:
        metadata["doc_id"] = row["id"]
    record: Row = {
        "id": record_id,
        "values": row.get("vector") or [0.5] * width,
        "metadata": metadata,
    }
    return record | ({"sparse_values": row["sparse"]} if row.get("sparse") else {})


def _storable_value(value: Any) -> Any:
    if isinstance(value, bool | str | int | float) or (
        isinstance(value, list) and all(isinstance(element, str) for element in value)
    ):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


_IDS = (
    "plain-{n}",
    'it\'s "{n}"',
    "back\\slash\\{n}",
    "a,b;c\t{n}",
    " padded {n} ",
    "doc#{n}/part?x=1&y=2",
    "../{n}",
    "ünï ☕ {n}",
    "%25{n}%",
    "{n}" + "/" * 500,
)
_INTEGERS = (2**53 + 1, -(2**63), 2**63 - 1, 0, -1)
_FLOATS = (-0.0, 1e-300, 0.1, 1e308, 3.0)


def awkward_row(n: int, vector: list[float]) -> Row:
    row: Row = {
        "id": _IDS[n % len(_IDS)].replace("{n}", str(n)),
        "vector": vector,
        "text": f"Paragraph {n}: "
        + "Ünïcode ☕ \U0001d4b3, \"quotes\" and 'more', a line\nand a tab\t. " * 5,
        "title": f"Title {n}",
        "tags": ["a", f"tag {n % 17}"] if n % 3 else [],
        "created": f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d}T10:00:00Z",
        "count": _INTEGERS[n % len(_INTEGERS)],
        "ratio": _FLOATS[n % len(_FLOATS)],
        "flag": n % 2 == 0,
        "empty": "",
        "null as a word": "null",
        "nested": {"by": f"author {n % 7}", "at": [n, None]},
        "sparse": {"indices": [1, 7 + n, 4_000_000_000], "values": [0.5, 0.1, 1.0]}
        if n % 3 == 0
        else None,
    }
    if n % 4 == 0:
        del row["title"], row["tags"]
    return row
