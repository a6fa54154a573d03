"""A run that is killed, at any moment and at every stage boundary, ends the same when repeated.

A kill takes the driver, whose workers Ray then ends, as on a cluster; or it takes
the driver with every process of its Ray, as when a machine dies.  After it, what
stands beside the target says which shards and pieces are done; the next run must leave those
alone.  At the end the target is compared, row by row and column by column, with
one that nobody disturbed.  A server of the tests makes the vectors of the second line: they are the
same to the bit whenever they are made.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import lance
import numpy as np
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import served
from tests.scenarios.runs import PROVE, Job, Runner
from tests.testbeds.embedding_server import EmbeddingServer

SHARDS = 8
#: Every place where the code lets a test end it, in an order in which each is reached whatever the
#: earlier runs did.
BOUNDARIES = (
    "lease:1", "plan:1", "stage:1", "stage:3", "commit:1", "commit:2", "copy:1", "duplicates:1", "headers:1", "compact:1", "index:1", "verify:1",
)  # fmt: skip

#: The boundaries of a run whose vectors are made: those of the second line come before the headers.
#: The swap of the vectors lies between ``unindexed`` and ``embedded``.
WITH_VECTORS = (
    "lease:1", "plan:1", "stage:1", "commit:1", "copy:1", "duplicates:1", "copied:1",
    "piece:1", "piece:2", "joined:1", "unindexed:1", "embedded:1",
    "headers:1", "compact:1", "index:1", "verify:1",
)  # fmt: skip

#: Where Ray's processes are killed as well, which costs a start of Ray: while workers write, before
#: and after the first commit.  At full size they are killed everywhere (``ray_of_runs``).
WHOLE_TREE = ("stage:3", "commit:2")

MOMENTS = 20 if PROVE else 6
ROWS, BIG_SHARDS = (500_000, 50) if PROVE else (60_000, 12)
TARGETS = -(-MOMENTS // 3)  # a target is killed about three times
#: Of the runs whose vectors are made.
VECTOR_MOMENTS = 20 if PROVE else 2
VECTOR_TARGETS = 7 if PROVE else 1
SERVED_ROWS, SERVED_SHARDS, PIECE_ROWS = (50_000, 20, 500) if PROVE else (1_000, 4, 125)
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}
#: Width of the vectors that are made; those of the source are wider, and are not copied.
WIDTH = 8


class Account:
    """What is done on one target, read before each run and compared with what that run did."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.committed: dict[str, str] = {}
        self.staged: dict[str, list[str]] = {}
        self.begun: set[str] = set()
        self.pieces: dict[str, list[str]] = {}

    def look(self) -> None:
        """Note what is committed and staged; see that the last run neither undid nor redid it."""
        self.look_at_pieces()
        committed = {
            name: nonce
            for name, (_, _, nonce) in runs.ledger(self.job.target).items()
            if name.isdigit()
        }
        staged = {
            name: nonces for name, nonces in runs.receipts(self.job).items() if name.isdigit()
        }
        begun = runs.shards_begun(self.job)
        now = set().union(*(shards for epoch, shards in begun.items() if epoch not in self.begun))
        assert committed.items() >= self.committed.items(), (
            "a committed shard was taken out, or committed anew"
        )
        assert not now & set(self.staged), "a shard that was staged or committed was read again"
        for name, nonces in self.staged.items():
            assert staged[name] == nonces, f"shard {name} was finished, and written again"
            assert name not in committed or committed[name] in nonces, (
                f"shard {name} was staged, and another writing of it was committed"
            )
        self.committed, self.staged, self.begun = committed, staged, set(begun)

    def look_at_pieces(self) -> None:
        """Note which pieces wait for the swap; see that none was computed again, or undone."""
        pieces = runs.piece_receipts(self.job)
        if not has_swapped(self.job):
            for name, nonces in self.pieces.items():
                assert pieces[name] == nonces, f"piece {name} was finished, and computed again"
        self.pieces = pieces

    def check_counts(self, shards: int) -> None:
        """Compare the report of a run that came to its end with what was done before it."""
        counts = self.job.report()["counts"]
        adopted = len(set(self.staged) - set(self.committed))
        assert counts["shards_resumed"] == len(self.committed)
        assert counts["shards_adopted"] == adopted
        assert counts["shards_read"] == shards - len(self.committed) - adopted
        assert counts["shards"] == counts["shards_planned"] == shards
        assert counts["read"] == counts["staged"] + counts["quarantined"]


