"""``cfray migrate`` of one PostgreSQL table beside the least that a copy costs, in one run.

The least: one binary COPY of the table into a file by psycopg, then the single-process floor of
``floors.py``: the same rows, from Parquet into Lance without mapping, hashing, ledger or Ray.
cfray's clock is its report's: from the end of ``ray.init`` to the last shard's commit.

    python -m tests.benchmarks.postgres [--rows 1000000] [--rounds 1]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.benchmarks import tree
from tests.sources.postgres_bed import PostgresBed

DIMENSION = 384
#: Rows that are made; the table repeats them under other ids, for making vectors takes longest.
_DISTINCT = 10_000
_TABLE = "benchmark"
_STAGES = ("read", "convert", "write")
_FLOORS = Path(__file__).with_name("floors.py")


def fill(bed: PostgresBed, rows: int, folder: Path) -> None:
    """Fill the table, and write the same rows as Parquet, a file for each repetition."""
    random = np.random.default_rng(7)
    count = min(rows, _DISTINCT)
    vectors = random.standard_normal((count, DIMENSION)).astype(np.float32)
    words = np.array(["river", "stone", "orbit", "ledger", "shard", "thread", "graph", "frame"])
    texts = [" ".join(words[random.integers(0, len(words), 60)]) for _ in range(count)]
    bed.execute(
        f"CREATE TABLE {_TABLE} "
        f"(id bigint PRIMARY KEY, title text, body text, year int, vector vector({DIMENSION}))"
    )
    with (
        bed.connection.cursor() as cursor,
        cursor.copy(f"COPY {_TABLE} FROM STDIN") as copy,
    ):
        for row in range(count):
            copy.write_row(
                [row, f"Title {row}", texts[row], 1990 + row % 30, str(vectors[row].tolist())]
            )
    bed.execute(
        f"INSERT INTO {_TABLE} SELECT id + {count} * n, title, body, year, vector "
        f"FROM {_TABLE}, generate_series(1, {rows // count - 1}) AS n"
    )
    bed.execute(f"VACUUM ANALYZE {_TABLE}")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    for number in range(rows // count):
        table = pa.table(
            {
                "id": pa.array(range(number * count, (number + 1) * count), pa.int64()),
                "title": [f"Title {row}" for row in range(count)],
                "body": texts,
                "year": pa.array((1990 + row % 30 for row in range(count)), pa.int32()),
                "vector": column,
            }
        )
        pq.write_table(table, folder / f"{number:04}.parquet", use_dictionary=False)


def copy_to_file(bed: PostgresBed, path: Path) -> float:
    """Copy the table into a file, in binary; give the seconds."""
    begin = time.perf_counter()
    with (
        path.open("wb") as file,
        bed.connection.cursor() as cursor,
        cursor.copy(f"COPY {_TABLE} TO STDOUT (FORMAT binary)") as copy,
    ):
        for data in copy:
            file.write(data)
    seconds = time.perf_counter() - begin
    path.unlink()
    return seconds


def lance_floor(folder: Path, place: Path) -> float:
    """Write the Parquet files into Lance in a fresh process; give the seconds."""
    out = str(place / "floor.lance")
    return float(
        json.loads(_ran([sys.executable, str(_FLOORS), "single", str(folder), out]).out)["seconds"]
    )


def migrate(bed: PostgresBed, rows: int, place: Path) -> tuple[float, str]:
    """Migrate the table; give the seconds of the copy, and those of the workers by stage."""
    source = bed.source(_TABLE).model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    body: dict[str, Any] = {
        "name": "benchmark",
        "source": {"kind": "postgres", **source},
        "mapping": {"title": "title", "text_content": "body", "vector": "vector"},
        "target": {"uri": "out.lance"},
        "index": {"vector": {"type": "none"}, "text": [], "scalar": []},
    }
    (place / "job.yaml").write_text(yaml.safe_dump(body))
    ran = _ran([sys.executable, "-m", "cfray.cli", "migrate", str(place / "job.yaml"), "--json"])
    report = json.loads(ran.out)
    if report["counts"]["staged"] != rows:
        sys.exit(f"{rows:,} rows expected, the report counts {report['counts']}")
    stages = (f"{name} {report['stages'][name]['seconds']:.1f}" for name in _STAGES)
    return float(report["clock"]["copy_seconds"]), ", ".join(stages)


def _ran(command: list[str]) -> tree.Run:
    ran = tree.run(command, memory=False)
    if ran.code or ran.left:
        sys.exit(f"{command}: exit code {ran.code}, left running: {ran.left}\n{ran.err[-4000:]}")
    return ran


def main() -> None:
    """Measure and print a line for each round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    rows = given.rows - given.rows % min(given.rows, _DISTINCT)
    with tempfile.TemporaryDirectory(prefix="cfray-bench-") as folder:
        export = Path(folder, "export")
        export.mkdir()
        with PostgresBed.measured(Path(folder) / "server") as bed:
            fill(bed, rows, export)
            ratios = []
            for _ in range(given.rounds):
                os.sync()  # nobody pays for what was left unwritten
                copied = copy_to_file(bed, Path(folder) / "table.copy")
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    written = lance_floor(export, Path(place))
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    migrated, stages = migrate(bed, rows, Path(place))
                ratios.append(migrated / (copied + written))
                print(
                    f"{rows:,} rows: COPY {copied:.1f} s, Lance {written:.1f} s, cfray "
                    f"{migrated:.1f} s = {ratios[-1]:.2f} of both (seconds of workers: {stages})",
                    flush=True,
                )
    print(f"median: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
