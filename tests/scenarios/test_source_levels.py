"""Cheaper looks at the source than every record, and a comparison that was killed and goes on."""

from __future__ import annotations

import json

import lance
import pytest

from cfray.report.names import AGAINST_SOURCE, SAMPLE_AGAINST_SOURCE, SOURCE_SINCE
from tests.scenarios import runs

ROWS, DIMENSION, SHARDS = 1_200, 8, 6


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> runs.Job:
    folder = tmp_path_factory.mktemp("finished")
    job = runs.write_job(folder, runs.export(folder, ROWS, DIMENSION, SHARDS))
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> runs.Job:
    return runs.copied(finished, tmp_path)


def verify(cfray, job: runs.Job, code: int, *arguments: str) -> dict[str, tuple[str, str]]:
    """Verify against the source; give status and detail of each check."""
    ended = cfray.run("verify", job.path, "--against", "source", *arguments, "--json")
    checks = ended.ended_with(code).document()["checks"]
    return {check["name"]: (check["status"], check["detail"]) for check in checks}


def test_counts_compare_no_record_and_say_so(cfray, job):
    checks = verify(cfray, job, 0, "--counts")
    assert checks[SOURCE_SINCE][0] == "pass"
    assert checks[AGAINST_SOURCE][0] == "not_run"
    assert job.report()["stages"].get("source check") is None
    assert "not decided" in cfray.run("report", job.path).out


def test_a_sample_is_no_proof_of_every_record(cfray, job):
    checks = verify(cfray, job, 0, "--sample", "300")
    status, detail = checks[SAMPLE_AGAINST_SOURCE]
    assert status == "pass"
    assert detail.startswith(f"400 records of 2 of {SHARDS} shards, drawn at random, read again")
    assert checks[AGAINST_SOURCE] == (
        "not_run",
        "cfray verify --against source reads the source again",
    )
    assert "not decided" in cfray.run("report", job.path).out
    # what a sample has seen saves no later comparison its work
    verify(cfray, job, 0)
    assert job.report()["stages"]["source check"]["rows"] == ROWS


def test_a_difference_in_a_sample_is_a_failure_that_stays(cfray, job):
    lance.dataset(job.target).update({"text_content": "'another'"}, where="title = 'Title 700'")
    checks = verify(cfray, job, 4, "--sample", str(ROWS))
    assert checks[AGAINST_SOURCE][0] == "fail"
    assert "doc-0000700" in checks[AGAINST_SOURCE][1]
    assert SAMPLE_AGAINST_SOURCE not in checks
    ended = cfray.run("verify", job.path, "--json").ended_with(4)
    checks = {check["name"]: check for check in ended.document()["checks"]}
    assert checks[AGAINST_SOURCE]["status"] == "fail"
    # neither a report that was damaged nor the number of later commands changes that
    first = checks[AGAINST_SOURCE]["detail"]
    max((job.state / "reports").iterdir()).write_text("{")
    ended = cfray.run("verify", job.path, "--json").ended_with(4)
    checks = {check["name"]: check for check in ended.document()["checks"]}
    assert checks[AGAINST_SOURCE]["detail"] == first
    assert "an earlier report was not read" in " ".join(ended.document()["notes"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sample", "5"],
        ["--counts"],
        ["--against", "source", "--sample", "5", "--counts"],
        ["--against", "source", "--sample", "5", "--repair"],
        ["--against", "source", "--sample", "0"],
        ["--against", "source", "--sample", "5", "--certificate"],
        ["--against", "source", "--counts", "--certificate"],
    ],
)
def test_options_that_do_not_go_together_are_refused(cfray, job, arguments):
    cfray.run("verify", job.path, *arguments).ended_with(2)


def test_a_comparison_that_was_killed_goes_on(cfray, job):
    """Shards that were found alike are not read again; the report says since when."""
    killed = cfray.start(
        "verify", job.path, "--against", "source", CFRAY_FAIL_AT="compared:3"
    ).wait()
    assert killed.code < 0
    compared = json.loads((job.state / "compared.json").read_text())
    # the file is not written for every shard
    known = len(compared["alike"])
    assert 1 <= known <= 3
    checks = verify(cfray, job, 0)
    status, detail = checks[AGAINST_SOURCE]
    assert status == "pass"
    assert detail.startswith(f"{ROWS:,} records of {SHARDS} shards read again")
    shards = "1 shard" if known == 1 else f"{known} shards"
    assert (
        f"; {shards} of them by a comparison that began at {compared['began']} and was stopped"
        in detail
    )
    read = job.report()["stages"]["source check"]["rows"]
    assert read == ROWS - sum(compared["alike"].values())
    assert not (job.state / "compared.json").exists()
    # the next one reads all of it again
    verify(cfray, job, 0)
    assert job.report()["stages"]["source check"]["rows"] == ROWS


def test_what_was_compared_counts_for_nothing_when_the_target_is_another(cfray, job):
    """A repair in between is a commit: its rows are compared anew."""
    cfray.start("verify", job.path, "--against", "source", CFRAY_FAIL_AT="compared:3").wait()
    compared = json.loads((job.state / "compared.json").read_text())
    compared["basis"]["ledger"] = "0" * 64
    (job.state / "compared.json").write_text(json.dumps(compared))
    verify(cfray, job, 0)
    assert job.report()["stages"]["source check"]["rows"] == ROWS
