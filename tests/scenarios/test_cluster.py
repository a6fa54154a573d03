"""A run joins a cluster of two nodes, uses it and leaves it up, and outlives the loss of a node.

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
import pytest

ROWS, FILES = 4_000, 8


ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path):
    """Write an export of some files, and give its job file."""
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
    return job


def on_two_nodes(what, job):
    """Run the script in a process, and give the document that it prints."""
    token = job.with_name("token")
    token.touch(mode=0o600)
    token.write_text("ab" * 32)
    guarded = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    script = Path(__file__).with_name("two_nodes.py")
    script_run = subprocess.run(
        [sys.executable, str(script), what, str(job)],
        env={**os.environ, **guarded, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert script_run.returncode == 0, script_run.stderr
    return json.loads(script_run.stdout.strip().splitlines()[-1])


def test_a_run_joins_the_cluster_that_ray_address_names(job):
    outcome = on_two_nodes("join", job)
    assert "1 of 2 nodes do not share it" in outcome["refused"]
    assert outcome["exit_code"] == 0, outcome["stderr"]
    assert outcome["report"]["counts"]["shards_read"] == FILES
    assert outcome["still_up"]
    target = lance.dataset(str(job.with_name("out.lance")))
    assert target.count_rows("record_type = 'document'") == ROWS


def test_a_node_that_is_lost_with_staged_shards_costs_the_shards_in_flight_and_no_row(job):
    outcome = on_two_nodes("lose", job)
    assert outcome["staged_by_the_lost_node"] >= 3
    assert outcome["exit_code"] == 0, outcome["stderr"]
    counts = outcome["report"]["counts"]
    assert (counts["shards"], counts["read"], counts["quarantined"]) == (FILES, ROWS, 0)
    table = lance.dataset(str(job.with_name("out.lance"))).to_table(
        columns=["uuid", "custom_metadata"], filter="record_type = 'document'"
    )
    ids = [
        int(entry["value"])
        for entries in table["custom_metadata"].to_pylist()
        for entry in entries
        if entry["key"] == "original_id"
    ]
    assert sorted(ids) == list(range(ROWS))
    assert len(set(table["uuid"].to_pylist())) == ROWS
