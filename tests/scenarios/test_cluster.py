"""A run joins a cluster of two nodes, uses it and leaves it up.

A target that only one node can see is refused.  Both nodes are on this machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, FILES = 4_000, 8


def test_a_run_joins_the_cluster_that_ray_address_names(tmp_path):
    rng = np.random.default_rng(1)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(rng.standard_normal(ROWS * 8).astype("f4")), 8
    )
    table = pa.table(
        {"id": pa.array(range(ROWS), pa.int64()), "text": ["t"] * ROWS, "vector": vectors}
    )
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        pq.write_table(
            table.slice(number * ROWS // FILES, ROWS // FILES), tmp_path / f"in/{number}.parquet"
        )
    job = tmp_path / "job.yaml"
    job.write_text(
        json.dumps(
            {
                "name": "c",
                "source": {"kind": "parquet", "uri": "in", "shard_bytes": 1_000},
                "target": {"uri": "out.lance"},
            }
        )
    )
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("ab" * 32)
    guarded = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    script = Path(__file__).with_name("two_nodes.py")
    script_run = subprocess.run(
        [sys.executable, str(script), str(job)],
        env={**os.environ, **guarded},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert script_run.returncode == 0, script_run.stderr
    outcome = json.loads(script_run.stdout.strip().splitlines()[-1])
    assert "1 of 2 nodes do not share it" in outcome["refused"]
    assert outcome["exit_code"] == 0, outcome["stderr"]
    assert outcome["report"]["counts"]["shards_read"] == FILES
    assert outcome["still_up"]
    assert lance.dataset(str(tmp_path / "out.lance")).count_rows("record_type = 'document'") == ROWS
