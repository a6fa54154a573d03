"""Milvus for the tests: a server that pymilvus's MilvusClient fills.

The server is a real 2.3.5 with users switched on, or a user's service.  Fields that every row
has, and that are not null, are declared; other fields become dynamic keys.  2.3.5 knows
neither null in a declared field nor a record without its vector: such a row gets zeros.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from cfray.records.record import canonical
from cfray.runtime.credentials import Secret
from cfray.sources.milvus.source import Milvus
from tests.sources.corpus import as_json
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import milvus
from tests.testbeds.proxy import GrpcProxy
from tests.testbeds.server import Server

KEY = "CFRAY_MILVUS_KEY"
#: The user of a new server, with the password.
ROOT = "root:Milvus"
PARTITION = "$partition"
#: Fields that are declared where every row has them: name -> (Milvus's type, its parameters,
#: Arrow's name where JSON has another).
DECLARED: dict[str, tuple[str, dict[str, Any], str]] = {
    "n": ("INT64", {}, ""),
    "ratio": ("DOUBLE", {}, ""),
    "flag": ("BOOL", {}, ""),
    "tags": ("ARRAY", {"element_type": "VARCHAR", "max_length": 200, "max_capacity": 100}, ""),
    "meta": ("JSON", {}, ""),
    "body": ("VARCHAR", {"max_length": 65_535}, ""),
    "tiny": ("INT8", {}, "int8"),
    "short": ("INT16", {}, "int16"),
    "int": ("INT32", {}, "int32"),
    "single": ("FLOAT", {}, "float"),
    "singles": ("ARRAY", {"element_type": "FLOAT", "max_capacity": 100}, "list<float>"),
    "tinies": ("ARRAY", {"element_type": "INT8", "max_capacity": 100}, "list<int8>"),
}
#: The declared fields that every row of the contract has.
CORPUS_DECLARES = ("n", "ratio", "flag", "tags", "meta")
_INSERT_ROWS = 1_000
#: A query that must see everything (Strong) waits for the next tick of the server's clock, 200 ms
#: by default; the server checks once a second whether a collection is loaded.
_QUICK_CLOCK = {
    "PROXY_TIMETICKINTERVAL": "20",
    **dict.fromkeys(
        (
            "QUERYCOORD_DISTPULLINTERVAL",
            "QUERYCOORD_SEGMENTCHECKINTERVAL",
            "QUERYCOORD_CHANNELCHECKINTERVAL",
        ),
        "50",
    ),
}


class MilvusBed(StoreBed):
    """Fill and read a Milvus server."""

    kind = "milvus"

    def __init__(self, url: str, server: Server | None = None) -> None:
        self.url, self.server = url, server
        self._filled: dict[str, str] = {}
        self._spare: dict[tuple[str, ...], list[Future[str]]] = {}

    @classmethod
    @contextmanager
    def measured(cls, folder: Path) -> Iterator[Self]:
        """Start a server with the default clock of 200 ms, and with no other load."""
        previous_key = os.environ.get(KEY)
        os.environ[KEY] = ROOT
        try:
            with start_with_users(folder, quick_clock=False) as server:
                yield cls(server.endpoint)
        finally:
            os.environ.pop(KEY, None) if previous_key is None else os.environ.update(
                {KEY: previous_key}
            )

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[Self]:
        if cls.endpoint():
            yield cls(str(cls.endpoint()))
            return
        previous_key = os.environ.get(KEY)
        os.environ[KEY] = ROOT
        try:
            with start_with_users(folder) as server:
                bed = cls(server.endpoint, server)
                # to load a collection takes three seconds; several at once take no longer
                with ThreadPoolExecutor(8) as pool:
                    for declared, spare_count, collection_options in (
                        (CORPUS_DECLARES, 14, {}),
                        ((), 9, {"consistency_level": "Strong"}),
                    ):
                        bed._spare[declared] = [
                            pool.submit(bed.create, bed.fresh(), declared, 2, **collection_options)
                            for _ in range(spare_count)
                        ]
                    try:
                        yield bed
                    finally:
                        pool.shutdown(cancel_futures=True)
                        bed.client.close()
        finally:
            os.environ.pop(KEY) if previous_key is None else os.environ.update({KEY: previous_key})

    @property
    def token(self) -> str:
        return os.environ.get(KEY, "")

    @cached_property
    def client(self) -> Any:
        from pymilvus import MilvusClient

        return MilvusClient(self.url, token=self.token)

    def seed(
        self, rows: Sequence[Row], name: str | None = None, *, index: str = "FLAT", **options: Any
    ) -> str:
        """Fill a collection, or return the collection that already holds these rows.

        To create and load a collection takes three seconds.
        """
        if name or index != "FLAT" or options:
            return self._seed(rows, name, index, options)
        key = hashlib.sha256(repr(rows).encode()).hexdigest()
        if key not in self._filled:
            self._filled[key] = self._seed(rows, None, index, options)
        return self._filled[key]

    def _forget(self, name: str) -> None:
        self._filled = {
            key: filled_name for key, filled_name in self._filled.items() if filled_name != name
        }

    def _seed(
        self, rows: Sequence[Row], name: str | None, index: str, options: dict[str, Any]
    ) -> str:
        declared = [
            key for key in DECLARED if rows and all(row.get(key) is not None for row in rows)
        ]
        dimension = len(rows[0].get("vector", [0, 0])) if rows else 2
        spare = (
            self._spare.get(tuple(declared), [])
            if name is None and dimension == 2 and not options
            else []
        )
        name = (
            spare.pop().result()
            if spare
            else self.create(name or self.fresh(), declared, dimension, index, **options)
        )
        rows_by_partition: dict[str, list[Row]] = {}
        for row in rows:
            rows_by_partition.setdefault(row.get(PARTITION, "_default"), []).append(row)
        for partition, partition_rows in rows_by_partition.items():
            if partition != "_default":
                self.client.create_partition(name, partition)
            for start in range(0, len(partition_rows), _INSERT_ROWS):
                self.client.insert(
                    name,
                    [self.storable(row) for row in partition_rows[start : start + _INSERT_ROWS]],
                    partition_name=partition,
                )
        return name

    def create(
        self,
        name: str,
        declared: Sequence[str],
        dimension: int,
        index: str = "FLAT",
        **options: Any,
    ) -> str:
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=65_535)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        for key in declared:
            kind, params, _ = DECLARED[key]
            params = (
                {**params, "element_type": DataType[params["element_type"]]}
                if "element_type" in params
                else params
            )
            schema.add_field(key, DataType[kind], **params)
        indexes = self.client.prepare_index_params("vector", index_type=index, metric_type="L2")
        self.client.create_collection(name, schema=schema, index_params=indexes, **options)
        return name

    def storable(self, row: Row) -> Row:
        return {
            "vector": [0.0, 0.0],
            **{key: value for key, value in row.items() if key != PARTITION},
        }

    def drop(self, name: str) -> None:
        self._forget(name)
        self.client.drop_collection(name)

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        self._forget(name)
        self.client.delete(name, ids=list(ids))

    def source(self, *names: str, **options: Any) -> Milvus:
        key = Secret(env=KEY) if os.environ.get(KEY) else None
        return Milvus(**{"url": self.url, "collections": list(names), "api_key": key, **options})

    def expected(self, row: Row) -> Row:
        dynamic = {
            key: _as_json(value)
            for key, value in row.items()
            if key not in ("id", "vector", *_FIELDS_WITH_ARROW_TYPE)
        }
        typed = {
            key: (DECLARED[key][2], _canonical_text(key, row[key]))
            for key in _FIELDS_WITH_ARROW_TYPE
            if key in row
        }
        vector = np.array(row.get("vector", [0.0, 0.0]), np.float32).astype(float).tolist()
        return {"id": row["id"], "vector": vector, **dynamic, **typed}

    def awkward(self, count: int, dimension: int) -> list[Row]:
        generator = np.random.default_rng(7)
        vectors = generator.standard_normal((count, dimension)).astype(np.float32)
        return [_awkward_row(n, vector) for n, vector in enumerate(vectors.astype(float).tolist())]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id",
            "text_content": "body",
            "title": "title",
            "tags": "tags",
            "created_at": "created",
            "vector": "vector",
        }

    def vendor_read(self, name: str) -> int:
        """Page by key through ``MilvusClient.query``.

        The client's iterator stops at the first key with a line break or a quote.
        """
        row_count, key_filter = 0, ""
        while page := list(
            self.client.query(
                name,
                filter=key_filter,
                limit=5_000,
                output_fields=["*"],
                iterator="True",
                reduce_stop_for_best="True",
            )
        ):
            row_count += len(page)
            key_filter = f"id > {json.dumps(page[-1]['id'], ensure_ascii=False)}"
        return row_count

    def proxied(self, name: str) -> tuple[GrpcProxy, Milvus]:
        proxy = GrpcProxy(self.url.split("://")[-1])
        proxy.open()
        return proxy, self.source(name, url=proxy.endpoint, shard_bytes=2_000)

    def page_request(self) -> str:
        return "MilvusService/Query"


_FIELDS_WITH_ARROW_TYPE = [key for key, (_, _, name) in DECLARED.items() if name]


def _as_json(value: Any) -> tuple[str, str]:
    """Return type and text of parsed JSON; ``as_json`` knows lists of strings and floats only."""
    if not isinstance(value, list):
        return as_json({"": value})[""]
    names = {int: "list<int64>", float: "list<double>", str: "list<string>"}
    kinds = set(map(type, value))
    return names[kinds.pop()] if len(kinds) == 1 else "list", canonical(value)


def _canonical_text(key: str, value: Any) -> str:
    if key.startswith("single"):
        numbers = [
            float(str(np.float32(number)))
            for number in (value if isinstance(value, list) else [value])
        ]
        return canonical(numbers if isinstance(value, list) else numbers[0])
    return canonical(value)


_ODD_TEXTS = (
    "it's",
    'say "x"',
    "back\\slash\\",
    "line\nend\r\t",
    "naïve ☕ \U0001d4b3",
    "e\u0301",
    "\x01\x7f\u2028",
    "%s {0}",
    " padded ",
    "null",
    "0042",
    "",
)


def _awkward_row(n: int, vector: list[float]) -> Row:
    odd = _ODD_TEXTS[n % len(_ODD_TEXTS)]
    row: Row = {
        "id": odd if n < len(_ODD_TEXTS) else f"{odd}{n:07d}",
        "vector": vector,
        "body": f"Record {n} says {odd!r}, é and \U0001d4b3. " * 8,
        "n": (2**53 + n, -(2**63) + n, 2**63 - 1 - n, n)[n % 4],
        "ratio": (-0.0, 1e-300, 0.1 * n, float(n))[n % 4],
        "flag": n % 3 == 0,
        "tags": [f"t{n % 50}", odd or "empty"],
        "meta": {"by": None, "at": {"x": 2**53 + n, "names": ["", None, odd], "y": n / 7}},
        "tiny": n % 256 - 128,
        "short": -n % 32_768,
        "int": n - 2**31,
        "single": n / 7,
        "singles": [0.1, -0.0, n / 3][: n % 4],
        "tinies": [-128, n % 128][: n % 3],
        "title": f"Title {n} {odd}",
        "created": f"{1990 + n % 40}-0{1 + n % 9}-17T0{n % 10}:11:12.345678Z",
    }
    if n % 2:
        row["sometimes"] = (None, "", "null", 0, 1.0, [], {}, [1, "a", None], [0.5, 2.0])[n % 9]
    return row


@contextmanager
def start_with_users(folder: Path, *, quick_clock: bool = True) -> Iterator[Server]:
    """Start Milvus with users: without a token it refuses all."""
    settings = {
        "COMMON_SECURITY_AUTHORIZATIONENABLED": "true",
        **(_QUICK_CLOCK if quick_clock else {}),
    }
    with milvus.start(folder, settings, _lets_root_in) as server:
        yield server


def _lets_root_in(server: Server) -> bool:
    from pymilvus import DataType, MilvusClient, MilvusException

    logger = logging.getLogger("pymilvus")
    # pymilvus prints each refusal of a server that is not ready yet
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with suppress(MilvusException):
            client = MilvusClient(server.endpoint, token=ROOT, timeout=5)
            schema = (
                client.create_schema()
                .add_field("id", DataType.INT64, is_primary=True)
                .add_field("vector", DataType.FLOAT_VECTOR, dim=2)
            )
            client.drop_collection("is_it_ready")
            client.create_collection(
                "is_it_ready",
                schema=schema,
                index_params=client.prepare_index_params(
                    "vector", index_type="FLAT", metric_type="L2"
                ),
            )
            client.insert("is_it_ready", [{"id": 1, "vector": [1.0, 2.0]}])
            read_rows = client.query("is_it_ready", filter="id == 1", consistency_level="Strong")
            client.drop_collection("is_it_ready")
            client.close()
            return len(read_rows) == 1
        return False
    finally:
        logger.disabled = was_disabled
