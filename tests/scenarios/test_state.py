"""The folder beside a target: removed, damaged, started over, looked at while a run writes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cfray import cli
from tests.scenarios import runs
from tests.scenarios.runs import Job

ROWS, SHARDS = 400, 4


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    """Migrate a small export once; tests change copies of it."""
    folder = tmp_path_factory.mktemp("finished")
    job = runs.write_job(folder, runs.export(folder, ROWS, 16, SHARDS))
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    """Give a copy of the finished target, its state and its job file."""
    return runs.copied(finished, tmp_path)


@pytest.fixture
def refusal(monkeypatch, capfd):
    """Run a command in this process that is refused; give its document."""

    def command(*arguments, code=2):
        monkeypatch.setattr("sys.argv", ["cfray", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        document = json.loads(out)
        assert (ended.value.code, document["exit_code"]) == (code, code)
        return document

    return command


VERBS = (
    ["plan"],
    ["migrate"],
    ["status"],
    ["verify"],
    ["report"],
    ["optimize"],
    ["cleanup"],
    ["quarantine", "list"],
    ["quarantine", "replay"],
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_dataset_removed_by_hand_is_named_with_the_way_out(job, refusal, verb):
    shutil.rmtree(job.target)
    document = refusal(*verb, job.path)
    assert f"its dataset {job.target} is gone" in document["verdict"]
    assert "--restart" in document["remedy"]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_state_folder_removed_by_hand_is_named_and_no_missing_target(job, refusal, verb):
    shutil.rmtree(job.state)
    document = refusal(*verb, job.path)
    assert "plan.json is missing" in document["verdict"]
    assert "there is no target" not in document["verdict"]
    assert "--restart" in document["remedy"]


@pytest.mark.parametrize("damage", [b"", b'{"shards": [', b"[1, 2]\n", b"\xff\xfe\x00"], ids=repr)
@pytest.mark.parametrize("name", ["plan.json", "report.json", "a receipt"])
def test_a_damaged_state_file_is_named(job, refusal, name, damage):
    path = job.state / name
    if name == "a receipt":
        path = next((job.state / "staged").glob("0.*.json"))
    path.write_bytes(damage)
    verb = "report" if name == "report.json" else "status"
    document = refusal(verb, job.path, code=1)
    assert path.name in document["verdict"]
    assert document["remedy"]


def test_restart_removes_what_it_names_and_begins_anew(cfray, job):
    shutil.rmtree(job.target)
    again = cfray.run("migrate", job.path, "--restart").ended_with(0)
    assert f"--restart removes {job.state}" in again.err
    assert "of job articles" in again.err
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(ROWS)]
    assert "--restart" not in cfray.run("migrate", job.path).ended_with(0).err


def test_restart_removes_committed_rows_only_after_confirmation(cfray, job, refusal):
    before = sorted(str(path) for path in job.path.parent.rglob("*"))
    document = refusal("migrate", job.path, "--restart")
    assert f"{ROWS + 2:,} rows" in document["verdict"]
    assert "--yes" in document["remedy"]
    assert sorted(str(path) for path in job.path.parent.rglob("*")) == before
    cfray.run("migrate", job.path, "--restart", "--yes").ended_with(0)
    assert lance.dataset(job.target).count_rows() == ROWS + 2


def test_restart_never_removes_a_dataset_of_others(job, refusal):
    shutil.rmtree(job.target)
    lance.write_dataset(pa.table({"mine": [1, 2, 3]}), job.target)
    document = refusal("migrate", job.path, "--restart", "--yes")
    assert "cfray did not make" in document["verdict"]
    assert lance.dataset(job.target).count_rows() == 3


def test_a_killed_restart_is_named_until_it_is_repeated(job, refusal, cfray):
    (job.state / "restarting.json").write_text("{}")
    shutil.rmtree(Path(job.target) / "data")
    for verb in (["status"], ["migrate"]):
        document = refusal(*verb, job.path)
        assert "interrupted" in document["verdict"]
        assert "--restart" in document["remedy"]
    cfray.run("migrate", job.path, "--restart", "--yes").ended_with(0)
    assert lance.dataset(job.target).count_rows() == ROWS + 2


def test_a_repeated_restart_never_removes_what_others_put_there_since(job, refusal):
    shutil.rmtree(job.target)
    (job.state / "restarting.json").write_text("{}")
    lance.write_dataset(pa.table({"mine": [1, 2, 3]}), job.target)
    refusal("migrate", job.path, "--restart", "--yes")
    assert lance.dataset(job.target).count_rows() == 3
    shutil.rmtree(job.target)
    notes = Path(job.target) / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("not of a dataset")
    refusal("migrate", job.path, "--restart", "--yes")
    assert notes.exists()


def test_a_restart_at_work_holds_the_lease(cfray, job):
    restarting = cfray.start(
        "migrate", job.path, "--restart", "--yes", CFRAY_FAIL_AT="removed:1:SIGSTOP"
    )
    restarting.until_stopped()  # the dataset is gone, its lease and the mark are there
    for command in ("migrate", "status"):
        refused = cfray.run(command, job.path).ended_with(5)
        assert f"process {restarting.process.pid} on " in refused.err
    cfray.run("migrate", job.path, "--restart", "--yes").ended_with(5)
    restarting.signal(signal.SIGCONT)
    restarting.wait().ended_with(0)
    assert lance.dataset(job.target).count_rows() == ROWS + 2


def test_a_restart_killed_at_work_is_named_until_it_is_repeated(cfray, job):
    killed = cfray.start("migrate", job.path, "--restart", "--yes", CFRAY_FAIL_AT="removed:1")
    killed.until_ended()
    killed.kill()
    assert "was interrupted" in cfray.run("migrate", job.path).ended_with(2).err
    cfray.run("migrate", job.path, "--restart").ended_with(0)
    assert lance.dataset(job.target).count_rows() == ROWS + 2


def test_a_holder_that_slept_through_a_restart_adds_nothing(cfray, local_cfray, job):
    """It holds the first epoch of the old target; the new target's must not be the same.

    Its workers are not asleep: what one writes behind the restart stands in nobody's way.
    """
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    asleep = local_cfray.start("migrate", job.path, CFRAY_FAIL_AT="stage:2:SIGSTOP")
    asleep.until_stopped()
    other = job.changed(mapping=job.body["mapping"] | {"author": "title"})
    cfray.run("migrate", other.path, "--restart", "--yes", CFRAY_LEASE_SILENCE="0.1").ended_with(0)
    before = lance.dataset(job.target).version
    asleep.signal(signal.SIGCONT)
    ended = asleep.wait()
    assert ended.code in (1, 5), ended.err
    assert "Traceback" not in ended.err
    assert lance.dataset(job.target).version == before
    cfray.run("verify", other.path).ended_with(0)


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_worker_wrote_behind_a_restart_stands_in_nobodys_way(cfray, job, killed):
    """A data file, its receipt and its session, of a source that has changed since."""
    late = job.path.parent / "late"
    for name in ("staged", "sessions"):
        shutil.copytree(job.state / name, late / name)
    shutil.copytree(Path(job.target) / "data", late / "data")
    _rewrite_titles(job)
    restarting = cfray.start(
        "migrate", job.path, "--restart", "--yes", CFRAY_FAIL_AT="restarted:1:SIGSTOP"
    )
    restarting.until_stopped()
    shutil.copytree(late / "data", Path(job.target) / "data")
    for name in ("staged", "sessions"):
        shutil.copytree(late / name, job.state / name)
    if killed:
        restarting.kill()
        cfray.run("migrate", job.path).ended_with(0)
    else:
        restarting.signal(signal.SIGCONT)
        restarting.wait().ended_with(0)
    titles = lance.dataset(job.target).to_table(["title"], filter="record_type = 'document'")
    assert len(titles) == ROWS
    assert all(title.startswith("changed ") for title in titles["title"].to_pylist())
    cfray.run("verify", job.path).ended_with(0)
    assert not (job.state / "removed.json").exists()
    cfray.run("cleanup", job.path).ended_with(0)
    left = {path.name for path in (late / "data").iterdir()}
    assert not left & {path.name for path in (Path(job.target) / "data").iterdir()}


def _rewrite_titles(job: Job) -> None:
    """Change every record of the export; its files keep their names."""
    for path in (job.path.parent / "export").iterdir():
        table = pq.read_table(path)
        titles = pc.binary_join_element_wise("changed", table["title"], " ")
        pq.write_table(
            table.set_column(table.schema.get_field_index("title"), "title", titles), path
        )


@pytest.mark.parametrize("stage", ["compact", "index"])
def test_a_run_killed_before_verify_is_not_called_finished(cfray, job, stage):
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT=f"{stage}:1")
    killed.until_ended()
    killed.kill()
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (status["state"], status["finished"], status["held_by"]) == (
        "unverified",
        False,
        "nobody",
    )
    assert "ended without a report" in status["detail"]
    cfray.run("migrate", job.path).ended_with(0)
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (status["state"], status["finished"], status["held_by"]) == ("complete", True, "nobody")


def test_verify_beside_a_running_migrate_leaves_that_runs_report_alone(cfray, job):
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    running = cfray.start("migrate", job.path, "--json", CFRAY_FAIL_AT="index:1:SIGSTOP")
    running.until_stopped()  # between its index and its verify
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (status["state"], status["finished"]) == ("running", False)
    assert status["held_by"].startswith(f"process {running.process.pid} ")
    verified = cfray.run("verify", job.path, "--json").ended_with(0).document()
    assert not (job.state / "report.json").exists()
    reports = [
        json.loads(path.read_text()) for path in (job.state / "reports").glob("*-verify.json")
    ]
    assert [report["verdict"] for report in reports] == [verified["verdict"]]
    running.signal(signal.SIGCONT)
    running.wait().ended_with(0)
    assert job.report()["command"] == "migrate"
    assert cfray.run("report", job.path, "--json").document()["command"] == "migrate"


def test_a_verify_that_ends_with_an_error_leaves_a_report_that_says_so(cfray, job):
    receipt = next((job.state / "staged").glob("0.*.json"))
    receipt.unlink()
    cfray.run("verify", job.path).ended_with(1)
    report = job.report()
    assert (report["command"], report["exit_code"]) == ("verify", 1)
    assert receipt.name in report["verdict"]


def test_a_strangers_row_before_the_first_shard_is_no_damage(cfray, job):
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="plan:1")
    killed.until_ended()
    killed.kill()
    schema = lance.dataset(job.target).schema
    row = dict.fromkeys(schema.names) | {"uuid": "0" * 36, "title": "not of cfray's"}
    lance.write_dataset(pa.Table.from_pylist([row], schema=schema), job.target, mode="append")
    report = cfray.run("migrate", job.path, "--json").ended_with(0).document()
    checks = {check["name"]: check["status"] for check in report["checks"]}
    assert checks["content of every shard"] == "pass"
    assert checks["rows that cfray did not write"] == "not_run"


def test_after_a_replay_that_brings_nothing_in_the_same_job_file_verifies(cfray, tmp_path):
    body = runs.export(tmp_path, 300, 16, 3, flawed=True) | {"limits": {"max_quarantined": "50%"}}
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path).ended_with(3)
    other = job.changed(mapping=body["mapping"] | {"author": "title"})
    refused = cfray.run("verify", other.path).ended_with(2)
    assert "mapping.author: was null" in refused.err
    cfray.run("quarantine", "replay", other.path).ended_with(3)
    for accepted in (job, other):
        for command in ("plan", "verify", "migrate", "status", "report"):
            cfray.run(command, accepted.path).ended_with(0, 3)
    third = job.changed(mapping=body["mapping"] | {"author": "body"})
    refused = cfray.run("verify", third.path).ended_with(2)
    assert "mapping.author: was" in refused.err


def test_an_unfinished_copy_is_not_replayed(cfray, tmp_path):
    job = runs.write_job(tmp_path, runs.export(tmp_path, 300, 16, 3))
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="commit:1")
    killed.until_ended()
    killed.kill()
    refused = cfray.run("quarantine", "replay", job.path).ended_with(2)
    assert "is not finished (2 of 3 shards are missing)" in refused.err
    assert "run cfray migrate" in refused.err


def test_a_refused_embed_changes_no_state(cfray, job):
    known_jobs = (job.state / "job.json").read_bytes()
    body = job.body | {"embedding": {"policy": "regenerate", "model": "./no-such-model"}}
    other = job.changed(**body)
    cfray.run("embed", other.path).ended_with(2)
    assert (job.state / "job.json").read_bytes() == known_jobs
    cfray.run("verify", job.path).ended_with(0)
