"""What an earlier version wrote is resumed exactly; tests/golden/README.md tells its origin."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import lance
import pytest
import yaml

from cfray.job.file import read_job
from cfray.target.commit import Target
from cfray.target.receipt_files import read_receipt, write_receipt
from cfray.target.state import Plan, State
from tests.scenarios import runs
from tests.scenarios.runs import Job

GOLDEN = Path(__file__).parent.parent / "golden"
#: Seconds since 1970 of the modification time that the plan pins: 2024-01-01.
PINNED = 1_704_067_200
#: Unfinished run -> its shards that are committed, their records, and its shards that are staged.
UNFINISHED = {"unfinished": (1, 12, 3), "format-2/unfinished": (3, 36, 1)}
FINISHED = ["finished", "format-2/finished"]


def moved(stage: str, folder: Path) -> Job:
    """Copy a golden run into a folder as if it had run there; give its job."""
    for name in ("job.yaml", "replay.yaml", "notes.jsonl"):
        shutil.copy(GOLDEN / name, folder / name)
    os.utime(folder / "notes.jsonl", (PINNED, PINNED))
    shutil.copytree(GOLDEN / stage, folder / "out")
    for path in (folder / "out/notes.lance.cfray").rglob("*.json*"):
        path.write_text(path.read_text().replace("/golden/", f"{folder}/"))
    body = yaml.safe_load((folder / "job.yaml").read_text())
    return Job(folder / "job.yaml", str(folder / "out/notes.lance"), body)


def documents(target: str) -> list[dict]:
    """Read every document, but for the address of its source: the golden rows hold ``/golden``."""
    dataset = lance.dataset(target)
    columns = [name for name in dataset.schema.names if name not in ("source_url", "raw_data")]
    table = dataset.to_table(columns=columns, filter="record_type = 'document'")
    return table.sort_by("uuid").to_pylist()


@pytest.mark.parametrize("stage", UNFINISHED)
def test_an_unfinished_run_of_an_earlier_version_is_resumed_exactly(cfray, stage, tmp_path):
    job = moved(stage, tmp_path)
    committed, records, staged = UNFINISHED[stage]
    counts = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (counts["state"], counts["shards"], counts["read"]) == ("running", committed, records)
    assert "not known from here" in counts["detail"]
    # the golden lease is another host's: it is taken over after this silence
    resumed = cfray.run("migrate", job.path, "--json", CFRAY_LEASE_SILENCE="1").ended_with(3)
    counts = resumed.document()["counts"]
    shards = [counts[f"shards_{how}"] for how in ("resumed", "adopted", "read")]
    assert shards == [committed, staged, 2]
    fresh = job.changed(target={"uri": "fresh.lance"})
    cfray.run("migrate", fresh.path).ended_with(3)
    resumed_rows, fresh_rows = documents(job.target), documents(fresh.target)
    # the first plans of format 1 know no file of a record: the run goes on as it began
    file = None if stage == "unfinished" else "notes.jsonl"
    assert {row.pop("source_file") for row in resumed_rows} == {file}
    assert {row.pop("source_file") for row in fresh_rows} == {"notes.jsonl"}
    assert resumed_rows == fresh_rows
    assert len(runs.headers(job.target)) == len(runs.headers(fresh.target)) == 2


@pytest.mark.parametrize("stage", FINISHED)
def test_a_finished_target_of_an_earlier_version_is_read_and_verified(cfray, stage, tmp_path):
    job = moved(stage, tmp_path)
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    # the first reports of format 1 did not say which rows they had verified
    state = "unverified" if stage == "finished" else "complete"
    assert (status["state"], status["read"], status["quarantined"]) == (state, 61, 2)
    assert cfray.run("report", job.path, "--json").ended_with(0).document()["exit_code"] == 3
    report = cfray.run("verify", job.path, "--json").ended_with(3).document()
    checks = {check["name"]: check["status"] for check in report["checks"]}
    assert checks["content of every shard"] == checks["every data file"] == "pass"
    assert report["counts"]["replayed"] == 2
    # the replays of format 1 counted nothing by reason
    assert report["quarantine_reasons"] == {"line": 1, "same identity as another record": 1}
    assert cfray.run("status", job.path, "--json").document()["state"] == "complete"
    reasons = [
        row["reason"] for row in cfray.run("quarantine", "list", job.path, "--json").document()
    ]
    assert len(reasons) == 2
    cfray.run("optimize", job.path).ended_with(3)


@pytest.mark.parametrize("stage", [*UNFINISHED, *FINISHED])
def test_plan_and_fingerprint_of_an_earlier_version_keep_their_format(stage, tmp_path):
    job = moved(stage, tmp_path)
    state, ledger = State(job.target), Target(job.target).ledger()
    assert read_job(job.path).fingerprint == ledger.fingerprints[0]
    assert read_job(job.path).fingerprint == state.jobs()[0]["fingerprint"]
    plan = (job.state / "plan.json").read_bytes()
    old, new = json.loads(plan), json.loads(Plan.from_json(plan).to_json())
    old_shape, new_shape = old.pop("layout"), new["layout"]
    assert new | old == new, "every key keeps its value; later versions may add some"
    assert new_shape | old_shape == new_shape


@pytest.mark.parametrize("stage", [*UNFINISHED, *FINISHED])
def test_every_receipt_of_an_earlier_version_is_read(stage, tmp_path):
    job = moved(stage, tmp_path)
    receipts = list(State(job.target).published_receipts())
    assert len(receipts) > len(Target(job.target).ledger().entries) - 1
    for receipt in receipts:
        assert read_receipt(write_receipt(receipt)) == receipt


@pytest.mark.parametrize("stage", ["format-2/unfinished", "format-2/finished"])
def test_receipts_and_ledger_of_format_2_keep_their_format(stage, tmp_path):
    job = moved(stage, tmp_path)
    for path in (job.state / "staged").glob("*.json"):
        old = json.loads(path.read_bytes())
        new = json.loads(write_receipt(read_receipt(path.read_bytes())))
        assert new | old == new, "every key keeps its value; later versions may add some"
    metadata = Target(job.target).open().schema.metadata[b"cfray.ledger"].decode()
    assert Target(job.target).ledger().to_json() == metadata
