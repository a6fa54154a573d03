"""``Source.read`` of a store beside its vendor's client, interleaved in one run on the real server.

One process each, no Ray and no Lance: what is compared is reading everything,
vectors and payload.  Two readers, which share the shards, and the whole
``cfray migrate`` stand beside it.  Doubles are left out unless they are named: their
speed says nothing of the store.  Milvus and Weaviate are behind a forwarder in Python
(``tests/testbeds/jail.py``), which both sides pay.

    python -m tests.benchmarks.stores [--rows 100000] [--rounds 3] [--stores chroma milvus weaviate]
    [--out figures.json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cfray.records.record import Reject
from cfray.sources.base import Context, Shard
from cfray.sources.remote import RemoteSource
from tests.scenarios import stores
from tests.scenarios.runs import Runner
from tests.sources.store_bed import StoreBed

REAL = ("chroma", "elasticsearch", "milvus", "opensearch", "postgres", "weaviate")
DIMENSION = 384


def read(source: RemoteSource, shards: list[Shard], context: Context) -> int:
    """Read shards one after the other; count the records."""
    return sum(
        1 if isinstance(item, Reject) else item.num_rows
        for shard in shards
        for item in source.read(shard, context)
    )


def timed(work: Any, rows: int) -> float:
    """Give the seconds some work takes, after checking that it read every row."""
    begin = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - begin
    if found != rows:
        raise SystemExit(
            f"{found:,} of {rows:,} rows were read: a reader that loses rows is not measured"
        )
    return seconds


def measure(bed: StoreBed, rows: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Fill one collection and read it in turns."""
    made = bed.awkward(rows, DIMENSION)
    begin = time.perf_counter()
    name = bed.seed(made)
    seeding = time.perf_counter() - begin
    del made
    source = bed.source(name)
    context = Context(scratch=str(folder))
    begin = time.perf_counter()
    shards = source.shards(context)
    planning = time.perf_counter() - begin
    turns: dict[str, list[float]] = {"vendor": [], "cfray": [], "two readers": []}
    halves = [(source, shards[::2], context), (source, shards[1::2], context)]
    with multiprocessing.get_context("spawn").Pool(2) as readers:
        readers.starmap(read, [(source, [], context)] * 4)  # imports are not reading
        for _ in range(rounds):
            turns["vendor"].append(timed(lambda: bed.vendor_read(name), rows))
            turns["cfray"].append(timed(lambda: read(source, shards, context), rows))
            turns["two readers"].append(timed(lambda: sum(readers.starmap(read, halves)), rows))
    whole = migrated(bed, name, folder)
    best = {shape: min(seconds) for shape, seconds in turns.items()}
    ratios = [vendor / ours for vendor, ours in zip(turns["vendor"], turns["cfray"], strict=True)]
    return {
        "rows": rows, "dimension": DIMENSION, "shards": len(shards), "seeding": seeding, "planning": planning, "seconds": turns,
        "rows_a_second": {shape: rows / seconds for shape, seconds in best.items()},
        "ratio": statistics.median(ratios), "migrate": whole,
    }  # fmt: skip


def migrated(bed: StoreBed, name: str, folder: Path) -> dict[str, float]:
    """Run ``cfray migrate`` and give the seconds of its parts."""
    runner = Runner()
    try:
        job = stores.job_of(bed, folder, name, shard_bytes=bed.source(name).shard_bytes)
        report = stores.migrate(runner, bed, job, 0)
    finally:
        runner.close()
    return {
        "copy": report["clock"]["copy_seconds"],
        **{stage: figures["seconds"] for stage, figures in report["stages"].items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=stores.KINDS, default=list(REAL))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    told = {}
    for kind in given.stores:
        with (
            tempfile.TemporaryDirectory(prefix="cfray-bench-") as folder,
            stores.bed_of(kind).measured(Path(folder) / "server") as bed,
        ):
            told[kind] = found = measure(bed, given.rows, given.rounds, Path(folder))
        rates = ", ".join(f"{shape} {rate:,.0f}" for shape, rate in found["rows_a_second"].items())
        print(
            f"{kind}: {rates} rows/s; cfray / vendor = {found['ratio']:.2f}; whole migrate: copy {found['migrate']['copy']:.1f} s",
            flush=True,
        )
    if given.out:
        given.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
