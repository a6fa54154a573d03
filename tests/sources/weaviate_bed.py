"""Weaviate for the tests: a real server, filled by the vendor's client.

Weaviate's ids are UUIDs, so the property ``doc_id`` holds the id of a row, and the id of the object
is computed from it.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from cfray.runtime.credentials import Secret
from cfray.sources.weaviate.source import Weaviate
from tests.contract import oracle
from tests.sources.corpus import ODD_IDS, as_json
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import weaviate
from tests.testbeds.proxy import GrpcProxy
from tests.testbeds.server import Server

KEY = "CFRAY_TEST_WEAVIATE_KEY"
#: Name -> type; for an object, its nested properties.
NESTED = {"by": "text", "at": {"x": "int", "names": "text[]"}}
PROPERTIES: dict[str, Any] = {
    "doc_id": "text",
    "text": "text",
    "title": "text",
    "tags": "text[]",
    "n": "int",
    "ratio": "number",
    "flag": "boolean",
    "ints": "int[]",
    "numbers": "number[]",
    "flags": "boolean[]",
    "created": "date",
    "dates": "date[]",
    "uid": "uuid",
    "uids": "uuid[]",
    "place": "geoCoordinates",
    "phone": "phoneNumber",
    "data": "blob",
    "meta": NESTED,
    "metas": [NESTED],
}
_WEAVIATE_TYPES = {
    "created": "date",
    "uid": "uuid",
    "place": "geoCoordinates",
    "data": "binary",
    "dates": "list<date>",
    "uids": "list<uuid>",
    "see": "list<uuid>",
}
_LIST_TYPES = {
    "tags": "list<string>",
    "ints": "list<int64>",
    "numbers": "list<double>",
    "flags": "list<bool>",
}


def object_id(doc_id: str) -> uuid.UUID:
    """Compute the id of the object that holds a row."""
    return uuid.uuid5(uuid.NAMESPACE_URL, doc_id)


def _property_definition(name: str, kind: Any) -> dict[str, Any]:
    is_list = isinstance(kind, list)
    value_type = kind[0] if is_list else kind
    if not isinstance(value_type, dict):
        return {
            "name": name,
            "dataType": [kind],
            "indexFilterable": False,
            "indexSearchable": False,
        }
    nested = [
        {
            key: value
            for key, value in _property_definition(*nested_property).items()
            if key in ("name", "dataType", "nestedProperties")
        }
        for nested_property in value_type.items()
    ]
    return {
        "name": name,
        "dataType": ["object[]" if is_list else "object"],
        "nestedProperties": nested,
        "indexFilterable": False,
    }


def definition(name: str, vectors: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return the definition of a collection with all properties and a reference to itself."""
    flat_index = {
        "vectorizer": {"none": {}},
        "vectorIndexType": "flat",
        "vectorIndexConfig": {"distance": "l2-squared"},
    }
    multivector_index = flat_index | {
        "vectorIndexType": "hnsw",
        "vectorIndexConfig": {"multivector": {"enabled": True}},
    }
    vector_indexes = {
        key: multivector_index if value and isinstance(value[0], list) else flat_index
        for key, value in {"default": [0.0], **vectors}.items()
    }
    properties = [
        _property_definition(*name_and_type) for name_and_type in PROPERTIES.items()
    ] + options.pop("references", [{"name": "see", "dataType": [name]}])
    return {"class": name, "properties": properties, "vectorConfig": vector_indexes, **options}


def _stored_properties(row: Row) -> Row:
    """Return the properties of a row without nulls, which Weaviate cannot hold."""
    properties = {
        ("doc_id" if key == "id" else key): _without_null(value)
        for key, value in row.items()
        if key not in ("vector", "vectors", "see")
    }
    return {key: value for key, value in properties.items() if value is not None}


def _without_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null(element) for element in value if element is not None]
    if isinstance(value, dict):
        return {key: _without_null(element) for key, element in value.items()}
    return rounded(value) if type(value) is int else value


def rounded(number: int) -> int:
    """Round an integer as the server does, which stores a float64.

    The server refuses an integer that rounds to 2**63.
    """
    return min(int(float(number)), 2**63 - 1024)


