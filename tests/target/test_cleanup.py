"""A cleanup counts the files and bytes that it removes.

It must not remove the files of a shard that is staged and not yet committed.
"""

import pathlib

import pyarrow as pa
import pytest

from cfray.copying.write import Tally, write_frames
from cfray.frames.schema import frame_schema
from cfray.target import commit
from cfray.target.cleanup import clean_up
from cfray.target.creation import create_target
from cfray.target.ledger import EntryKind
from cfray.target.receipts import ShardReceipt
from cfray.target.state import State

SCHEMA = frame_schema(4)


def stage(target, name):
    rows = [
        {
            "title": name,
            "uuid": f"{name}0000000-0000-0000-0000-{row:012d}",
            "vector": [float(row)] * 4,
            "collection": "c",
            "collection_id": "h",
        }
        for row in range(3)
    ]
    tally = Tally()
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    fragments, files = write_frames(target.uri, SCHEMA, [batch], tally)
    receipt = ShardReceipt(
        name=name,
        shard=name,
        nonce="n",
        frames=3,
        fragments=fragments,
        files=files,
        sums=tally.sums,
    )
    State(target.uri).publish_receipt(receipt)
    return receipt


@pytest.fixture
def target(tmp_path):
    """Create a target of many versions: three shards, indices, deletions and a compaction."""
    target = create_target(str(tmp_path / "t.lance"), SCHEMA, {}, "f" * 64)
    for name in "012":
        commit.commit_receipts(target, [stage(target, name)])
    target.open().create_scalar_index("uuid", "BTREE")
    target.open().delete("uuid LIKE '%000000001'")
    target.open().optimize.compact_files()
    target.open().create_scalar_index("uuid", "BTREE", replace=True)
    return target


def sizes(target):
    return {
        path: path.stat().st_size for path in pathlib.Path(target.uri).rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("keep_versions", [None, 1, 3])
def test_files_and_bytes_are_counted_as_they_disappear(target, keep_versions):
    (pathlib.Path(target.uri) / "data/orphan.lance").write_bytes(b"12345")
    sizes_before = sizes(target)
    removed = clean_up(target, State(target.uri), keep_versions)
    sizes_after = sizes(target)
    removed_sizes = [size for path, size in sizes_before.items() if path not in sizes_after]
    assert (removed.files, removed.bytes) == (len(removed_sizes), sum(removed_sizes))
    assert (removed.files > 1) == (keep_versions is not None)


def test_a_staged_shard_is_no_orphan(target):
    receipt = stage(target, "3")
    clean_up(target, State(target.uri), 1)
    assert commit.commit_receipts(target, [receipt]) == ["3"]
    assert target.open().count_rows() == 9


def test_folders_of_killed_runs_leave_the_scratch_folder_and_lists_of_ids_stay(target):
    scratch = State(target.uri).scratch
    scratch.publish("ids.json", b"[]")
    for name in ("starts-1/0", "identities-1"):
        scratch.child(name).publish("0", b"")
    clean_up(target, State(target.uri), None)
    assert [path.name for path in pathlib.Path(scratch.uri).iterdir()] == ["ids.json"]


def test_pieces_of_vectors_leave_the_scratch_folder_when_their_entry_is_committed(target):
    """A run that is killed right behind that commit leaves them; the next entry's are in use."""
    scratch = State(target.uri).scratch
    for name in ("embed-0001", "embed-0002", "replay-0001"):
        scratch.publish(f"{name}-f00d.json", b"{}")
        scratch.child(f"{name}-f00d-/receipts").publish("piece.json", b"{}")
    commit.commit(target, lambda ledger: ledger.with_entry(EntryKind.EMBED, "embed-0001", 0, "n"))
    clean_up(target, State(target.uri), None)
    names = {path.name for path in pathlib.Path(scratch.uri).iterdir()}
    assert names == {
        *("embed-0002-f00d.json", "embed-0002-f00d-"),
        *("replay-0001-f00d.json", "replay-0001-f00d-"),
    }
