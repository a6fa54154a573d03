"""MongoDB for the tests: SecantusDB or FerretDB (both doubles), or a deployment of the user's own.

The bed seeds by pymongo, so a row's Python values become the BSON types that pymongo chooses.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from cfray.records.record import canonical
from cfray.runtime.credentials import Secret
from cfray.sources.mongodb.source import MongoDB
from tests.contract import oracle
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import mongodb
from tests.testbeds.mongo_proxy import MongoProxy

KEY = "CFRAY_MONGODB_KEY"
DATABASE = "cfray_tests"


class MongoBed(StoreBed):
    kind = "mongodb"
    double = True

    def __init__(self, url: str, user: str | None = None, password: str | None = None) -> None:
        self.url, self.user, self.password = url, user, password

    @classmethod
    @contextmanager
    def serving(cls, folder: Path, *, user: bool = False) -> Iterator[Self]:
        if url := cls.endpoint():
            yield cls(url, os.environ.get("CFRAY_MONGODB_USER"), os.environ.get(KEY))
            return
        with mongodb.start(folder, user=user) as server:
            url = mongodb.address(server)
            yield cls(url, mongodb.USER, mongodb.PASSWORD) if user else cls(url)

    def client(self, **options: Any) -> Any:
        from pymongo import MongoClient

        credentials = {"username": self.user, "password": self.password} if self.user else {}
        return MongoClient(self.url, uuidRepresentation="standard", **credentials, **options)

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        name = name or f"{DATABASE}.{self.fresh()}"
        database, _, collection = name.partition(".")
        with self.client() as client:
            target = client[database].create_collection(collection)
            if rows:
                target.insert_many([document_of(row) for row in rows])
        return name

    def drop(self, name: str) -> None:
        database, _, collection = name.partition(".")
        with self.client() as client:
            client[database].drop_collection(collection)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        database, _, collection = name.partition(".")
        with self.client() as client:
            client[database][collection].delete_many({"_id": {"$in": list(ids)}})

    def source(self, *names: str, **options: Any) -> MongoDB:
        fields: dict[str, Any] = {"url": self.url, "collections": list(names) or None}
        if self.user and self.password:
            os.environ[KEY] = self.password
            fields |= {"username": self.user, "api_key": Secret(env=KEY)}
        if "api_key" in options:
            fields["username"] = self.user or "somebody"
        return MongoDB(**{**fields, **options})

    def expected(self, row: Row) -> Row:
        return {
            "id": as_id(row["id"]),
            **{key: as_variant(value) for key, value in row.items() if key != "id"},
        }

    def awkward(self, count: int, dimension: int) -> list[Row]:
        generator = np.random.default_rng(7)
        vectors = generator.standard_normal((count, dimension), np.float32)
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
        """Read with pymongo's cursor in its own large batches, decoded to Python objects."""
        database, _, collection = name.partition(".")
        with self.client() as client:
            return sum(1 for _ in client[database][collection].find({}).batch_size(5_000))

    def proxied(self, name: str) -> tuple[MongoProxy, MongoDB]:
        from pymongo.uri_parser import parse_uri

        ((host, port), *_) = parse_uri(self.url)["nodelist"]
        proxy = MongoProxy(host, port)
        proxy.open()
        options = {"url": proxy.endpoint, "shard_bytes": 20_000, "timeout": 1.0}
        return proxy, self.source(name, **options)

    def page_request(self) -> str:
        return f"find {DATABASE}."


def document_of(row: Row) -> Row:
    return {"_id" if key == "id" else key: value for key, value in row.items()}


def as_id(value: Any) -> tuple[str, str]:
    """Return the type and the text of an ``_id``."""
    import bson

    if isinstance(value, str):
        return "string", value
    if type(value) is int or isinstance(value, bson.Int64):
        return "int64", str(int(value))
    if isinstance(value, bson.ObjectId):
        return "objectId", f'"{value}"'
    if isinstance(value, uuid.UUID):
        return "uuid", f'"{value}"'
    if isinstance(value, bytes):
        return "binary", f'"{base64.b64encode(value).decode()}"'
    return "extendedJson", canonical(extended_id(value))


def extended_id(value: Any) -> Any:
    """Return what canonical extended JSON makes of an id of another type."""
    import json

    from bson import json_util

    options = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, uuid_representation=4)
    return json.loads(json_util.dumps(value, json_options=options))


