"""Rows that a replay brought in are in quarantine no more, wherever rows in quarantine are counted."""

from __future__ import annotations

import json

import lance
import pytest

from tests.scenarios import runs

ROWS = 40


def write_rows(path, unnamed, lost=()):
    """Write rows; some have no id, and some of these no other id either."""
    with path.open("w") as lines:
        for number in range(ROWS):
            row = {"id": f"a{number}", "other": f"b{number}", "text": f"text {number}"}
            if number in unnamed or number in lost:
                del row["id"]
            if number in lost:
                del row["other"]
            lines.write(json.dumps(row) + "\n")


@pytest.fixture
def job(tmp_path):
    body = {
        "name": "notes",
        "source": {"kind": "jsonl", "uri": "rows.jsonl"},
        "mapping": {"id": "id", "text_content": "text"},
        "limits": {"max_quarantined": "50%"},
        "target": {"uri": "out.lance"},
    }
    return runs.write_job(tmp_path, body)


def corrected(job):
    return job.changed(mapping={**job.body["mapping"], "id": ["id", "other"]})


def test_when_every_row_came_in_nothing_is_in_quarantine(cfray, job, tmp_path):
    write_rows(tmp_path / "rows.jsonl", unnamed={3, 17})
    cfray.run("migrate", job.path).ended_with(3)
    assert job.report()["quarantine_reasons"] == {"no id": 2}
    other = corrected(job)
    replayed = cfray.run("quarantine", "replay", other.path).ended_with(0)
    assert "2 records came in from quarantine" in replayed.out
    version = lance.dataset(job.target).version
    for path in (job.path, other.path):
        for command in (
            ["verify", path],
            ["verify", path, "--against", "source"],
            ["migrate", path],
        ):
            ended = cfray.run(*command, "--json").ended_with(0)
            report = ended.document()
            assert report["quarantine_reasons"] == {}
            counts = report["counts"]
            assert [counts[name] for name in ("read", "staged", "quarantined", "replayed")] == [
                ROWS,
                ROWS,
                0,
                2,
            ]
        assert runs.quarantined(cfray, job) == []
        status = cfray.run("status", path, "--json").ended_with(0).document()
        assert (status["state"], status["quarantined"]) == ("complete", 0)
        assert "in quarantine" not in status["detail"]
    assert lance.dataset(job.target).version == version


def test_what_stays_in_quarantine_is_counted_by_its_reason(cfray, job, tmp_path):
    write_rows(tmp_path / "rows.jsonl", unnamed={3, 17}, lost={30})
    cfray.run("migrate", job.path).ended_with(3)
    assert job.report()["quarantine_reasons"] == {"no id": 3}
    cfray.run("quarantine", "replay", corrected(job).path).ended_with(3)
    report = job.report()
    assert report["verdict"] == "done, with 1 record in quarantine"
    assert report["quarantine_reasons"] == {"no id": 1}
    (row,) = runs.quarantined(cfray, job)
    assert row["reason"].startswith("no id")
