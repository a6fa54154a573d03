"""A damaged file beside the target ends a command with an error, not with a traceback.

The error names the file and its remedy. The keys of these files are a contract with the files that
earlier versions wrote.
"""

import json
from dataclasses import replace

import pytest

from cfray.conversion.rejects import RejectedRow
from cfray.copying.write import publish
from cfray.errors import TargetError
from cfray.job.mapping import SourceShape
from cfray.joining.replay import quarantined_rows
from cfray.report.facts import Report
from cfray.sources.base import Session, Shard
from cfray.target import lease
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.receipts import ShardReceipt
from cfray.target.state import Plan, State

SHAPE = SourceShape("files", "file:///x", 4, fixed=False, types={}, vectors={}, id_tag="i")
PLAN = Plan([Shard("a", {})], SHAPE, "files", 2, exact=True, size=0)
RECEIPT = ShardReceipt(name="0", shard="a", nonce="n", read=2, staged=1, quarantined=1, frames=1)
LEDGER = Ledger(1, 1, 0, ("f",)).with_entry(EntryKind.SHARD, "0", 1, "n")


def read_quarantine(state):
    return list(quarantined_rows(state, LEDGER))


READS = {
    "plan.json": lambda state: state.plan(),
    "job.json": lambda state: state.jobs(),
    "lease.json": lambda state: lease.read(state.folder),
    "report.json": Report.load,
    "staged/0.n.json": lambda state: state.receipt("0", "n"),
    "quarantine/0.n.jsonl": read_quarantine,
    "sessions/view-0.json": lambda state: state.session("view-0"),
}
DAMAGES = {
    "empty": lambda _: b"",
    "blank": lambda _: b"\n",
    "cut": lambda data: data[: len(data) // 2],
    "cut at its end": lambda data: data.rstrip()[:-1],
    "not JSON": lambda _: b"\x00\xff\x00 no JSON",
    "another program's list": lambda _: b'["a", "b"]',
    "another program's object": lambda _: b'{"name": "other", "version": 3}',
    "a number": lambda _: b"7",
    "null": lambda _: b"null",
    "a text": lambda _: b'"text"',
}


@pytest.fixture
def state(tmp_path):
    state = State(str(tmp_path / "t.lance"))
    state.save_plan(PLAN)
    state.save_jobs([{"fingerprint": "f", "agreed": {"name": "j"}}])
    lease.Lease(state.folder).announce()
    Report("migrate", "j", state.target, "f", versions={}).save(state, as_latest=True)
    state.save_session(Session("view-0", "2026-11-28T20:00:00Z", "snapshot", state="secret"))
    publish(state, RECEIPT, [RejectedRow("read", "too long", "a, record 1", None, "x")])
    return state


@pytest.mark.parametrize("file", READS)
def test_an_undamaged_file_is_read(state, file):
    assert READS[file](state)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READS)
def test_a_damaged_file_is_named_with_a_remedy(state, tmp_path, file, damage):
    path = tmp_path / "t.lance.cfray" / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(TargetError) as refusal:
        READS[file](State(state.target))
    assert file in refusal.value.what
    assert refusal.value.remedy


@pytest.mark.parametrize("file", ["staged/0.n.json", "quarantine/0.n.jsonl"])
def test_a_file_that_the_ledger_needs_is_missed_by_name(state, tmp_path, file):
    (tmp_path / "t.lance.cfray" / file).unlink()
    with pytest.raises(TargetError, match="is missing") as refusal:
        read_quarantine(State(state.target))
    assert file in refusal.value.what


def test_a_quarantine_file_that_lost_a_line_is_noticed(state, tmp_path):
    row = RejectedRow("read", "too long", "a, record 1", None, "x")
    receipt = replace(RECEIPT, nonce="m", read=3, quarantined=2)
    publish(state, receipt, [row, row])
    path = tmp_path / "t.lance.cfray/quarantine/0.m.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    ledger = Ledger(1, 1, 0, ("f",)).with_entry(EntryKind.SHARD, "0", 1, "m")
    with pytest.raises(TargetError, match="1 lines, and 2 rows were quarantined"):
        list(quarantined_rows(state, ledger))


def test_a_receipt_under_another_receipts_name_is_refused(state, tmp_path):
    receipts_folder = tmp_path / "t.lance.cfray/staged"
    (receipts_folder / "0.n.json").rename(receipts_folder / "1.n.json")
    with pytest.raises(TargetError, match=r"is the receipt 0\.n"):
        state.receipt("1", "n")


def test_a_receipt_of_another_kind_than_its_entry_is_refused(state):
    ledger = Ledger(1, 1, 0, ("f",)).with_entry(EntryKind.REPLAY, "0", 1, "n")
    with pytest.raises(TargetError, match="of the kind shard, its entry of the kind replay"):
        list(state.committed_receipts(ledger))


def test_a_damaged_lease_says_how_to_remove_it_safely(state, tmp_path):
    (tmp_path / "t.lance.cfray/lease.json").write_bytes(b"")
    with pytest.raises(TargetError) as refusal:
        lease.wait_until_free(state.folder)
    assert "no cfray command is working on this target" in refusal.value.remedy


def test_receipts_of_one_target_are_forgotten_with_its_state(state):
    assert state.receipt("0", "n") is state.receipt("0", "n")
    assert State(state.target).receipt("0", "n") is not state.receipt("0", "n")


def test_json_keys_on_disk_stay_as_earlier_versions_wrote_them(state, tmp_path):
    folder = tmp_path / "t.lance.cfray"
    assert set(json.loads((folder / "plan.json").read_bytes())) == {
        *("shards", "layout", "consistency", "rows", "exact", "size", "metric", "notes", "facts"),
        *("recipe", "expected", "fingerprint", "tokenizer", "epoch", "marks", "extensions"),
    }
    assert set(json.loads((folder / "quarantine/0.n.jsonl").read_bytes())) == {
        *("stage", "reason", "position", "id", "content", "record", "collection", "form"),
    }
    assert set(json.loads((folder / "staged/0.n.json").read_bytes())) == {
        *("v", "kind", "name", "nonce", "files", "counts", "seconds", "size"),
        *("frames", "fragments", "sums"),
        *("shard", "read", "staged", "quarantined", "centroids", "session", "epoch", "raw_sum"),
    }
    assert set(json.loads((folder / "sessions/view-0.json").read_bytes())) == {
        *("id", "began", "consistency", "lost"),
    }
    assert State(state.target).plan() == PLAN
