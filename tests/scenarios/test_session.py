"""One session from the plan to the last shard, kept alive; and what is said where there were two.

The store is of the tests: it lets a point in time go, as Elasticsearch and others do, and says so
itself which sessions it was asked for.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import lance
import pytest
from rich.console import Console

import cfray
from cfray.engine import failpoint
from cfray.errors import SourceError
from cfray.job.spec import JobSpec
from cfray.report.text import show_report
from tests.scenarios import runs
from tests.testbeds.point_in_time import PAGE_ROWS, PAGES, PointInTime

RECORDS = 3 * PAGES * PAGE_ROWS
TWO = "two snapshots (begun 2026-11-28T20:00:00Z and 2026-11-28T20:01:00Z)"


@pytest.fixture
def store(tmp_path, shared_ray, monkeypatch):
    """Give a store whose records say ``early``, and which hears of the first commit."""
    shared_ray.join()
    folder = tmp_path / "store"
    folder.mkdir()
    reach = failpoint.reach

    def tell_and_reach(point):
        if point == "commit":
            (folder / "committed").touch()
        reach(point)

    monkeypatch.setattr(failpoint, "reach", tell_and_reach)
    store = PointInTime(folder=str(folder))
    store.write("early")
    return store


@pytest.fixture
def job_of(tmp_path):
    """Give a function: the job that copies a store, a shard after the other."""

    def give(store):
        job = cfray.Job(
            name="points",
            source={"kind": "jsonl", "uri": "replaced"},
            mapping={"id": "id", "text_content": "text"},
            target={"uri": str(tmp_path / "out.lance")},
            limits={"workers": 1},
        )
        return job.model_copy(update={"source": store})  # no job file knows this kind

    return give


def state(job: JobSpec) -> Path:
    return Path(f"{job.target.uri}.cfray")


def sessions(job: JobSpec) -> dict[str, str]:
    """Give the session of each committed shard, by the shard's id."""
    receipts = [
        json.loads((state(job) / f"staged/{name}.{entry[-1]}.json").read_text())
        for name, entry in runs.ledger(job.target.uri).items()
        if name.isdigit()
    ]
    return {receipt["shard"]: receipt["session"] for receipt in receipts}


def texts(job: JobSpec) -> dict[str, set[str]]:
    """Give the texts of the records of each shard."""
    rows = lance.dataset(job.target.uri).to_table(
        ["text_content"], filter="record_type = 'document'"
    )
    found: dict[str, set[str]] = {}
    for row in rows.to_pylist():
        identity, text = row["text_content"].split()
        found.setdefault(identity[0], set()).add(text)
    return found


def header(job: JobSpec) -> str:
    """Give the consistency that the dataset's header states."""
    rows = lance.dataset(job.target.uri).to_table(
        ["custom_metadata"], filter="record_type = 'dataset_header'"
    )
    (row,) = rows.to_pylist()
    return {item["key"]: item["value"] for item in row["custom_metadata"]}["consistency"]


def shown(report: cfray.api.Report) -> str:
    console = Console(width=400, file=io.StringIO(), record=True)
    show_report(report, console)
    return console.export_text()


def test_one_session_is_open_from_the_plan_to_the_count_and_every_receipt_names_it(
    store, job_of, monkeypatch
):
    open_at = {}
    reach = failpoint.reach
    monkeypatch.setattr(
        failpoint,
        "reach",
        lambda point: (open_at.update({point: not store.log("close")}), reach(point)),
    )
    job = job_of(store)
    report = cfray.migrate(job)
    assert report.exit_code == 0, report
    assert store.log("open") == ["open view-0"]
    closed = {point for point, is_open in open_at.items() if not is_open}
    assert {"lease", "plan", "stage", "commit", "counted"} <= open_at.keys() - closed
    assert {"copy", "duplicates", "headers", "compact", "index", "verify"} <= closed
    assert sessions(job) == dict.fromkeys("abc", "view-0")
    assert (report.consistency, header(job)) == ("snapshot", "snapshot")
    assert json.loads((state(job) / "sessions/view-0.json").read_text()) == {
        "id": "view-0",
        "began": "2026-11-28T20:00:00Z",
        "consistency": "snapshot",
        "lost": False,
    }
    (receipt,) = state(job).glob("staged/source-count.*.json")
    assert json.loads(receipt.read_text())["consistency"] == "snapshot"
    assert cfray.verify(job).consistency == "snapshot"
    reads = store.log("read")
    cfray.migrate(job)
    assert store.log("open")[1:] == ["open view-1"], "it is counted again"
    assert store.log("read") == reads, "nothing was to be done"
    assert store.log("close")[-1] == "close view-1"