def has_swapped(job: Job) -> bool:
    """Tell whether the vectors of the second line are in place."""
    return any(name.startswith("embed-") for name in runs.ledger(job.target))


@functools.cache
def untouched(target: str) -> list[bytes]:
    """Hash the documents of a target that nobody touches, once."""
    return runs.digests(target)


def check_same(cfray: Runner, job: Job, reference: Job) -> None:
    """Compare a target with one that nobody disturbed, before and after its cleanup.

    Cleaned up, it holds no file too many.
    """
    names = runs.uuids(job.target)
    assert len(names) == len(set(names))
    expected = untouched(reference.target)
    assert runs.digests(job.target) == expected
    assert runs.headers(job.target) == runs.headers(reference.target)
    cfray.run("cleanup", job.path).ended_with(0)
    assert runs.data_files(job.target) == runs.referenced_files(job.target)
    cfray.run("cleanup", job.path, "--keep-versions", 1).ended_with(0)
    assert runs.data_files(job.target) == runs.referenced_files(job.target)
    assert len(lance.dataset(job.target).versions()) == 1
    assert runs.digests(job.target) == expected


@pytest.fixture(scope="module")
def small(module_cfray, tmp_path_factory):
    """Give an undisturbed target of 4,000 rows x 16-d in 8 shards.

    Some rows have no id, NaN in their vector, or another row's id.
    """
    folder = tmp_path_factory.mktemp("small")
    job = runs.write_job(folder, runs.export(folder, 4_000, 16, SHARDS, flawed=True))
    module_cfray.run("migrate", job.path).ended_with(3)
    return job


def chains(boundaries: tuple[str, ...]) -> list[list[str]]:
    """Give the boundaries at which a target is killed in turn: all; at full size, each by itself."""
    return [[boundary] for boundary in boundaries] if PROVE else [list(boundaries)]


def new_target(reference: Job, boundaries: list[str]) -> Job:
    name = f"killed-{len(boundaries)}-{boundaries[0].replace(':', '-')}.lance"
    return reference.changed(target={"uri": name})


@pytest.mark.parametrize("boundaries", chains(BOUNDARIES), ids="+".join)
def test_a_run_killed_at_each_stage_boundary_ends_the_same(
    cfray, local_cfray, small, boundaries, record_property
):
    job = new_target(small, boundaries)
    account = Account(job)
    for boundary in boundaries:
        runner = local_cfray if boundary in WHOLE_TREE else cfray
        running = runner.start("migrate", job.path, CFRAY_FAIL_AT=boundary)
        running.until_ended()
        ended = running.kill()
        assert ended.code == -signal.SIGKILL, f"{boundary} was not reached: {ended.err}"
        check_readable(job, boundary)
        account.look()
    ended = cfray.run("migrate", job.path).ended_with(3)
    account.check_counts(SHARDS)
    record_property("brought to its end", job.counted())
    account.look()
    assert runs.outline(runs.quarantined(cfray, job)) == runs.outline(
        runs.quarantined(cfray, small)
    )
    assert job.report()["quarantine_reasons"] == small.report()["quarantine_reasons"]
    check_same(cfray, job, small)


