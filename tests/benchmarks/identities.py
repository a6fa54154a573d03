"""The search for duplicate uuids and dangling references, with one worker and with two.

A dataset of uuids is written with Lance alone, with duplicates and dangling references
planted at random places.  Each round searches it with one worker and with two, in turn; each
search must find exactly what was planted.  Ray is started, and its workers have searched once,
before the clock runs.  Compare ratios, never seconds of two runs; the load is printed, for
other programs share the machine.  On a busy machine the CPU-seconds tell more than the clock:
what one worker needs alone, and what the busier of two needs.

    python -m tests.benchmarks.identities [--rows 5000000] [--rounds 3] [--out figures.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import psutil
import pyarrow as pa

from cfray.copying.duplicates import Identities, find_duplicates
from cfray.copying.identities import SearchLimits
from cfray.engine.cluster import ray_running
from cfray.frames.schema import RELATIONSHIP, record_uuids
from cfray.job.mapping import SourceShape
from cfray.sources.base import Shard
from cfray.target.commit import Target
from cfray.target.ledger import LEDGER_KEY, Entry, EntryKind, Ledger
from cfray.target.state import Plan

#: Shards of the dataset, a fragment each.
SHARDS = 20
#: One record of so many repeats the uuid of another; one reference of so many points nowhere.
REPEATS, DANGLES = 1_000, 500
_SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows to write, as numbers of records.

    Attributes:
        records: ``(n,)``: the record whose uuid each row has; a duplicate has another row's.
        parents: ``(n,)``: the record that each row refers to; from n on, one that no row has.
        duplicates: row ids of the rows that must be found.
        dangling: references that must be found.
    """

    records: np.ndarray
    parents: np.ndarray
    duplicates: set[int]
    dangling: int


