"""Records of points: what is damaged, or leads out of the backup, is never followed."""

from __future__ import annotations

import json

import pytest

from cfray.errors import ConfigError, LeaseHeld, ProofFailed
from cfray.transfers.files import HashedFile
from cfray.transfers.leftovers import read_notes, remove_leftovers, write_note
from cfray.transfers.places import check_apart, check_held, held
from cfray.transfers.points import Point, StateFile, choose_point, list_points

NAME = "2026-11-29T10-15-00Z"


@pytest.fixture
def backup(tmp_path) -> str:
    address = str(tmp_path / "backup")
    files = [HashedFile("data/a.lance", 3, "aa"), HashedFile("_versions/7.manifest", 4, "bb")]
    state = [StateFile("plan.json", HashedFile(f"points/{NAME}/plan.json", 5, "cc"))]
    Point(NAME, "file:///x", 7, "dd", 12, files, state).save(address)
    return address


def rewritten(backup: str, to: str = NAME, *, sealed: bool = True, **changes: object) -> None:
    path = f"{backup}.cfray/points/{NAME}.json"
    with open(path) as stream:
        body = {**json.load(stream), **changes}
    if not sealed:
        body.pop("seal", None)
    with open(f"{backup}.cfray/points/{to}.json", "w") as stream:
        json.dump(body, stream)


def test_a_record_that_was_changed_is_refused(backup):
    (point,) = list_points(backup)
    assert (point.rows, point.version) == (12, 7)
    rewritten(backup, rows=13)
    with pytest.raises(ProofFailed, match="is damaged"):
        list_points(backup)


@pytest.mark.parametrize("path", ["../victim", "/etc/passwd", "data/../../victim", "", "a//b"])
def test_no_path_of_a_record_leads_out_of_its_folder(backup, path):
    file = {"path": path, "size": 1, "digest": "x"}
    kept = {"path": "plan.json", "size": 1, "digest": "x"}
    for changes in (
        {"files": [file]},
        {"state": [{"path": path, "file": kept}]},
        {"state": [{"path": "plan.json", "file": file}]},
    ):
        rewritten(backup, sealed=False, **changes)
        with pytest.raises(ProofFailed, match="is damaged"):
            list_points(backup)


def test_the_record_of_one_point_is_not_that_of_another(backup):
    rewritten(backup, "2026-11-30T10-15-00Z")
    with pytest.raises(ProofFailed, match="2026-11-30"):
        choose_point(backup, None)
    assert choose_point(backup, NAME).name == NAME
    rewritten(backup, "2026-13-41T10-15-00Z", sealed=False, name="2026-13-41T10-15-00Z")
    with pytest.raises(ProofFailed, match="2026-13-41"):
        choose_point(backup, "2026-13-41T10-15-00Z")


def test_leftovers_that_a_note_lists_are_removed_and_nothing_else(backup, tmp_path):
    for name in ("a.lance", "b.lance", "b.lance.0123abcd.part", "mine.part", "c.lance"):
        (tmp_path / "backup/data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "backup/data" / name).write_bytes(b"abc")
    write_note(backup, "2026-11-30T10-15-00Z", ["data/a.lance", "data/b.lance"], [])
    remove_leftovers(backup, list_points(backup))
    left = sorted(path.name for path in (tmp_path / "backup/data").iterdir())
    assert left == ["a.lance", "c.lance", "mine.part"]
    assert read_notes(backup) == []


def test_places_lie_apart(tmp_path):
    (tmp_path / "target.lance").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target.lance")
    target = str(tmp_path / "target.lance")
    for place in ("target.lance", "link", "link/in", "target.lance/in", "target.lance.cfray/in"):
        with pytest.raises(ConfigError, match="lie in one another"):
            check_apart(str(tmp_path / place), [target])
    with pytest.raises(ConfigError, match="lie in one another"):
        check_apart(str(tmp_path), [target])
    check_apart(str(tmp_path / "target.lance.backup"), [target])


def test_a_place_is_held_by_one_run(tmp_path):
    place = str(tmp_path / "place")
    with held(place) as first:
        check_held(first, place)
        with held(place), pytest.raises(LeaseHeld, match="took"):
            check_held(first, place)
    assert not (tmp_path / "place.cfray/lease.json").exists()