@pytest.fixture(scope="module")
def served_job(module_cfray, tmp_path_factory):
    """Give an undisturbed target of 1,000 [50,000] rows whose vectors a server made.

    Some records repeat an identity, or have no id.
    """
    folder = tmp_path_factory.mktemp("served")
    body = runs.export(folder, SERVED_ROWS, 16, SERVED_SHARDS, flawed=True)
    with EmbeddingServer(WIDTH) as server:
        job = runs.write_job(folder, {**body, "embedding": served(server)})
        module_cfray.run("migrate", job.path, **PIECES).ended_with(3)
        yield job


@pytest.mark.parametrize("boundaries", chains(WITH_VECTORS), ids="+".join)
def test_a_run_whose_vectors_are_made_killed_at_each_boundary_ends_the_same(
    cfray, served_job, boundaries, record_property
):
    job = new_target(served_job, boundaries)
    account = Account(job)
    for boundary in boundaries:
        running = cfray.start("migrate", job.path, CFRAY_FAIL_AT=boundary, **PIECES)
        running.until_ended()
        ended = running.kill()
        assert ended.code == -signal.SIGKILL, f"{boundary} was not reached: {ended.err}"
        check_vectors(job, boundary)
        account.look()
    cfray.run("migrate", job.path, **PIECES).ended_with(3)
    account.check_counts(SERVED_SHARDS)
    record_property("brought to its end", job.counted())
    check_served(cfray, job, served_job)


def check_vectors(job: Job, boundary: str) -> None:
    """See that a reader finds every vector of the model, or none."""
    dataset = lance.dataset(job.target)
    swap = WITH_VECTORS.index("embedded:1")
    assert has_swapped(job) is (WITH_VECTORS.index(boundary) >= swap)
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


def check_readable(job: Job, boundary: str) -> None:
    """See that a reader finds exactly the rows of the committed shards, also the killed run's."""
    dataset = lance.dataset(job.target)
    rows = {name: count for name, (_, count, _) in runs.ledger(job.target).items()}
    read = 4_000 - 2 * SHARDS
    if boundary == "commit:1":
        assert 0 < sum(rows.values()) < read
        assert dataset.count_rows() == sum(rows.values())
    elif boundary in BOUNDARIES[BOUNDARIES.index("duplicates:1") :]:
        assert dataset.count_rows("record_type = 'document'") == read - (SHARDS - 1)
    else:
        assert dataset.count_rows() == sum(rows.values())


def test_a_target_whose_creation_was_cut_short_is_created_anew_and_a_strangers_folder_is_not(
    cfray, small
):
    job = small.changed(target={"uri": "unborn.lance"})
    for begun in (
        "_transactions/0-7c1e.txn",
        "_versions/18446744073709551614.manifest#1",
    ):  # what Lance writes before the manifest
        path = Path(job.target, begun)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="plan:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    assert lance.dataset(job.target).count_rows() == 0
    job = small.changed(target={"uri": "strange.lance"})
    Path(job.target, "_versions").mkdir(parents=True)
    Path(job.target, "notes.txt").write_text("mine")
    cfray.run("migrate", job.path).ended_with(2)
    assert sorted(path.name for path in Path(job.target).rglob("*")) == ["_versions", "notes.txt"]
    assert not job.state.exists()


@pytest.fixture(scope="module")
def big(module_cfray, tmp_path_factory):
    """Give an undisturbed target of 60,000 [500,000] rows x 384-d."""
    folder = tmp_path_factory.mktemp("big")
    job = runs.write_job(folder, runs.export(folder, ROWS, 384, BIG_SHARDS))
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


def test_rows_of_a_committed_shard_are_visible_before_the_last_one_is_there(big):
    versions = [
        lance.dataset(big.target, version=item["version"])
        for item in lance.dataset(big.target).versions()
    ]
    counts = [version.count_rows() for version in versions]
    first = next(version for version, count in enumerate(counts) if count)
    assert counts[first] == ROWS // BIG_SHARDS
    assert len(set(versions[first].to_table(columns=["uuid"])["uuid"].to_pylist())) == counts[first]
    assert counts[-1] == ROWS + 2


