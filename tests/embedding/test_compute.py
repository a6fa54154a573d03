"""A piece is computed from physical rows: what is deleted or a header has zeros, and no refusal."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedding.compute import NEW, PieceReceipt, read_range, read_scratch
from cfray.embedding.pieces import divide, files_of, state_of
from cfray.errors import TargetError, TargetUnavailable
from cfray.frames.schema import ORIGIN
from cfray.joining.headers import write_headers
from tests.embedding.letters import DIMENSION, IDENTITY, vector_of
from tests.embedding.small_targets import copy_target, is_chunk

REGENERATED = f"regenerated model={IDENTITY.key[:16]}"
LONG = " ".join(f"word{number}" for number in range(12))
SHARDS = [
    [{"id": "a", "body": "tea at six"}, {"id": "b", "body": None}, {"id": "c", "body": "a seat"}],
    [{"id": "d", "body": "some toast"}, {"id": "e", "body": "tea at six"}],
]


def columns_of(line, piece, receipt):
    """Read the new columns of a piece, by the names of the target's columns."""
    folder = line.task.scratch.child(piece.name)
    tables = [
        pa.ipc.open_file(read_scratch(folder, file.name)).read_all() for file in receipt.files
    ]
    table = pa.concat_tables([item.replace_schema_metadata(None) for item in tables])
    return {name.removeprefix(NEW): table[name].to_pylist() for name in table.schema.names}


def computed_rows(line, rows=3):
    """Compute every piece; give the new columns of all physical rows, fragment by fragment."""
    made = [columns_of(line, *computed) for computed in line.pieces(rows).values()]
    return {name: [value for part in made for value in part[name]] for name in made[0]}


