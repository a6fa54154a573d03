"""The books add up the receipts of a ledger's entries.

Each record stays either staged or quarantined, whichever entries moved it, and the sums are those
of the rows that the target holds now.
"""

import base64
from dataclasses import replace

import numpy as np
import pytest

from cfray.errors import LedgerMismatch
from cfray.target import books
from cfray.target.books import Content, EntryKind, RemovedRows, add_up
from cfray.target.ledger import Ledger
from cfray.target.quarantine_counts import count_name, reasons_now
from cfray.target.receipts import Receipt, data_file_of

QUARANTINE_FILE = "0.n0.jsonl"


def centroid(count, *sums):
    return count, "header uuid", base64.b64encode(np.array(sums, np.float64).tobytes()).decode()


SHARD = Receipt(
    "0",
    "shard a",
    "n0",
    read=10,
    staged=8,
    quarantined=2,
    frames=9,
    sums={"text": 5, "vector": 7},
    centroids={"c": centroid(8, 8.0, 16.0)},
    counts={"vectors_kept": 8, "derived_frames": 1, "quarantined: too long": 2},
)
DUPLICATES = Receipt(
    "duplicates",
    "duplicates",
    "n1",
    quarantined=1,
    centroids={"c": centroid(-1, -1.0, 0.0)},
    counts={"quarantined: same identity as another record": 1, "derived_frames": -1},
    resolved={"0": {"rows": 2, "chunks": 1, "sums": {"text": 6, "vector": 2}}},
)
REPLAY = Receipt(
    "replay-0001",
    "replay-0001",
    "n2",
    staged=1,
    frames=1,
    sums={"text": 100, "vector": 100},
    centroids={"c": centroid(1, 1.0, 0.0)},
    resolved={QUARANTINE_FILE: [1]},
)
EMBED = Receipt(
    "embed-0001",
    "embed-0001",
    "n3",
    centroids={"c": centroid(8, 80.0, 0.0)},
    counts={"vectors_regenerated": 8},
    resolved={"0": {"vector": 11}, "replay-0001": {"vector": 12}, "": {"vector": 13}},
)
LATER_REPLAY = Receipt(
    "replay-0002",
    "replay-0002",
    "n4",
    staged=1,
    frames=1,
    sums={"vector": 1},
    resolved={QUARANTINE_FILE: [0]},
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("0", EntryKind.SHARD),
        ("1200", EntryKind.SHARD),
        ("headers", EntryKind.HEADERS),
        ("duplicates", EntryKind.DUPLICATES),
        ("replay-0001", EntryKind.REPLAY),
        ("embed-0012", EntryKind.EMBED),
        ("compaction-7", EntryKind.COMPACTION),
    ],
)
def test_a_name_tells_its_kind(name, kind):
    assert EntryKind.of(name) is kind


@pytest.mark.parametrize("name", ["", "merge-0001", "headers2"])
def test_a_name_that_a_newer_version_made_is_refused(name):
    with pytest.raises(LedgerMismatch, match="does not know"):
        EntryKind.of(name)


def test_the_next_name_follows_the_committed_entries():
    ledger = Ledger(1, 1, 0, ("f",)).with_entry("0", 5, "n").with_entry("replay-0001", 1, "m")
    assert books.next_entry_name(ledger, EntryKind.REPLAY) == "replay-0002"
    assert books.next_entry_name(ledger, EntryKind.EMBED) == "embed-0001"
    assert books.entry_names(ledger, EntryKind.SHARD) == ["0"]


def test_records_move_between_staged_and_quarantined_and_none_is_lost():
    for count, receipts in enumerate([[SHARD], [SHARD, DUPLICATES], [SHARD, DUPLICATES, REPLAY]]):
        total = add_up(receipts)
        assert total.read == total.staged + total.quarantined == 10
        assert (total.staged, total.quarantined) == [(8, 2), (7, 3), (8, 2)][count]
    assert total.frames == 8
    assert total.counts["derived_frames"] == 0
    assert total.counts["replayed"] == 1
    assert total.counts["quarantined: too long"] == 2


def test_content_lacks_what_duplicates_removed():
    content = add_up([SHARD, DUPLICATES, REPLAY]).content
    assert content["0"] == Content(7, {"text": 2**64 - 1, "vector": 5})
    assert content["replay-0001"] == Content(1, {"text": 100, "vector": 100})
    assert "duplicates" not in content


def test_an_embed_replaces_the_vectors_that_were_committed_before_it():
    total = add_up([SHARD, REPLAY, EMBED, LATER_REPLAY])
    assert total.content["0"].sums == {"text": 5, "vector": 11}
    assert total.content["replay-0001"].sums == {"text": 100, "vector": 12}
    assert total.content["replay-0002"].sums == {"vector": 1}
    assert set(total.content) == {"0", "replay-0001", "replay-0002"}
    assert "vectors_kept" not in total.counts
    assert total.counts["vectors_regenerated"] == 8
    assert total.embeds == 1


def test_centroids_are_of_the_vectors_as_they_are_now():
    before = add_up([SHARD, DUPLICATES, REPLAY]).collections["c"]
    assert (before.count, before.total.tolist()) == (8, [8.0, 16.0])
    assert before.centroid.tolist() == [1.0, 2.0]
    after = add_up([SHARD, DUPLICATES, REPLAY, EMBED]).collections["c"]
    assert (after.count, after.total.tolist()) == (8, [80.0, 0.0])


def test_replayed_lines_are_gathered_by_file():
    assert add_up([SHARD, REPLAY, LATER_REPLAY]).replayed == {QUARANTINE_FILE: {0, 1}}


def test_removed_rows_of_other_writers_do_not_stop_the_books():
    foreign = {"": RemovedRows(Content(1, {"text": 1})).to_json()}
    receipt = Receipt("duplicates", "duplicates", "n", quarantined=1, resolved=foreign)
    assert add_up([SHARD, receipt]).content["0"].rows == 9


def test_blob_files_belong_to_the_data_file_of_their_folder():
    assert data_file_of("data/x.lance") == data_file_of("data/x/1.blob") == "x"


def test_a_replayed_row_leaves_the_count_of_its_reason():
    replay = replace(REPLAY, counts={count_name("too long (5,000 characters)"): -1})
    added = add_up([SHARD, DUPLICATES, replay])
    assert reasons_now(added, None, None) == {"too long": 1, "same identity as another record": 1}
    assert sum(reasons_now(added, None, None).values()) == added.quarantined


def test_the_answer_of_the_source_is_in_the_books():
    answer = {"status": "fail", "detail": "9 read, the source counts 10", "asked": "2026"}
    receipt = Receipt("source-count", "source-count", "n9", resolved=answer)
    added = add_up([SHARD, receipt])
    assert added.source_count == books.SourceCount(**answer)
    assert added.content.keys() == {"0"}
    assert (added.read, added.frames) == (SHARD.read, SHARD.frames)
