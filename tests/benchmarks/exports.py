"""The export that every large test and benchmark migrates.

A row has a uuid, a title, some 600 characters of text, a 384-d vector, metadata, tags and a parent.

Row n is the same whatever the number of rows, the number of files and the
format: it comes from a block of 20,000 rows with a seed of its own.  Never more
than two blocks are in memory, so any size can be written.

    python -m tests.benchmarks.exports 500000 CACHE [parquet|jsonl|csv]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Format = Literal["parquet", "jsonl", "csv"]

DIMENSION = 384
#: Rows of the exports that a benchmark measures by default.
SIZES = (500_000, 2_000_000)
#: Rows of one block, which is one seed, and of one Parquet row group.
BLOCK = 20_000
#: Rows a file aims at: 8 files for 500,000 rows.
ROWS_PER_FILE = 62_500
SEED = 7
#: Rows of one family: its first row is the parent of the others.
FAMILY = 10
#: Instants start here (2020-01-01 UTC) and are a minute and a half second apart, in microseconds.
FIRST, STEP = 1_577_836_800_000_000, 61_500_000
WORDS = (  # noqa: SIM905  # as a list it would be 32 lines
    "lance frame context vector search shard embed token graph ray store index commit page query merge drift "
    "policy report contract ledger invoice meeting chapter river stone orbit signal pixel kernel thread garden"
).split()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark's command line: which sizes, how often, where."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument(
        "--cache",
        default=os.path.join(tempfile.gettempdir(), "cfray-benchmarks"),
        help="folder for the exports, which are kept",
    )
    return made


def cached(rows: int, cache: str, fmt: Format = "parquet", files: int | None = None) -> str:
    """Give the folder that holds an export of this size and format; write it if nobody did."""
    count = default_files(rows) if files is None else files
    folder = os.path.join(cache, f"{fmt}-{rows}-{count}")
    if not os.path.isdir(folder):
        os.makedirs(cache, exist_ok=True)
        half = tempfile.mkdtemp(prefix=".half-", dir=cache)
        try:
            write(rows, half, fmt, count)
            os.rename(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return folder


def default_files(rows: int) -> int:
    """Give the number of files: at least two, so that two processes can share them."""
    return max(2, -(-rows // ROWS_PER_FILE))


def write(rows: int, folder: str, fmt: Format = "parquet", files: int = 1) -> list[str]:
    """Write an export of ``rows`` rows as ``files`` files of nearly equal size; give their paths."""
    os.makedirs(folder, exist_ok=True)
    writer = {"parquet": _write_parquet, "jsonl": _write_jsonl, "csv": _write_csv}[fmt]
    edges = [rows * number // files for number in range(files + 1)]
    paths = [os.path.join(folder, f"part-{number:05d}.{fmt}") for number in range(files)]
    for path, first, end in zip(paths, edges, edges[1:], strict=False):
        writer(path, first, end)
    return paths


def table(first: int, end: int) -> pa.Table:
    """Give rows ``first`` to ``end`` of the export."""
    parts = []
    for number in range(first // BLOCK, -(-end // BLOCK)):
        start = number * BLOCK
        parts.append(
            _block(number).slice(max(0, first - start), min(end, start + BLOCK) - max(first, start))
        )
    return pa.concat_tables(parts)


def uuids(numbers: np.ndarray) -> pa.StringArray:
    """Give the ids of rows ``(n,)``: version-4 uuids, a function of the row's number alone."""
    seeds = numbers.astype(np.uint64) * np.uint64(2) + np.uint64(SEED << 40)
    words = np.stack([_mixed(seeds), _mixed(seeds + np.uint64(1))], axis=1)
    raw = words.astype(">u8").view(np.uint8).reshape(-1, 16)
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x40
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    digits = np.frombuffer(raw.tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    text = np.full((len(numbers), 36), ord("-"), np.uint8)
    text[:, [place for place in range(36) if place not in (8, 13, 18, 23)]] = digits
    offsets = np.arange(0, 36 * len(numbers) + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread the bits of ``(n,)`` uint64 (splitmix64; Steele et al., OOPSLA 2014)."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=2)
def _block(number: int) -> pa.Table:
    """Make one block of rows; two stay, for a row group may lie across their border."""
    rng = np.random.default_rng([SEED, number])
    rows = np.arange(number * BLOCK, (number + 1) * BLOCK)
    texts = pa.array(rows).cast(pa.string())
    parents = uuids(rows - rows % FAMILY)
    return pa.table(
        {
            "uuid": uuids(rows),
            "title": pc.binary_join_element_wise("Title", texts, " "),
            "body": pc.binary_join_element_wise(
                texts, pc.binary_join(_words(rng, 80, 112), " "), " "
            ),
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(_vectors(rng).reshape(-1)), DIMENSION
            ),
            "score": rng.random(BLOCK),
            "year": rng.integers(1990, 2026, BLOCK),
            "public": pa.array(rows % 3 != 0),
            "published": pa.array(FIRST + rows * STEP).cast(pa.timestamp("us", "UTC")),
            "author": pa.array(["ann", "bo", None]).take(pa.array(rows % 3)),
            "tags": _words(rng, 1, 4),
            "parent": pc.if_else(pa.array(rows % FAMILY != 0), parents, None),
        }
    )


def _words(rng: np.random.Generator, low: int, high: int) -> pa.ListArray:
    """Draw a list of ``low`` to ``high - 1`` words for each row of a block."""
    offsets = np.zeros(BLOCK + 1, np.int32)
    np.cumsum(rng.integers(low, high, BLOCK), out=offsets[1:])
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(WORDS).take(pa.array(rng.integers(0, len(WORDS), offsets[-1])))
    )


