"""What the receipt of an embedding says is what ``verify`` reads after the swap.

Each test makes the vectors of a small real target and reads every row of it again.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from cfray.conversion.rejects import RejectedRow
from cfray.errors import TargetUnavailable
from cfray.frames.schema import ORIGIN
from cfray.joining.headers import write_headers
from cfray.target.quarantine_counts import reasons_now
from tests.embedding.letters import DIMENSION, vector_of
from tests.embedding.small_targets import copy_target, is_chunk, job_of

LONG = " ".join(f"word{number}" for number in range(12))
#: A text whose document the model embeds, for it does not see the poison; a chunk of it is refused.
DEEP_POISON = f"{LONG} poison"
SHARDS = [
    [{"id": "a", "body": "tea at six"}, {"id": "b", "body": None}, {"id": "c", "body": "poison"}],
    [{"id": "d", "body": "some toast"}, {"id": "e", "body": "tea at six"}],
    [{"id": "f", "body": "poison"}, {"id": "g", "body": "poison at tea"}],
]
COLUMNS = {"name": {"of": "title"}, "half": {"of": "vector", "dtype": "float16"}}


def check_books(small, *, read, quarantined, chunks=0):
    """Compare the books with every row that is in the target."""
    books = small.books
    assert {name: content for name, content in books.content.items() if content.rows} == (
        small.content()
    )
    assert books.read == read == books.staged + books.quarantined
    assert books.quarantined == quarantined
    assert books.frames == books.staged + chunks
    assert books.counts["derived_frames"] == chunks
    documents = [
        row for row in small.rows("record_type").values() if row["record_type"] == "document"
    ]
    assert len(documents) == books.frames
    check_origins(small)
    check_centroid(small)


def check_origins(small):
    """Compare what is counted of the vectors with the column that says how each was made."""
    rows = small.rows("record_type", ORIGIN).values()
    made = Counter(row[ORIGIN] for row in rows if row["record_type"] == "document")
    expected = Counter({"missing_vectors": made.pop(None, 0)})
    for origin, count in made.items():
        expected[f"vectors_{origin.split(' ')[0]}"] += count
    assert {name: small.books.counts[name] for name in expected} == expected


def check_centroid(small):
    """Compare the collection's sum with the vectors that count: those that are not zeros."""
    rows = small.rows("vector", "record_type").values()
    vectors = [row["vector"] for row in rows if row["record_type"] == "document" and row["vector"]]
    counted = np.array([vector for vector in vectors if any(vector)])
    collection = small.books.collections["c"]
    assert collection.count == len(counted)
    assert collection.total == pytest.approx(counted.sum(axis=0), rel=1e-6)


def lines_of(small, receipt):
    """Read the quarantine file of an embedding."""
    data = small.state.quarantine.read(receipt.quarantine_file) or b""
    return [RejectedRow.from_line(line) for line in data.splitlines()]


def test_every_vector_is_replaced_and_the_sums_are_those_of_the_rows(tmp_path):
    small = copy_target(tmp_path, SHARDS[:1])
    assert small.dataset.schema.field("vector").type.list_size == 1
    receipt = small.second_line().run(rows=2)
    assert small.dataset.schema.field("vector").type.list_size == DIMENSION
    assert receipt.quarantined == 1
    vectors = {row["title"]: row["vector"] for row in small.rows("title", "vector").values()}
    assert vectors == {"a": vector_of("tea at six").tolist(), "b": [0.0] * DIMENSION}
    check_books(small, read=3, quarantined=1)