def test_a_session_is_kept_alive_over_a_slow_copy(store, job_of):
    store = store.model_copy(update={"slow": True})
    report = cfray.migrate(job_of(store))
    assert (report.exit_code, report.consistency) == (0, "snapshot"), report
    assert len(store.log("keep")) >= 3 * PAGES
    assert store.log("open") == ["open view-0"]


def test_an_expired_session_ends_the_run_and_the_next_one_says_two_snapshots(store, job_of):
    store.script("expires", "b-1")
    job = job_of(store)
    with pytest.raises(SourceError) as caught:
        cfray.migrate(job)
    assert caught.value.exit_code == 1
    assert "session view-0" in caught.value.what
    assert "begun at 2026-11-28T20:00:00Z, is lost" in caught.value.what
    assert "another session" in caught.value.remedy
    failed = json.loads((state(job) / "report.json").read_text())
    assert (failed["exit_code"], failed["consistency"]) == (1, "snapshot")
    assert sessions(job) == {"a": "view-0"}

    store.write("late")
    report = cfray.migrate(job)
    assert report.exit_code == 0, report
    assert (report.counts["read"], report.counts["shards_resumed"]) == (RECORDS, 1)
    assert store.log("read")[-2 * PAGES :] == [
        f"read view-1 {shard}-{page}" for shard in "bc" for page in range(PAGES)
    ]
    assert sessions(job) == {"a": "view-0", "b": "view-1", "c": "view-1"}
    assert texts(job) == {"a": {"early"}, "b": {"late"}, "c": {"late"}}
    assert (report.consistency, header(job)) == (TWO, TWO)
    for later in (report, cfray.verify(job), cfray.migrate(job)):
        assert later.consistency == TWO
        assert f"consistency of the source: {TWO}: the records of one shard" in shown(later)
        assert TWO in repr(later)


def test_a_session_that_cannot_be_kept_alive_ends_the_run_although_the_store_gives_pages(
    store, job_of
):
    store.script("is lost", "b-1")
    job = job_of(store)
    with pytest.raises(SourceError, match=r"session view-0 of .* is lost"):
        cfray.migrate(job)
    assert sessions(job) == {"a": "view-0"}, "a shard was committed after the loss"
    # nor is a shard adopted that was copied meanwhile
    report = cfray.migrate(job)
    assert sessions(job) == {"a": "view-0", "b": "view-1", "c": "view-1"}
    assert (report.exit_code, report.consistency) == (0, TWO), report


def test_a_session_that_is_lost_while_the_source_is_planned_creates_nothing(store, job_of):
    store.script("expires", "a-1", in_plan=True)
    job = job_of(store)
    with pytest.raises(cfray.ConfigError, match=r"session view-0 of .* is lost"):
        cfray.migrate(job)
    assert not state(job).exists()
    assert store.log("close") == ["close view-0"]
    report = cfray.migrate(job)
    assert (report.exit_code, report.consistency) == (0, "snapshot"), report


def test_shards_that_no_session_names_are_what_the_plan_says(store, job_of):
    """Receipts of earlier versions; the shards that are left come under a session."""
    store.script("expires", "b-1")
    job = job_of(store)
    with pytest.raises(SourceError):
        cfray.migrate(job)
    for path in state(job).glob("staged/0.*.json"):
        receipt = json.loads(path.read_text())
        del receipt["session"]
        path.write_text(json.dumps(receipt))
    plan = json.loads((state(job) / "plan.json").read_text())
    (state(job) / "plan.json").write_text(json.dumps(plan | {"consistency": "per-shard live"}))
    assert cfray.migrate(job).consistency == "per-shard live"
