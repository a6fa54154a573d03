"""A run into an object store is killed after a commit, resumed, verified and cleaned up.

Each S3 store that the tests know takes its turn.
"""

import json
import signal
from contextlib import contextmanager

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.runtime.filesystems import storage_options
from tests.scenarios.runs import Runner
from tests.testbeds.shared_ray import SharedRay

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


@contextmanager
def running():
    """Run commands on a Ray whose workers know the store."""
    ray = SharedRay({})
    runner = Runner(ray)
    yield runner
    runner.close()
    ray.check_idle()
    ray.close()


@pytest.mark.prove(elsewhere=("minio",))
def test_a_target_on_an_s3_store_survives_a_kill(s3_place, tmp_path):
    with running() as runner:
        live_on(runner, s3_place, tmp_path)


def live_on(runner, place, tmp_path):
    """Migrate to a place on a store, killed once; clean up, verify, back up, restore, export."""
    exports = tmp_path / "exports"
    exports.mkdir()
    export(exports)
    job = tmp_path / "job.yaml"
    target = f"{place}/out.lance"
    job.write_text(
        json.dumps(
            {
                "name": "o",
                "source": {"kind": "parquet", "uri": str(exports), "shard_bytes": 20_000},
                "target": {"uri": target},
            }
        )
    )
    killed = runner.start("migrate", job, CFRAY_FAIL_AT="commit:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    report = runner.start("migrate", job, "--json").wait().ended_with(0).document()
    counts = report["counts"]
    assert counts["read"] == counts["staged"] == ROWS
    assert counts["shards_resumed"] >= 1
    assert counts["shards_resumed"] + counts["shards_adopted"] + counts["shards_read"] == SHARDS
    dataset = lance.dataset(target, storage_options=storage_options(target))
    uuids = dataset.to_table(columns=["uuid"], filter="record_type = 'document'")[
        "uuid"
    ].to_pylist()
    assert len(uuids) == len(set(uuids)) == ROWS
    runner.start("cleanup", job, "--json").wait().ended_with(0)
    runner.start("verify", job).wait().ended_with(0)
    back_up_and_restore(runner, job, f"{place}/backups/o", tmp_path / "restored.lance")
    bring_back(runner, job, f"{place}/roundtrip")


def bring_back(runner, job, work):
    """Prove that a dataset that is made of an export on the store is the same."""
    trip = runner.start("roundtrip", job, "--work", work, "--quiet", "--json").wait()
    assert trip.ended_with(0).document()["differing"] == []


def back_up_and_restore(runner, job, backup, to):
    """Back up on the store, and restore to a disk and to another place of the store."""
    killed = runner.start("backup", job, "--to", backup, CFRAY_FAIL_AT="transferred:4")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    report = runner.start("backup", job, "--to", backup, "--json").wait().ended_with(0).document()
    assert 0 < report["copied_files"] < report["files"]
    again = runner.start("backup", job, "--to", backup, "--json").wait().ended_with(0).document()
    # the report and the plan of the moment, no file of the dataset
    assert again["copied_bytes"] < 0.2 * again["bytes"]
    runner.start("restore", backup, "--check").wait().ended_with(0)
    for place in (str(to), f"{backup}-restored"):
        runner.start("restore", backup, "--to", place).wait().ended_with(0)
        restored = lance.dataset(place, storage_options=storage_options(place))
        assert restored.count_rows() == report["rows"]
        column = restored.to_table(columns=["uuid"])["uuid"].to_pylist()
        assert len(set(column)) == report["rows"]
    replica = f"{backup}-replica"
    both = ("--to", replica, "--to", f"{to}.replica")
    told = runner.start("replicate", job, *both, "--json").wait().ended_with(0).document()
    assert [item["status"] for item in told["replicas"]] == ["in step"] * 2
    dataset = lance.dataset(replica, storage_options=storage_options(replica))
    assert dataset.count_rows() == report["rows"]
