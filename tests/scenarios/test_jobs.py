"""Every file in jobs/ runs as a Ray job runs it: one JSON document, the exit code of its verb."""

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
    """Run a script of jobs/ in this process as ``python jobs/<verb>.py <arguments>``."""

    def run(verb: str, *arguments: object) -> tuple[int, dict]:
        monkeypatch.setattr("sys.argv", [f"jobs/{verb}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOBS / f"{verb}.py"), run_name="__main__")
        return ended.value.code, json.loads(capfd.readouterr().out)

    return run


def test_every_job_is_run_here():
    assert {path.stem for path in JOBS.glob("*.py")} == {
        "embed",
        "migrate",
        "optimize",
        "replay",
        "verify",
    }


def test_migrate_verify_optimize_replay_and_embed(run_job, tmp_path):
    body = runs.export(tmp_path, 60, 8, 2, flawed=True) | {"limits": {"max_quarantined": "50%"}}
    job = runs.write_job(tmp_path, body)
    for verb in ("migrate", "verify", "optimize", "replay"):
        code, report = run_job(verb, job.path)
        assert (code, report["exit_code"]) == (3, 3), report["verdict"]
        assert report["command"].split()[-1] == verb
        assert report == job.report()
    with EmbeddingServer(dimension=8) as server:
        endpoint = {"url": server.url, "model": "m"}
        again = job.changed(embedding={"policy": "regenerate", "endpoint": endpoint})
        code, report = run_job("embed", again.path)
    assert (code, report["command"]) == (3, "embed"), report["verdict"]
    assert report["counts"]["vectors_regenerated"] == report["counts"]["staged"] > 0


def test_a_job_that_is_refused_says_so(run_job, tmp_path):
    for verb in ("migrate", "verify", "optimize", "replay", "embed"):
        code, document = run_job(verb, tmp_path / "no.yaml")
        assert (code, document["exit_code"]) == (2, 2)
        assert "no.yaml" in document["verdict"]
