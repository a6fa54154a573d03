"""Each kind of receipt reads back as it was written; receipts of format 1 are read as their kind.

The keys of receipts are a contract with what earlier versions wrote.
"""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.errors import LedgerMismatch
from cfray.target.ledger import EntryKind
from cfray.target.receipt_files import read_receipt, write_receipt
from cfray.target.receipts import (
    AnyReceipt,
    CompactionReceipt,
    DuplicatesReceipt,
    EmbedReceipt,
    HeadersReceipt,
    LeftRows,
    ReplayReceipt,
    ShardReceipt,
    SourceCountReceipt,
    data_file_of,
)

GOLDEN = Path(__file__).parent.parent / "golden"
#: One receipt of each kind, every field filled, as format 2 was first written.
KINDS = sorted((GOLDEN / "format-2/receipts").glob("*.json"))
#: What every receipt of format 1 holds.
BODY_1 = {
    "name": "0",
    "shard": "a",
    "nonce": "n",
    **dict.fromkeys(["read", "staged", "quarantined", "frames", "size"], 0),
    **{name: {} for name in ("sums", "centroids", "counts", "seconds", "resolved")},
    "fragments": [],
    "files": [],
}
NAMES = st.text(max_size=3)
SUMS = st.dictionaries(NAMES, st.integers(0, 2**64 - 1), max_size=2)
CENTROIDS = st.dictionaries(NAMES, st.tuples(st.integers(), NAMES, NAMES), max_size=2)
LEFT = st.dictionaries(NAMES, st.builds(LeftRows, st.integers(), st.integers(), SUMS), max_size=2)
#: Values of the fields whose type alone does not say what cfray writes.
FIELDS = {
    "sums": SUMS,
    "centroids": CENTROIDS,
    "removed": LEFT,
    "left": LEFT,
    "fragments": st.lists(st.dictionaries(NAMES, SUMS, max_size=2), max_size=2),
    "seconds": st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=2),
}


def of_kind(receipt_class):
    names = receipt_class.__dataclass_fields__.keys() & FIELDS.keys()
    return st.builds(receipt_class, **{name: FIELDS[name] for name in names})


def format_1(**changes):
    return json.dumps({**BODY_1, **changes}).encode()


@given(st.one_of([of_kind(receipt_class) for receipt_class in get_args(AnyReceipt)]))
def test_a_receipt_of_any_kind_reads_back_as_it_was_written(receipt):
    reread = read_receipt(write_receipt(receipt))
    assert (type(reread), reread) == (type(receipt), receipt)


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.stem)
def test_a_receipt_of_format_2_keeps_its_keys_and_values(path):
    receipt = read_receipt(path.read_bytes())
    old, new = json.loads(path.read_bytes()), json.loads(write_receipt(receipt))
    assert new | old == new, "every key keeps its value; later versions may add some"


def test_format_2_has_a_golden_receipt_of_every_kind():
    assert {path.stem for path in KINDS} == {
        receipt_class.kind for receipt_class in get_args(AnyReceipt)
    }


def test_every_kind_of_entry_has_its_receipt():
    kinds = {receipt_class.kind for receipt_class in get_args(AnyReceipt)}
    assert kinds == {*EntryKind, "compaction"}


def test_receipts_of_format_1_are_read_as_their_kind():
    receipts = [
        read_receipt(path.read_bytes())
        for path in (GOLDEN / "finished/notes.lance.cfray/staged").glob("*.json")
    ]
    by_name = {receipt.name: receipt for receipt in receipts}
    assert {name: type(receipt) for name, receipt in by_name.items()} == {
        **{str(number): ShardReceipt for number in range(6)},
        **dict.fromkeys(["compaction-9", "compaction-17"], CompactionReceipt),
        "headers": HeadersReceipt,
        "duplicates": DuplicatesReceipt,
        "replay-0001": ReplayReceipt,
    }
    shard, headers = by_name["0"], by_name["headers"]
    assert (shard.read, shard.staged, shard.quarantined, shard.session) == (12, 11, 1, "")
    assert headers.stated["read"] == 61
    assert by_name["duplicates"].removed["4"].records == 1
    assert sorted(by_name["replay-0001"].lines.values()) == [[0], [0]]