def make_corpus(rows: int) -> Corpus:
    """Plant duplicates and dangling references.

    Shards have the numbers of the plan in reverse, so of two rows the later one is the first by
    (shard, row id) unless both are of one shard.
    """
    rng = np.random.default_rng(15)
    picks = rng.permutation(rows)[: 2 * (rows // REPEATS)]
    kept, repeating = picks.reshape(2, -1)
    records = np.arange(rows)
    records[repeating] = kept
    shards = np.arange(rows) // (rows // SHARDS)
    is_first = (shards[kept] > shards[repeating]) | (
        (shards[kept] == shards[repeating]) & (kept < repeating)
    )
    duplicates = set(np.where(is_first, repeating, kept).tolist())
    parents = records[rng.integers(0, rows, rows)]
    dangling = rng.permutation(rows)[: rows // DANGLES]
    parents[dangling] += rows
    return Corpus(records, parents, duplicates, len(dangling))


def write(corpus: Corpus, uri: str) -> Plan:
    """Write the dataset, and its ledger with an entry for each shard; give the plan."""
    shard_rows = len(corpus.records) // SHARDS
    schema = pa.schema(
        [
            pa.field("uuid", pa.string(), nullable=False),
            pa.field("relationships", pa.list_(RELATIONSHIP)),
        ]
    )
    entries = {
        str(SHARDS - 1 - number): Entry(EntryKind.SHARD, number * shard_rows, shard_rows, "n")
        for number in range(SHARDS)
    }
    ledger = Ledger(1, 1, len(corpus.records), ("benchmark",), entries)
    batches = pa.RecordBatchReader.from_batches(schema, _batches(corpus, schema, shard_rows))
    lance.write_dataset(
        batches,
        uri,
        schema=schema,
        max_rows_per_file=shard_rows,
        enable_stable_row_ids=True,
        data_storage_version="2.2",
    )
    metadata = {LEDGER_KEY: ledger.to_json()}
    lance.dataset(uri).update_schema_metadata(metadata, replace=False)
    shape = SourceShape("files", "file:///x", 4, fixed=False, types={}, vectors={}, id_tag="i")
    shards = [Shard(f"shard {number:02d}", {}) for number in range(SHARDS)]
    return Plan(shards, shape, "files", len(corpus.records), exact=True, size=0)


def _batches(corpus: Corpus, schema: pa.Schema, shard_rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(corpus.records), shard_rows):
        rows = slice(start, start + shard_rows)
        count = len(corpus.records[rows])
        parents = _uuids(corpus.parents[rows])
        texts = {"type": ["reference"] * count, "id": parents}
        fields = [texts.get(field.name, pa.nulls(count, field.type)) for field in RELATIONSHIP]
        references = pa.StructArray.from_arrays(
            [
                pa.array(values, field.type)
                for values, field in zip(fields, RELATIONSHIP, strict=True)
            ],
            fields=list(RELATIONSHIP),
        )
        lists = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), references)
        yield pa.RecordBatch.from_arrays([_uuids(corpus.records[rows]), lists], schema=schema)


def _uuids(records: np.ndarray) -> pa.StringArray:
    return record_uuids(_SPACE, pa.array([f"i:{number}" for number in records.tolist()]))


def check(identities: Identities, corpus: Corpus) -> None:
    """End the benchmark unless exactly what was planted was found."""
    if identities.duplicates.keys() != corpus.duplicates:
        sys.exit(f"{len(identities.duplicates)} duplicates found, {len(corpus.duplicates)} planted")
    if identities.dangling != corpus.dangling:
        sys.exit(f"{identities.dangling} dangling references found, {corpus.dangling} planted")


def workers() -> list[psutil.Process]:
    """Find the Ray workers of this process."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "".join(child.cmdline()[:1]).startswith("ray::")]


def peak_memory(worker: psutil.Process) -> int:
    """Give the largest resident size of a process so far in bytes (``VmHWM``)."""
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(rows: int, rounds: int, uri: str) -> dict[str, Any]:
    """Search with one worker and with two, in turn."""
    corpus = make_corpus(rows)
    plan = write(corpus, uri)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    cpu_seconds: dict[int, list[float]] = {1: [], 2: []}
    with ray_running():
        check(_search(uri, plan, 2), corpus)
        for count in [1, 2] * rounds:
            cpu_before, begin = _cpu(), time.perf_counter()
            identities = _search(uri, plan, count)
            seconds[count].append(time.perf_counter() - begin)
            used = [after - cpu_before.get(pid, 0.0) for pid, after in _cpu().items()]
            # one task at a time may be done now by this worker process, now by that one
            cpu_seconds[count].append(sum(used) if count == 1 else max(used))
            check(identities, corpus)
        peak = max(map(peak_memory, workers()), default=0)
    one, two = (statistics.median(measured) for measured in seconds.values())
    one_cpu, two_cpu = (statistics.median(measured) for measured in cpu_seconds.values())
    return {
        "rows": rows,
        "duplicates": len(corpus.duplicates),
        "dangling references": corpus.dangling,
        "seconds, one worker": one,
        "seconds, two workers": two,
        "two / one": two / one,
        "CPU-seconds, one worker": one_cpu,
        "CPU-seconds, busier of two": two_cpu,
        "busier of two / one": two_cpu / one_cpu,
        "peak memory of a worker, MB": peak / 1e6,
        "load": os.getloadavg()[0],
    }


def _cpu() -> dict[int, float]:
    """Give the CPU-seconds of each Ray worker so far, with those of its threads."""
    times = {worker.pid: worker.cpu_times() for worker in workers()}
    return {pid: used.user + used.system for pid, used in times.items()}


def _search(uri: str, plan: Plan, count: int) -> Identities:
    limits = SearchLimits(driver_rows=0, workers=count)
    return find_duplicates(Target(uri), plan, references=True, limits=limits)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help=f"a multiple of {SHARDS}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.rows % SHARDS:
        parser.error(f"--rows must be a multiple of {SHARDS}")
    with tempfile.TemporaryDirectory(prefix="cfray-identities-") as folder:
        figures = measure(options.rows, options.rounds, f"{folder}/target.lance")
    for name, value in figures.items():
        print(f"{name:>28}  {value:,.2f}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
