"""A job server runs every file in jobs/ on a cluster of two nodes, and stops and repeats one.

Both nodes are on this machine; the job server, its tokens and its signals are Ray's.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.scenarios import runs
from tests.testbeds.embedding_server import EmbeddingServer
from tests.testbeds.job_cluster import EndedJob, JobCluster
from tests.testbeds.processes import until

JOBS = Path(__file__).parents[2] / "jobs"
ROWS, SHARDS = 120, 6


@pytest.fixture(scope="module")
def cluster():
    """Have the cluster up for the tests of this file."""
    cluster = JobCluster()
    yield cluster
    cluster.close()


def entrypoint(verb, job_file):
    return f"python {JOBS / verb}.py {job_file}"


def has_pending(pid, number):
    """Tell whether a signal waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(line.split()[1], 16) & (1 << (number - 1)))


def stop_in_the_middle(cluster, job_id):
    """Have ``ray job stop`` reach a driver that stands still between two of its shards.

    The driver has stopped itself; it goes on when the job server's SIGTERM waits for it.
    """
    driver = cluster.driver(job_id)
    until(lambda: driver.status() == psutil.STATUS_STOPPED, "the driver stands still")
    assert cluster.call("stop_job", job_id=job_id)
    until(lambda: has_pending(driver.pid, signal.SIGTERM), "the SIGTERM has come")
    driver.send_signal(signal.SIGCONT)
    return cluster.ended(job_id)


@dataclass(frozen=True)
class Migrated:
    """A job whose first run was killed, whose second was stopped; the third was left alone."""

    job: runs.Job
    killed: EndedJob
    stopped: EndedJob
    done: EndedJob


@pytest.fixture(scope="module")
def migrated(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("migrated")
    body = runs.export(folder, ROWS, 8, SHARDS)
    body["source"]["uri"] = str(folder / "export")
    body["target"]["uri"] = str(folder / "first.lance")
    job = runs.write_job(folder, body)
    # the job file travels with the job; what it names does not
    sent = folder / "sent"
    sent.mkdir()
    runs.write_job(sent, body)
    killed = cluster.submit(f"env CFRAY_FAIL_AT=stage:2 {entrypoint('migrate', job.path)}")
    killed = cluster.ended(killed)
    stopped = cluster.submit(f"env CFRAY_FAIL_AT=stage:2:SIGSTOP {entrypoint('migrate', job.path)}")
    stopped = stop_in_the_middle(cluster, stopped)
    done = cluster.ended(cluster.submit(entrypoint("migrate", "job.yaml"), folder=sent))
    return Migrated(job, killed, stopped, done)


def test_a_migration_killed_and_stopped_in_the_middle_is_sent_again_and_is_exact(migrated):
    assert migrated.killed.status == "FAILED"
    assert migrated.killed.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert migrated.stopped.status == "STOPPED"
    assert migrated.stopped.last["exit_code"] == 143, migrated.stopped
    assert "run the same command again" in migrated.stopped.last["remedy"]
    assert (migrated.done.status, migrated.done.exit_code) == ("SUCCEEDED", 0), migrated.done
    report = json.loads(Path(migrated.done.last["report"]).read_text())
    assert report["verdict"] == migrated.done.last["verdict"]
    assert report["counts"]["shards_read"] <= SHARDS - 2, "what was staged is taken up"
    target = migrated.job.target
    assert runs.document_ids(target) == [f"doc-{number:07d}" for number in range(ROWS)]
    assert len(set(runs.uuids(target))) == len(runs.uuids(target))


@pytest.mark.prove
def test_every_other_verb_ends_in_the_right_state(cluster, migrated):
    job = migrated.job
    ended = {"migrate": migrated.done}
    planned = cluster.submit(entrypoint("plan", job.path))
    for verb in ("verify", "optimize", "replay"):
        ended[verb] = cluster.ended(cluster.submit(entrypoint(verb, job.path)))
    with EmbeddingServer(dimension=8) as server:
        endpoint = {"url": server.url, "model": "m"}
        again = job.changed(embedding={"policy": "regenerate", "endpoint": endpoint})
        ended["embed"] = cluster.ended(cluster.submit(entrypoint("embed", again.path)))
    ended["plan"] = cluster.ended(planned)
    assert {path.stem for path in JOBS.glob("*.py")} == ended.keys()
    for verb, outcome in ended.items():
        assert (outcome.status, outcome.exit_code) == ("SUCCEEDED", 0), (verb, outcome)
        assert outcome.last["exit_code"] == 0, verb
    assert job.report()["counts"]["vectors_regenerated"] == ROWS


def test_the_message_of_a_job_that_failed_ends_with_cfrays_exit_code(cluster):
    refused = cluster.ended(cluster.submit(entrypoint("migrate", "no.yaml")))
    assert (refused.status, refused.exit_code) == ("FAILED", 2)
    last = json.loads(refused.message.splitlines()[-1])
    assert last == refused.last
    assert last["exit_code"] == 2
    assert "no.yaml" in last["verdict"]
