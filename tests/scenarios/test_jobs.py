"""Every file in jobs/ ends as a Ray job needs it: the exit code of its verb, the verdict last.

``test_job_submission.py`` has a job server run them on a cluster.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tests.scenarios import runs
from tests.testbeds.embedding_server import EmbeddingServer

JOBS = Path(__file__).parent.parent.parent / "jobs"


@pytest.fixture(autouse=True)
def ray(shared_ray):
    """Have this process be a driver on the shared Ray."""
    shared_ray.join()


@pytest.fixture
def run_job(monkeypatch, capfd):
    """Run a script of jobs/ in this process as ``python jobs/<verb>.py <arguments>``.

    It gives the exit code and the last line that was printed.
    """

    def run(verb: str, *arguments: object) -> tuple[int, dict]:
        monkeypatch.setattr("sys.argv", [f"jobs/{verb}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOBS / f"{verb}.py"), run_name="__main__")
        return ended.value.code, json.loads(capfd.readouterr().out.splitlines()[-1])

    return run


def test_every_job_is_run_here():
    assert {path.stem for path in JOBS.glob("*.py")} == {
        "baseline",
        "embed",
        "migrate",
        "optimize",
        "plan",
        "replay",
        "verify",
    }


def test_each_verb_ends_with_its_verdict(run_job, tmp_path):
    body = runs.export(tmp_path, 60, 8, 2, flawed=True) | {"limits": {"max_quarantined": "50%"}}
    job = runs.write_job(tmp_path, body)
    assert run_job("plan", job.path) == (0, {"exit_code": 0, "verdict": "done"})
    for verb in ("migrate", "verify", "optimize", "replay"):
        code, last = run_job(verb, job.path)
        report = job.report()
        assert report["command"].split()[-1] == verb
        assert (code, report["exit_code"]) == (3, 3), report["verdict"]
        assert last == {
            "exit_code": 3,
            "verdict": report["verdict"],
            "report": str(job.state / "report.json"),
        }
    with EmbeddingServer(dimension=8) as server:
        endpoint = {"url": server.url, "model": "m"}
        again = job.changed(embedding={"policy": "regenerate", "endpoint": endpoint})
        code, last = run_job("embed", again.path)
    report = job.report()
    assert (code, last["exit_code"], last["verdict"]) == (3, 3, report["verdict"])
    assert report["command"] == "embed"
    assert report["counts"]["vectors_regenerated"] == report["counts"]["staged"] > 0


def test_a_job_that_is_refused_says_so(run_job, tmp_path):
    for verb in ("plan", "baseline", "migrate", "verify", "optimize", "replay", "embed"):
        code, last = run_job(verb, tmp_path / "no.yaml")
        assert (code, last["exit_code"]) == (2, 2)
        assert "no.yaml" in last["verdict"]
        assert last["remedy"]


def test_a_command_that_is_no_job_says_no_verdict_last(cfray, run_job, tmp_path):
    code, last = run_job("plan", tmp_path / "no.yaml")
    assert (code, last["exit_code"]) == (2, 2)
    assert not cfray.run("plan", tmp_path / "no.yaml").ended_with(2).out
