"""Qdrant for the tests: the double (the vendor's engine behind REST and gRPC), or a real server.

Qdrant takes no free strings as ids: the bed computes a 64-bit integer from the ids of one half of
the rows, and a UUID from the ids of the other half.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from cfray.runtime.credentials import Secret
from cfray.sources.qdrant.source import Qdrant
from tests.contract import oracle
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import qdrant
from tests.testbeds.proxy import GrpcProxy, HttpProxy

KEY = "CFRAY_QDRANT_KEY"
#: Widths of the further vectors of awkward rows.
MULTI_WIDTH, HALF_WIDTH, BYTES_WIDTH = 4, 6, 5


class QdrantBed(StoreBed):
    kind = "qdrant"
    double = True

    def __init__(
        self, url: str, grpc_port: int, key: str | None = None, *, over_grpc: bool = True
    ) -> None:
        self.url, self.grpc_port, self.key, self.over_grpc = url, grpc_port, key, over_grpc

    @classmethod
    @contextmanager
    def serving(
        cls,
        folder: Path,
        *,
        version: str = qdrant.VERSION,
        api_key: str | None = None,
        over_grpc: bool = True,
    ) -> Iterator[Self]:
        if url := cls.endpoint():
            yield cls(
                url,
                int(os.environ.get("CFRAY_QDRANT_GRPC_PORT", "6334")),
                os.environ.get(KEY),
                over_grpc=over_grpc,
            )
            return
        with qdrant.start(folder, version=version, api_key=api_key) as server:
            yield cls(server.endpoint, server.ports[1], api_key, over_grpc=over_grpc)

    def client(self, **options: Any) -> Any:
        from qdrant_client import QdrantClient

        client_options = {
            "api_key": self.key,
            "timeout": 120,
            "check_compatibility": False,
            "grpc_port": self.grpc_port,
            **options,
        }
        return closing(QdrantClient(url=self.url, **client_options))

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        from qdrant_client import models as m

        name = name or self.fresh()
        width = next((len(row["vector"]) for row in rows if row.get("vector")), 2)
        with self.client() as client:
            if any("vectors" in row for row in rows):
                vectors, sparse = declare_vectors(width)
                client.create_collection(name, vectors_config=vectors, sparse_vectors_config=sparse)
            else:
                client.create_collection(
                    name, vectors_config=m.VectorParams(size=width, distance=m.Distance.EUCLID)
                )
            for start in range(0, len(rows), 1_000):
                points = [
                    m.PointStruct(id=point_id(row), vector=vectors_of(row), payload=payload_of(row))
                    for row in rows[start : start + 1_000]
                ]
                client.upsert(name, points, wait=True)
        return name

    def drop(self, name: str) -> None:
        with self.client() as client:
            client.delete_collection(name)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        with self.client() as client:
            client.delete(name, [point_id({"id": record_id}) for record_id in ids])

    def source(self, *names: str, **options: Any) -> Qdrant:
        fields: dict[str, Any] = {
            "url": self.url,
            "grpc_port": self.grpc_port,
            "collections": list(names) or None,
            "prefer_grpc": self.over_grpc,
        }
        if self.key:
            os.environ[KEY] = self.key
            fields["api_key"] = Secret(env=KEY)
        return Qdrant(**{**fields, **options})

    def expected(self, row: Row) -> Row:
        qdrant_id = point_id(row)
        kind, text = (
            ("uuid", f'"{qdrant_id}"')
            if isinstance(qdrant_id, str)
            else ("int64" if qdrant_id < 2**63 else "uint64", str(qdrant_id))
        )
        expected_row = {
            "id": (kind, text),
            **{key: as_variant(value) for key, value in payload_of(row).items()},
        }
        vector = (
            [float(number) for number in np.float32(row["vector"])]
            if row.get("vector") is not None
            else None
        )
        if "vectors" not in row:
            return {**expected_row, "vector": vector}
        byte_vector = (
            [int(number) for number in row["vectors"]["bytes"]]
            if "bytes" in row["vectors"]
            else None
        )
        return {
            **expected_row,
            "vectors": {
                name: {**row["vectors"], "main": vector, "bytes": byte_vector}.get(name)
                for name in ("bytes", "half", "main", "several", "sparse")
            },
        }

    def awkward(self, count: int, dimension: int) -> list[Row]:
        generator = np.random.default_rng(7)
        main_vectors = generator.standard_normal((count, dimension), np.float32).tolist()
        return [awkward_row(n, main_vectors[n], generator) for n in range(count)]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id",
            "text_content": "text",
            "title": "title",
            "tags": "tags",
            "created_at": "created",
            "vector": "vectors.main",
        }

    def vendor_read(self, name: str) -> int:
        """Scroll with the vendor's client in large pages, over the protocol that this bed uses."""
        row_count, offset = 0, None
        with self.client(prefer_grpc=self.over_grpc) as client:
            while True:
                points, offset = client.scroll(
                    name, limit=2_000, offset=offset, with_payload=True, with_vectors=True
                )
                row_count += len(points)
                if offset is None:
                    return row_count

    def proxied(self, name: str) -> tuple[HttpProxy | GrpcProxy, Qdrant]:
        if self.over_grpc:
            proxy = GrpcProxy(f"127.0.0.1:{self.grpc_port}")
            proxy.open()
            return proxy, self.source(
                name, grpc_port=int(proxy.endpoint.rpartition(":")[2]), shard_bytes=20_000
            )
        over_rest = HttpProxy(self.url)
        over_rest.open()
        return over_rest, self.source(name, url=over_rest.endpoint, shard_bytes=20_000)

    def page_request(self) -> str:
        return "/qdrant.Points/Scroll" if self.over_grpc else "/points/scroll"


