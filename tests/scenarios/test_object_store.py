"""A run into an object store is killed after a commit, resumed, verified and cleaned up.

Then its target is backed up, restored, replicated and exported there.  Each S3 store that the tests
know takes its turn, and the emulators of Azure and Google Cloud.
"""

import json
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.runtime.filesystems import storage_options
from tests.scenarios.runs import Runner
from tests.testbeds import object_stores
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


@dataclass
class Site:
    """A place on a store, and a job whose target is there."""

    runner: Runner
    place: str
    job: Path
    target: str
    #: Of the run that went on with the job.
    report: dict[str, object]

    def run(self, *arguments):
        """Run a command to its good end."""
        return self.runner.start(*arguments).wait().ended_with(0)

    def kill(self, at, *arguments):
        """Run a command that kills itself somewhere."""
        killed = self.runner.start(*arguments, CFRAY_FAIL_AT=at)
        killed.until_ended()
        assert killed.kill().code == -signal.SIGKILL


@contextmanager
def migrated(place, folder):
    """Migrate to a place on a store, killed once, on a Ray whose workers know the store."""
    exports = folder / "exports"
    exports.mkdir()
    export(exports)
    job, target = folder / "job.yaml", f"{place}/out.lance"
    source = {"kind": "parquet", "uri": str(exports), "shard_bytes": 20_000}
    job.write_text(json.dumps({"name": "o", "source": source, "target": {"uri": target}}))
    ray = SharedRay({})
    site = Site(Runner(ray), place, job, target, {})
    site.kill("commit:1", "migrate", job)
    site.report = site.run("migrate", job, "--json").document()
    yield site
    site.runner.close()
    ray.check_idle()
    ray.close()


def opened(uri):
    return lance.dataset(uri, storage_options=storage_options(uri))


def uuids(uri, **which):
    return opened(uri).to_table(columns=["uuid"], **which)["uuid"].to_pylist()


class ALifeOnAStore:
    """What each store must stand; a class that inherits this has a fixture ``site``."""

    def test_a_killed_run_goes_on(self, site):
        counts = site.report["counts"]
        assert counts["read"] == counts["staged"] == ROWS
        assert counts["shards_resumed"] >= 1
        assert counts["shards_resumed"] + counts["shards_adopted"] + counts["shards_read"] == SHARDS
        documents = uuids(site.target, filter="record_type = 'document'")
        assert len(documents) == len(set(documents)) == ROWS
        site.run("cleanup", site.job, "--json")
        site.run("verify", site.job)

    def test_a_killed_backup_goes_on_and_is_restored(self, site, tmp_path):
        """To a disk, and to another place of the store."""
        backup = f"{site.place}/backups/o"
        site.kill("transferred:4", "backup", site.job, "--to", backup)
        report, again = (
            site.run("backup", site.job, "--to", backup, "--json").document() for _ in range(2)
        )
        assert 0 < report["copied_files"] < report["files"]
        # the report and the plan of the moment, no file of the dataset
        assert again["copied_bytes"] < 0.2 * again["bytes"]
        site.run("restore", backup, "--check")
        for place in (str(tmp_path / "restored.lance"), f"{backup}-restored"):
            site.run("restore", backup, "--to", place)
            assert len(set(uuids(place))) == len(uuids(place)) == report["rows"]

    def test_replicas_are_in_step_and_an_export_comes_back_the_same(self, site, tmp_path):
        replica = f"{site.place}/replica"
        both = ("--to", replica, "--to", str(tmp_path / "replica"))
        told = site.run("replicate", site.job, *both, "--json").document()
        assert [item["status"] for item in told["replicas"]] == ["in step"] * 2
        assert sorted(uuids(replica)) == sorted(uuids(site.target))
        work = f"{site.place}/roundtrip"
        trip = site.run("roundtrip", site.job, "--work", work, "--quiet", "--json")
        assert trip.document()["differing"] == []

    def test_a_sync_that_is_killed_and_run_again_brings_changes_in(self, site):
        path = site.job.parent / "exports" / "0.parquet"
        table = pq.read_table(path).slice(10)
        texts = [
            f"other text {row}" if row < 20 else text.as_py()
            for row, text in enumerate(table["text"])
        ]
        pq.write_table(table.set_column(1, "text", pa.array(texts)), path)
        site.kill("written:1", "sync", site.job, "--quiet")
        counts = site.run("sync", site.job, "--json", "--quiet").document()["counts"]
        assert [counts[f"records_{name}"] for name in ("new", "changed", "gone")] == [0, 20, 10]
        documents = uuids(site.target, filter="record_type = 'document'")
        assert len(documents) == len(set(documents)) == ROWS - 10
        site.run("verify", site.job, "--against", "source", "--quiet")


@pytest.mark.prove(elsewhere=("minio", "seaweedfs"))
class TestS3(ALifeOnAStore):
    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, s3, tmp_path_factory):
        with pytest.MonkeyPatch.context() as variables:
            object_stores.clear_variables(variables)
            for name, value in s3.env.items():
                variables.setenv(name, value)
            with migrated(s3.place(), tmp_path_factory.mktemp("s3")) as site:
                yield site


class TestOtherClouds(ALifeOnAStore):
    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, cloud, tmp_path_factory):
        with pytest.MonkeyPatch.context() as variables:
            cloud.set_variables(variables)
            with migrated(cloud.place(), tmp_path_factory.mktemp("cloud")) as site:
                yield site

    def test_a_target_that_is_started_anew_leaves_nothing_of_the_old_one(self, site, cloud):
        """``--restart`` removes folders, which object stores do not have."""
        before = {name for name in cloud.names(site.target) if name.startswith("data/")}
        site.run("migrate", site.job, "--restart", "--yes", "--quiet")
        documents = uuids(site.target, filter="record_type = 'document'")
        assert len(documents) == len(set(documents)) == ROWS - 10
        assert before
        assert before.isdisjoint(cloud.names(site.target))

    def test_nothing_that_is_written_holds_the_key(self, site, cloud):
        keys = [value.encode() for name, value in cloud.env.items() if name.endswith("_KEY")]
        state = f"{site.target}.cfray"
        texts = [cloud.read(f"{state}/{name}") for name in cloud.names(state)]
        assert texts
        assert not any(key in text for key in keys for text in texts)
