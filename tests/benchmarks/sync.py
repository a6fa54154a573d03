"""``cfray sync`` beside a fresh migration: what a sync takes, and what many of them leave behind.

Before each sync one file of the source is written anew: of its rows, some have another title, some
are gone, some are new.  Its time is set back by an hour, for a file of the last minute is read again
by the next sync.  At the end a sync that finds nothing is timed beside one that reads all; searches, files and bytes of the target are compared with those
of a migration of the same source, in one run.

    python -m tests.benchmarks.sync [--rows 100000] [--rounds 1] [--syncs 20]
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.benchmarks import exports, tree
from tests.benchmarks.migrate import host, job

#: Rows of a sync that differ, as a share of the source.
SHARE = 0.01
#: Searches of each kind whose median is compared.
SEARCHES = 200


def change(folder: Path, number: int, rows: int) -> None:
    """Write one file anew: a third of some rows get another title, a third leave, a third come."""
    files = sorted(folder.glob("*.parquet"))
    path = files[number % len(files)]
    table = pq.read_table(path)
    some = max(1, int(rows * SHARE / 3))
    rng = np.random.default_rng([11, number])
    chosen = rng.permutation(table.num_rows)[: 2 * some]
    changed, gone = chosen[:some], chosen[some:]
    titles = np.array(table["title"].to_pylist(), object)
    titles[changed] = [f"Title of sync {number}, {row}" for row in changed.tolist()]
    index = table.schema.get_field_index("title")
    table = table.set_column(index, table.schema.field(index), pa.array(titles, pa.string()))
    kept = np.ones(table.num_rows, np.bool_)
    kept[gone] = False
    new = exports.table(rows + number * some, rows + (number + 1) * some).cast(table.schema)
    pq.write_table(pa.concat_tables([table.filter(pa.array(kept)), new]), path)
    written = time.time() - 3600 + number
    os.utime(path, (written, written))


def search_seconds(targets: list[str]) -> list[dict[str, float]]:
    """Search targets in turn; give the median seconds of a search of each kind for each."""
    datasets = [lance.dataset(target) for target in targets]
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((SEARCHES, exports.DIMENSION)).astype(np.float32)
    took: list[dict[str, list[float]]] = [{"vector": [], "words": []} for _ in targets]
    for number in range(SEARCHES):
        words = f"{exports.WORDS[number % 32]} {exports.WORDS[(number * 7) % 32]}"
        nearest = {"column": "vector", "q": vectors[number], "k": 10, "nprobes": 20}
        searches: dict[str, dict[str, Any]] = {
            "vector": {"nearest": {**nearest, "refine_factor": 10}},
            "words": {"full_text_query": words, "limit": 10},
        }
        for kind, search in searches.items():
            for dataset, seconds in zip(datasets, took, strict=True):
                begin = time.perf_counter()
                dataset.to_table(columns=["uuid", "title"], **search)
                seconds[kind].append(time.perf_counter() - begin)
    return [
        {kind: statistics.median(values) for kind, values in seconds.items()} for seconds in took
    ]


def size(target: str) -> tuple[int, int]:
    """Give the data files of the newest version, and their bytes."""
    files = [
        file
        for fragment in lance.dataset(target).get_fragments()
        for file in fragment.metadata.files
    ]
    return len(files), sum(file.file_size_bytes or 0 for file in files)


def measure(rows: int, syncs: int, cache: str) -> None:
    """Migrate, sync, migrate anew, and print a line for each figure."""
    home = tempfile.mkdtemp(prefix="sync-", dir=cache)
    try:
        source = Path(home, "source")
        shutil.copytree(exports.cached(rows, cache), source)
        for name in ("synced", "fresh"):
            body = {**job(str(source), f"{home}/{name}.lance"), "index": {}}
            Path(home, f"{name}.yaml").write_text(yaml.safe_dump(body), "utf-8")
        migrated = tree.run_cfray("migrate", f"{home}/synced.yaml").wall
        took = []
        for number in range(syncs):
            change(source, number, rows)
            took.append(tree.run_cfray("sync", f"{home}/synced.yaml").wall)
        idle = tree.run_cfray("sync", f"{home}/synced.yaml").wall
        reading_all = tree.run_cfray("sync", f"{home}/synced.yaml", "--read-all").wall
        again = tree.run_cfray("migrate", f"{home}/fresh.yaml").wall
        targets = [f"{home}/{name}.lance" for name in ("synced", "fresh")]
        counted = [lance.dataset(target).count_rows() for target in targets]
        if counted[0] != counted[1]:
            raise SystemExit(f"the synced target has {counted[0]} rows, the fresh one {counted[1]}")
        synced, fresh = search_seconds(targets)
        sync = statistics.median(took)
        print(
            f"{rows:,} rows: migration {migrated:.1f} s, sync {sync:.1f} s (median of {syncs}, last "
            f"{took[-1]:.1f} s), fresh migration {again:.1f} s; sync / migration {sync / again:.2f}"
        )
        print(
            f"{rows:,} rows: sync without a change {idle:.1f} s, with --read-all {reading_all:.1f} s; "
            f"ratio {idle / reading_all:.2f}"
        )
        for kind in synced:
            print(
                f"{rows:,} rows: {kind} search {1000 * synced[kind]:.2f} ms, fresh "
                f"{1000 * fresh[kind]:.2f} ms; ratio {synced[kind] / fresh[kind]:.2f}"
            )
        (files, total), (fresh_files, fresh_total) = map(size, targets)
        print(
            f"{rows:,} rows: {files} data files of {total:,} bytes, fresh {fresh_files} of "
            f"{fresh_total:,}; ratios {files / fresh_files:.2f} and {total / fresh_total:.2f}"
        )
    finally:
        shutil.rmtree(home)


def main() -> None:
    """Measure every size."""
    parser = exports.parser(__doc__)
    parser.add_argument("--syncs", type=int, default=20)
    given = parser.parse_args()
    cache = os.path.abspath(given.cache)
    os.makedirs(cache, exist_ok=True)
    print(", ".join(f"{name} {value}" for name, value in host().items()))
    for rows in given.rows:
        for _ in range(given.rounds):
            measure(rows, given.syncs, cache)


if __name__ == "__main__":
    main()