def _vectors(rng: np.random.Generator) -> np.ndarray:
    """Draw ``(BLOCK, DIMENSION)`` float32 of unit length around 64 centres that all blocks share."""
    centres = np.random.default_rng(SEED).standard_normal((64, DIMENSION), np.float32)
    vectors = rng.standard_normal((BLOCK, DIMENSION), np.float32)
    vectors *= np.float32(0.35)
    vectors += centres[rng.integers(0, len(centres), BLOCK)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _groups(first: int, end: int) -> list[tuple[int, int]]:
    return [(start, min(end, start + BLOCK)) for start in range(first, end, BLOCK)]


def _write_parquet(path: str, first: int, end: int) -> None:
    import pyarrow.parquet as pq

    few = ["author", "tags.list.element", "year"]  # a dictionary of unique values only costs time
    with pq.ParquetWriter(path, table(first, first + 1).schema, use_dictionary=few) as writer:
        for start, stop in _groups(first, end):
            writer.write_table(table(start, stop), row_group_size=BLOCK)


def _write_jsonl(path: str, first: int, end: int) -> None:
    import orjson

    with open(path, "wb") as sink:
        for start, stop in _groups(first, end):
            block = table(start, stop)
            vectors = _matrix(block)
            plain = block.drop_columns("embedding").to_pylist()
            sink.writelines(
                orjson.dumps(
                    {**row, "embedding": vector},
                    option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
                )
                for row, vector in zip(plain, vectors, strict=True)
            )


def _write_csv(path: str, first: int, end: int) -> None:
    """Write CSV; lists stand as JSON text."""
    import orjson
    import pyarrow.csv as pa_csv

    def texts(name: str, rows: object) -> tuple[str, pa.Array]:
        return name, pa.array(
            [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in rows]
        )

    with open(path, "wb") as sink:
        for start, stop in _groups(first, end):
            block = table(start, stop).combine_chunks()
            for name, column in (
                texts("embedding", _matrix(block)),
                texts("tags", block["tags"].to_pylist()),
            ):
                block = block.set_column(block.schema.get_field_index(name), name, column)
            published = pc.strftime(
                block["published"].cast(pa.timestamp("ms", "UTC")), format="%Y-%m-%dT%H:%M:%SZ"
            )
            block = block.set_column(
                block.schema.get_field_index("published"), "published", published
            )
            pa_csv.write_csv(block, sink, pa_csv.WriteOptions(include_header=start == first))


def _matrix(block: pa.Table) -> np.ndarray:
    column = block["embedding"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return column.flatten().to_numpy().reshape(-1, DIMENSION)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int)
    parser.add_argument("cache")
    parser.add_argument("format", nargs="?", default="parquet", choices=("parquet", "jsonl", "csv"))
    given = parser.parse_args()
    print(cached(given.rows, given.cache, given.format))
