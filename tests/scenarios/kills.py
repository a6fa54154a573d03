"""Kill a run, and keep account of what stood on its target before and after.

A kill takes the driver, whose workers Ray then ends, as on a cluster; or it takes
the driver with every process of its Ray, as when a machine dies.  After it, what
stands beside the target says which shards and pieces are done; the next run must leave those
alone.  At the end the target is compared, row by row and column by column, with
one that nobody disturbed.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Iterator

import lance
import numpy as np

from tests.scenarios import runs
from tests.scenarios.runs import PROVE, Job, Runner


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


def chains(boundaries: tuple[str, ...]) -> list[list[str]]:
    """Give the boundaries at which a target is killed in turn: all; at full size, each by itself."""
    return [[boundary] for boundary in boundaries] if PROVE else [list(boundaries)]


def new_target(reference: Job, boundaries: list[str]) -> Job:
    name = f"killed-{len(boundaries)}-{boundaries[0].replace(':', '-')}.lance"
    return reference.changed(target={"uri": name})


def progress(job: Job, running: runs.Running | None, pieces: int = 0) -> int:
    """Say how far a run is, in steps that can be seen from outside.

    Args:
        job: of the run.
        running: the run; None where it has ended.
        pieces: number of pieces of a run whose vectors are made; 0 for any other one.
    """
    entries = runs.ledger(job.target)
    steps = [
        (job.state / "lease.json").exists() or bool(entries),
        (job.state / "plan.json").exists(),
    ]
    starts_ray = running is not None and running.ray is None
    steps.append(not starts_ray or (running.folder / "ray" / "session_latest").exists())
    shards = len(runs.receipts(job)) + len(entries)
    indexes = len(lance.dataset(job.target).describe_indices()) if entries else 0
    embedded = pieces if has_swapped(job) else len(runs.piece_receipts(job))
    return sum(steps) + shards + indexes + embedded


def kill_at_random(
    runner: Runner,
    reference: Job,
    account: Account,
    moments: list[tuple[int, int]],
    *,
    seed: int,
    pieces: int = 0,
    **settings: str,
) -> Iterator[tuple[str, str]]:
    """Kill a run in each of some parts of its way; yield what to record of each kill.

    Args:
        runner: starts the runs.
        reference: the undisturbed target, which says how long the way is.
        account: of the target.
        moments: number of a part of the way, and how many parts it has.
        seed: of the moments.
        pieces: number of pieces of a run whose vectors are made.
        settings: environment of the runs.
    """
    job = account.job
    rng = np.random.default_rng([20_240_607, seed])
    end = progress(reference, None, pieces)
    for number, parts in moments:
        goal = (number + rng.random()) / parts * end
        running = runner.start("migrate", job.path, **settings)
        runs.until(
            lambda running=running, goal=goal: (
                running.ended or progress(job, running, pieces) >= goal
            ),
            f"step {goal:.1f} of {end} is reached",
        )
        time.sleep(rng.random() / 4)  # not to wait for anything: the moment lies between two steps
        ended = running.kill()
        assert ended.code in (-signal.SIGKILL, 0, 3), ended.err
        account.look()
        yield (
            f"kill {number}",
            f"exit code {ended.code} at step {progress(job, None, pieces)} of {end}, "
            + describe(account),
        )


def describe(account: Account) -> str:
    staged = set(account.staged) - set(account.committed)
    return f"{len(account.committed)} shards committed, {len(staged)} more staged"
