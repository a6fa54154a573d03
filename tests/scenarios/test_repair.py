"""A repair of a target whose vectors a model made, with chunks or without, and of one that cannot be had.

The damages themselves are in ``damages.py``, repairs of kept vectors in ``test_against_source.py``.
"""

from __future__ import annotations

import signal

import lance
import numpy as np
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import held, served
from tests.scenarios.damages import replaced
from tests.scenarios.runs import Job
from tests.scenarios.test_joining_vectors import (
    LIMITED,
    WIDTH,
    contents,
    every_id,
    job_of,
    text_of,
)
from tests.testbeds.embedding_server import EmbeddingServer

#: Finds the row that is damaged.
FOURTH = "title = 'Title 4'"
REPAIR = ("--against", "source", "--repair", "--json")


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


def flip(row) -> None:
    numbers = np.array(row["vector"], np.float32)
    numbers.view(np.uint32)[2] ^= 1
    row["vector"] = numbers.tolist()


def repaired(cfray, job: Job, code: int) -> str:
    """Repair a target, and give the sentence of the report."""
    report = cfray.run("verify", job.path, *REPAIR).ended_with(code).document()
    (sentence,) = [note for note in report["notes"] if "repaired: " in note]
    cfray.run("verify", job.path, "--against", "source").ended_with(code)
    return sentence


def test_documents_leave_and_come_with_their_chunks(cfray, tmp_path, server):
    """One document is lost, one chunk of another has another text."""
    job = job_of(tmp_path, served(server, **LIMITED))
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    before, counts = contents(job.target), job.report()["counts"]
    dataset = lance.dataset(job.target)
    dataset.delete(f"text_content = '{text_of(2)}'")
    chunks = [row for row in held(job.target).values() if row["x_chunk_of"] is not None]
    dataset.update({"text_content": "'another'"}, where=f"uuid = '{chunks[0]['uuid']}'")
    assert "copied anew" in repaired(cfray, job, 3)
    assert contents(job.target) == before
    after = job.report()["counts"]
    for name in ("read", "staged", "quarantined", "frames", "derived_frames"):
        assert after[name] == counts[name]


@pytest.mark.parametrize(
    ("damage", "rows"),
    [
        # the vectors of the rows that stay are proven: only the row itself comes anew
        (lambda job: replaced(job.target, FOURTH, lambda row: row.update(title="four")), 1),
        # no row says which vector is wrong: all of the shard are made anew
        (lambda job: replaced(job.target, FOURTH, flip), 22),
        (lambda job: lance.dataset(job.target).delete(FOURTH), 22),
    ],
    ids=["title", "vector", "row"],
)
def test_vectors_that_a_model_made_are_made_anew_where_they_may_be_wrong(
    cfray, tmp_path, server, damage, rows
):
    job = job_of(tmp_path, served(server))
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    before = contents(job.target)
    damage(job)
    assert contents(job.target) != before
    assert repaired(cfray, job, 3).startswith(f"repaired: {rows} row")
    assert contents(job.target) == before


def test_what_the_source_does_not_have_is_not_repaired(cfray, tmp_path):
    """Rows that a replay brought in were converted by another mapping."""
    job = job_of(tmp_path, {"policy": "keep"})
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    named = job.changed(mapping=every_id(job))
    cfray.run("quarantine", "replay", named.path, "--quiet").ended_with(0)
    lance.dataset(job.target).delete("title = 'Title 3'")
    version = lance.dataset(job.target).version
    report = cfray.run("verify", named.path, *REPAIR).ended_with(4).document()
    assert "nothing was repaired: replay-0001 is damaged" in " ".join(report["notes"])
    # taking the target is a version of its own; no row has changed
    assert (
        lance.dataset(job.target).count_rows()
        == lance.dataset(job.target, version=version).count_rows()
    )


def test_a_repair_that_is_killed_has_happened_or_not(cfray, tmp_path):
    job = job_of(tmp_path, {"policy": "keep"})
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    before = contents(job.target)
    lance.dataset(job.target).delete(FOURTH)
    killed = cfray.start("verify", job.path, *REPAIR, CFRAY_FAIL_AT="repair:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    assert contents(job.target) == before
    cfray.run("verify", job.path, "--against", "source").ended_with(3)
    assert set(runs.ledger(job.target)) >= {"0", "repair-0001"}
