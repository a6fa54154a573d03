"""The same corpus as Parquet, JSON Lines and CSV, and its migration through the command line."""

import csv
import datetime as dt
import decimal
import json
import os
import random
import subprocess
import sys
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

DIMENSION = 384
WORDS = [
    "lance",
    "frame",
    "context",
    "vector",
    "search",
    "shard",
    "token",
    "graph",
    "store",
    "index",
    "page",
    "query",
    "merge",
    "policy",
    "ledger",
    "invoice",
    "river",
    "stone",
]
SCHEMA = pa.schema(
    [
        ("uuid", pa.string()),
        ("title", pa.string()),
        ("body", pa.string()),
        ("embedding", pa.list_(pa.float32(), DIMENSION)),
        ("views", pa.int64()),
        ("score", pa.float32()),
        ("public", pa.bool_()),
        ("published", pa.timestamp("us", "UTC")),
        ("price", pa.decimal128(20, 4)),
        ("parent", pa.string()),
        ("author", pa.string()),
        ("tags", pa.list_(pa.string())),
    ]
)
CSV_TYPES = {
    "embedding": "list<float>",
    "views": "int64",
    "score": "float",
    "public": "bool",
    "published": "timestamp[us, UTC]",
    "price": "decimal128(20, 4)",
    "tags": "list<string>",
}
MAPPING = {
    "id": "uuid",
    "title": "title",
    "text_content": "body",
    "vector": "embedding",
    "author": "author",
    "tags": "tags",
    "created_at": "published",
    "relationships": [{"type": "parent", "to": "parent"}],
}


def articles(count):
    """Make rows: about 600 characters of text, a unit vector, integers beyond 2**53.

    Nine rows of ten have a parent.
    """
    dice, numbers = random.Random(7), np.random.default_rng(7)
    vectors = numbers.standard_normal((count, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(count)]
    return [
        {
            "uuid": ids[n],
            "title": f'Title "{n}", naïve',
            "body": f"article {n}:\n" + " ".join(dice.choices(WORDS, k=100)),
            "embedding": vectors[n].tolist(),
            "views": 2**53 + 1 + n if n % 2 else -(2**63) + n,
            "score": float(np.float32(n / 7)),
            "public": n % 3 == 0,
            "published": dt.datetime(2024, 1, 31, 23, 59, 59, n % 3 * 250_000, tzinfo=dt.UTC)
            + dt.timedelta(hours=n),
            "price": decimal.Decimal(n).scaleb(-2).quantize(decimal.Decimal("0.0001")),
            "parent": ids[n - n % 10] if n % 10 else None,
            "author": ("ann", "bo", None)[n % 3],
            "tags": [WORDS[n % len(WORDS)], f"t{n % 50}"],
        }
        for n in range(count)
    ]


def as_text(value):
    """Write what JSON lacks as a string."""
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def write_export(kind, path, rows):
    """Write the rows in a format, without cfray."""
    if kind == "parquet":
        pq.write_table(
            pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=max(1, len(rows) // 4)
        )
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, default=as_text) + "\n" for row in rows), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as text:
            writer = csv.writer(text)
            writer.writerow(SCHEMA.names)
            writer.writerows([_field(row[name]) for name in SCHEMA.names] for row in rows)


def _field(value):
    if isinstance(value, bool | list):
        return json.dumps(value)
    return (
        "" if value is None else (as_text(value) if isinstance(value, dt.datetime) else str(value))
    )


def write_job(folder, kind, export, **changes):
    """Write a job file beside the export; give its path."""
    source = {"kind": kind, "uri": export.name, "shard_bytes": "2MiB"} | (
        {"types": CSV_TYPES} if kind == "csv" else {}
    )
    job = {
        "name": "the articles/2024",
        "source": source,
        "mapping": MAPPING,
        "target": {"uri": f"out/{kind}.lance"},
    } | changes
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False), "utf-8")
    return path


def cfray(*arguments, **options):
    """Run cfray in a process, as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "cfray.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
        **options,
    )


def migrated(cfray, folder, kind, rows, **changes):
    """Export the rows, migrate them, give the report; anything but exit code 0 is a failure."""
    export = folder / f"articles.{kind}"
    write_export(kind, export, rows)
    job = write_job(folder, kind, export, **changes)
    return cfray.run("migrate", job, "--json", "--quiet").ended_with(0).document()
