"""``cfray migrate`` on a target where nothing is to be done only looks, and does what is to be done.

A report names every check, whichever command wrote it and however it ended.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import lance
import pytest

from cfray.report.names import CHECKS
from tests.scenarios import runs
from tests.scenarios.runs import Job

#: Nothing listens there: a command that starts Ray ends with an error.
NO_RAY = {"RAY_ADDRESS": "127.0.0.1:9"}


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    """Migrate a small export with flaws once; tests change copies of it."""
    folder = tmp_path_factory.mktemp("finished")
    body = runs.export(folder, 400, 16, 4, flawed=True) | {"limits": {"max_quarantined": "50%"}}
    job = runs.write_job(folder, body)
    module_cfray.run("migrate", job.path).ended_with(3)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    """Give a copy of the finished target, its state and its job file."""
    return runs.copied(finished, tmp_path)


def version(job: Job) -> int:
    return lance.dataset(job.target).version


def statuses(report) -> dict[str, str]:
    return {check["name"]: check["status"] for check in report["checks"]}


def test_a_migrate_with_nothing_to_do_adds_no_version_and_needs_no_ray(local_cfray, job):
    before, first = version(job), job.report()
    shutil.rmtree(job.path.parent / "export")  # nor the source
    ended = local_cfray.start("migrate", job.path, "--json", **NO_RAY).wait().ended_with(3)
    report = ended.document()
    assert version(job) == before
    assert not (job.state / "lease.json").exists()
    assert report["verdict"] == first["verdict"]
    assert statuses(report) == statuses(first) | {"source since the plan": "not_run"}
    assert all(
        "not now" in check["detail"] or "asked at" in check["detail"]
        for check in report["checks"]
        if check["status"] == "pass" and check["name"] != "source count"
    ), "a check that was not made now says when it was made"
    assert report["quarantine_reasons"] == first["quarantine_reasons"]
    assert report["vectors"] == first["vectors"] != {}
    for name in ("read", "staged", "quarantined", "frames", "shards", "dangling_references"):
        assert report["counts"][name] == first["counts"][name], name
    assert "nothing was to be done: cfray migrate verified this version" in ended.out
    assert job.report()["command"] == "migrate"


def test_a_run_that_verified_nothing_does_not_say_verified(cfray, tmp_path):
    job = runs.write_job(tmp_path, runs.export(tmp_path, 40, 16, 1))
    first = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    assert first["verdict"] == "done, everything verified that was asked for"
    again = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    looked = f"nothing to do: verified at {first['ended']}, not looked at again"
    seen = "1 file is as planned, and none appeared"
    assert again["verdict"] == f"{looked}; the source: {seen}"


def test_an_index_that_the_job_file_asks_for_now_is_built(cfray, job):
    before = version(job)
    other = job.changed(index={"vector": {"type": "IVF_FLAT", "metric": "l2"}})
    report = cfray.run("migrate", other.path, "--json").ended_with(3).document()
    assert version(job) > before
    assert "indexes built or completed: vector_idx" in report["notes"]
    before = version(job)
    cfray.run("migrate", other.path).ended_with(3)
    assert version(job) == before
    again = job.changed(index={"vector": {"type": "IVF_FLAT", "metric": "cosine"}})
    report = cfray.run("migrate", again.path, "--json").ended_with(3).document()
    (described,) = [
        index
        for index in lance.dataset(job.target).describe_indices()
        if index.name == "vector_idx"
    ]
    assert described.details["metric_type"] == "COSINE"
    assert any("vector index: IVF_FLAT, by cosine" in note for note in report["notes"])


def test_what_nobody_verified_is_verified(cfray, job):
    dataset = lance.dataset(job.target)
    row = dataset.to_table(limit=1).to_pylist()[0] | {"uuid": "0" * 36, "vector": [0.0] * 16}
    columns = ["uuid", "title", "text_content", "vector"]
    lance.write_dataset(
        dataset.to_table(columns=columns, limit=0).from_pylist(
            [{name: row[name] for name in columns}],
            schema=dataset.to_table(columns=columns, limit=0).schema,
        ),
        job.target,
        mode="append",
    )
    report = cfray.run("migrate", job.path, "--json").ended_with(3).document()
    assert statuses(report)["rows that cfray did not write"] == "not_run"
    before = version(job)
    report = cfray.run("migrate", job.path, "--json").ended_with(3).document()
    assert version(job) == before
    assert statuses(report)["rows that cfray did not write"] == "not_run"


@pytest.mark.parametrize(("place", "code"), [("data", 4), ("footer", 1)])
def test_a_damage_that_was_found_is_looked_at_again(cfray, job, place, code):
    (fragment,) = lance.dataset(job.target).get_fragments()
    data_file = Path(job.target) / "data" / fragment.metadata.files[0].path
    content = data_file.read_bytes()
    position = 1_000 if place == "data" else len(content) - 300
    flipped = bytes([content[position] ^ 1])
    data_file.write_bytes(content[:position] + flipped + content[position + 1 :])
    cfray.run("verify", job.path).ended_with(4)
    ended = cfray.run("migrate", job.path).ended_with(code)
    assert "Traceback" not in ended.err
    assert code == 4 or "run cfray verify, which names every damaged file" in ended.err
    data_file.write_bytes(content)
    cfray.run("migrate", job.path).ended_with(3)
    before = version(job)
    cfray.run("migrate", job.path).ended_with(3)
    assert version(job) == before


def test_every_check_has_a_line_in_every_report(cfray, job):
    for command in ("migrate", "verify", "optimize", "cleanup"):
        cfray.run(command, job.path).ended_with(0, 3)
        report = job.report()
        assert report["command"] == command
        assert statuses(report).keys() >= set(CHECKS), command
    assert {statuses(report)[name] for name in CHECKS} == {"not_run"}
    stopped = job.changed(target={"uri": "stopped.lance"}, limits={"max_quarantined": 0})
    cfray.run("migrate", stopped.path).ended_with(1)
    report = stopped.report()
    assert {statuses(report)[name] for name in CHECKS} == {"not_run"}


def test_a_parquet_read_is_compared_with_what_the_files_say(job):
    (check,) = [check for check in job.report()["checks"] if check["name"] == "source count"]
    assert check["status"] == "pass"
    assert check["detail"].startswith("400 records read, as many as the files say")
