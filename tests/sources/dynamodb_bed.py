"""DynamoDB for the tests: the emulators dynalite and moto, or any endpoint of the user's.

CFRAY_DYNAMODB_ENDPOINT and CFRAY_DYNAMODB_KEY (``ID:SECRET``) name such an endpoint.  A key holds at
most 2,048 bytes: a longer id becomes a digest.  Tables have the partition key ``id``.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import boto3
import numpy as np
from botocore.config import Config

from cfray.runtime.credentials import Secret
from cfray.sources.dynamodb.source import DynamoDB
from tests.contract import oracle
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import dynalite
from tests.testbeds.proxy import HttpProxy
from tests.testbeds.s3 import ACCESS_KEY, SECRET_KEY

KEY = "CFRAY_DYNAMODB_KEY"
#: Widths of the further vectors of awkward rows.
PACKED_WIDTH, HALF_WIDTH = 5, 6
_TYPES = frozenset(("S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"))
_DEFAULT_KEY = f"{ACCESS_KEY}:{SECRET_KEY}"


class DynamoDBBed(StoreBed):
    kind = "dynamodb"
    double = True

    def __init__(self, url: str, key: str = _DEFAULT_KEY) -> None:
        self.url, self.key = url, key
        #: Table -> the vectors that a job declares for it.
        self.declared: dict[str, dict[str, Any]] = {}

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[Self]:
        if url := cls.endpoint():
            yield cls(url, os.environ.get(KEY, _DEFAULT_KEY))
            return
        with dynalite.start(folder) as server:
            yield cls(server.endpoint)

    def client(self) -> Any:
        """Return the bed's client, which several threads may use."""
        return self._client

    @cached_property
    def _client(self) -> Any:
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return boto3.session.Session().client(
            "dynamodb",
            endpoint_url=self.url,
            region_name=DynamoDB(url=self.url).signing_region,
            config=Config(retries={"total_max_attempts": 10, "mode": "standard"}),
            **dict(zip(names, self.key.split(":"), strict=False)),
        )

    def create(self, name: str, key: dict[str, str], **options: Any) -> str:
        """Create a table; ``key`` is attribute -> type, the partition key first."""
        client = self.client()
        client.create_table(
            **{
                "TableName": name,
                "AttributeDefinitions": [
                    {"AttributeName": attribute, "AttributeType": kind}
                    for attribute, kind in key.items()
                ],
                "KeySchema": [
                    {"AttributeName": attribute, "KeyType": kind}
                    for attribute, kind in zip(key, ("HASH", "RANGE"), strict=False)
                ],
                "BillingMode": "PAY_PER_REQUEST",
                **options,
            }
        )
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
        return name

    def put(self, name: str, items: Sequence[Row]) -> None:
        """Write items, as the client takes them."""
        client = self.client()
        for start in range(0, len(items), 25):
            requests = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            while requests:
                answer = client.batch_write_item(RequestItems={name: requests})
                requests = answer.get("UnprocessedItems", {}).get(name, [])

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        name = self.create(name or self.fresh(), {"id": "S"})
        self.declared[name] = declare_vectors(rows)
        self.put(name, [item_of(row) for row in rows])
        return name

    def drop(self, name: str) -> None:
        client = self.client()
        client.delete_table(TableName=name)
        client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        client = self.client()
        for record_id in ids:
            client.delete_item(TableName=name, Key={"id": {"S": store_id(record_id)}})

    def source(self, *names: str, **options: Any) -> DynamoDB:
        os.environ[KEY] = self.key
        declared = [self.declared[name] for name in names if name in self.declared]
        vectors = {name: kind for vectors in declared for name, kind in vectors.items()}
        return DynamoDB(
            **{
                "url": self.url,
                "collections": list(names) or None,
                "api_key": Secret(env=KEY),
                "vectors": vectors or declare_vectors([]),
                **options,
            }
        )

    def expected(self, row: Row) -> Row:
        attributes = {
            key: as_variant(value)
            for key, value in row.items()
            if key not in ("id", "vector", "vectors")
        }
        if store_id(row["id"]) != row["id"]:
            attributes["doc_id"] = ("string", row["id"])
        vectors = {"vector": row.get("vector"), **row.get("vectors", {})}
        # DynamoDB's numbers have no -0; vectors of bytes have
        zero = {"vector": 0.0}
        return {
            "id": ("string", store_id(row["id"])),
            "vectors": {
                name: None
                if vector is None
                else [
                    float(number) + zero.get(name, -0.0)
                    for number in np.array(vector, _number_type(name))
                ]
                for name, vector in sorted(vectors.items())
            },
            **attributes,
        }

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
            "vector": "vectors.vector",
        }

    def vendor_read(self, name: str) -> int:
        """Scan eight segments, four at a time, with boto3."""
        client = self.client()

        def count(segment: int) -> int:
            pages = client.get_paginator("scan").paginate(
                TableName=name, Segment=segment, TotalSegments=8, ConsistentRead=True
            )
            return sum(len(page["Items"]) for page in pages)

        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(count, range(8)))

    def proxied(self, name: str) -> tuple[HttpProxy, DynamoDB]:
        proxy = HttpProxy(self.url)
        proxy.open()
        return proxy, self.source(name, url=proxy.endpoint, shard_bytes=20_000)

    def page_request(self) -> str:
        """Return what every request has: DynamoDB names the operation in a header."""
        return "POST /"


