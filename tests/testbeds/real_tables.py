"""Parquet and Arrow files as pandas, Polars, DuckDB, Spark and warehouses write them."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from tests.testbeds.real_inputs import (
    WIDTH,
    Answer,
    case,
    row,
    rows,
    table,
    text,
    vector,
    without,
)

PARQUET = Answer("parquet")


@case(PARQUET)
def int96_far(folder: Path) -> None:
    """Write int96 instants as Spark and Impala do, with both ends of time as open ends."""
    whens = [
        *(dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC) for year in (2024, 9999, 1, 1000)),
        None,
    ]
    instants = pa.array(whens * 4, pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    pq.write_table(
        table(rows(20), valid_until=instants, created_at=instants),
        folder / "part-00000.snappy.parquet",
        use_deprecated_int96_timestamps=True,
    )


@case(PARQUET)
def column_added_later(folder: Path) -> None:
    """Write a column that only the second file has, behind more rows than a sample holds."""
    pq.write_table(table(rows(1200)), folder / "2023.parquet")
    authors = pa.array([f"author {number}" for number in range(60)])
    pq.write_table(table(rows(60, 1200), author=authors), folder / "2024.parquet")


@case(PARQUET, needs=("pandas",))
def float_parent(folder: Path) -> None:
    """Write nullable integer references as pandas does: as floats."""
    import pandas as pd

    records = [
        row(number) | {"id": number, "parent_id": None if number % 4 == 0 else number - number % 4}
        for number in range(40)
    ]
    pd.DataFrame(records).to_parquet(folder / "docs.parquet", index=False)


@case(Answer("parquet", id="ID"))
def decimal_id(folder: Path) -> None:
    """Write ids and references as DECIMAL(38, 0), as Snowflake and Oracle unload a NUMBER."""
    kind = pa.decimal128(38, 0)
    ids = [decimal.Decimal(10**20 + number) for number in range(20)]
    parents = [None if n % 5 == 0 else ids[n - n % 5] for n in range(20)]
    records = [without(record, "id") for record in rows(20)]
    result = table(records, PARENT_ID=pa.array(parents, kind))
    result = result.add_column(0, "ID", pa.array(ids, kind))
    pq.write_table(result, folder / "data_0_0_0.snappy.parquet")


@case(Answer("parquet", id=""))
def float_id(folder: Path) -> None:
    """Write ids as floats beside a running number: the number is not the id."""
    records = [row(number) | {"id": float(number) * 3} for number in range(20)]
    pq.write_table(table(records), folder / "docs.parquet")


_DUCKDB = """COPY (SELECT
    ('00000000-0000-4000-8000-' || lpad(i::VARCHAR, 12, '0'))::UUID AS id, 'Title ' || i AS title,
    'A text of document ' || i || ' that is long enough to be the text of a document' AS body,
    [sin(i + j)::FLOAT for j in range({width})]::FLOAT[{width}] AS embedding,
    (170141183460469231731687303715884105727 - i::HUGEINT)::HUGEINT AS huge,
    (CASE WHEN i % 2 = 0 THEN 'draft' ELSE 'published' END)::mood AS status,
    MAP {{'k' || i: i, 'z': 2}} AS attributes, {{'a': i, 'b': 'x'}} AS nested,
    INTERVAL (i) DAY + INTERVAL 1 MONTH AS span,
    TIMESTAMPTZ '2024-03-01 10:00:00+02' + INTERVAL (i) HOUR AS created_at,
    ('{{"a": ' || i || ', "b": [1, 2]}}')::JSON AS meta, '010101'::BIT AS bits, 'ab'::BLOB AS bytes,
    1.50::DECIMAL(10, 2) AS price, ['x', 'y'] AS tags, 18446744073709551615::UBIGINT AS big
    FROM range(20) t(i)) TO '{path}' (FORMAT parquet)"""


@case(PARQUET, needs=("duckdb",))
def duckdb_types(folder: Path) -> None:
    """Write the types that only DuckDB has."""
    import duckdb

    database = duckdb.connect()
    database.sql("CREATE TYPE mood AS ENUM ('draft', 'published')")
    database.sql(_DUCKDB.format(width=WIDTH, path=folder / "duck.parquet"))


@case(PARQUET, needs=("duckdb",))
def json_typed_vector(folder: Path) -> None:
    """Write the vector as a text of Parquet's logical type JSON."""
    import duckdb

    duckdb.sql(
        "COPY (SELECT i AS id, 'Title ' || i AS title, 'The body of document ' || i || "
        f"' goes on and on for a while' AS body, ([sin(i + j) for j in range({WIDTH})])::JSON AS "
        f"embedding FROM range(20) t(i)) TO '{folder / 'json.parquet'}' (FORMAT parquet)"
    )


@case(Answer("arrow", quarantined=1), needs=("polars",))
def polars_ipc_bad_row(folder: Path) -> None:
    """Write Arrow IPC with string views, and one record without an id."""
    import polars as pl

    records = [row(number) for number in range(24)]
    records[3]["id"] = None
    frame = pl.DataFrame(records, schema_overrides={"embedding": pl.Array(pl.Float32, WIDTH)})
    frame.write_ipc(folder / "docs.arrow")


