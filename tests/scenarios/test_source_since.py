"""A source that has gone on since it was planned is never called migrated."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.scenarios import runs
from tests.scenarios.runs import Job

NAME = "source since the plan"
ROWS, SHARDS = 120, 3


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("finished")
    job = runs.write_job(folder, runs.export(folder, ROWS, 8, SHARDS))
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    """Give a copy of the export, its finished target and its job file; times stay."""
    return runs.copied(finished, tmp_path)


def part(job: Job, number: int) -> Path:
    return job.path.parent / "export" / f"part-{number:04d}.parquet"


def appear(job: Job) -> None:
    shutil.copy(part(job, 0), job.path.parent / "export" / "part-0009.parquet")


def overwrite(job: Job) -> None:
    table = pq.read_table(part(job, 1))
    pq.write_table(table.slice(1), part(job, 1))


def touch(job: Job) -> None:
    """Write the same bytes again: nobody knows that they are the same without reading them."""
    os.utime(part(job, 1))


def lose(job: Job) -> None:
    part(job, 2).unlink()


def look(cfray, job: Job) -> tuple[int, str, str]:
    """Run ``migrate`` again; give its exit code, and status and detail of the check."""
    ended = cfray.run("migrate", job.path, "--json")
    (check,) = [check for check in ended.document()["checks"] if check["name"] == NAME]
    assert job.report()["exit_code"] == ended.code
    return ended.code, check["status"], check["detail"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (appear, "40 records have appeared in part-0009.parquet and are not in the target"),
        (overwrite, "part-0001.parquet has changed"),
        (touch, "part-0001.parquet has changed"),
        (lose, "part-0002.parquet is gone"),
    ],
)
def test_files_that_appeared_changed_or_are_gone_are_named(cfray, job, change, words):
    before = runs.digests(job.target)
    change(job)
    for _ in range(2):
        code, status, detail = look(cfray, job)
        assert (code, status) == (7, "fail")
        assert words in detail
        assert "remedy: do not switch the source off" in " ".join(job.report()["notes"])
    assert runs.digests(job.target) == before
    # what looks at the target alone says what was found, and calls nothing verified
    report = cfray.run("verify", job.path, "--json").ended_with(0).document()
    (check,) = [check for check in report["checks"] if check["name"] == NAME]
    assert check["status"] == "not_run"
    assert words in check["detail"]
    assert words in cfray.run("status", job.path, "--json").ended_with(0).document()["source"]


def test_a_source_that_did_not_change_is_said_to_be_as_planned(cfray, job):
    code, status, detail = look(cfray, job)
    assert (code, status) == (0, "pass")
    assert detail == "3 files are as planned, and none appeared"


def test_a_file_without_records_is_no_difference(cfray, job):
    empty = pq.read_table(part(job, 0)).slice(0, 0)
    pq.write_table(empty, job.path.parent / "export" / "part-0009.parquet")
    assert look(cfray, job)[:2] == (0, "pass")


def test_a_source_that_is_gone_is_said_and_fails_nothing(cfray, job):
    shutil.rmtree(job.path.parent / "export")
    code, status, detail = look(cfray, job)
    assert (code, status) == (0, "not_run")
    assert "the source did not answer" in detail


def test_a_file_that_appears_while_the_run_is_killed_is_named_at_its_end(cfray, tmp_path):
    job = runs.write_job(tmp_path, runs.export(tmp_path, ROWS, 8, SHARDS))
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="commit:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    appear(job)
    code, status, detail = look(cfray, job)
    assert (code, status) == (7, "fail")
    assert "part-0009.parquet" in detail
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(ROWS)]


def test_damage_is_said_before_a_source_that_has_gone_on(cfray, job):
    data = max((Path(job.target) / "data").rglob("*.lance"), key=lambda path: path.stat().st_size)
    appear(job)
    shutil.rmtree(job.state / "reports")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    code, status, _ = look(cfray, job)
    assert (code, status) == (4, "fail")