def _number_type(name: str) -> str:
    return "float16" if name == "half" else "float32"


def declare_vectors(rows: Sequence[Row]) -> dict[str, Any]:
    width = next((len(row["vector"]) for row in rows if row.get("vector")), 2)
    declared: dict[str, Any] = {"vector": {"dimension": width, "optional": True}}
    if any("vectors" in row for row in rows):
        declared["half"] = {"dtype": "float16", "dimension": HALF_WIDTH, "optional": True}
        declared["packed"] = {
            "dtype": "float32",
            "byte_order": "big",
            "dimension": PACKED_WIDTH,
            "optional": True,
        }
    return dict(sorted(declared.items()))


def store_id(text: str) -> str:
    """Compute an id that a key can hold."""
    if len(text.encode()) <= 2048:
        return text
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def item_of(row: Row) -> Row:
    """Return the item that is written for a row, as boto3's client takes it."""
    item = {key: wire(value) for key, value in row.items() if key not in ("vectors", "vector")}
    item["id"] = wire(store_id(row["id"]))
    if store_id(row["id"]) != row["id"]:
        item["doc_id"] = wire(row["id"])
    if row.get("vector") is not None:
        item["vector"] = {"L": [{"N": shortest(number)} for number in row["vector"]]}
    vectors = row.get("vectors", {})
    if vectors.get("packed") is not None:
        item["packed"] = {"B": np.array(vectors["packed"], ">f4").tobytes()}
    if vectors.get("half") is not None:
        item["half"] = {"B": np.array(vectors["half"], "<f2").tobytes()}
    return item


def shortest(number: float) -> str:
    """Write a float32 as a program does that keeps float32: with its shortest text."""
    return format(Decimal(str(np.float32(number))), "f")


