"""A baseline is read as it was written, or refused as damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cfray.errors import TargetError
from cfray.proving.baseline import FILE, Baseline, SourceCollection
from cfray.proving.source_search import Search
from cfray.target.state import State

BASELINE = Baseline(
    taken="2026-11-29T20:00:00Z",
    source="http://store",
    k=2,
    collections=[SourceCollection("c", 3, "l2", {"m": "16"})],
    searches=[
        Search("c", "drawn", [1.0, 0.5], ["s:a", "i:3"], 0.01, record="s:a"),
        Search("c", "filtered", [1.0, 0.5], [], 0.02, {"author": "Ann's"}),
    ],
    terms={"parity.k": "2"},
)


@pytest.fixture
def state(tmp_path) -> State:
    state = State(str(tmp_path / "t.lance"))
    BASELINE.save(state)
    return state


def test_it_is_read_as_it_was_written(state):
    assert Baseline.load(state) == BASELINE
    assert Baseline.load(State(f"{state.target}.other")) is None


def search(**changes: Any) -> dict[str, Any]:
    body = {"collection": "c", "origin": "drawn", "vector": [1.0, 0.5], "ids": [], "seconds": 0.1}
    return {"searches": [{**body, **changes}]}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"k": None},
        {"k": 0},
        {"searches": []},
        {"searches": {}},
        {"no_searches": "although there are some"},
        search(vector=[1.0]) | {},
        search(vector=[float("nan"), 1.0]),
        search(vector=[1e39, 1.0]),
        search(vector=["x", 1.0]),
        search(ids=[3]),
        search(ids="s:a"),
        search(seconds=None),
        search(where=["author"]),
        search(where={"1=1 OR author": "x"}),
        search(origin="elsewhere"),
    ],
)
def test_what_cfray_did_not_write_is_damaged(state, change):
    path = state.folder
    body = json.loads(path.read(FILE))
    if change == search(vector=[1.0]):
        body["searches"] += change["searches"]  # of another width than the others
    else:
        body |= change
    path.publish(FILE, json.dumps(body).encode())
    with pytest.raises(TargetError, match="damaged"):
        Baseline.load(state)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"{}"])
def test_a_file_that_is_none_is_damaged(state, data):
    state.folder.publish(FILE, data)
    with pytest.raises(TargetError, match=FILE):
        Baseline.load(state)
