"""A commit moves data and ledger in a single version of the dataset.

Each run depends on this operation of Lance, so the tests call the installed pylance: they must
fail after an upgrade that breaks it.
"""

import json
from dataclasses import replace
from datetime import timedelta

import lance
import pyarrow as pa
import pytest
from lance.fragment import write_fragments

from cfray.copying.write import Tally, staged_files, write_frames
from cfray.errors import LeaseHeld, LedgerMismatch, TargetError
from cfray.frames.schema import frame_schema
from cfray.target import commit
from cfray.target.commit import without_rows
from cfray.target.creation import create_target, find_target
from cfray.target.ledger import EntryKind
from cfray.target.receipts import ShardReceipt, StagedFile

SCHEMA = frame_schema(4)


def frames(number, count=10):
    rows = [
        {
            "uuid": f"{number:08d}-0000-0000-0000-{row:012d}",
            "title": f"{number} {row}",
            "vector": [float(row)] * 4,
            "collection": "c",
            "collection_id": "h",
        }
        for row in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def stage_shard(target, name, count=10):
    """Write a shard as a worker does, and return its receipt."""
    tally = Tally()
    fragments, files = write_frames(target.uri, SCHEMA, [frames(int(name), count)], tally)
    return ShardReceipt(
        name=name,
        shard=f"shard {name}",
        nonce=f"nonce{name}",
        read=count,
        staged=count,
        frames=count,
        fragments=fragments,
        files=files,
        sums=tally.sums,
    )


@pytest.fixture
def target(tmp_path):
    return create_target(
        str(tmp_path / "t.lance"), SCHEMA, {"cfray.types": '{"a":"int64"}'}, "f" * 64
    )


def row_ids(target):
    return target.open().to_table(columns=["uuid"], with_row_id=True)["_rowid"].to_pylist()


def test_data_and_ledger_move_in_one_version(target):
    version = target.open().version
    assert commit.commit_receipts(target, [stage_shard(target, "0"), stage_shard(target, "1")]) == [
        "0",
        "1",
    ]
    assert target.open().version == version + 1
    assert target.open().count_rows() == 20
    assert {name: (entry.start, entry.rows) for name, entry in target.ledger().entries.items()} == {
        "0": (0, 10),
        "1": (10, 10),
    }
    assert json.loads(target.open().schema.metadata[b"cfray.types"]) == {"a": "int64"}


def test_a_receipt_committed_twice_adds_nothing(target):
    receipt = stage_shard(target, "0")
    commit.commit_receipts(target, [receipt])
    version = target.open().version
    assert commit.commit_receipts(target, [receipt]) == []
    assert (target.open().count_rows(), target.open().version) == (10, version)


def test_the_same_merge_is_refused_the_second_time(target):
    dataset = target.open()
    fragments = write_fragments(frames(7), target.uri, schema=SCHEMA, mode="append")
    ledger = replace(target.ledger(), next_row=10)
    assert commit._merge(dataset, ledger, fragments, None)
    assert not commit._merge(dataset, ledger, fragments, None)
    assert target.open().count_rows() == 10


def test_a_foreign_append_is_kept_and_row_ids_stay_true(target):
    commit.commit_receipts(target, [stage_shard(target, "0")])
    lance.write_dataset(pa.table(frames(99, 5)), target.uri, mode="append")
    commit.commit_receipts(target, [stage_shard(target, "1")])
    assert target.open().count_rows() == 25
    entry = target.ledger().entries["1"]
    assert (entry.start, entry.rows) == (15, 10)
    assert row_ids(target)[-10:] == list(range(15, 25))


@pytest.mark.parametrize("foreign_rows", [1, 5])
def test_row_ids_stay_true_after_foreign_rows_before_the_first_shard(target, foreign_rows):
    lance.write_dataset(pa.table(frames(99, foreign_rows)), target.uri, mode="append")
    commit.commit_receipts(target, [stage_shard(target, "0")])
    assert target.ledger().entries["0"].start == foreign_rows
    assert row_ids(target)[foreign_rows:] == list(range(foreign_rows, foreign_rows + 10))


def test_row_ids_stay_true_when_a_run_takes_over_after_a_foreign_append(target):
    commit.commit_receipts(target, [stage_shard(target, "0")])
    lance.write_dataset(pa.table(frames(99, 3)), target.uri, mode="append")
    target = commit.take_over(target.uri)
    commit.commit_receipts(target, [stage_shard(target, "1")])
    assert target.ledger().entries["1"].start == 13
    assert row_ids(target)[-10:] == list(range(13, 23))


def test_row_ids_stay_true_after_foreign_rows_that_were_deleted_again(target):
    commit.commit_receipts(target, [stage_shard(target, "0")])
    lance.write_dataset(pa.table(frames(99, 3)), target.uri, mode="append")
    target.open().delete("uuid LIKE '00000099%'")
    commit.commit_receipts(target, [stage_shard(target, "1")])
    assert target.ledger().entries["1"].start == 13
    assert row_ids(target)[-10:] == list(range(13, 23))


def test_row_ids_stay_true_after_foreign_rows_whose_version_was_removed(target):
    commit.commit_receipts(target, [stage_shard(target, "0")])
    lance.write_dataset(pa.table(frames(99, 3)), target.uri, mode="append")
    target.open().create_scalar_index("uuid", "BTREE")
    target.open().cleanup_old_versions(older_than=timedelta(0), retain_versions=1)
    assert len(target.open().versions()) == 1
    commit.commit_receipts(target, [stage_shard(target, "1")])
    assert row_ids(target)[-10:] == list(range(13, 23))
    assert target.ledger().entries["1"].start == 13


def test_row_ids_stay_true_after_a_compaction_and_an_index(target):
    commit.commit_receipts(target, [stage_shard(target, "0"), stage_shard(target, "1")])
    target.open().create_scalar_index("uuid", "BTREE")
    target.open().optimize.compact_files()
    commit.commit_receipts(target, [stage_shard(target, "2")])
    assert target.ledger().entries["2"].start == 20
    assert row_ids(target) == list(range(30))


def test_stable_row_ids_and_index_coverage_survive(target):
    commit.commit_receipts(target, [stage_shard(target, "0")])
    target.open().create_scalar_index("uuid", "BTREE")
    row_ids_before = row_ids(target)
    commit.commit_receipts(target, [stage_shard(target, "1")])
    assert row_ids(target)[:10] == row_ids_before
    assert target.open().count_rows("uuid = '00000001-0000-0000-0000-000000000003'") == 1


def test_rows_are_deleted_and_the_ledger_changed_in_one_version(target):
    commit.commit_receipts(target, [stage_shard(target, "0"), stage_shard(target, "1")])
    version = target.open().version
    commit.commit(
        target,
        lambda ledger: ledger.with_entry(EntryKind.DUPLICATES, "duplicates", 0, "n"),
        rewrite=lambda dataset: without_rows(dataset, [3, 14]),
    )
    assert target.open().version == version + 1
    assert row_ids(target) == [row for row in range(20) if row not in (3, 14)]
    assert target.open().checkout_version(version).count_rows() == 20


def test_an_older_holder_is_refused_and_adds_nothing(target):
    receipt = stage_shard(target, "0")
    newer = commit.take_over(target.uri)
    with pytest.raises(LeaseHeld):
        commit.commit_receipts(target, [receipt])
    assert newer.open().count_rows() == 0
    assert commit.commit_receipts(newer, [receipt]) == ["0"]


def test_only_one_of_two_takeovers_from_the_same_version_wins(target):
    dataset = target.open()
    ledger = target.ledger()
    assert commit._merge(dataset, replace(ledger, epoch=2), [], None)
    assert not commit._merge(dataset, replace(ledger, epoch=2), [], None)


def test_a_staged_file_that_is_gone_is_refused_before_the_commit(target, tmp_path):
    receipt = stage_shard(target, "0")
    (tmp_path / "t.lance" / receipt.files[0].path).unlink()
    with pytest.raises(TargetError, match="missing"):
        commit.commit_receipts(target, [receipt])
    assert target.ledger().entries == {}


def test_a_staged_file_of_another_size_is_refused(target):
    receipt = stage_shard(target, "0")
    longer = replace(
        receipt, files=[StagedFile(receipt.files[0].path, receipt.files[0].size + 1, "")]
    )
    with pytest.raises(TargetError):
        commit.commit_receipts(target, [longer])


def test_creating_twice_is_refused(target):
    with pytest.raises(LeaseHeld):
        create_target(target.uri, SCHEMA, {}, "e" * 64)


def test_a_dataset_of_somebody_else_is_refused_untouched(tmp_path):
    uri = str(tmp_path / "other.lance")
    lance.write_dataset(pa.table({"a": [1]}), uri)
    with pytest.raises(LedgerMismatch, match="did not make"):
        find_target(uri)
    assert lance.dataset(uri).version == 1


@pytest.mark.parametrize("content", ["file", "folder"])
def test_something_that_is_no_dataset_is_refused_untouched(tmp_path, content):
    path = tmp_path / "thing"
    if content == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "x").write_text("mine")
    with pytest.raises(LedgerMismatch):
        find_target(str(path))
    assert (path if content == "file" else path / "x").read_text() == "mine"


def test_an_empty_folder_is_no_target_yet(tmp_path):
    (tmp_path / "empty").mkdir()
    assert find_target(str(tmp_path / "empty")) is None


def test_the_ledger_survives_compaction_and_cleanup(target):
    commit.commit_receipts(target, [stage_shard(target, "0"), stage_shard(target, "1")])
    target.open().optimize.compact_files()
    target.open().cleanup_old_versions(retain_versions=1)
    assert set(target.ledger().entries) == {"0", "1"}
    assert row_ids(target) == list(range(20))


def test_fragments_travel_as_json(target):
    fragments, files = write_frames(target.uri, SCHEMA, [frames(1)], Tally())
    assert json.loads(json.dumps(fragments)) == fragments
    assert files == staged_files(target.uri, fragments)
