"""A run that is killed, at any moment and at every stage boundary, ends the same when repeated."""

from __future__ import annotations

import signal
from pathlib import Path

import lance
import pytest

from tests.scenarios import runs
from tests.scenarios.kills import Account, chains, check_same, kill_at_random, new_target
from tests.scenarios.runs import PROVE, Job

SHARDS = 8
#: Places where the code lets a test end it, at full size every one, in an order in which each is
#: reached whatever the earlier runs did.
BOUNDARIES = (
    "lease:1", "plan:1", "stage:1", "stage:3", "commit:1", "commit:2", "copy:1", "duplicates:1", "headers:1", "compact:1", "index:1", "verify:1",
) if PROVE else (
    "plan:1", "stage:3", "commit:2", "duplicates:1", "headers:1", "index:1",
)  # fmt: skip

#: Where Ray's processes are killed as well, which costs a start of Ray: while workers write, before
#: and after the first commit.  At full size they are killed everywhere.
WHOLE_TREE = BOUNDARIES if PROVE else ("stage:3", "commit:2")

MOMENTS = 20 if PROVE else 3
ROWS, BIG_SHARDS = (500_000, 50) if PROVE else (60_000, 12)
TARGETS = -(-MOMENTS // 3)  # a target is killed about three times


@pytest.fixture(scope="module")
def small(module_cfray, tmp_path_factory):
    """Give an undisturbed target of 4,000 rows x 16-d in 8 shards.

    Some rows have no id, NaN in their vector, or another row's id.
    """
    folder = tmp_path_factory.mktemp("small")
    job = runs.write_job(folder, runs.export(folder, 4_000, 16, SHARDS, flawed=True))
    module_cfray.run("migrate", job.path).ended_with(3)
    return job


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


@pytest.mark.parametrize("chain", range(TARGETS))
def test_a_run_killed_at_random_moments_ends_the_same(
    cfray, local_cfray, big, chain, record_property
):
    """Every kill of the first target takes Ray's processes as well; at full size all kills do."""
    runner = local_cfray if PROVE or chain == 0 else cfray
    job = big.changed(target={"uri": f"killed-at-random-{chain}.lance"})
    account = Account(job)
    # a moment in each third [twentieth] of the way; a target gets all [every seventh] of them
    moments = [(number, MOMENTS) for number in range(chain, MOMENTS, TARGETS)]
    for line in kill_at_random(runner, big, account, moments, seed=chain):
        record_property(*line)
    cfray.run("migrate", job.path).ended_with(0)
    account.check_counts(BIG_SHARDS)
    record_property("brought to its end", job.counted())
    account.look()
    check_same(cfray, job, big)
