"""A target on an object store.

Killed after a commit, resumed, verified and cleaned up, on each real S3 store there is.
"""

import json
import os
import signal
import subprocess
import sys

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cfray.runtime.filesystems import storage_options

ROWS, SHARDS = 1_200, 4


def export(folder):
    rng = np.random.default_rng(5)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(rng.standard_normal(ROWS * 8).astype("f4")), 8
    )
    table = pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            "text": [f"text {row} " * 20 for row in range(ROWS)],
            "vector": vectors,
        }
    )
    step = ROWS // SHARDS
    for shard in range(SHARDS):
        pq.write_table(table.slice(shard * step, step), folder / f"{shard}.parquet")


def cfray(*words, **env):
    return subprocess.run(
        [sys.executable, "-m", "cfray.cli", *map(str, words)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_a_target_on_an_object_store_survives_a_kill(s3_place, tmp_path):
    exports = tmp_path / "exports"
    exports.mkdir()
    export(exports)
    job = tmp_path / "job.yaml"
    target = f"{s3_place}/out.lance"
    job.write_text(
        json.dumps(
            {
                "name": "o",
                "source": {"kind": "parquet", "uri": str(exports), "shard_bytes": 20_000},
                "target": {"uri": target},
            }
        )
    )
    killed = cfray("migrate", job, CFRAY_FAIL_AT="commit:1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = cfray("migrate", job, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    counts = report["counts"]
    assert counts["read"] == counts["staged"] == ROWS
    assert counts["shards_resumed"] >= 1
    assert counts["shards_resumed"] + counts["shards_adopted"] + counts["shards_read"] == SHARDS
    dataset = lance.dataset(target, storage_options=storage_options(target))
    uuids = dataset.to_table(columns=["uuid"], filter="record_type = 'document'")[
        "uuid"
    ].to_pylist()
    assert len(uuids) == len(set(uuids)) == ROWS
    cleaned = cfray("cleanup", job, "--json")
    assert cleaned.returncode == 0, cleaned.stderr
    assert cfray("verify", job).returncode == 0