def as_variant(value: Any) -> tuple[str, str]:  # noqa: PLR0911, PLR0912  # a branch a type
    """Return the type and the text that a field's value has."""
    import bson
    from bson.binary import BinaryVectorDtype

    if isinstance(value, bson.Int64):
        return "int64", str(int(value))
    if type(value) is int:
        return ("int32" if -(2**31) <= value < 2**31 else "int64"), str(value)
    if isinstance(value, list) and value:
        names = {str: "string", float: "double", bool: "bool"}
        kinds = {type(item) for item in value}
        if kinds == {int}:
            wide = any(not -(2**31) <= item < 2**31 for item in value)
            narrow = any(-(2**31) <= item < 2**31 for item in value)
            if not (wide and narrow):
                return f"list<int{64 if wide else 32}>", oracle.metadata_text(value)
        if len(kinds) == 1 and (kind := names.get(next(iter(kinds)))):
            return f"list<{kind}>", oracle.metadata_text(value)
    if isinstance(value, bson.Binary) and value.subtype == 9:
        vector = value.as_vector()
        if vector.dtype == BinaryVectorDtype.FLOAT32:
            return "list<float>", canonical(vector.data)
    simple = {
        bool: "bool",
        float: "double",
        str: "string",
        type(None): "null",
        dict: "struct",
        list: "list",
        uuid.UUID: "uuid",
        bytes: "binary",
    }
    if type(value) in simple:
        return simple[type(value)], oracle.metadata_text(value)
    if isinstance(value, dt.datetime):
        return "date", oracle.metadata_text(value)
    if isinstance(value, bson.ObjectId):
        return "objectId", f'"{value}"'
    if isinstance(value, bson.Decimal128):
        return "decimal", f'"{value}"'
    if isinstance(value, bson.Timestamp):
        return "timestamp", canonical({"t": value.time, "i": value.inc})
    if isinstance(value, bson.Regex):
        return "regex", canonical({"pattern": value.pattern, "options": "i"})
    if isinstance(value, bson.DBRef):
        return "struct", canonical({"$ref": value.collection, "$id": {"$oid": str(value.id)}})
    raise TypeError(type(value))


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


def awkward_id(n: int) -> Any:
    """Make ids of nine types, in an order that mixes them."""
    import bson

    return (
        lambda: f"{ODD_TEXTS[n % len(ODD_TEXTS)]} {n}",
        lambda: n,
        lambda: bson.Int64(2**40 + n),
        lambda: bson.ObjectId(struct.pack(">IQ", 7, n)),
        lambda: uuid.UUID(int=2**127 + n),
        lambda: struct.pack(">I", n),
        lambda: dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=n),
        # SecantusDB orders documents as ids by their bytes, so their members are texts of one length
        lambda: {"tenant": "t", "n": f"{n:09d}"},
        lambda: n + 0.5,
    )[n % 9]()


def awkward_row(n: int, vector: np.ndarray) -> Row:
    import bson
    from bson.binary import Binary, BinaryVectorDtype

    odd = ODD_TEXTS[n % len(ODD_TEXTS)]
    row: Row = {
        "id": awkward_id(n),
        "text": f"Text of {n}, {odd}. " * 12,
        "title": f"Title {n}",
        "tags": ["all", f"t{n % 7}"],
        "created": dt.datetime(2024, 1 + n % 12, 1 + n % 28, 10, 0, 0, n % 1000 * 1000, dt.UTC),
        "big": (2**53 + 1 + n) * (-1) ** n,
        "long": bson.Int64(n),
        "ratio": (-0.0, 1e-300, 0.1, 1.0, 1e16)[n % 5],
        "flag": n % 2 == 0,
        "empty": "",
        "nothing": None,
        "mixed": (n, f"{n}", n / 8, None, [n, "x"])[n % 5],
        "numbers": [n, n + 1],
        "price": bson.Decimal128(f"{n}.10"),
        "stamp": bson.Timestamp(n, 1),
        "pattern": bson.Regex("a+", "i"),
        "owner": bson.ObjectId(struct.pack(">IQ", 9, n)),
        "writer": bson.DBRef("people", bson.ObjectId(struct.pack(">IQ", 5, n))),
        "key": uuid.UUID(int=n),
        "blob": struct.pack("<I", n),
        "nested": {"at": {"x": n, "odd": odd}, "list": [{"y": None}, []]},
        "vector": [float(number) for number in vector],
    }
    if n % 3 == 1:
        row["vector"] = Binary.from_vector(vector.tolist(), BinaryVectorDtype.FLOAT32)
    if n % 29 == 3:
        row["vector"] = None
    if n % 4 == 1:
        del row["flag"]
    return row