def progress(job: Job, running: runs.Running | None) -> int:
    """Say how far a run is, in steps that can be seen from outside."""
    entries = runs.ledger(job.target)
    steps = [
        (job.state / "lease.json").exists() or bool(entries),
        (job.state / "plan.json").exists(),
    ]
    starts_ray = running is not None and running.ray is None
    steps.append(not starts_ray or (running.folder / "ray" / "session_latest").exists())
    shards = len(runs.receipts(job)) + len(entries)
    indexes = len(lance.dataset(job.target).describe_indices()) if entries else 0
    if job.body.get("embedding"):
        steps += [has_swapped(job)] * -(-SERVED_ROWS // PIECE_ROWS)
    pieces = 0 if has_swapped(job) else len(runs.piece_receipts(job))
    return sum(steps) + shards + indexes + pieces


@pytest.mark.parametrize("chain", range(TARGETS))
def test_a_run_killed_at_random_moments_ends_the_same(
    cfray, local_cfray, big, chain, record_property
):
    """Every kill of the first target takes Ray's processes as well; at full size all kills do."""
    runner = local_cfray if chain == 0 else cfray
    job = big.changed(target={"uri": f"killed-at-random-{chain}.lance"})
    account = Account(job)
    # a moment in each sixth [twentieth] of the way; a target gets every second [seventh] of them
    moments = [(number, MOMENTS) for number in range(chain, MOMENTS, TARGETS)]
    for line in kill_at_random(runner, big, account, moments, chain):
        record_property(*line)
    cfray.run("migrate", job.path).ended_with(0)
    account.check_counts(BIG_SHARDS)
    record_property("brought to its end", job.counted())
    account.look()
    check_same(cfray, job, big)


@pytest.mark.parametrize("chain", range(VECTOR_TARGETS))
def test_a_run_whose_vectors_are_made_killed_at_random_moments_ends_the_same(
    cfray, served_job, chain, record_property
):
    job = served_job.changed(target={"uri": f"killed-at-random-{chain}.lance"})
    account = Account(job)
    moments = [(number, VECTOR_MOMENTS) for number in range(chain, VECTOR_MOMENTS, VECTOR_TARGETS)]
    for line in kill_at_random(cfray, served_job, account, moments, chain, **PIECES):
        record_property(*line)
    cfray.run("migrate", job.path, **PIECES).ended_with(3)
    account.check_counts(SERVED_SHARDS)
    record_property("brought to its end", job.counted())
    check_served(cfray, job, served_job)


def kill_at_random(
    runner: Runner,
    reference: Job,
    account: Account,
    moments: list[tuple[int, int]],
    seed: int,
    **settings: str,
) -> Iterator[tuple[str, str]]:
    """Kill a run in each of some parts of its way; yield what to record of each kill.

    Args:
        runner: starts the runs.
        reference: the undisturbed target, which says how long the way is.
        account: of the target.
        moments: number of a part of the way, and how many parts it has.
        seed: of the moments.
        settings: environment of the runs.
    """
    job = account.job
    rng = np.random.default_rng([20_240_607, seed])
    end = progress(reference, None)
    for number, parts in moments:
        goal = (number + rng.random()) / parts * end
        running = runner.start("migrate", job.path, **settings)
        runs.until(
            lambda running=running, goal=goal: running.ended or progress(job, running) >= goal,
            f"step {goal:.1f} of {end} is reached",
        )
        time.sleep(rng.random() / 4)  # not to wait for anything: the moment lies between two steps
        ended = running.kill()
        assert ended.code in (-signal.SIGKILL, 0, 3), ended.err
        account.look()
        yield (
            f"kill {number}",
            f"exit code {ended.code} at step {progress(job, None)} of {end}, " + describe(account),
        )


def describe(account: Account) -> str:
    staged = set(account.staged) - set(account.committed)
    return f"{len(account.committed)} shards committed, {len(staged)} more staged"
