"""A certificate tells, wherever a dataset was copied to, whether its rows are those that were verified."""

from __future__ import annotations

import json

import lance
import pytest

from cfray.report.names import CERTIFICATE
from tests.scenarios import runs
from tests.scenarios.runs import Job


@pytest.fixture(scope="module")
def certified(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("certified")
    job = runs.write_job(folder, runs.export(folder, 200, 8, 2))
    module_cfray.run("migrate", job.path).ended_with(0)
    module_cfray.run("verify", job.path, "--against", "source", "--certificate").ended_with(0)
    return job


@pytest.fixture
def job(certified, tmp_path) -> Job:
    return runs.copied(certified, tmp_path)


def look(cfray, job: Job, code: int) -> tuple[str, str]:
    report = cfray.run("verify", job.path, "--json").ended_with(code).document()
    (check,) = [check for check in report["checks"] if check["name"] == CERTIFICATE]
    return check["status"], check["detail"]


def test_it_stands_in_the_dataset_and_in_the_report(cfray, certified):
    certificate = certified.report()["certificate"]
    metadata = lance.dataset(certified.target).schema.metadata
    assert json.loads(metadata[b"cfray.certificate"]) == certificate
    assert certificate["against_source"] == "pass"
    assert certificate["counts"]["read"] == 200
    status, detail = look(cfray, certified, 0)
    assert status == "pass"
    assert certificate["digest"][:16] in detail
    assert cfray.run("migrate", certified.path).ended_with(0).out.startswith("nothing to do")


def test_a_changed_row_is_not_what_was_certified(cfray, job):
    lance.dataset(job.target).update({"title": "'other'"}, where="title = 'Title 70'")
    status, detail = look(cfray, job, 4)
    assert status == "fail"
    assert "the rows are not those of" in detail


def test_a_compacted_dataset_still_is(cfray, job):
    dataset = lance.dataset(job.target)
    dataset.optimize.compact_files(target_rows_per_fragment=10_000)
    report = cfray.run("verify", job.path, "--json").document()
    (check,) = [check for check in report["checks"] if check["name"] == CERTIFICATE]
    assert check["status"] == "pass"


def test_an_altered_certificate_is_found(cfray, job):
    dataset = lance.dataset(job.target)
    certificate = json.loads(dataset.schema.metadata[b"cfray.certificate"])
    certificate["counts"]["read"] = 2_000
    dataset.update_schema_metadata({"cfray.certificate": json.dumps(certificate)})
    assert look(cfray, job, 4) == ("fail", "it was altered: its digest is not of its content")


def test_none_is_issued_for_a_target_that_failed(cfray, job):
    lance.dataset(job.target).delete("title = 'Title 70'")
    before = lance.dataset(job.target).schema.metadata[b"cfray.certificate"]
    cfray.run("verify", job.path, "--certificate").ended_with(4)
    assert lance.dataset(job.target).schema.metadata[b"cfray.certificate"] == before


def test_the_report_tells_the_whole_story(cfray, job):
    cfray.run("verify", job.path).ended_with(0)
    told = cfray.run("report", job.path).ended_with(0).out
    _, _, story = told.partition("every command on this target:")
    commands = [line.split()[1] for line in story.strip().splitlines()]
    assert commands[:2] == ["migrate", "verify"]
    assert commands[-1] == "verify"
    assert len(commands) == len([*(job.state / "reports").iterdir()])
