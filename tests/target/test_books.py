"""The books add up the receipts of a ledger's entries.

Each record stays either staged or quarantined, whichever entries moved it, and the sums are those
of the rows that the target holds now.
"""

import base64
from dataclasses import replace

import numpy as np

from cfray.target.books import Content, add_up
from cfray.target.quarantine_counts import count_name, reasons_now
from cfray.target.receipts import (
    CompactionReceipt,
    DuplicatesReceipt,
    EmbedReceipt,
    HeadersReceipt,
    LeftRows,
    RepairReceipt,
    ReplayReceipt,
    ShardReceipt,
    SourceCountReceipt,
    SyncReceipt,
)

QUARANTINE_FILE = "0.n0.jsonl"


def centroid(count, *sums):
    return count, "header uuid", base64.b64encode(np.array(sums, np.float64).tobytes()).decode()


SHARD = ShardReceipt(
    name="0",
    shard="shard a",
    nonce="n0",
    read=10,
    staged=8,
    quarantined=2,
    frames=9,
    sums={"text": 5, "vector": 7},
    centroids={"c": centroid(8, 8.0, 16.0)},
    counts={"vectors_kept": 8, "derived_frames": 1, "quarantined: too long": 2},
)
SHARD_WITHOUT_VECTORS = replace(SHARD, centroids={})
DUPLICATES = DuplicatesReceipt(
    name="duplicates",
    nonce="n1",
    quarantined=1,
    centroids={"c": centroid(-1, -1.0, 0.0)},
    counts={"quarantined: same identity as another record": 1},
    removed={"0": LeftRows(1, 1, {"text": 6, "vector": 2})},
)
REPLAY = ReplayReceipt(
    name="replay-0001",
    nonce="n2",
    staged=1,
    frames=1,
    sums={"text": 100, "vector": 100},
    centroids={"c": centroid(1, 1.0, 0.0)},
    lines={QUARANTINE_FILE: [1]},
)
EMBED = EmbedReceipt(
    name="embed-0001",
    nonce="n3",
    centroids={"c": centroid(8, 80.0, 0.0)},
    counts={"vectors_regenerated": 8},
    vector_sums={"0": {"vector": 11}, "replay-0001": {"vector": 12}, "": {"vector": 13}},
)
#: An embed whose model refused the text of a record with two chunks, and that of a replayed record.
REFUSING_EMBED = replace(
    EMBED,
    quarantined=2,
    counts={"vectors_regenerated": 6, "quarantined: the model refused the text": 2},
    vector_sums={"0": {"vector": 11}},
    left={
        "0": LeftRows(1, 2, {"text": 4, "vector": 9}),
        "replay-0001": LeftRows(1, 0, {"text": 100, "vector": 100}),
    },
)
LATER_REPLAY = ReplayReceipt(
    name="replay-0002",
    nonce="n4",
    staged=1,
    frames=1,
    sums={"vector": 1},
    lines={QUARANTINE_FILE: [0]},
)


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


def test_a_repair_puts_rows_in_place_of_others():
    repair = RepairReceipt(
        name="repair-0001",
        nonce="n5",
        frames=2,
        sums={"text": 3, "vector": 9},
        counts={"rows_restored": 2},
        shard="0",
        left={"0": LeftRows(2, 0, {"text": 3, "vector": 4})},
    )
    before, after = add_up([SHARD]), add_up([SHARD, repair])
    assert after.content["0"] == Content(7, {"text": 2, "vector": 3})
    assert after.content["repair-0001"] == Content(2, {"text": 3, "vector": 9})
    assert after.repairs == {"0": ["repair-0001"]}
    for name in ("read", "staged", "quarantined", "frames"):
        assert getattr(before, name) == getattr(after, name)
    assert after.counts["rows_restored"] == 2


def test_a_sync_counts_the_source_anew_and_moves_rows():
    sync = SyncReceipt(
        name="sync-0001",
        nonce="n6",
        read=12,
        staged=11,
        quarantined=1,
        frames=4,
        sums={"text": 9, "vector": 9},
        counts={"derived_frames": 2, "quarantined: no id": 1},
        vector_counts={"vectors_kept": 3, "texts_embedded": 3},
        centroids={"c": centroid(2, -8.0, 4.0), "d": centroid(1, 3.0, 3.0)},
        left={"0": LeftRows(1, 1, {"text": 2, "vector": 3})},
        sessions={"s2": 3},
        emptied=["d"],
    )
    before, after = add_up([SHARD, REPLAY]), add_up([SHARD, REPLAY, sync])
    assert (after.read, after.staged, after.quarantined) == (12, 11, 1)
    assert after.quarantine_files == {"sync-0001.n6.jsonl": 1}
    assert after.replayed == {}
    assert (
        after.frames == before.frames + 4 - 2 == sum(item.rows for item in after.content.values())
    )
    assert after.content["0"] == Content(7, {"text": 3, "vector": 4})
    assert after.content["sync-0001"] == Content(4, {"text": 9, "vector": 9})
    assert after.counts == {
        "vectors_kept": 3,
        "texts_embedded": 3,
        "derived_frames": 2,
        "quarantined: no id": 1,
    }
    assert after.sessions == {"s2": 3}
    assert after.collections.keys() == {"c"}
    assert after.collections["c"].count == before.collections["c"].count + 2
    assert after.synced == sync
    assert after.source_count is None


