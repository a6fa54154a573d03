"""A row's id tells which entry of the ledger it belongs to.

A row that another writer added belongs to no entry.
"""

import pyarrow as pa
import pytest

from cfray.job.mapping import SourceShape
from cfray.sources.base import Shard
from cfray.target.ledger import Entry, EntryKind, Ledger
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.state import Plan


@pytest.fixture
def origins():
    """Assign rows 2 to 4 to shard 0, and rows 7 and 8 to a replay; the other rows are foreign."""
    shape = SourceShape("files", "file:///x", 4, fixed=False, types={}, vectors={}, id_tag="i")
    plan = Plan([Shard("a", {}), Shard("b", {})], shape, "files", 9, exact=True, size=0)
    entries = {
        "replay-0001": Entry(EntryKind.REPLAY, 7, 2, "n"),
        "0": Entry(EntryKind.SHARD, 2, 3, "n"),
        "embed-0001": Entry(EntryKind.EMBED, 9, 0, "n"),
    }
    return RowOrigins(plan, Ledger(1, 1, 9, ("f",), entries))


def test_every_row_has_its_entry(origins):
    names = [None, None, "0", "0", "0", None, None, "replay-0001", "replay-0001", None]
    assert [origins.name(row_id) for row_id in range(10)] == names


def test_positions_are_for_people(origins):
    assert origins.position(3) == "a, frame 1"
    assert origins.position(8) == "replay-0001, frame 1"
    assert origins.position(5) == "row id 5"


def test_shards_come_before_replays_and_foreign_rows(origins):
    assert sorted(range(10), key=origins.order)[:3] == [2, 3, 4]


def test_foreign_rows_between_two_entries_in_one_batch_belong_to_neither(origins):
    batch = pa.record_batch(
        {"text": list("abcdefghij"), "_rowid": pa.array(range(10), pa.uint64())}
    )
    runs = [
        (name, "".join(rows.column("text").to_pylist())) for name, rows in by_entry(batch, origins)
    ]
    assert runs == [("", "ab"), ("0", "cde"), ("", "fg"), ("replay-0001", "hi"), ("", "j")]


def test_without_any_entry_every_row_is_foreign():
    shape = SourceShape("files", "file:///x", 4, fixed=False, types={}, vectors={}, id_tag="i")
    plan = Plan([], shape, "files", 0, exact=True, size=0)
    origins = RowOrigins(plan, Ledger(1, 1, 0, ("f",)))
    batch = pa.record_batch({"_rowid": pa.array([0, 1], pa.uint64()), "text": ["a", "b"]})
    assert [(name, rows.num_rows) for name, rows in by_entry(batch, origins)] == [("", 2)]
