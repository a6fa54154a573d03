"""What the receipt of the duplicates says has left is what is missing from the target.

The rows of a real dataset are hashed again and compared with the books.
"""

import pyarrow as pa
import pytest

from cfray.conversion import chunk_frames
from cfray.copying import duplicates
from cfray.copying.duplicates import Identities
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.errors import LimitReached
from cfray.frames.schema import frame_schema
from cfray.job.mapping import SourceShape
from cfray.sources.base import Shard
from cfray.target import commit
from cfray.target.books import Content, read_books
from cfray.target.creation import create_target
from cfray.target.origins import RowOrigins, by_entry
from cfray.target.receipts import LeftRows, ShardReceipt
from cfray.target.state import Plan, State

SCHEMA = frame_schema(2, [chunk_frames.FIELD])
SHAPE = SourceShape("files", "file:///x", 2, fixed=False, types={}, vectors={}, id_tag="i")
PLAN = Plan([Shard("a", {}), Shard("b", {})], SHAPE, "files", 4, exact=True, size=0)
#: Shard -> number of each document -> its chunks.  The row ids of the documents are 0, 3, 4 and 5.
DOCUMENTS = {"0": {0: 2, 1: 0}, "1": {0: 0, 2: 2}}


def frames_of(shard):
    rows = []
    for number, chunk_count in DOCUMENTS[shard].items():
        uuid = f"{number:08d}-0000-0000-0000-000000000000"
        common = {"vector": [float(number + 1), 0.0], "collection": "c", "collection_id": "h"}
        rows.append({"uuid": uuid, "title": f"{shard} {number}", **common})
        rows += [
            {
                "uuid": f"{number:08d}-0000-0000-{shard:0>4}-{chunk:012d}",
                "title": f"chunk {chunk}",
                chunk_frames.FIELD.name: uuid,
                **common,
            }
            for chunk in range(1, chunk_count + 1)
        ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


@pytest.fixture
def target(tmp_path):
    """Commit two shards; the first document of shard 1 has the uuid of that of shard 0."""
    target = create_target(str(tmp_path / "t.lance"), SCHEMA, {}, "f" * 64)
    state = State(target.uri)
    for name, documents in DOCUMENTS.items():
        tally = Tally()
        fragments, files = write_frames(target.uri, SCHEMA, [frames_of(name)], tally)
        receipt = ShardReceipt(
            name=name,
            shard=PLAN.shards[int(name)].id,
            nonce=new_nonce(),
            read=len(documents),
            staged=len(documents),
            frames=tally.frames,
            fragments=fragments,
            files=files,
            sums=tally.sums,
            centroids=tally.centroids(),
            counts={"derived_frames": sum(documents.values())},
        )
        commit.commit_receipts(target, [publish(state, receipt, [])])
    return target


def content_by_entry(target):
    """Hash every row of the target again: name of the entry -> its rows."""
    origins = RowOrigins(PLAN, target.ledger())
    content = {}
    columns = [name for name in SCHEMA.names if name != "raw_data"]
    for batch in target.open().scanner(columns=columns, with_row_id=True).to_batches():
        for name, rows in by_entry(batch, origins):
            content[name] = content.get(name, Content()) + Content.of(rows)
    return content


def remove(target, row_ids, allowed=10):
    identities = Identities(dict.fromkeys(row_ids, "same identity"), dangling=0)
    return duplicates.remove_duplicates(target, State(target.uri), PLAN, identities, allowed)


def test_a_duplicate_leaves_with_its_chunks_and_the_books_know_both(target):
    receipt = remove(target, [0, 4])
    assert {name: (left.records, left.chunks) for name, left in receipt.removed.items()} == {
        "0": (1, 2),
        "1": (1, 0),
    }
    books = read_books(State(target.uri), target.ledger())
    assert books.content == content_by_entry(target)
    assert books.read == books.staged + books.quarantined == 4
    assert books.frames == books.staged + books.counts["derived_frames"] == 4
    assert books.frames == target.open().count_rows()
    assert books.quarantine_files == {receipt.quarantine_file: 2}


def test_the_vectors_of_what_left_are_out_of_the_centroid(target):
    remove(target, [0, 4])
    vectors = target.open().to_table(columns=["vector"])["vector"].to_pylist()
    collection = read_books(State(target.uri), target.ledger()).collections["c"]
    assert collection.count == len(vectors)
    assert collection.total.tolist() == [sum(column) for column in zip(*vectors, strict=True)]


def test_too_many_duplicates_remove_nothing(target):
    before = content_by_entry(target)
    with pytest.raises(LimitReached):
        remove(target, [0, 4], allowed=1)
    assert content_by_entry(target) == before


def test_rows_that_left_add_up():
    left = LeftRows(1, 2, {"text": 2**64 - 1}) + LeftRows(1, 0, {"text": 3, "vector": 4})
    assert left == LeftRows(2, 2, {"text": 2, "vector": 4})


def test_a_shard_of_duplicates_alone_leaves_whole(target):
    """Lance refuses a commit that leaves a fragment out; so would a file and its copy be refused."""
    documents = target.open().to_table(
        columns=[], filter=f"{chunk_frames.FIELD.name} IS NULL", with_row_id=True
    )
    remove(target, documents["_rowid"].to_pylist()[len(DOCUMENTS["0"]) :])
    assert content_by_entry(target).keys() == {"0"}
    assert target.open().count_rows() == sum(1 + chunks for chunks in DOCUMENTS["0"].values())
    content = read_books(State(target.uri), target.ledger()).content
    assert (content["1"].rows, content["0"]) == (0, content_by_entry(target)["0"])