def test_every_document_has_the_models_vector(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    made = computed_rows(small.second_line())
    bodies = [record["body"] for shard in SHARDS for record in shard]
    expected = [vector_of(body).tolist() if body else [0.0] * DIMENSION for body in bodies]
    assert made["vector"] == expected
    assert made[ORIGIN] == [REGENERATED if body else None for body in bodies]


def test_the_rows_of_a_fragment_are_divided_and_none_is_left_out(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    pieces = divide(small.second_line().task, 2)
    assert [(piece.fragment, piece.first, piece.rows) for piece in pieces] == [
        (0, 0, 2),
        (0, 2, 1),
        (1, 0, 2),
    ]
    assert len({piece.name for piece in pieces}) == 3
    assert computed_rows(small.second_line(), 1) == computed_rows(small.second_line(), 100)


def test_deleted_rows_and_headers_have_zeros(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    write_headers(small.run())
    small.remove("a", "e")
    made = computed_rows(small.second_line())
    is_made = [bool(np.any(vector)) for vector in made["vector"]]
    #       a      b      c     d     e      the headers of the dataset and of its collection
    assert is_made == [False, False, True, True, False, False, False]
    assert [origin is not None for origin in made[ORIGIN]] == is_made


def test_a_deletion_names_no_other_piece(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    before, fragment = divide(small.second_line().task, 3), small.dataset.get_fragments()[0]
    small.remove("a")
    after, later = divide(small.second_line().task, 3), small.dataset.get_fragments()[0]
    assert before == after
    assert files_of(fragment.metadata) == files_of(later.metadata)
    assert state_of(fragment.metadata) != state_of(later.metadata)


def test_chunks_are_embedded_too(tmp_path):
    small = copy_target(tmp_path, [[{"id": "a", "body": LONG}]], chunk={"tokens": 8})
    rows = list(small.rows("text_content", "x_chunk_of").values())
    assert sum(map(is_chunk, rows)) > 1
    made = computed_rows(small.second_line())
    assert made["vector"] == [vector_of(row["text_content"]).tolist() for row in rows]


def test_a_refused_row_is_named_by_its_row_id(tmp_path):
    small = copy_target(tmp_path, SHARDS, missing_vector="null")
    small.remove("a")
    poisoned = copy_target(
        tmp_path / "poisoned", [SHARDS[0], [{"id": "x", "body": "poison"}, *SHARDS[1]]]
    )
    line = poisoned.second_line()
    refused = line.refused(line.pieces(2))
    assert list(refused) == poisoned.row_ids("x")
    assert "NaN" in next(iter(refused.values()))


def test_a_piece_is_there_with_its_receipt(tmp_path):
    line = copy_target(tmp_path, SHARDS).second_line()
    for name, (piece, receipt) in line.pieces().items():
        (file,) = [file for file in line.task.receipts.list_names() if file.startswith(name)]
        assert PieceReceipt.read(line.task.receipts, file, of=name) == receipt
        assert sum(file.rows for file in receipt.files) == piece.rows


def test_of_two_attempts_either_receipt_will_do(tmp_path):
    line = copy_target(tmp_path, SHARDS).second_line()
    (piece, _), *_ = line.pieces().values()
    again = line.compute(piece)
    receipts = [
        PieceReceipt.read(line.task.receipts, file, of=piece.name)
        for file in line.task.receipts.list_names()
        if file.startswith(piece.name)
    ]
    assert len(receipts) == 2
    assert again in receipts
    columns = [columns_of(line, piece, receipt) for receipt in receipts]
    assert columns[0] == columns[1]


def test_figures_are_those_of_the_files(tmp_path):
    line = copy_target(tmp_path, SHARDS).second_line()
    counts = [receipt.counts for _, receipt in line.pieces().values()]
    assert sum(count["texts_embedded"] for count in counts) == 4


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{}",
        b'{"piece": 1, "files": 3, "refused": {}}',
        b'{"piece": "q", "files": [], "refused": {}, "counts": {}}',
    ],
)
def test_a_receipt_that_is_damaged_or_another_pieces_is_named(tmp_path, damage):
    line = copy_target(tmp_path, SHARDS).second_line()
    line.task.receipts.publish("p.n.json", damage)
    with pytest.raises(TargetError, match=r"p\.n\.json"):
        PieceReceipt.read(line.task.receipts, "p.n.json", of="p")


def test_a_receipt_that_is_gone_is_worth_another_try(tmp_path):
    line = copy_target(tmp_path, SHARDS).second_line()
    with pytest.raises(TargetUnavailable, match="was removed during the run"):
        PieceReceipt.read(line.task.receipts, "p.n.json", of="p")


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut", "gone"])
def test_a_piece_whose_file_is_gone_or_damaged_is_forgotten(tmp_path, damage):
    line = copy_target(tmp_path, SHARDS).second_line()
    (piece, receipt), *_ = line.pieces().values()
    folder, (file,) = line.task.scratch.child(piece.name), receipt.files
    content = bytearray(read_scratch(folder, file.name))
    content[len(content) // 2] ^= 1
    if damage == "gone":
        folder.remove(file.name)
    else:
        folder.publish(file.name, bytes(content if damage == "a flipped bit" else content[:-1]))
    with pytest.raises(TargetUnavailable, match="computes them anew"):
        read_range(line.task, piece, file)
    assert not [name for name in line.task.receipts.list_names() if name.startswith(piece.name)]
    assert columns_of(line, piece, line.compute(piece))["vector"]


def test_vectors_that_the_model_has_made_already_are_left_alone(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    small.second_line().run()
    line = small.second_line()
    counts = [receipt.counts for _, receipt in line.pieces().values()]
    assert sum(count.get("vectors_left_alone", 0) for count in counts) == 4
    assert sum(count.get("texts_embedded", 0) for count in counts) == 0
    assert computed_rows(line)["vector"] == [row["vector"] for row in small.rows("vector").values()]


def test_another_job_and_another_map_have_other_folders(tmp_path):
    small = copy_target(tmp_path, SHARDS)
    other_job = small.job.model_copy(
        update={"embedding": small.job.embedding.model_copy(update={"missing_vector": "null"})}
    )
    folders = {
        small.second_line().task.scratch.uri,
        small.second_line(other_job).task.scratch.uri,
        small.second_line(map="f" * 64).task.scratch.uri,
    }
    assert len(folders) == 3


def test_a_receipt_is_json_with_these_keys(tmp_path):
    line = copy_target(tmp_path, SHARDS).second_line()
    (_, receipt), *_ = line.pieces().values()
    assert set(json.loads(receipt.to_bytes())) == {"piece", "files", "refused", "counts"}