@pytest.mark.parametrize(
    ("changes", "receipt"),
    [
        (
            {
                "name": "embed-0001",
                "shard": "embed-0001",
                "counts": {"vectors_regenerated": 8},
                "resolved": {"0": {"vector": 11}, "": {"vector": 13}},
            },
            EmbedReceipt(
                name="embed-0001",
                nonce="n",
                counts={"vectors_regenerated": 8},
                vector_sums={"0": {"vector": 11}, "": {"vector": 13}},
            ),
        ),
        (
            {
                "name": "source-count",
                "shard": "source-count",
                "resolved": {"status": "pass", "detail": "as many", "asked": "2026"},
            },
            SourceCountReceipt(
                name="source-count", nonce="n", status="pass", detail="as many", asked="2026"
            ),
        ),
        (
            {
                "name": "duplicates",
                "shard": "duplicates",
                "quarantined": 1,
                "counts": {"derived_frames": -2, "quarantined: same": 1},
                "resolved": {"0": {"rows": 3, "chunks": 2, "sums": {"text": 6}}},
            },
            DuplicatesReceipt(
                name="duplicates",
                nonce="n",
                quarantined=1,
                counts={"quarantined: same": 1},
                removed={"0": LeftRows(1, 2, {"text": 6})},
            ),
        ),
        (
            {
                "name": "duplicates",
                "shard": "duplicates",
                "resolved": {"": {"rows": 3, "sums": {"text": 6}}},
            },
            DuplicatesReceipt(
                name="duplicates", nonce="n", removed={"": LeftRows(3, 0, {"text": 6})}
            ),
        ),
    ],
    ids=["embed", "source-count", "duplicates", "duplicates before chunks"],
)
def test_what_a_receipt_of_format_1_resolved_has_its_field(changes, receipt):
    assert read_receipt(format_1(**changes)) == receipt


@pytest.mark.parametrize(
    "changes",
    [
        {"resolved": {"records": 3}},
        {"x": 1},
        {"name": "headers", "read": 1},
        {"name": "compaction-3", "resolved": {"a": 1}},
        {"name": "embed-0001", "staged": 1},
        {"read": "many"},
        {"name": "source-count", "resolved": {"status": "good", "detail": "", "asked": ""}},
    ],
)
def test_a_receipt_of_format_1_loses_nothing_silently(changes):
    with pytest.raises(ValueError, match=r"resolves nothing|fields that its kind|validation error"):
        read_receipt(format_1(**changes))


def test_a_name_that_no_version_of_format_1_made_is_refused():
    with pytest.raises(LedgerMismatch, match="'merge-0001'"):
        read_receipt(format_1(name="merge-0001"))


@pytest.mark.parametrize("change", [{"kind": "merge"}, {"v": 3}, {"v": 1}])
def test_a_receipt_of_an_unknown_kind_or_format_is_refused_by_name(change):
    receipt = CompactionReceipt(name="x-1", nonce="n")
    body = {**json.loads(write_receipt(receipt)), **change}
    with pytest.raises(LedgerMismatch, match=r"such as x-1\.n") as refusal:
        read_receipt(json.dumps(body).encode())
    assert "a newer one" in refusal.value.remedy


@pytest.mark.parametrize("change", [{"x": 1}, {"size": "big"}, {"files": [{"path": "p"}]}])
def test_a_receipt_with_a_field_that_its_kind_does_not_have_is_refused(change):
    body = {**json.loads(write_receipt(CompactionReceipt(name="x-1", nonce="n"))), **change}
    with pytest.raises(ValueError, match="validation error"):
        read_receipt(json.dumps(body).encode())


def test_blob_files_belong_to_the_data_file_of_their_folder():
    assert data_file_of("data/x.lance") == data_file_of("data/x/1.blob") == "x"