class WeaviateBed(StoreBed):
    kind = "weaviate"

    def __init__(self, server: Server, api_key: Secret | None = None) -> None:
        self.server, self.api_key = server, api_key
        self.client = weaviate.connected(server)
        self.files = server.log.parent / weaviate.FILES

    @classmethod
    @contextmanager
    def serving(cls, folder: Path, api_key: str | None = None) -> Iterator[Self]:
        if endpoint := cls.endpoint():
            key = os.environ.get("CFRAY_WEAVIATE_KEY")
            grpc = int(os.environ.get("CFRAY_WEAVIATE_GRPC_PORT", "50051"))
            ports = (urlsplit(endpoint).port or 80, grpc)
            server = Server(
                "weaviate",
                endpoint,
                {"WEAVIATE_API_KEY": key} if key else {},
                0,
                ports,
                folder / "log",
            )
            yield cls(server, Secret(env="CFRAY_WEAVIATE_KEY") if key else None)
            return
        with weaviate.start(folder, api_key=api_key) as server:
            os.environ |= {KEY: api_key} if api_key else {}
            bed = cls(server, Secret(env=KEY) if api_key else None)
            try:
                yield bed
            finally:
                bed.client.close()

    def create(self, name: str, vectors: Row | None = None, **options: Any) -> Any:
        """Create a collection, and return the client's handle of it."""
        return self.client.collections.create_from_dict(definition(name, vectors or {}, **options))

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        name = name or self.fresh()
        vectors = next((row["vectors"] for row in rows if row.get("vectors")), {})
        self.fill(self.create(name, vectors), rows)
        return name

    def fill(
        self, collection: Any, rows: Sequence[Row], ids: Sequence[uuid.UUID] | None = None
    ) -> None:
        """Insert rows into a collection or tenant."""
        from weaviate.classes.data import DataObject, DataReference, GeoCoordinate, PhoneNumber

        for start in range(0, len(rows), 1000):
            objects = []
            for position, row in enumerate(rows[start : start + 1000], start):
                properties = _stored_properties(row)
                if "place" in row:
                    properties["place"] = GeoCoordinate(**row["place"])
                if "phone" in row:
                    properties["phone"] = PhoneNumber(number=row["phone"])
                vectors = {
                    **({"default": row["vector"]} if row.get("vector") else {}),
                    **(row.get("vectors") or {}),
                }
                object_uuid = ids[position] if ids else object_id(row["id"])
                objects.append(
                    DataObject(properties=properties, uuid=object_uuid, vector=vectors or None)
                )
            result = collection.data.insert_many(objects)
            assert not result.has_errors, list(result.errors.values())[:3]
        references = [
            (object_id(row["id"]), object_id(doc_id))
            for row in rows
            for doc_id in row.get("see", ())
        ]
        # after the objects, because a reference that comes with an object needs its target
        for start in range(0, len(references), 1000):
            links = [
                DataReference(from_property="see", from_uuid=source_id, to_uuid=target_id)
                for source_id, target_id in references[start : start + 1000]
            ]
            assert not collection.data.reference_add_many(links).has_errors

    def drop(self, name: str) -> None:
        self.client.collections.delete(name)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        for doc_id in ids:
            assert self.client.collections.get(name).data.delete_by_id(object_id(doc_id))

    def source(self, *names: str, **options: Any) -> Weaviate:
        url, grpc = f"http://127.0.0.1:{self.server.ports[0]}", self.server.ports[1]
        fields = {
            "url": url,
            "grpc_port": grpc,
            "collections": list(names) or None,
            "api_key": self.api_key,
            "object_times": False,
        }
        return Weaviate(**{**fields, **options})

    def expected(self, row: Row) -> Row:
        expected_row = as_json(
            {
                key: value
                for key, value in _stored_properties(row).items()
                if key not in (*_WEAVIATE_TYPES, "phone", "metas", *_LIST_TYPES)
            }
        )
        stored = _stored_properties(row) | (
            {"see": [str(object_id(doc_id)) for doc_id in row["see"]]} if row.get("see") else {}
        )
        expected_row |= {
            key: (kind, oracle.metadata_text(stored[key]))
            for key, kind in _LIST_TYPES.items()
            if key in stored
        }
        expected_row |= {
            key: (kind, oracle.canonical(stored[key]))
            for key, kind in _WEAVIATE_TYPES.items()
            if key in stored
        }
        if "phone" in row:
            expected_row["phone"] = ("phoneNumber", oracle.canonical(_phone(row["phone"])))
        if "metas" in row:
            expected_row["metas"] = ("list", oracle.canonical(stored["metas"]))
        expected_row |= {
            "id": object_id(row["id"]),
            "vector": row.get("vector") and [float(np.float32(value)) for value in row["vector"]],
        }
        return expected_row | (
            {"vectors": {**dict.fromkeys(("second", "tokens")), **(row.get("vectors") or {})}}
            if "vectors" in row
            else {}
        )

    def awkward(self, count: int, dimension: int) -> list[Row]:
        rng = np.random.default_rng(7)
        vectors = rng.standard_normal((count, dimension)).astype(np.float32).tolist()
        seconds = rng.standard_normal((count, 8)).astype(np.float32).tolist()
        return [_awkward_row(n, vectors[n], seconds[n], count) for n in range(count)]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id",
            "vector": "vector",
            "text_content": "text",
            "title": "title",
            "tags": "tags",
            "created_at": "created",
            "vectors": {"second": "vectors.second", "tokens": "vectors.tokens"},
            "relationships": [{"type": "related", "to": "see"}],
        }

    def vendor_read(self, name: str) -> int:
        from weaviate.classes.query import QueryNested, QueryReference

        def property_query(properties: Any) -> list[Any]:
            return [
                QueryNested(
                    name=declared.name, properties=property_query(declared.nested_properties)
                )
                if declared.nested_properties
                else declared.name
                for declared in properties
            ]

        collection = self.client.collections.get(name)
        config = collection.config.get()
        # blobs and references come only by name
        objects = collection.iterator(
            include_vector=True,
            cache_size=2_000,
            return_properties=property_query(config.properties),
            return_references=[
                QueryReference(link_on=reference.name, return_properties=[])
                for reference in config.references
            ],
        )
        return sum(1 for _ in objects)

    def proxied(self, name: str) -> tuple[GrpcProxy, Weaviate]:
        proxy = GrpcProxy(f"127.0.0.1:{self.server.ports[1]}")
        proxy.open()
        return proxy, self.source(
            name, grpc_port=int(proxy.endpoint.rpartition(":")[2]), shard_bytes=2_000
        )

    def page_request(self) -> str:
        return "/weaviate.v1.Weaviate/Search"

    def export(self, *names: str) -> Path:
        """Let the server write a Parquet export, and return its folder.

        The folder holds no types: they are in the schema only.
        """
        from weaviate.export.export import ExportFileFormat

        export_id = self.fresh().lower()
        self.client.export.create(
            export_id=export_id,
            backend="filesystem",
            file_format=ExportFileFormat.PARQUET,
            include_collections=list(names),
            wait_for_completion=True,
        )
        return self.files / export_id

    def send_request(self, path: str, body: Any = None, method: str = "GET") -> bytes:
        """Send a REST request as curl would."""
        headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {self.api_key.reveal()}"} if self.api_key else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.ports[0]}/v1{path}", data, headers, method=method
        )
        with urllib.request.urlopen(request) as response:
            return response.read()


