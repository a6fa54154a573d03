"""What the beds of Elasticsearch and OpenSearch share: one mapping, and the rows it restores."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np

from cfray.runtime.credentials import Secret
from cfray.sources.lucene.base import LuceneSource
from tests.contract import oracle
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds.proxy import HttpProxy

#: Widths of the further vectors of awkward rows: signed bytes, and bits in bytes.
BYTES_WIDTH, BITS_WIDTH = 5, 2
#: The most bytes that an id may have.
ID_BYTES = 512


class LuceneBed(StoreBed):
    """A server of either product."""

    source_class: ClassVar[type[LuceneSource]]

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, self.key = url, key

    @classmethod
    def key_name(cls) -> str:
        return f"CFRAY_{cls.kind.upper()}_KEY"

    @contextmanager
    @abstractmethod
    def client(self) -> Iterator[Any]:
        """Open the vendor's client."""

    @abstractmethod
    def vector_mapping(self, element: str, width: int) -> dict[str, Any]:
        """Declare a vector of floats, bytes or bits, as the store returns it unchanged."""

    @abstractmethod
    def create(self, client: Any, name: str, properties: Row, **settings: Any) -> None:
        """Create an index."""

    @abstractmethod
    def bulk(self, client: Any, actions: Iterator[Row]) -> None:
        """Index or delete documents, and make them visible."""

    @abstractmethod
    def create_with_mapping(self, client: Any, name: str, mapping: Row) -> None:
        """Create an index of this very mapping."""

    @abstractmethod
    def put_cluster_setting(self, client: Any, name: str, value: Any) -> None:
        """Set a setting of the cluster; None takes it away."""

    @abstractmethod
    def put_index_setting(self, client: Any, index: str, name: str, value: Any) -> None:
        """Set a setting of an index."""

    @abstractmethod
    def put_filtered_alias(self, client: Any, index: str, alias: str, query: Row) -> None:
        """Give an index an alias that shows what a query finds."""

    @abstractmethod
    def search_all(self, client: Any, name: str) -> Any:
        """Give all hits of a small index, with their vectors."""

    def exact_slices(self, lucene_shards: int) -> list[int]:
        """List the numbers of slices that the server can cut an index into."""
        return [1, 2, 3, 5]

    def put_raw(self, name: str, record_id: str, content: bytes, *, refresh: bool = True) -> None:
        """Index a document whose bytes no client would write."""
        refreshed = "true" if refresh else "false"
        request = urllib.request.Request(
            f"{self.url}/{name}/_doc/{quote(record_id, safe='')}?refresh={refreshed}",
            content,
            {"Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=60):
            pass

    def fresh(self) -> str:
        return super().fresh().lower()

    def seed(self, rows: Sequence[Row], name: str | None = None, *, lucene_shards: int = 2) -> str:
        name = name or self.fresh()
        width = next((len(row["vector"]) for row in rows if row.get("vector")), 2)
        properties: Row = {
            "vector": self.vector_mapping("float", width),
            "created": {"type": "date"},
        }
        if any("bytes" in row or "bits" in row for row in rows):
            properties["bytes"] = self.vector_mapping("byte", BYTES_WIDTH)
            properties["bits"] = self.vector_mapping("bit", BITS_WIDTH)
        with self.client() as client:
            self.create(client, name, properties, number_of_shards=lucene_shards)
            self.bulk(client, (self.action(name, row) for row in rows))
        return name

    def action(self, name: str, row: Row) -> Row:
        """Write a row as the vendors' ``helpers.bulk`` takes it."""
        routing = {"routing": row["_routing"]} if "_routing" in row else {}
        return {
            "_op_type": "index",
            "_index": name,
            "_id": document_id(row),
            **routing,
            "_source": document(row),
        }

    def drop(self, name: str) -> None:
        with self.client() as client:
            client.indices.delete(index=name)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        with self.client() as client:
            self.bulk(
                client,
                (
                    {"_op_type": "delete", "_index": name, "_id": document_id({"id": record_id})}
                    for record_id in ids
                ),
            )

    def source(self, *names: str, **options: Any) -> Any:
        fields: dict[str, Any] = {"url": self.url, "collections": list(names) or None}
        if self.key:
            os.environ[self.key_name()] = self.key
            fields["api_key"] = Secret(env=self.key_name())
        return self.source_class(**{**fields, **options})

    def expected(self, row: Row) -> Row:
        fields = {
            key: ("date", f'"{value}"') if key == "created" else as_variant(value)
            for key, value in document(row).items()
            if key not in ("vector", "bytes", "bits")
        }
        if "_routing" in row:
            fields["_routing"] = ("string", row["_routing"])
        vector = row.get("vector")
        expected_row = {
            "id": document_id(row),
            **fields,
            "vector": None if vector is None else [float(number) for number in np.float32(vector)],
        }
        if "bytes" in row:
            expected_row["vectors"] = {
                "bits": row["bits"] and [number % 256 for number in row["bits"]],
                "bytes": row["bytes"],
            }
        return expected_row

    def awkward(self, count: int, dimension: int) -> list[Row]:
        generator = np.random.default_rng(7)
        vectors = generator.standard_normal((count, dimension), np.float32).tolist()
        return [awkward_row(n, vectors[n], generator) for n in range(count)]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id",
            "text_content": "text",
            "title": "title",
            "tags": "tags",
            "created_at": "created",
            "vector": "vector",
        }

    def proxied(self, name: str) -> tuple[HttpProxy, LuceneSource]:
        proxy = HttpProxy(self.url)
        proxy.open()
        return proxy, self.source(name, url=proxy.endpoint, shard_bytes=20_000)

    def page_request(self) -> str:
        return "/_search?"


def document_id(row: Row) -> str:
    """Give the row's id, or a hash of it where it is longer than the stores take."""
    record_id = str(row["id"])
    if len(record_id.encode()) <= ID_BYTES:
        return record_id
    return hashlib.sha256(record_id.encode()).hexdigest()


def document(row: Row) -> Row:
    """Give the document of a row: what is not its id or routing, and no vector that it lacks."""
    return {
        key: value
        for key, value in row.items()
        if key not in ("id", "_routing")
        and not (key in ("vector", "bytes", "bits") and value is None)
    }


def as_variant(value: Any) -> tuple[str, str]:
    """Return the type and the text that a value of a document has in JSON."""
    if isinstance(value, list):
        list_types = {str: "list<string>", float: "list<double>", int: "list<int64>"}
        kinds = {type(element) for element in value}
        kind = list_types.get(kinds.pop(), "list") if len(kinds) == 1 else "list"
        return kind, oracle.metadata_text(value)
    if type(value) is int and value >= 2**63:
        return "uint64" if value < 2**64 else "integer", str(value)
    scalar_types = {
        bool: "bool",
        int: "int64",
        float: "double",
        str: "string",
        type(None): "null",
        dict: "struct",
    }
    return scalar_types[type(value)], oracle.metadata_text(value)


ODD_TEXTS = (
    "it's",
    'say "x"',
    "back\\slash",
    "naïve ☕ \U0001d4b3",
    "e\u0301",
    "null",
    "0042",
    "%s {0} ${x}",
    " padded ",
    "a,b;c\td",
)


def awkward_row(n: int, vector: list[float], generator: np.random.Generator) -> Row:
    odd_text = ODD_TEXTS[n % len(ODD_TEXTS)]
    row: Row = {
        "id": f"{odd_text} {n}",
        "text": f"Text of {n}, {odd_text}. " * 12,
        "title": f"Title {n}",
        "tags": ["all", f"t{n % 7}"],
        "created": f"2024-{1 + n % 12:02d}-{1 + n % 28:02d}T10:00:00.{n % 1000:03d}Z",
        "big": (2**53 + 1 + n) * (-1) ** n,
        "beyond": 10**25 + n,
        "ratio": (-0.0, 1e-300, 0.1, 1.0, 1e16)[n % 5],
        "flag": n % 2 == 0,
        "empty": "",
        "nothing": None,
        "mixed": (n, f"{n}", n / 8, None, [n, "x"])[n % 5],
        "numbers": [n, n + 1],
        "nested": {"at": {"x": n, "odd": odd_text}, "list": [{"y": None}, []]},
        "vector": None if n % 29 == 3 else vector,
        "bytes": [int(number) for number in generator.integers(-128, 128, BYTES_WIDTH)]
        if n % 3
        else None,
        "bits": [int(number) for number in generator.integers(-128, 128, BITS_WIDTH)]
        if n % 5
        else None,
    }
    if n % 4 == 1:
        del row["flag"]
    if n % 3 == 0:
        row["_routing"] = f"tenant {n % 4}"
    return row
