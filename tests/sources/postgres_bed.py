"""PostgreSQL with pgvector for the tests: a real server that psycopg fills.

A collection is a table with a primary key ``id``.  A key that a row lacks is null: tables know no
missing values.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from cfray.runtime.credentials import Secret
from cfray.sources.postgres.names import quote_name
from cfray.sources.postgres.source import Postgres
from tests.contract import oracle
from tests.sources.corpus import ODD_IDS
from tests.sources.store_bed import Row, StoreBed
from tests.testbeds import postgres
from tests.testbeds.postgres_proxy import PostgresProxy
from tests.testbeds.server import Server

KEY = "CFRAY_POSTGRES_KEY"
#: Columns: name -> type; ``{}`` stands for the width of the vectors.
COLUMNS = {
    "id": "text",
    "text": "text",
    "n": "bigint",
    "ratio": "double precision",
    "flag": "boolean",
    "tags": "text[]",
    "meta": "jsonb",
    "vector": "vector({})",
}
#: Columns that only awkward rows have.
MORE_COLUMNS = {
    "title": "varchar(200)",
    "created": "timestamptz",
    "day": "date",
    "small": "smallint",
    "single": "real",
    "price": "numeric(30,10)",
    "exact": "numeric",
    "uid": "uuid",
    "data": "bytea",
    "ints": "integer[]",
    "span": "int8range",
    "see": "text",
    "half": "halfvec(4)",
    "sparse": "sparsevec(1000)",
    "code": "bit(64)",
}
#: Columns whose values are vectors beside the primary vector.
_VECTORS = ("half", "sparse", "code")


class PostgresBed(StoreBed):
    """Fill and read a PostgreSQL server."""

    kind = "postgres"

    def __init__(self, url: str, server: Server | None = None) -> None:
        self.url, self.server = url, server

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator[Self]:
        if endpoint := cls.endpoint():
            yield cls(endpoint)
            return
        previous_key = os.environ.get(KEY)
        os.environ[KEY] = postgres.PASSWORD
        try:
            with postgres.start(folder) as server:
                bed = cls(
                    f"postgresql://{postgres.USER}@127.0.0.1:{server.ports[0]}/postgres", server
                )
                bed.execute("CREATE EXTENSION vector")
                try:
                    yield bed
                finally:
                    bed.connection.close()
        finally:
            os.environ.pop(KEY) if previous_key is None else os.environ.update({KEY: previous_key})

    def connect(self) -> Any:
        """Open a connection of the vendor's client; the caller closes it."""
        import psycopg

        return psycopg.connect(self.url, password=os.environ.get(KEY), autocommit=True)

    @cached_property
    def connection(self) -> Any:
        return self.connect()

    def execute(self, statement: str, *values: Any) -> Any:
        return self.connection.execute(statement, values or None)

    def seed(self, rows: Sequence[Row], name: str | None = None) -> str:
        from psycopg.types.json import Jsonb

        name = name or self.fresh()
        width = len(next((row["vector"] for row in rows if row.get("vector")), [0, 0]))
        more = [key for key in MORE_COLUMNS if any(key in row for row in rows)]
        types = COLUMNS | {key: MORE_COLUMNS[key] for key in more}
        columns = ", ".join(
            f"{quote_name(key)} {kind.format(width)}{' PRIMARY KEY' if key == 'id' else ''}"
            for key, kind in types.items()
        )
        self.execute(f"CREATE TABLE {quote_name(name)} ({columns})")
        with (
            self.connection.cursor() as cursor,
            cursor.copy(
                f"COPY {quote_name(name)} ({', '.join(map(quote_name, types))}) FROM STDIN"
            ) as copy,
        ):
            for row in rows:
                values = dict(row)
                values["meta"] = None if row.get("meta") is None else Jsonb(row["meta"])
                for key in ("vector", "half"):
                    values[key] = None if row.get(key) is None else str(row[key])
                copy.write_row([values.get(key) for key in types])
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP TABLE {quote_name(name)} CASCADE")

    def delete(self, name: str, ids: Sequence[Any]) -> None:
        self.execute(f"DELETE FROM {quote_name(name)} WHERE id = ANY(%s)", list(ids))

    def source(self, *names: str, **options: Any) -> Postgres:
        key = Secret(env=KEY) if os.environ.get(KEY) else None
        fields = {"url": self.url, "collections": list(names) or None, "api_key": key}
        return Postgres(**{**fields, **options})

    def expected(self, row: Row) -> Row:
        expected_row = {key: row.get(key) for key in COLUMNS}
        expected_row |= {key: row[key] for key in MORE_COLUMNS if key in row}
        if row.get("single") is not None:
            expected_row["single"] = oracle.Float32(row["single"])
        vector = row.get("vector")
        expected_row["vector"] = vector and np.array(vector, np.float32).astype(float).tolist()
        if "half" in row:
            expected_row["vectors"] = {
                "half": row["half"],
                "sparse": _sparse(row["sparse"]),
                "code": _bytes(row["code"]),
            }
        for key, kind in (("meta", "struct"), ("exact", "numeric"), ("span", "int8range")):
            if row.get(key) is not None:
                expected_row[key] = (kind, oracle.canonical(row[key]))
            elif key in expected_row:
                del expected_row[key]
        return {key: value for key, value in expected_row.items() if key not in _VECTORS}

    def awkward(self, count: int, dimension: int) -> list[Row]:
        generator = np.random.default_rng(7)
        vectors = generator.standard_normal((count, dimension)).astype(np.float32)
        return [
            _awkward_row(n, vector, count)
            for n, vector in enumerate(vectors.astype(float).tolist())
        ]

    def mapping(self) -> dict[str, Any]:
        return {
            "id": "id",
            "text_content": "text",
            "title": "title",
            "tags": "tags",
            "created_at": "created",
            "vector": "vector",
            "relationships": [{"type": "reference", "to": "see"}],
        }

    def vendor_read(self, name: str) -> int:
        """Copy a table in binary through psycopg, and decode it into Arrow, 10,000 rows at a time."""
        types = [
            kind.split("(")[0]
            for _, kind in self.execute(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                quote_name(name),
            )
        ]
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f"COPY {quote_name(name)} TO STDOUT (FORMAT binary)") as copy,
        ):
            copy.set_types(["bytea" if kind in _RAW_TYPES else kind for kind in types])
            read, rows = 0, copy.rows()
            while block := list(itertools.islice(rows, 10_000)):
                columns = zip(*block, strict=True)
                arrays = [
                    _arrow_array(kind, values) for kind, values in zip(types, columns, strict=True)
                ]
                read += len(arrays[0])
            return read

    def proxied(self, name: str) -> tuple[PostgresProxy, Postgres]:
        proxy = PostgresProxy(urlsplit(self.url).port or 5432)
        proxy.open()
        url = f"postgresql://{postgres.USER}@{proxy.endpoint}/postgres"
        return proxy, self.source(name, url=url, shard_bytes=8_000)

    def page_request(self) -> str:
        return "COPY (SELECT"


