"""Chroma for the tests: a real server, filled by the vendor's client over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from cfray.runtime.credentials import Secret
from cfray.sources.chroma.source import Chroma
from tests.contract import oracle
from tests.sources.corpus import ODD_IDS, as_json
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import chroma
from tests.testbeds.faults import Listener
from tests.testbeds.proxy import HttpProxy, _Forward

#: Chroma refuses a record without a vector; the bed writes this vector for such rows.
NO_VECTOR = [0.5, -0.5]
_RECORD_FIELDS = ("id", "text", "vector", "uri")
_HNSW = {"space": "l2", "ef_construction": 8, "max_neighbors": 4}


def metadata(row: Row) -> Row | None:
    """Return the metadata of a row that Chroma can hold.

    It holds no null and no empty list; a nested value becomes JSON text; zero loses its sign.
    """
    stored = {
        key: value
        for key, value in row.items()
        if key not in _RECORD_FIELDS and value not in (None, [])
    }
    return {key: _stored_value(value) for key, value in stored.items()} or None


def _stored_value(value: Any) -> Any:
    if isinstance(value, dict):
        return oracle.canonical(value)
    return value + 0.0 if isinstance(value, float) else value


def _variant_of(value: Any) -> tuple[str, str]:
    if isinstance(value, list) and type(value[0]) is int:
        return "list<int64>" if max(map(abs, value)) <= 2**53 else "list", oracle.metadata_text(
            value
        )
    if isinstance(value, list) and type(value[0]) is bool:
        return "list<bool>", oracle.metadata_text(value)
    variant: tuple[str, str] = as_json({"value": value})["value"]
    return variant


def vector(row: Row) -> list[float]:
    return NO_VECTOR if row.get("vector") is None else row["vector"]


def fill(
    client: Any, name: str, rows: Sequence[Row], index: Row | None = None, **options: Any
) -> Any:
    """Create a collection with the vendor's client, and fill it with rows."""
    collection = client.create_collection(
        name,
        embedding_function=None,
        configuration={"hnsw": {**_HNSW, **(index or {})}},
        **options,
    )
    for start in range(0, len(rows), 1000):
        page_rows = rows[start : start + 1000]
        collection.add(
            ids=[row["id"] for row in page_rows],
            embeddings=np.asarray([vector(row) for row in page_rows], np.float32),
            metadatas=[metadata(row) for row in page_rows],
            documents=[row.get("text") for row in page_rows],
            uris=[row.get("uri") for row in page_rows],
        )
    return collection


class ChromaBed(StoreBed):
    kind = "chroma"

    def __init__(self, url: str, api_key: Secret | None = None) -> None:
        self.url, self.api_key = url, api_key
        self.client: Any = self.connect(api_key)

    def connect(self, api_key: Secret | None = None, **options: Any) -> Any:
        """Open the vendor's client."""
        import chromadb
        from chromadb.config import Settings

        host, _, port = self.url.partition("://")[2].partition(":")
        headers = {"x-chroma-token": api_key.reveal()} if api_key else {}
        settings = Settings(anonymized_telemetry=False)
        return chromadb.HttpClient(
            host,
            int(port),
            ssl=self.url.startswith("https"),
            headers=headers,
            settings=settings,
            **options,
        )

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[Self]:
        if endpoint := cls.endpoint():
            yield cls(endpoint)
            return
        with chroma.start(folder) as server:
            yield cls(server.endpoint)

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        name = name or self.fresh()
        fill(self.client, name, rows)
        return name

    def drop(self, name: str) -> None:
        self.client.delete_collection(name)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        self.client.get_collection(name, embedding_function=None).delete(ids=list(ids))

    def source(self, *names: str, **options: Any) -> Chroma:
        return Chroma(
            **{
                "url": self.url,
                "collections": list(names) or None,
                "api_key": self.api_key,
                **options,
            }
        )

    def expected(self, row: Row) -> Row:
        variants = {key: _variant_of(value) for key, value in (metadata(row) or {}).items()} | (
            {"uri": ("string", row["uri"])} if row.get("uri") else {}
        )
        return {
            "id": row["id"],
            "vector": [float(np.float32(number)) for number in vector(row)],
            "text": row.get("text"),
            **variants,
        }

    def awkward(self, count: int, dimension: int) -> list[Row]:
        vectors = (
            np.random.default_rng(7).standard_normal((count, dimension)).astype(np.float32).tolist()
        )
        return [_awkward_row(n, vector) for n, vector in enumerate(vectors)]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id", "vector": "vector", "text_content": "text", "title": "title", "uri": "uri",
            "tags": "tags", "author": "author", "created_at": "created",
        }  # fmt: skip

    def vendor_read(self, name: str) -> int:
        collection, row_count = self.client.get_collection(name, embedding_function=None), 0
        while page := collection.get(
            limit=2_000, offset=row_count, include=["embeddings", "metadatas", "documents", "uris"]
        )["ids"]:
            row_count += len(page)
        return row_count

    def proxied(self, name: str) -> tuple[HttpProxy, Chroma]:
        proxy = HttpProxy(self.url)
        proxy.open()
        return proxy, self.source(name, url=proxy.endpoint, shard_bytes=2_000)

    def page_request(self) -> str:
        return "/get"


def _awkward_row(n: int, vector: list[float]) -> Row:
    id_forms = (
        f"doc-{n}",
        f"{n}",
        f"{n:032x}",
        f"é☕ {n}",
        f'"{n}" it\'s',
        f"a/b\\{n}",
        f"{n}#%s {{0}}",
        f" {n} ",
    )
    row: Row = {
        "id": ODD_IDS[n] if n < len(ODD_IDS) else id_forms[n % len(id_forms)],
        "vector": vector,
        "text": (f"Text {n}: “quoted”, naïve ☕ \U0001d4b3 & 'so on'. " * 7)[:300],
        "title": f"Title {n}",
        "created": (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n)).isoformat(),
        "author": ("Ann", "naïve ☕", 'B "C" D')[n % 3],
        "tags": ["a", f"t{n % 50}"],
        "n": (n, 2**53 + n, 2**63 - 1, -(2**63))[n % 4],
        "ratio": (0.1, 1e-300, -0.0, n / 8)[n % 4],
        "flag": n % 2 == 0,
        "scores": [n / 2, 0.5],
        "counts": [n, 2**53 + 1],
        "flags": [True, False],
        "empty": "",
        "dotted.key": "x",
        "uri": f"s3://bucket/{n}",
        "kind": "null",
        "vector_name": "id",
    }
    for key in (("text",), ("uri", "tags"), ("author",), ())[n % 11 % 4]:
        del row[key]
    return row | ({"text": ""} if n % 97 == 5 else {})


class TokenProxy(HttpProxy):
    """A proxy that passes only requests with a token: Chroma advises a proxy instead of a login."""

    def __init__(self, upstream: str, token: str, header: str = "x-chroma-token") -> None:
        super().__init__(upstream)
        self.token, self.header = token, header

    def open(self) -> None:
        self.listener = Listener(type("Guard", (_TokenForward,), {"proxy": self}))
        self.endpoint = f"http://127.0.0.1:{self.listener.port}"


class _TokenForward(_Forward):
    proxy: TokenProxy

    def forward(self) -> None:
        if self.headers.get(self.proxy.header) == self.proxy.token:
            return super().forward()
        self.body()
        return self.answer(401, "", [], b'{"error":"AuthError","message":"Unauthorized"}')
