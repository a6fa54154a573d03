"""What the machine can do: Parquet to Lance without mapping, hashing, ledger or Ray.

``single``: one process, a pyarrow scan into ``lance.write_dataset`` with all the threads both want.
``core``: the same held to one core, which says how much of ``single`` was threads (on some machines
it keeps one core busy anyway).  ``double``: two processes with half the files each write fragments,
one commit makes the dataset.  Neither clock counts imports: both processes are ready before it
starts.

    python floors.py single|core|double FOLDER OUT.lance     (OUT must not exist)
"""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import sys
import time

import lance
import pyarrow as pa
import pyarrow.dataset as pads
from lance.fragment import write_fragments

#: Rows of a batch: with more, writing was no faster (measured with pylance 14).
BATCH = 8192


def single(files: list[str], out: str) -> float:
    """Copy in this process; returns seconds."""
    begin = time.perf_counter()
    scanner = pads.dataset(files).scanner(batch_size=BATCH)
    lance.write_dataset(scanner.to_reader(), out, schema=scanner.projected_schema)
    return time.perf_counter() - begin


def core(files: list[str], out: str) -> float:
    """Copy in this process on one core; returns seconds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    return single(files, out)


def double(files: list[str], out: str) -> float:
    """Copy in two processes; returns seconds from both being ready to the commit."""
    processes = multiprocessing.get_context("spawn")
    ready = processes.Barrier(3)
    answers = processes.SimpleQueue()
    workers = [
        processes.Process(target=_half, args=(part, out, ready, answers))
        for part in (files[0::2], files[1::2])
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    fragments = [lance.FragmentMetadata.from_json(text) for _ in workers for text in answers.get()]
    lance.LanceDataset.commit(
        out, lance.LanceOperation.Overwrite(pads.dataset(files).schema, fragments)
    )
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    return seconds


def _half(files: list[str], out: str, ready: object, answers: object) -> None:
    ready.wait()
    written = write_fragments(
        pads.dataset(files).scanner(batch_size=BATCH).to_reader(), out, mode="create"
    )
    answers.put([json.dumps(fragment.to_json()) for fragment in written])


def main(shape: str, folder: str, out: str) -> None:
    """Measure one floor and print it as one line of JSON."""
    files = sorted(glob.glob(f"{folder}/*.parquet"))
    seconds = {"single": single, "core": core, "double": double}[shape](files, out)
    made = lance.dataset(out)
    rows = made.count_rows()
    expected = pads.dataset(files).count_rows()
    if rows != expected:
        sys.exit(f"{shape} floor: {rows} rows written of {expected}")
    print(json.dumps({"rows": rows, "seconds": seconds, "fragments": len(made.get_fragments())}))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