def point_id(row: Row) -> int | str:
    """Compute an id that Qdrant accepts.

    The salt makes d0001 come before d0002: ``test_missing_is_told_from_null`` expects the order of
    insertion, and Qdrant orders by id.
    """
    digest = hashlib.sha256(f"qdrant{row['id']}".encode()).digest()
    return int.from_bytes(digest[1:9]) if digest[0] % 2 else str(uuid.UUID(bytes=digest[:16]))


def as_variant(value: Any) -> tuple[str, str]:
    """Return the type and the text that a value of a payload has in JSON."""
    if isinstance(value, list):
        list_types = {str: "list<string>", float: "list<double>", int: "list<int64>"}
        kinds = {type(element) for element in value}
        return (
            list_types.get(kinds.pop(), "list") if len(kinds) == 1 else "list"
        ), oracle.metadata_text(value)
    if type(value) is int and value >= 2**63:
        return "uint64", str(value)
    scalar_types = {
        bool: "bool",
        int: "int64",
        float: "double",
        str: "string",
        type(None): "null",
        dict: "struct",
    }
    return scalar_types[type(value)], oracle.metadata_text(value)


def payload_of(row: Row) -> Row:
    return {
        "doc_id" if key == "id" else key: value
        for key, value in row.items()
        if key not in ("vector", "vectors")
    }


def vectors_of(row: Row) -> Any:
    from qdrant_client import models as m

    main_vector = row.get("vector")
    if "vectors" not in row:
        return main_vector if main_vector is not None else {}
    named_vectors = {
        key: m.SparseVector(**vector) if isinstance(vector, dict) else vector
        for key, vector in row["vectors"].items()
    }
    return named_vectors if main_vector is None else {"main": main_vector, **named_vectors}


def declare_vectors(width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Declare a vector of each kind, with metrics for which Qdrant does not normalise it."""
    from qdrant_client import models as m

    multivector_config = m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM)
    vectors = {
        "main": m.VectorParams(size=width, distance=m.Distance.EUCLID),
        "bytes": m.VectorParams(
            size=BYTES_WIDTH, distance=m.Distance.DOT, datatype=m.Datatype.UINT8
        ),
        "half": m.VectorParams(
            size=HALF_WIDTH, distance=m.Distance.MANHATTAN, datatype=m.Datatype.FLOAT16
        ),
        "several": m.VectorParams(
            size=MULTI_WIDTH, distance=m.Distance.DOT, multivector_config=multivector_config
        ),
    }
    return vectors, {"sparse": m.SparseVectorParams()}


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


def awkward_row(n: int, main_vector: list[float], generator: np.random.Generator) -> Row:
    row: Row = {
        "id": f"{ODD_TEXTS[n % len(ODD_TEXTS)]} {n}",
        "text": f"Text of {n}, {ODD_TEXTS[n % len(ODD_TEXTS)]}. " * 12,
        "title": f"Title {n}",
        "tags": ["all", f"t{n % 7}"],
        "created": f"2024-{1 + n % 12:02d}-{1 + n % 28:02d}T10:00:00.{n % 1000:03d}Z",
        "big": (2**53 + 1 + n) * (-1) ** n,
        "largest": 2**63 - 1 - n,
        "ratio": (-0.0, 1e-300, 0.1, 1.0, 1e16)[n % 5],
        "flag": n % 2 == 0,
        "empty": "",
        "nothing": None,
        "mixed": (n, f"{n}", n / 8, None, [n, "x"])[n % 5],
        "numbers": [n, n + 1],
        "nested": {"at": {"x": n, "odd": ODD_TEXTS[n % len(ODD_TEXTS)]}, "list": [{"y": None}, []]},
        "vector": None if n % 29 == 3 else main_vector,
    }
    if n % 4 == 1:
        del row["flag"]
    vectors: Row = {}
    if n % 3:
        vectors["bytes"] = [float(number) for number in generator.integers(0, 256, BYTES_WIDTH)]
        vectors["half"] = [
            float(number) for number in generator.standard_normal(HALF_WIDTH).astype(np.float16)
        ]
    if n % 5:
        vectors["several"] = [
            [float(number) for number in generator.standard_normal(MULTI_WIDTH).astype(np.float32)]
            for _ in range(1 + n % 3)
        ]
    if n % 2:
        vectors["sparse"] = {
            "indices": [1, 5 + n, 2**32 - 1],
            "values": [0.5, float(np.float32(0.1)), -1.0],
        }
    return {**row, "vectors": vectors}
