"""Replicas: three of them, one of which cannot be written to and catches up; a diverged one."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from tests.scenarios import runs
from tests.scenarios.runs import Job

ROWS = 120


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("finished")
    job = runs.write_job(folder, runs.export(folder, ROWS, 8, 3))
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    return runs.copied(finished, tmp_path / "life")


@pytest.fixture
def regions(tmp_path) -> list[Path]:
    return [tmp_path / name / "pages" for name in ("east", "west", "south")]


def replicated(cfray, job: Job, regions: list[Path], code: int = 0) -> list[dict]:
    options = [part for region in regions for part in ("--to", region)]
    ended = cfray.run("replicate", job.path, *options, "--json").ended_with(code)
    assert ended.document()["exit_code"] == code
    return ended.document()["replicas"]


def change(job: Job, number: int) -> None:
    """Commit another version, as any writer of the dataset does."""
    lance.dataset(job.target).update(
        {"author": f"'Ann {number}'"}, where=f"title = 'Title {number}'"
    )


def contents(place: object) -> tuple:
    return runs.digests(str(place)), runs.headers(str(place))


def test_one_region_is_down_and_catches_up_later(cfray, job, regions):
    first = replicated(cfray, job, regions)
    assert [replica["status"] for replica in first] == ["in step"] * 3
    change(job, 7)
    # a file stands where the folder of the region should be
    shutil.rmtree(regions[1].parent)
    regions[1].parent.write_text("down")
    second = replicated(cfray, job, regions, code=1)
    assert [replica["status"] for replica in second] == ["in step", "failed", "in step"]
    assert [replica["behind"] for replica in second] == [1, None, 1]
    assert second[0]["copied_bytes"] < first[0]["copied_bytes"] / 2
    for region in (regions[0], regions[2]):
        assert contents(region) == contents(job.target)
    change(job, 8)
    regions[1].parent.unlink()
    third = replicated(cfray, job, regions)
    assert [replica["status"] for replica in third] == ["in step"] * 3
    for region in regions:
        assert contents(region) == contents(job.target)
    again = replicated(cfray, job, regions)
    assert [(replica["behind"], replica["copied_files"]) for replica in again] == [(0, 0)] * 3
    assert lance.dataset(job.target).tags.list() == {}


def test_a_replica_serves_when_the_target_is_gone(cfray, job, regions):
    replicated(cfray, job, regions[:1])
    before = contents(job.target)
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    there = job.changed(target={"uri": str(regions[0])})
    cfray.run("verify", there.path, "--against", "source", "--quiet").ended_with(0)
    assert contents(regions[0]) == before


def test_files_that_no_version_needs_leave_one_step_later(cfray, job, regions):
    """A reader that opened the version before still reads it."""
    replicated(cfray, job, regions[:1])
    opened = lance.dataset(str(regions[0]))
    change(job, 7)
    replicated(cfray, job, regions[:1])
    assert opened.to_table(columns=["title"]).num_rows == ROWS + 2
    change(job, 8)
    cfray.run("optimize", job.path, "--quiet")
    replicated(cfray, job, regions[:1])
    versions = list((regions[0] / "_versions").glob("*.manifest"))
    assert len(versions) == 2
    assert contents(regions[0]) == contents(job.target)


def test_a_diverged_replica_is_refused_and_the_others_go_on(cfray, job, regions):
    replicated(cfray, job, regions[:2])
    lance.dataset(str(regions[0])).delete("title = 'Title 3'")
    changed = contents(regions[0])
    change(job, 7)
    replicas = replicated(cfray, job, regions[:2], code=4)
    assert [replica["status"] for replica in replicas] == ["diverged", "in step"]
    assert "has a version that was not copied" in replicas[0]["error"]
    assert contents(regions[0]) == changed
    file = next((regions[1] / "data").glob("*.lance"))
    file.unlink()
    (replica,) = replicated(cfray, job, regions[1:2], code=4)
    assert file.name in replica["error"]


def test_an_interrupted_replication_goes_on(cfray, job, regions):
    options = [part for region in regions for part in ("--to", region)]
    killed = cfray.start("replicate", job.path, *options, CFRAY_FAIL_AT="transferred:20")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    replicated(cfray, job, regions)
    for region in regions:
        assert contents(region) == contents(job.target)
    change(job, 7)
    killed = cfray.start("replicate", job.path, *options, CFRAY_FAIL_AT="replicated:2")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    change(job, 8)
    replicated(cfray, job, regions)
    for region in regions:
        assert contents(region) == contents(job.target)
    other = job.changed(name="other", target={"uri": "other.lance"})
    cfray.run("migrate", other.path, "--quiet").ended_with(0)
    replicas = replicated(cfray, other, regions[:1], code=2)
    assert "a replica of another dataset" in replicas[0]["error"]


def test_addresses_are_checked(cfray, job, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("mine")
    replicas = replicated(cfray, job, [tmp_path / "full"], code=2)
    assert "is no replica of cfray's" in replicas[0]["error"]
    for places in ([job.target], [f"{job.target}/in"], [tmp_path / "a", tmp_path / "a"]):
        options = [part for place in places for part in ("--to", place)]
        cfray.run("replicate", job.path, *options).ended_with(2)


def test_a_target_that_went_back_is_not_in_step(cfray, job, regions, tmp_path):
    """It was restored to an earlier point, and makes the version numbers behind it again."""
    cfray.run("backup", job.path, "--to", tmp_path / "backup").ended_with(0)
    change(job, 7)
    replicated(cfray, job, regions[:1])
    before = contents(regions[0])
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    cfray.run("restore", tmp_path / "backup", "--to", job.target).ended_with(0)
    for number in (None, 8):
        if number is not None:
            change(job, number)
        (replica,) = replicated(cfray, job, regions[:1], code=4)
        assert replica["status"] == "diverged"
        assert "was restored to an earlier one" in replica["error"]
        assert contents(regions[0]) == before
    change(job, 9)
    replicated(cfray, job, regions[:1])
    assert contents(regions[0]) == contents(job.target)


def test_what_others_wrote_before_the_first_version_was_whole_stays(cfray, job, regions):
    killed = cfray.start("replicate", job.path, "--to", regions[0], CFRAY_FAIL_AT="transferred:2")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    lance.write_dataset(pa.table({"mine": [1]}), str(regions[0]))
    (replica,) = replicated(cfray, job, regions[:1], code=4)
    assert replica["status"] == "diverged"
    assert lance.dataset(str(regions[0])).to_table().to_pylist() == [{"mine": 1}]
