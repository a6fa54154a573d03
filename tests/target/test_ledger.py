"""The ledger keeps the kind of each entry; what earlier versions wrote is read with its kinds.

What this version of cfray does not know is refused by name.
"""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.errors import LedgerMismatch
from cfray.target import commit
from cfray.target.commit import Target
from cfray.target.ledger import Entry, EntryKind, Ledger, kind_of_format_1

GOLDEN = Path(__file__).parent.parent / "golden"
#: The digests that the version of the golden files gave, which wrote format 1.
DIGESTS = {"unfinished": "faa6a0958bc9a9cb", "finished": "28739a0912e4aff8"}
WHOLE_NUMBERS = st.integers(0, 2**53)


def read(body):
    return Ledger.from_metadata({b"cfray.ledger": json.dumps(body).encode()}, "x.lance")


def stored_body(target):
    return json.loads(target.open().schema.metadata[b"cfray.ledger"])


@pytest.fixture(params=DIGESTS)
def golden_target(request, tmp_path):
    uri = str(tmp_path / "notes.lance")
    shutil.copytree(GOLDEN / request.param / "notes.lance", uri)
    return request.param, Target(uri)


@given(
    st.builds(
        Ledger,
        WHOLE_NUMBERS,
        WHOLE_NUMBERS,
        WHOLE_NUMBERS,
        st.lists(st.text(), min_size=1).map(tuple),
        st.dictionaries(
            st.text(),
            st.builds(
                Entry, st.sampled_from(EntryKind), WHOLE_NUMBERS, WHOLE_NUMBERS, nonce=st.text()
            ),
            max_size=4,
        ),
    )
)
def test_a_ledger_reads_back_as_it_was_written(ledger):
    reread = read(json.loads(ledger.to_json()))
    assert reread == ledger
    assert list(reread.entries) == list(ledger.entries)


def test_a_ledger_of_format_1_is_written_as_format_2_by_the_next_commit(golden_target):
    _, target = golden_target
    old_body, old_ledger = stored_body(target), target.ledger()
    assert old_body["v"] == 1
    version = target.open().version
    commit.take_over(target.uri)
    body = stored_body(target)
    assert body["v"] == 2
    assert {name: values[1:] for name, values in body["entries"].items()} == old_body["entries"]
    assert target.ledger().entries == old_ledger.entries
    assert target.open().version == version + 1


def test_reading_a_ledger_of_format_1_changes_nothing(golden_target):
    _, target = golden_target
    body, version = stored_body(target), target.open().version
    assert target.ledger().entries
    assert (stored_body(target), target.open().version) == (body, version)


def test_the_digest_is_the_same_in_both_formats(golden_target):
    stage, target = golden_target
    assert target.ledger().digest == DIGESTS[stage]
    commit.take_over(target.uri)
    assert target.ledger().digest == DIGESTS[stage]


def test_entries_of_format_1_have_their_kinds():
    kinds = {
        name: entry.kind
        for name, entry in Target(str(GOLDEN / "finished/notes.lance")).ledger().entries.items()
    }
    assert kinds == {
        **{str(number): EntryKind.SHARD for number in range(6)},
        "duplicates": EntryKind.DUPLICATES,
        "replay-0001": EntryKind.REPLAY,
        "headers": EntryKind.HEADERS,
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("1200", EntryKind.SHARD),
        ("source-count", EntryKind.SOURCE_COUNT),
        ("embed-0012", EntryKind.EMBED),
    ],
)
def test_a_name_of_format_1_tells_its_kind(name, kind):
    assert kind_of_format_1(name) is kind


@pytest.mark.parametrize("name", ["", "merge-0001", "headers2", "shard", "sync-0001", "embed"])
def test_an_unknown_name_in_format_1_is_refused_by_name(name):
    body = {"v": 1, "epoch": 1, "version": 1, "next_row": 1, "fingerprints": ["f"]}
    with pytest.raises(LedgerMismatch, match=f"what the ledger entry '{name}' is") as refusal:
        read({**body, "entries": {name: [0, 1, "n"]}})
    assert "a newer one" in refusal.value.remedy


@pytest.mark.parametrize("kind", ["merge", "", "compaction", None, 7])
def test_an_unknown_kind_in_format_2_is_refused_by_name(kind):
    body = json.loads(Ledger(1, 1, 0, ("f",)).with_entry(EntryKind.SHARD, "0", 1, "n").to_json())
    body["entries"]["0"][0] = kind
    with pytest.raises(LedgerMismatch) as refusal:
        read(body)
    assert f"the entry '0' of the kind {kind!r}" in refusal.value.what
    assert "a newer one" in refusal.value.remedy


def test_in_format_2_a_name_says_nothing_of_the_kind():
    ledger = Ledger(1, 1, 0, ("f",)).with_entry(EntryKind.REPLAY, "0", 1, "n")
    assert read(json.loads(ledger.to_json())).names(EntryKind.SHARD) == []


def test_a_ledger_of_a_newer_format_is_refused_by_name():
    newer_ledger = {**json.loads(Ledger(1, 1, 0, ("f",)).to_json()), "v": 3}
    with pytest.raises(LedgerMismatch, match="has format 3; this cfray reads formats 1 to 2"):
        read(newer_ledger)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", '{"v": 1}', '{"v": 2}', '{"v": 0}', '{"v": "x"}']
)
def test_a_damaged_ledger_is_refused(text):
    with pytest.raises(LedgerMismatch, match="is damaged"):
        Ledger.from_metadata({b"cfray.ledger": text.encode()}, "x.lance")


@pytest.mark.parametrize("values", [[], ["shard", 0, 1], ["shard", "x", 1, "n"], "n", None])
def test_a_damaged_entry_is_refused(values):
    body = {**json.loads(Ledger(1, 1, 0, ("f",)).to_json()), "entries": {"0": values}}
    with pytest.raises(LedgerMismatch, match="is damaged"):
        read(body)


def test_the_next_name_follows_the_committed_entries():
    ledger = Ledger(1, 1, 0, ("f",)).with_entry(EntryKind.SHARD, "0", 5, "n")
    ledger = ledger.with_entry(EntryKind.REPLAY, "replay-0001", 1, "m")
    assert ledger.next_name(EntryKind.REPLAY) == "replay-0002"
    assert ledger.next_name(EntryKind.EMBED) == "embed-0001"
    assert ledger.names(EntryKind.SHARD) == ["0"]
