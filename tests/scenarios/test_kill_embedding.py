"""A run whose vectors are made is killed, at any moment and at every boundary of its second line.

A server of the tests makes the vectors: they are the same to the bit whenever they are made.  The
boundaries of the copy are those of ``test_kill``.
"""

from __future__ import annotations

import signal

import lance
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import served
from tests.scenarios.kills import (
    Account,
    chains,
    check_same,
    has_swapped,
    kill_at_random,
    new_target,
)
from tests.scenarios.runs import PROVE, Job, Runner
from tests.testbeds.embedding_server import EmbeddingServer

#: At full size every one, in an order in which each is reached whatever the earlier runs did; the
#: swap of the vectors lies between ``unindexed`` and ``embedded``.
BOUNDARIES = (
    "lease:1", "plan:1", "stage:1", "commit:1", "copy:1", "duplicates:1", "copied:1",
    "piece:1", "piece:2", "joined:1", "unindexed:1", "embedded:1",
    "headers:1", "compact:1", "index:1", "verify:1",
) if PROVE else (
    "copied:1", "piece:2", "joined:1", "unindexed:1", "embedded:1", "headers:1",
)  # fmt: skip

MOMENTS, TARGETS = (20, 7) if PROVE else (2, 1)
ROWS, SHARDS, PIECE_ROWS = (50_000, 20, 500) if PROVE else (1_000, 4, 125)
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}
#: Width of the vectors that are made; those of the source are wider, and are not copied.
WIDTH = 8


@pytest.fixture(scope="module")
def served_job(module_cfray, tmp_path_factory):
    """Give an undisturbed target of 1,000 [50,000] rows whose vectors a server made.

    Some records repeat an identity, or have no id.
    """
    folder = tmp_path_factory.mktemp("served")
    body = runs.export(folder, ROWS, 16, SHARDS, flawed=True)
    with EmbeddingServer(WIDTH) as server:
        job = runs.write_job(folder, {**body, "embedding": served(server)})
        module_cfray.run("migrate", job.path, **PIECES).ended_with(3)
        yield job


@pytest.fixture
def doomed_cfray(cfray, local_cfray):
    """Give the runner of runs that are killed: at full size each starts a Ray, which dies with it."""
    return local_cfray if PROVE else cfray


@pytest.mark.parametrize("boundaries", chains(BOUNDARIES), ids="+".join)
def test_a_run_whose_vectors_are_made_killed_at_each_boundary_ends_the_same(
    cfray, doomed_cfray, served_job, boundaries, record_property
):
    job = new_target(served_job, boundaries)
    account = Account(job)
    for boundary in boundaries:
        running = doomed_cfray.start("migrate", job.path, CFRAY_FAIL_AT=boundary, **PIECES)
        running.until_ended()
        ended = running.kill()
        assert ended.code == -signal.SIGKILL, f"{boundary} was not reached: {ended.err}"
        check_vectors(job, boundary)
        account.look()
    cfray.run("migrate", job.path, **PIECES).ended_with(3)
    account.check_counts(SHARDS)
    record_property("brought to its end", job.counted())
    check_served(cfray, job, served_job)


def check_vectors(job: Job, boundary: str) -> None:
    """See that a reader finds every vector of the model, or none."""
    dataset = lance.dataset(job.target)
    swap = BOUNDARIES.index("embedded:1")
    assert has_swapped(job) is (BOUNDARIES.index(boundary) >= swap)
    width = WIDTH if has_swapped(job) else 1
    assert dataset.schema.field("vector").type.list_size == width
    vectors = runs.vectors(job.target)
    assert vectors.any(axis=1).all() if has_swapped(job) else not vectors.any()


def check_served(cfray: Runner, job: Job, reference: Job) -> None:
    """Compare a target with the undisturbed one; nothing of its pieces is left beside it."""
    assert runs.outline(runs.quarantined(cfray, job)) == runs.outline(
        runs.quarantined(cfray, reference)
    )
    check_same(cfray, job, reference)
    assert not list((job.state / "scratch").glob("embed-*/**/*.arrow"))
    assert not runs.piece_receipts(job)


@pytest.mark.parametrize("chain", range(TARGETS))
def test_a_run_whose_vectors_are_made_killed_at_random_moments_ends_the_same(
    cfray, doomed_cfray, served_job, chain, record_property
):
    job = served_job.changed(target={"uri": f"killed-at-random-{chain}.lance"})
    account = Account(job)
    moments = [(number, MOMENTS) for number in range(chain, MOMENTS, TARGETS)]
    for line in kill_at_random(
        doomed_cfray,
        served_job,
        account,
        moments,
        seed=chain,
        pieces=ROWS // PIECE_ROWS,
        **PIECES,
    ):
        record_property(*line)
    cfray.run("migrate", job.path, **PIECES).ended_with(3)
    account.check_counts(SHARDS)
    record_property("brought to its end", job.counted())
    check_served(cfray, job, served_job)