def test_refused_rows_leave_and_a_whole_shard_with_them(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    refused_rows = small.row_ids("c", "f", "g")
    receipt = small.second_line().run()
    assert {name: (left.records, left.chunks) for name, left in receipt.left.items()} == {
        "0": (1, 0),
        "2": (2, 0),
    }
    assert set(refused_rows).isdisjoint(small.rows("uuid"))
    assert small.dataset.count_rows() == 4
    check_books(small, read=7, quarantined=3)
    assert reasons_now(small.books, small.state) == {
        "the model gave a vector with NaN or an infinite number": 3
    }


def test_a_flipped_bit_in_a_computed_piece_reaches_no_target(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    line = small.second_line()
    computed = line.pieces()
    (piece, receipt), *_ = computed.values()
    folder, name = line.task.scratch.child(piece.name), receipt.files[0].name
    content = bytearray(folder.read(name) or b"")
    content[len(content) // 2] ^= 1
    folder.publish(name, bytes(content))
    removal = line.removal(line.refused(computed))
    with pytest.raises(TargetUnavailable, match=f"{name} is damaged"):
        line.join(computed, removal)
    small.second_line().run()
    check_books(small, read=7, quarantined=3)


def test_what_left_is_in_quarantine_as_a_frame(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    before = small.rows()
    (row_id,) = small.row_ids("c")
    receipt = small.second_line().run()
    rows = lines_of(small, receipt)
    assert {(row.stage, row.form) for row in rows} == {("embed", "frame")}
    assert [row.id for row in rows] == ["c", "f", "g"]
    assert rows[0].content["uuid"] == before[row_id]["uuid"]
    assert rows[0].content["text_content"] == "poison"
    assert "shard 0, frame 2" in rows[0].position


def test_added_columns_are_in_the_sums(tmp_path):
    small = copy_target(tmp_path, SHARDS, columns=COLUMNS)
    small.second_line().run()
    names = small.dataset.schema.names
    assert "x_vector_name" in names
    assert "x_vector_half" in names
    row = next(row for row in small.rows().values() if row["title"] == "a")
    assert row["x_vector_name"] == vector_of("a").tolist()
    assert row["x_vector_half"] == pa.array(vector_of("tea at six").astype(np.float16)).to_pylist()
    check_books(small, read=7, quarantined=3)


def test_a_refused_chunk_refuses_its_document_and_the_other_chunks(tmp_path):
    records = [
        {"id": "a", "body": LONG},
        {"id": "b", "body": DEEP_POISON},
        {"id": "c", "body": "tea"},
    ]
    small = copy_target(tmp_path, [records], chunk={"tokens": 8})
    texts = [row["text_content"] for row in small.rows().values() if is_chunk(row)]
    chunks_of_a, chunks_of_b = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    receipt = small.second_line().run(rows=2)
    left = receipt.left["0"]
    assert (left.records, left.chunks) == (1, len(chunks_of_b))
    (row,) = lines_of(small, receipt)
    assert row.id == "b"
    assert row.reason.startswith(f"chunk {len(chunks_of_b) - 1}: ")
    remaining = list(small.rows().values())
    assert [row["title"] for row in remaining if not is_chunk(row)] == ["a", "c"]
    assert [row["text_content"] for row in remaining if is_chunk(row)] == chunks_of_a
    check_books(small, read=3, quarantined=1, chunks=len(chunks_of_a))


def test_a_refused_document_takes_its_chunks_with_it(tmp_path):
    records = [{"id": "a", "body": f"poison {LONG}"}, {"id": "b", "body": "tea"}]
    small = copy_target(tmp_path, [records], chunk={"tokens": 8})
    line = small.second_line()
    (row_id,) = small.row_ids("a")
    removal = line.removal({row_id: "why"})
    assert removal.reasons == {row_id: "why"}
    assert len(removal.row_ids) == small.dataset.count_rows() - 1
    assert len(removal.rejected) == 1


def test_a_deletion_after_the_computing_voids_no_piece(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    first = small.second_line().pieces()
    small.remove("a", "e")
    line = small.second_line()
    removal = line.removal(line.refused(first))
    line.swap(first, removal, line.join(first, removal))
    titles = [row["title"] for row in small.rows("title").values()]
    assert titles == ["b", "d"]
    check_books(small, read=7, quarantined=5)


def test_a_deletion_after_the_join_is_noticed(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    line = small.second_line()
    computed = line.pieces()
    removal = line.removal(line.refused(computed))
    joined = line.join(computed, removal)
    small.remove("a")
    with pytest.raises(TargetUnavailable, match="while its vectors were being made"):
        line.swap(computed, removal, joined)
    assert small.target.recipe().policy == "keep"


def test_a_finished_target_is_embedded_anew_with_its_headers(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    small.second_line().run()
    write_headers(small.run())
    check_books(small, read=7, quarantined=3)
    other = job_of(small.target.uri, columns=COLUMNS, reduce={"method": "truncate", "dimension": 3})
    receipt = small.second_line(other).run(rows=2)
    assert (receipt.quarantined, receipt.left) == (0, {})
    assert small.target.ledger().fingerprints[-1] == other.fingerprint
    check_books(small, read=7, quarantined=3)
    (header,) = [row for row in small.rows().values() if row["record_type"] == "collection_header"]
    collection = small.books.collections["c"]
    assert header["vector"] == pytest.approx(collection.total / collection.count)


def test_keep_with_reduce_keeps_every_other_column(tmp_path):
    records = [
        {"id": "a", "body": "tea", "vector": [0.6, 0.8]},
        {"id": "b", "body": "seat", "vector": None},
    ]
    reduce = {"method": "truncate", "dimension": 1}
    small = copy_target(tmp_path, [records], "keep", reduce=reduce, missing_vector="null")
    before = small.rows()
    small.second_line().run()
    after = small.rows()
    assert [row.pop("vector") for row in after.values()] == [[1.0], None]
    assert [row.pop("vector") for row in before.values()] == [pytest.approx([0.6, 0.8]), [0.0] * 2]
    assert after == before
    assert [row[ORIGIN] for row in after.values()] == ["kept", None]
    check_books(small, read=2, quarantined=0)