#: Types that psycopg has no binary loader for, or whose values Arrow has no type for.
_RAW_TYPES = ("vector", "halfvec", "sparsevec", "bit", "int8range", "jsonb")
#: Type of pgvector -> type of its numbers, which follow four bytes.
_NUMBERS = {"vector": ">f4", "halfvec": ">f2"}


def _arrow_array(kind: str, values: Sequence[Any]) -> pa.Array:
    if kind not in _NUMBERS:
        return pa.array(list(map(str, values)) if kind in ("numeric", "uuid") else values)
    size = next((len(value) - 4 for value in values if value), 0)
    data = b"".join(value[4:] if value else bytes(size) for value in values)
    numbers = np.frombuffer(data, _NUMBERS[kind])
    numbers = numbers.astype(numbers.dtype.newbyteorder("<"))
    return pa.FixedSizeListArray.from_arrays(
        numbers, size // numbers.itemsize, mask=pa.array([value is None for value in values])
    )


def _sparse(text: str) -> Row:
    """Read a sparse vector as pgvector writes it: numbers from 1."""
    pairs = [pair.split(":") for pair in text[1 : text.index("}")].split(",")]
    return {
        "indices": [int(index) - 1 for index, _ in pairs],
        "values": [float(value) for _, value in pairs],
    }


def _bytes(bits: str) -> list[int]:
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def _awkward_row(n: int, vector: list[float], count: int) -> Row:
    odd = ODD_IDS[n % (len(ODD_IDS) - 1)]
    row: Row = {
        "id": f"{odd} {n:07d}",
        "title": f"Title {odd} of {n}",
        "text": f"Record {n} says {odd!r}, é and \U0001d4b3.\n" * 8,
        "vector": vector,
        "n": (2**53 + n, -(2**63) + n, 2**63 - 1 - n, n)[n % 4],
        "ratio": (-0.0, 1e-300, 0.1 * n, float(n))[n % 4],
        "flag": n % 3 == 0,
        "tags": ["a", f"t{n % 50}", "", "NULL", 'q"\\{}'],
        "meta": {"by": 'B "C" D', "at": {"x": 2**53 + n, "names": ["é", None, ""]}},
        "created": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n, microseconds=n),
        "day": date(1970, 1, 1) + timedelta(days=n % 20_000),
        "small": n % 32_768,
        "single": float(np.float32(n / 7)),
        "price": (Decimal(n) / 8).quantize(Decimal("1E-10")),
        "exact": f"{n}.{n:030d}0",
        "uid": uuid.UUID(int=n),
        "data": bytes([n % 256, 0, 255]),
        "ints": [n, -1],
        "span": f"[{n},{n + 5})",
        "see": f"{ODD_IDS[(n * 7) % count % (len(ODD_IDS) - 1)]} {(n * 7) % count:07d}",
        "half": [0.5, -2.0, float(n % 1000), 0.0],
        "sparse": f"{{1:1.5,{2 + n % 900}:-2}}/1000",
        "code": f"{n:064b}",
    }
    for key in (("text", "see"), ("vector", "tags"), ("created", "meta"), ("data", "span"), ())[
        n % 13 % 5
    ]:
        row[key] = None
    return row | ({"text": "", "tags": [], "ints": []} if n % 97 == 5 else {})
