"""The versions of a target, and the way back to one of them; then life goes on."""

from __future__ import annotations

import json
import signal

import lance
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import exported, job_of, notes, served
from tests.testbeds.embedding_server import EmbeddingServer

ROWS = 40


def listed(cfray, job) -> list[dict]:
    return cfray.run("versions", job.path, "--json").ended_with(0).document()


def version_of(cfray, job, words: str) -> int:
    """Find the newest version whose commit did something."""
    return next(item["number"] for item in listed(cfray, job) if words in item["what"])


@pytest.fixture
def replayed(cfray, tmp_path):
    """Give a target into which a replay brought two rows, and the job files of both times."""
    rows = [{"id": f"a{n}", "other": f"b{n}", "text": f"text {n}"} for n in range(ROWS)]
    for number in (3, 17):
        del rows[number]["id"]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    body = {
        "name": "notes",
        "source": {"kind": "jsonl", "uri": "rows.jsonl"},
        "mapping": {"id": "id", "text_content": "text"},
        "limits": {"max_quarantined": "50%"},
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    before = lance.dataset(job.target).version
    other = job.changed(mapping={**body["mapping"], "id": ["id", "other"]})
    cfray.run("quarantine", "replay", other.path, "--quiet").ended_with(0)
    return job, other, before


def test_each_version_says_what_its_commit_did(cfray, replayed):
    job, _, before = replayed
    versions = listed(cfray, job)
    assert [item["number"] for item in versions] == list(range(len(versions), 0, -1))
    words = [item["what"] for item in versions]
    assert words[-1] == "created"
    assert any("1 shard copied" in what for what in words)
    assert any("records brought in from quarantine" in what for what in words)
    assert any("index" in what for what in words)
    assert not any("by another program" in what for what in words)
    rows = {item["number"]: item["rows"] for item in versions}
    assert rows[before] + 2 == rows[len(versions)]
    (newest,) = cfray.run("versions", job.target, "--last", "1", "--json").document()
    assert newest == versions[0]


def test_a_replay_is_rolled_back_and_done_again(cfray, replayed):
    """Rows that join after that have row ids of their own: everything is verified again."""
    job, other, before = replayed
    after, ids = runs.digests(job.target), runs.document_ids(job.target)
    newest = lance.dataset(job.target).version
    replayed_at = version_of(cfray, job, "records brought in from quarantine")
    cfray.run("cleanup", job.path).ended_with(0)
    refused = cfray.run("rollback", other.path, "--to-version", before).ended_with(2)
    assert "mapping" in refused.err
    report = cfray.run("rollback", job.path, "--to-version", before, "--json").ended_with(3)
    assert report.document()["counts"]["quarantined"] == 2
    assert len(runs.document_ids(job.target)) == ROWS - 2
    assert len(runs.quarantined(cfray, job)) == 2
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(3)
    # forth again, and back
    cfray.run("rollback", other.path, "--to-version", newest, "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids
    assert version_of(cfray, job, "records brought in from quarantine") == replayed_at
    cfray.run("rollback", job.path, "--to-version", before, "--quiet").ended_with(3)
    cfray.run("quarantine", "replay", other.path, "--quiet").ended_with(0)
    assert (runs.digests(job.target), runs.document_ids(job.target)) == (after, ids)
    cfray.run("verify", other.path, "--against", "source", "--quiet").ended_with(0)
    cfray.run("optimize", other.path, "--quiet").ended_with(0)


def test_a_rollback_that_was_killed_is_whole(cfray, replayed):
    job, _, before = replayed
    killed = cfray.start(
        "rollback", job.path, "--to-version", before, CFRAY_FAIL_AT="rolled-back:1"
    )
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    cfray.run("verify", job.path, "--quiet").ended_with(3)
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    assert len(runs.document_ids(job.target)) == ROWS - 2


def test_there_is_no_way_back_to_what_is_no_finished_target(cfray, replayed):
    job, _, _ = replayed
    newest = lance.dataset(job.target).version
    for version, words in (
        (1, "is not finished"),
        (newest, "no earlier version"),
        (99, "it has 1"),
    ):
        refused = cfray.run("rollback", job.path, "--to-version", version).ended_with(2)
        assert words in refused.err
    cfray.run("cleanup", job.path, "--keep-versions", "1").ended_with(0)
    refused = cfray.run("rollback", job.path, "--to-version", newest - 3).ended_with(2)
    assert "no earlier version" in refused.err
    assert len(runs.document_ids(job.target)) == ROWS


def test_vectors_that_were_made_anew_are_rolled_back(cfray, tmp_path):
    with EmbeddingServer(8) as server:
        exported(tmp_path, notes(ROWS), 2)
        job = job_of(tmp_path, served(server, endpoint={"model": "first"}))
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
        before, version = runs.digests(job.target), lance.dataset(job.target).version
        other = job.changed(embedding=served(server, endpoint={"model": "second"}, prompt="of: "))
        cfray.run("embed", other.path, "--quiet").ended_with(0)
        assert runs.digests(job.target) != before
        cfray.run("rollback", job.path, "--to-version", version, "--quiet").ended_with(0)
        assert runs.digests(job.target) == before
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
        cfray.run("embed", other.path, "--quiet").ended_with(0)
        cfray.run("verify", other.path, "--quiet").ended_with(0)
    assert version_of(cfray, job, "vectors made") > version