def _phone(number: str) -> Row:
    national = number.replace("+49 ", "").replace(" ", "")
    return {
        "input": number,
        "countryCode": 49,
        "internationalFormatted": number,
        "national": int(national),
        "nationalFormatted": "0" + number[4:],
        "valid": True,
    }


def _awkward_row(n: int, vector: list[float], second_vector: list[float], count: int) -> Row:
    row: Row = {
        "id": ODD_IDS[n] if n < len(ODD_IDS) else f"é☕ {n} it's “x”",
        "vector": vector,
        "vectors": {
            "second": second_vector,
            "tokens": [second_vector[:4], second_vector[4:]][: 1 + n % 2],
        },
        "text": (f"Text {n}: “quoted”, naïve ☕ \U0001d4b3 & 'so on'. " * 7)[:300],
        "title": f"Title {n}",
        "created": (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n)).isoformat()[:19]
        + (".123456789+05:30", "Z")[n % 2],
        "tags": ["a", f"t{n % 50}", ""],
        "n": (n, 2**53 - n, -(2**62), -1)[n % 4],
        "ratio": (0.1, 1e-300, -0.0, n / 8, float(n))[n % 5],
        "flag": n % 2 == 0,
        "ints": [n, -1],
        "numbers": [n / 2, 5.0, -0.0],
        "flags": [True, False],
        "dates": ["2024-02-29T12:30:15.5Z"],
        "uid": str(uuid.UUID(int=n)),
        "uids": [str(uuid.UUID(int=n + 1))],
        "place": {"latitude": 52.52, "longitude": 13.1 + n % 7},
        "phone": "+49 171 1234567",
        "data": base64.b64encode(bytes([n % 256, 0, 255])).decode(),
        "meta": {"by": 'B "C" D', "at": {"x": n, "names": ["é", '"', ""]}},
        "metas": [{"by": "x"}, {"at": {"x": n, "names": []}}],
        "see": [f"é☕ {max(len(ODD_IDS), (n * 7) % count)} it's “x”"],
    }
    for key in (
        ("text", "see"),
        ("vector", "tags", "place"),
        ("vectors", "created"),
        ("phone", "data", "meta"),
        (),
    )[n % 13 % 5]:
        row = (
            {**row, "vectors": {}}
            if key == "vectors"
            else {name: value for name, value in row.items() if name != key}
        )
    return row | ({"text": "", "tags": [], "numbers": [], "dates": []} if n % 97 == 5 else {})