def wire(value: Any) -> Row:  # noqa: PLR0911  # a branch a type
    """Write a value as boto3's client takes it."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if value is None:
        return {"NULL": True}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, int | float | Decimal):
        return {"N": format(Decimal(str(value)), "f")}
    if isinstance(value, set | frozenset):
        member = next(iter(value))
        kind = {str: "SS", bytes: "BS"}.get(type(member), "NS")
        texts = [format(Decimal(str(v)), "f") if kind == "NS" else v for v in value]
        return {kind: texts}
    if isinstance(value, dict):
        return {"M": {key: wire(member) for key, member in value.items()}}
    return {"L": [wire(member) for member in value]}


def as_variant(value: Any) -> tuple[str, str]:  # noqa: PLR0911  # a branch a type
    """Return the type and the text that an attribute has."""
    if isinstance(value, set | frozenset):
        kind, members = nested(value).popitem()
        if kind == "NS":
            members = [number(text) for text in members]
        return f"list<{kind}>", oracle.metadata_text(members)
    if isinstance(value, bytes):
        return "binary", f'"{base64.b64encode(value).decode()}"'
    if isinstance(value, str):
        return "string", value
    if value is None or isinstance(value, bool):
        return "null" if value is None else "bool", oracle.metadata_text(value)
    if isinstance(value, int | float | Decimal):
        plain = number(value)
        if isinstance(plain, str):
            return "decimal", f'"{plain}"'
        if isinstance(plain, float):
            return "double", oracle.metadata_text(plain)
        is_long = not -(2**63) <= plain < 2**63
        return (("uint64" if 0 < plain < 2**64 else "integer") if is_long else "int64"), str(plain)
    plain = nested(value)
    if isinstance(plain, dict):
        return "struct", oracle.metadata_text(plain)
    kinds = {type(member) for member in plain}
    names = {str: "list<string>", float: "list<double>", int: "list<int64>", bool: "list<bool>"}
    name = names.get(kinds.pop(), "list") if len(kinds) == 1 else "list"
    return name, oracle.metadata_text(plain)


def number(value: Any) -> int | float | str:
    """Return a number as JSON can say it exactly; else its digits."""
    exact = Decimal(str(value))
    if exact == int(exact):
        return int(exact)
    return float(exact) if Decimal(repr(float(exact))) == exact else format(exact, "f")


def nested(value: Any) -> Any:
    """Return a value as it stands in a list or a map."""
    if isinstance(value, set | frozenset):
        [(kind, members)] = wire(value).items()
        if kind == "BS":
            members = [base64.b64encode(member).decode() for member in members]
        return {kind: sorted(members, key=Decimal if kind == "NS" else None)}
    if isinstance(value, bytes):
        return {"B": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        plain = {key: nested(member) for key, member in value.items()}
        is_like_a_value = len(plain) == 1 and not _TYPES.isdisjoint(plain)
        return {"M": plain} if is_like_a_value else plain
    if isinstance(value, list | tuple):
        return [nested(member) for member in value]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        plain = number(value)
        return {"N": plain} if isinstance(plain, str) else plain
    return value


_IDS = (
    "plain-{n}",
    'it\'s "{n}"',
    "back\\slash\\{n}",
    "a,b;c\t{n}",
    " padded {n} ",
    "doc#{n}/part?x=1&y=2",
    "ünï ☕ \U0001d4b3 {n}",
    "%25{n}%",
    "{n}" + "/" * 1500,
)
_NUMBERS = (
    2**53 + 1,
    -(2**63),
    2**64 - 1,
    12345678901234567890123456789012345678,
    Decimal("-1.2345678901234567890123456789012345678"),
    Decimal("0.1"),
    Decimal("1e-100"),
    Decimal("9.5e100"),
    0,
)


def awkward_row(n: int, vector: list[float], generator: np.random.Generator) -> Row:
    row: Row = {
        "id": _IDS[n % len(_IDS)].replace("{n}", str(n)),
        "vector": None if n % 29 == 3 else vector,
        "text": f"Paragraph {n}: "
        + "Ünïcode ☕ \U0001d4b3, \"quotes\" and 'more', a line\nand a tab\t. " * 5,
        "title": f"Title {n}",
        "tags": ["a", f"tag {n % 17}"] if n % 3 else [],
        "created": f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d}T10:00:00Z",
        "count": _NUMBERS[n % len(_NUMBERS)],
        "ratio": n / 8,
        "flag": n % 2 == 0,
        "empty": "",
        "nothing": None,
        "null as a word": "null",
        "names": {"b", "a", f"é {n}"},
        "marks": {1, Decimal("0.5"), Decimal("1.2345678901234567890123"), n + 10},
        "blobs": {b"\x00\xff", bytes([n % 256, 1])},
        "raw": bytes(range(n % 256)),
        "mixed": (n, f"{n}", n / 8, None, [n, "x"])[n % 5],
        "nested": {
            "by": f"author {n % 7}",
            "at": [n, None, b"\x01", {"S": "a map, not a text"} if n % 2 else {}],
            "price": Decimal("1.2345678901234567890123"),
            "sizes": {n, n + 0.5},
        },
    }
    if n % 4 == 0:
        del row["title"], row["tags"], row["flag"]
    vectors: Row = {"half": None, "packed": None}
    if n % 3:
        vectors["packed"] = generator.standard_normal(PACKED_WIDTH).astype(np.float32).tolist()
    if n % 5:
        vectors["half"] = generator.standard_normal(HALF_WIDTH).astype(np.float16).tolist()
    return {**row, "vectors": vectors}
