"""``cfray export`` beside Lance's own way to Parquet, in one run.

The floor is one process that scans the dataset with pylance and writes Parquet with pyarrow
(zstd, as the export does): the rows as they are, nothing restored, nothing hashed.

    python -m tests.benchmarks.export [--rows 20000] [--rounds 1]
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time

import lance
import pyarrow.parquet as pq
import yaml

from tests.benchmarks import exports, tree
from tests.benchmarks.migrate import host, job, warm

#: Rows of a batch of the floor.
BATCH = 8192


def floor(target: str, path: str) -> float:
    """Write a dataset as one Parquet file; give the seconds."""
    begin = time.perf_counter()
    reader = lance.dataset(target).scanner(batch_size=BATCH, blob_handling="all_binary").to_reader()
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
    return time.perf_counter() - begin


def measure(target: str, place: str) -> dict[str, float]:
    """Write a target by the floor and in four ways; give the seconds."""
    seconds = {"floor": floor(target, f"{place}/floor.parquet")}
    for form, file_format in (
        ("frames", "parquet"),
        ("records", "parquet"),
        ("records", "jsonl"),
    ):
        name = f"{form} as {file_format}"
        out = f"{place}/{form}-{file_format}"
        ran = tree.run_cfray("export", target, "--to", out, "--as", form, "--format", file_format)
        seconds[name] = ran.wall
        shutil.rmtree(out)
    return seconds


def main() -> None:
    """Measure every size and print a line for each round."""
    given = exports.parser(__doc__).parse_args()
    cache = os.path.abspath(given.cache)
    os.makedirs(cache, exist_ok=True)
    print(", ".join(f"{name} {value}" for name, value in host().items()))
    for rows in given.rows:
        folder = exports.cached(rows, cache)
        warm(folder)
        home = tempfile.mkdtemp(prefix="export-", dir=cache)
        try:
            with open(f"{home}/job.yaml", "w", encoding="utf-8") as file:
                yaml.safe_dump(job(folder, f"{home}/out.lance"), file)
            tree.run_cfray("migrate", f"{home}/job.yaml")
            found = []
            for number in range(given.rounds):
                place = tempfile.mkdtemp(prefix="exports-", dir=home)
                found.append(measure(f"{home}/out.lance", place))
                shutil.rmtree(place)
                told = ", ".join(f"{name} {took:.1f} s" for name, took in found[-1].items())
                print(f"{rows:,} rows, round {number + 1}: {told}", flush=True)
            for name in found[0]:
                ratio = statistics.median(item[name] / item["floor"] for item in found)
                print(f"{rows:,} rows: {name} / floor {ratio:.2f}")
        finally:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
