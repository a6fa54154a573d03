"""Ctrl-C and SIGTERM stop a run cleanly at any time; the same command goes on."""

from __future__ import annotations

import os
import signal

import pytest

from tests.scenarios import runs
from tests.scenarios.runs import Job, Running

ROWS, SHARDS = 2_400, 60
#: Seconds after which an interrupted run counts as hanging.
PATIENCE = 30


def ctrl_c(running: Running) -> None:
    """Do as a terminal does: the signal goes to the whole process group in the foreground."""
    os.killpg(running.process.pid, signal.SIGINT)


def terminate(running: Running) -> None:
    """Do as ``ray job stop`` and a scheduler do."""
    running.signal(signal.SIGTERM)


@pytest.fixture
def job(tmp_path) -> Job:
    return runs.write_job(
        tmp_path, {**runs.export(tmp_path, ROWS, 16, SHARDS), "limits": {"workers": 1}}
    )


def holds(job: Job) -> bool:
    return (job.state / "lease.json").exists()


def test_an_interrupted_run_stops_cleanly_says_how_to_go_on_and_can_be_brought_to_its_end(
    local_cfray, cfray, job
):
    staged: list[int] = []

    def more_is_staged() -> bool:
        staged.append(len(runs.receipts(job)))
        return staged[-1] > staged[0]

    moments = (
        (terminate, 143, (job.state / "plan.json").exists, cfray),
        (ctrl_c, 130, lambda: runs.receipts(job), local_cfray),
        (terminate, 143, more_is_staged, cfray),
    )
    for interrupt, code, moment, runner in moments:
        running = runner.start("migrate", job.path, "--json")
        runs.until(moment, "the moment of the signal has come")
        interrupt(running)
        runs.until(lambda running=running: running.ended, "the run has stopped", PATIENCE)
        ended = running.wait().ended_with(code)
        assert "interrupted by" in ended.err
        assert "run the same command again" in ended.err
        assert "Traceback" not in ended.err
        assert ended.document()["exit_code"] == code
        report = job.report()
        assert report["exit_code"] == code
        assert report["verdict"].startswith("stopped: interrupted by")
        assert not holds(job)
    committed = len(runs.ledger(job.target))
    assert 0 < committed < SHARDS
    cfray.run("migrate", job.path).ended_with(0)
    counts = job.report()["counts"]
    assert counts["shards_resumed"] == committed
    assert counts["shards_read"] + counts["shards_adopted"] == SHARDS - committed
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(ROWS)]
