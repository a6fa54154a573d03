"""Targets of the version that embedded while it copied; tests/golden/README.md tells their origin.

A finished one is an ordinary target.  An unfinished one is refused by name, for half of its vectors
are there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.scenarios import runs
from tests.scenarios.corpora import held
from tests.scenarios.runs import Job
from tests.testbeds.embedding_server import EmbeddingServer, embedded

GOLDEN = Path(__file__).parent.parent / "golden"
#: Seconds since 1970 of the modification time that the plan pins: 2024-01-01.
PINNED = 1_704_067_200
#: Where the server of the golden job listened: the address is part of the model's identity.
ADDRESS, WIDTH = ("127.83.19.5", 18_473), 8


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH, address=ADDRESS) as server:
        yield server


def moved(folder: str, place: Path) -> Job:
    """Copy a golden run into a folder as if it had run there; give its job."""
    for name in ("one-line.yaml", "one-line-replay.yaml", "notes.jsonl"):
        shutil.copy(GOLDEN / name, place / name)
    os.utime(place / "notes.jsonl", (PINNED, PINNED))
    shutil.copytree(GOLDEN / folder, place / "out")
    for path in (place / "out/notes.lance.cfray").rglob("*.json*"):
        path.write_text(path.read_text().replace("/golden/", f"{place}/"))
    body = yaml.safe_load((place / "one-line.yaml").read_text())
    return Job(place / "one-line.yaml", str(place / "out/notes.lance"), body)


def check_vectors(target: str) -> None:
    for row in held(target).values():
        text = row["text_content"]
        expected = embedded(text, WIDTH) if text.strip() else np.zeros(WIDTH, np.float32)
        assert np.array_equal(row["vector"], expected)
        assert (row["x_vector_origin"] or "none").startswith("regenerated" if text else "none")


def test_an_unfinished_target_that_embedded_while_it_copied_is_refused(cfray, tmp_path, server):
    job = moved("one-line-unfinished", tmp_path)
    before = runs.digests(job.target)
    refused = cfray.run("migrate", job.path, CFRAY_LEASE_SILENCE="1").ended_with(2)
    assert "an earlier version of cfray began" in refused.err
    assert "made its vectors while it copied; 5 of 6 shards are missing" in refused.err
    assert "--restart" in refused.err
    assert runs.digests(job.target) == before
    assert server.requests == []
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (status["stage"], status["shards"]) == ("copying", 1)


def test_a_finished_target_that_embedded_while_it_copied_is_an_ordinary_one(
    cfray, tmp_path, server
):
    """It is verified, nothing is to be done, its rows are replayed, its vectors made anew."""
    job = moved("one-line-finished", tmp_path)
    check_vectors(job.target)
    report = cfray.run("verify", job.path, "--json").ended_with(3).document()
    assert "fail" not in {check["status"] for check in report["checks"]}
    assert "vectors as the job asks" in {check["name"] for check in report["checks"]}
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (status["stage"], status["state"], status["quarantined"]) == ("complete", "complete", 4)
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    assert server.requests == []
    rows = held(job.target)

    replay = job.path.with_name("one-line-replay.yaml")
    cfray.run("quarantine", "replay", replay, "--quiet").ended_with(3)
    assert len(held(job.target)) == len(rows) + 2
    check_vectors(job.target)
    cfray.run("verify", replay, "--quiet").ended_with(3)

    body = yaml.safe_load(replay.read_text())
    reduce = {"method": "truncate", "dimension": 4}
    narrower = job.changed(**body | {"embedding": {**body["embedding"], "reduce": reduce}})
    cfray.run("embed", narrower.path, "--quiet").ended_with(3)
    for row in held(job.target).values():
        part = embedded(row["text_content"], WIDTH)[:4]
        assert np.allclose(row["vector"], part / np.linalg.norm(part), atol=1e-6)
    cfray.run("verify", narrower.path, "--quiet").ended_with(3)