@case(Answer("parquet", vectors=("title_vector",)), needs=("polars",))
def polars_types(folder: Path) -> None:
    """Write Polars' own types: categories, durations, decimals, nulls, two vectors."""
    import polars as pl

    count = 24
    frame = pl.DataFrame([without(record, "embedding") for record in rows(count)])
    frame.with_columns(
        embedding=pl.Series([vector(n) for n in range(count)], dtype=pl.Array(pl.Float32, WIDTH)),
        title_vector=pl.Series([vector(n + 99) for n in range(count)], dtype=pl.List(pl.Float64)),
        status=pl.Series(["draft", "done"] * (count // 2), dtype=pl.Categorical),
        took=pl.Series([dt.timedelta(seconds=n) for n in range(count)]),
        nothing=pl.Series([None] * count, dtype=pl.Null),
    ).write_parquet(folder / "docs.parquet")


@case(Answer("parquet", vector="embedding:floats"))
def vector_bytes(folder: Path) -> None:
    """Write vectors as the bytes of float32 numbers."""
    blobs = [np.array(record["embedding"], "<f4").tobytes() for record in rows(20)]
    records = [without(record, "embedding") for record in rows(20)]
    pq.write_table(table(records, embedding=pa.array(blobs, pa.binary())), folder / "docs.parquet")


@case(Answer("parquet", vector="embedding:doubles"))
def vector_double_bytes(folder: Path) -> None:
    """Write vectors as the bytes of float64 numbers, beside a hash of as many bytes."""
    blobs = [np.array(record["embedding"], "<f8").tobytes() for record in rows(20)]
    hashes = [np.random.default_rng(n).bytes(64) for n in range(20)]
    records = [without(record, "embedding") for record in rows(20)]
    columns = {"sha512": pa.array(hashes, pa.binary()), "embedding": pa.array(blobs, pa.binary())}
    pq.write_table(table(records, **columns), folder / "docs.parquet")


@case(Answer("parquet", id="$file+__index_level_0__", title=""), needs=("pandas",))
def index_level_parts(folder: Path) -> None:
    """Write two files whose only number is pandas' index, which begins anew in each."""
    import pandas as pd

    for part in range(2):
        frame = pd.DataFrame(
            [{"body": text(n % 7), "embedding": vector(n % 7)} for n in range(1500)]
        )
        frame.index = pd.Index(list(range(1500)))
        frame.to_parquet(folder / f"part-{part}.parquet", index=True)
    (folder / "README.txt").write_text("not an export\n")


@case(PARQUET)
def uuid_bytes_and_categories(folder: Path) -> None:
    """Write ids as 16 bytes, references to them as texts, categories, and numbers above int64."""
    ids = [uuid.UUID(int=number + 1) for number in range(20)]
    parents = [None if n % 4 == 0 else str(ids[n - n % 4]) for n in range(20)]
    result = table(
        [without(record, "id") for record in rows(20)],
        parent=pa.array(parents),
        status=pa.array(["a", None, "b", "a"] * 5).dictionary_encode(),
        hash=pa.array([2**64 - 1 - number for number in range(20)], pa.uint64()),
    )
    result = result.add_column(0, "id", pa.array([item.bytes for item in ids], pa.binary(16)))
    pq.write_table(result, folder / "docs.parquet")


@case(
    Answer("parquet", text="text", vector="content_vector", vectors=("title_vector",)),
)
def parquet_text_vectors(folder: Path) -> None:
    """Write two vectors as JSON texts, and two fields that could be ids beside the id."""
    records = [
        {
            "id": number,
            "url": f"https://en.example/{number}",
            "title": f"Title {number}",
            "text": text(number),
            "title_vector": json.dumps(vector(number + 50)),
            "content_vector": json.dumps(vector(number)),
            "vector_id": number,
        }
        for number in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(records), folder / "wiki.parquet")


@case(PARQUET)
def dup_columns(folder: Path) -> None:
    """Write two columns of one name, as a join without suffixes does."""
    scores = pa.array(range(20))
    result = table(rows(20)).append_column("score", scores).append_column("score", scores)
    pq.write_table(result, folder / "joined.parquet")


@case(Answer("arrow"))
def feather_and_streams(folder: Path) -> None:
    """Write Arrow as a file named .feather and as a stream named .arrow."""
    result = table(rows(20))
    with ipc.new_file(folder / "a.feather", result.schema) as writer:
        writer.write_table(result)
    result = table(rows(20, 20))
    with ipc.new_stream(folder / "b.arrow", result.schema) as writer:
        writer.write_table(result)


@case(Answer("parquet", id="doi", text="abstract", title="title", vector="emb"))
def papers(folder: Path) -> None:
    """Write a table whose id is a DOI, with a number beside it that is a year."""
    records = [
        {
            "year": 1990 + number % 30,
            "doi": f"10.1000/xyz{number}",
            "title": f"On the ice of lake {number}",
            "abstract": text(number),
            "citations": number * 7 % 50,
            "emb": vector(number),
        }
        for number in range(40)
    ]
    pq.write_table(pa.Table.from_pylist(records), folder / "papers.parquet")


@case(Answer("parquet", id="tenant+doc_no", text="content", title="", vector="vector"))
def tenant_and_number(folder: Path) -> None:
    """Write records that only two fields together name."""
    records = [
        {
            "tenant": f"t{number % 2}",
            "doc_no": number // 2,
            "content": text(number),
            "vector": vector(number),
        }
        for number in range(40)
    ]
    pq.write_table(pa.Table.from_pylist(records), folder / "docs.parquet")


@case({"docs.parquet": Answer("parquet", quarantined=2)})
def vectors_with_nan(folder: Path) -> None:
    """Write two vectors that a model has spoilt."""
    records = rows(20)
    for number, bad in ((3, float("nan")), (7, float("inf"))):
        records[number]["embedding"] = [bad, *vector(number)[1:]]
    pq.write_table(table(records), folder / "docs.parquet")