def test_centroids_are_of_the_vectors_as_they_are_now():
    before = add_up([SHARD, DUPLICATES, REPLAY]).collections["c"]
    assert (before.count, before.total.tolist()) == (8, [8.0, 16.0])
    assert before.centroid.tolist() == [1.0, 2.0]
    after = add_up([SHARD, DUPLICATES, REPLAY, EMBED]).collections["c"]
    assert (after.count, after.total.tolist()) == (8, [80.0, 0.0])


def test_replayed_lines_are_gathered_by_file():
    assert add_up([SHARD, REPLAY, LATER_REPLAY]).replayed == {QUARANTINE_FILE: {0, 1}}


def test_removed_rows_of_other_writers_do_not_stop_the_books():
    foreign = {"": LeftRows(1, 0, {"text": 1})}
    receipt = DuplicatesReceipt(name="duplicates", nonce="n", quarantined=1, removed=foreign)
    assert add_up([SHARD, receipt]).content["0"].rows == 9


def test_a_replayed_row_leaves_the_count_of_its_reason():
    replay = replace(REPLAY, counts={count_name("too long (5,000 characters)"): -1})
    added = add_up([SHARD, DUPLICATES, replay])
    assert reasons_now(added, None) == {"too long": 1, "same identity as another record": 1}
    assert sum(reasons_now(added, None).values()) == added.quarantined


def test_the_answer_of_the_source_is_in_the_books():
    receipt = SourceCountReceipt(
        name="source-count",
        nonce="n9",
        status="fail",
        detail="9 read, the source counts 10",
        asked="2026",
        consistency="snapshot",
    )
    added = add_up([SHARD, receipt])
    assert added.source_count == receipt
    assert added.content.keys() == {"0"}
    assert (added.read, added.frames) == (SHARD.read, SHARD.frames)


def test_records_that_an_embed_refused_move_to_quarantine_with_their_chunks():
    before = add_up([SHARD, REPLAY])
    after = add_up([SHARD, REPLAY, REFUSING_EMBED])
    assert after.read == after.staged + after.quarantined == before.read
    assert (after.staged, after.quarantined) == (before.staged - 2, before.quarantined + 2)
    assert after.frames == before.frames - 4
    assert after.counts["derived_frames"] == before.counts["derived_frames"] - 2
    assert after.content["0"] == Content(6, {"text": 1, "vector": 11})
    assert after.content["replay-0001"] == Content(0, {"text": 0, "vector": 0})


def test_the_quarantine_knows_the_file_and_the_reason_of_what_an_embed_refused():
    added = add_up([SHARD, REFUSING_EMBED])
    assert added.quarantine_files == {QUARANTINE_FILE: 2, "embed-0001.n3.jsonl": 2}
    assert reasons_now(added, None) == {"too long": 2, "the model refused the text": 2}


def test_a_record_that_an_embed_refused_can_come_back():
    replay = replace(LATER_REPLAY, lines={REFUSING_EMBED.quarantine_file: [0]})
    added = add_up([SHARD, REPLAY, REFUSING_EMBED, replay])
    assert added.read == added.staged + added.quarantined == 10
    assert added.replayed[REFUSING_EMBED.quarantine_file] == {0}
    assert added.content["replay-0002"].rows == 1


def test_a_file_of_the_quarantine_is_known_only_where_a_row_was_refused():
    clean = replace(SHARD, name="1", nonce="n8", staged=10, quarantined=0)
    assert add_up([clean, SHARD, DUPLICATES]).quarantine_files == {
        QUARANTINE_FILE: 2,
        "duplicates.n1.jsonl": 1,
    }


def test_shards_are_counted_by_the_session_they_were_read_under():
    sessions = ["a", "", "a", "b"]
    shards = [
        replace(SHARD, name=str(number), session=session) for number, session in enumerate(sessions)
    ]
    assert add_up(shards).sessions == {"a": 2, "": 1, "b": 1}


def test_the_headers_that_were_written_last_are_in_the_books():
    headers = HeadersReceipt(name="headers", nonce="n", frames=2, stated={"records": 8})
    added = add_up([SHARD, headers])
    assert added.headers is headers
    assert added.content["headers"].rows == 2
    assert added.frames == SHARD.frames
    assert add_up([SHARD]).headers is None


def test_a_compaction_changes_nothing():
    before = add_up([SHARD_WITHOUT_VECTORS])
    assert (
        add_up([SHARD_WITHOUT_VECTORS, CompactionReceipt(name="compaction-3", nonce="n")]) == before
    )
