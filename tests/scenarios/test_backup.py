"""Backups: killed and resumed, incremental, damaged, rotated, restored when the dataset is gone.

Every byte of ``raw_data`` is read, from 100 bytes to 5 MB: large values lie in files of their own,
which Lance lists nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
import signal
from pathlib import Path

import lance
import pytest

from tests.scenarios import runs
from tests.scenarios.runs import Job

SIZES = (100, 60_000, 500_000, 5_000_000)
ROWS = 60


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    """Migrate pages with bytes of all sizes."""
    folder = tmp_path_factory.mktemp("pages")
    generator = random.Random(7)
    lines = [
        json.dumps(
            {
                "id": f"p{number:03}",
                "text": f"page {number} of tea",
                "page": base64.b64encode(
                    generator.randbytes(SIZES[number] if number < len(SIZES) else 2_000)
                ).decode(),
                "vector": [generator.random() for _ in range(8)],
            }
        )
        for number in range(ROWS)
    ]
    (folder / "pages.jsonl").write_text("".join(f"{line}\n" for line in lines))
    body = {
        "name": "pages",
        "source": {"kind": "jsonl", "uri": "./pages.jsonl"},
        "mapping": {
            "id": "id",
            "text_content": "text",
            "raw_data": "page",
            "raw_data_type": {"const": "text/plain"},
        },
        "target": {"uri": "pages.lance"},
    }
    job = runs.write_job(folder, body)
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    return runs.copied(finished, tmp_path / "life")


@pytest.fixture
def backup(tmp_path) -> Path:
    return tmp_path / "backups" / "pages"


def raw_digests(target: str | Path) -> dict[str, str]:
    scanner = lance.dataset(str(target)).scanner(
        columns=["uuid", "raw_data"],
        filter="record_type = 'document'",
        blob_handling="all_binary",
    )
    return {
        row["uuid"]: hashlib.sha256(row["raw_data"]).hexdigest()
        for row in scanner.to_table().to_pylist()
    }


def contents(target: str | Path) -> tuple:
    return runs.digests(str(target)), raw_digests(target), runs.headers(str(target))


def backed_up(cfray, job: Job, backup: Path, *options: str) -> dict:
    ended = cfray.run("backup", job.path, "--to", backup, *options, "--json")
    return ended.ended_with(0).document()


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_backup_opens_and_a_restore_is_the_dataset_when_all_else_is_gone(
    cfray, job, backup, tmp_path
):
    before = contents(job.target)
    report = backed_up(cfray, job, backup)
    assert report["copied_bytes"] == report["bytes"]
    assert contents(backup) == before
    assert lance.dataset(job.target).tags.list() == {}
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    restored = cfray.run("restore", backup, "--to", job.target, "--json").ended_with(0).document()
    assert restored["point"] == report["point"]
    assert contents(job.target) == before
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)
    # the life goes on
    cfray.run("optimize", job.path, "--quiet").ended_with(0)
    listed = cfray.run("restore", backup, "--list", "--json").ended_with(0).document()
    assert [item["point"] for item in listed] == [report["point"]]


def test_only_new_files_travel_and_each_point_is_restored(cfray, job, backup, tmp_path):
    points, states = [], []
    for number in range(3):
        if number:
            lance.dataset(job.target).update(
                {"author": f"'Ann {number}'"}, where=f"text_content = 'page {40 + number} of tea'"
            )
        report = backed_up(cfray, job, backup)
        points.append(report)
        states.append(contents(job.target))
    assert points[1]["copied_bytes"] < 0.03 * points[1]["bytes"]
    assert [len(report["points"]) for report in points] == [1, 2, 3]
    for report, state in zip(points, states, strict=True):
        to = tmp_path / report["point"]
        cfray.run("restore", backup, "--to", to, "--point", report["point"]).ended_with(0)
        assert contents(to) == state
    cfray.run("restore", backup, "--check").ended_with(0)
    last = backed_up(cfray, job, backup, "--keep-last", "1")
    assert last["points"] == [last["point"]]
    assert len(last["removed"]) == 3
    assert contents(backup) == states[-1]
    cfray.run("restore", backup, "--check").ended_with(0)
    gone = cfray.run("restore", backup, "--to", tmp_path / "x", "--point", points[0]["point"])
    assert "has no point" in gone.ended_with(2).err


@pytest.mark.parametrize(
    ("command", "reached"),
    [
        pytest.param("backup", 1, marks=pytest.mark.prove),
        ("backup", 12),
        ("restore", 5),
        pytest.param("restore", 12, marks=pytest.mark.prove),
    ],
)
def test_an_interrupted_copy_goes_on(cfray, job, backup, command, reached):
    tmp_path = backup.parent
    before = contents(job.target)
    to = tmp_path / "restored"
    arguments = ["backup", job.path, "--to", backup]
    if command == "restore":
        backed_up(cfray, job, backup)
        arguments = ["restore", backup, "--to", to]
    killed = cfray.start(*arguments, CFRAY_FAIL_AT=f"transferred:{reached}")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    if command == "backup":
        # no point, and nothing that passes for one
        refused = cfray.run("restore", backup, "--to", to).ended_with(2)
        assert "holds no backup" in refused.err
    else:
        with pytest.raises(ValueError, match="not found"):
            lance.dataset(str(to))
    again = cfray.run(*arguments, "--json").ended_with(0).document()
    assert 0 < again["copied_files"] < again["files"]
    assert contents(backup if command == "backup" else to) == before
    cfray.run("restore", backup, "--check").ended_with(0)


@pytest.mark.parametrize(
    ("kind", "is_lost"),
    [
        ("data", False),
        ("blob", False),
        ("blob", True),
        ("manifest", False),
        ("index", True),
        ("receipt", False),
        ("plan", True),
    ],
)
def test_a_damaged_backup_is_found_and_never_restored(cfray, job, backup, kind, is_lost):
    tmp_path = backup.parent
    backed_up(cfray, job, backup)
    beside = Path(f"{backup}.cfray")
    (point,) = [path for path in (beside / "points").iterdir() if path.is_dir()]
    chosen = {
        "data": sorted((backup / "data").glob("*.lance"))[-1:],
        "blob": sorted((backup / "data").rglob("*.blob"))[-1:],
        "manifest": list((backup / "_versions").glob("*.manifest")),
        "index": sorted((backup / "_indices").rglob("*.lance"))[-1:],
        "receipt": sorted((beside / "staged").glob("0.*.json")),
        "plan": [point / "plan.json"],
    }
    (damaged,) = chosen[kind]
    if is_lost:
        damaged.unlink()
    else:
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    found = cfray.run("restore", backup, "--check").ended_with(4)
    assert damaged.name in found.err
    to = tmp_path / "restored"
    cfray.run("restore", backup, "--to", to).ended_with(4)
    with pytest.raises(ValueError, match="not found"):
        lance.dataset(str(to))


def test_a_part_of_a_point_is_restored_as_a_dataset_of_its_own(cfray, job, backup, tmp_path):
    backed_up(cfray, job, backup)
    where = "record_type = 'document' AND text_content IN ('page 3 of tea', 'page 9 of tea')"
    to = tmp_path / "part"
    ended = cfray.run("restore", backup, "--to", to, "--where", where, "--json").ended_with(0)
    assert ended.document()["rows"] == 2
    everything = raw_digests(job.target)
    assert len(raw_digests(to)) == 2
    assert raw_digests(to).items() <= everything.items()
    assert b"cfray.ledger" not in lance.dataset(str(to)).schema.metadata
    assert b"cfray.types" in lance.dataset(str(to)).schema.metadata
    for wrong, words in (("nothing = 1", "--where cannot be read"), (where, "is at")):
        place = tmp_path / "other" if wrong != where else to
        refused = cfray.run("restore", backup, "--to", place, "--where", wrong).ended_with(2)
        assert words in refused.err


def test_a_damaged_dataset_is_not_backed_up_in_silence(cfray, job, backup):
    names = {
        Path(file.path).stem
        for fragment in lance.dataset(job.target).get_fragments()
        for file in fragment.metadata.files
    }
    file = next(path for path in Path(job.target).rglob("*.blob") if path.parent.name in names)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused = cfray.run("backup", job.path, "--to", backup).ended_with(4)
    assert file.name in refused.err
    assert "is not what was written" in refused.err


def test_addresses_that_are_taken_are_refused(cfray, job, backup, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("mine")
    for to in (tmp_path / "full", job.target, f"{job.target}/inside", tmp_path / "life"):
        cfray.run("backup", job.path, "--to", to).ended_with(2)
    backed_up(cfray, job, backup)
    for to in (tmp_path / "full", job.target):
        cfray.run("restore", backup, "--to", to).ended_with(2)
    assert files_of(tmp_path / "full") == {"letter.txt": b"mine"}
    # a target that was made anew is another dataset
    cfray.run("migrate", job.path, "--restart", "--yes", "--quiet").ended_with(0)
    refused = cfray.run("backup", job.path, "--to", backup).ended_with(2)
    assert "of another dataset" in refused.err
    cfray.run("backup", tmp_path / "nothing.lance", "--to", tmp_path / "b").ended_with(2)


def test_an_unfinished_target_is_not_backed_up(cfray, tmp_path, backup):
    job = runs.write_job(tmp_path, runs.export(tmp_path, 120, 8, 3))
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="commit:1")
    killed.until_ended()
    killed.kill()
    refused = cfray.run("backup", job.path, "--to", backup).ended_with(2)
    assert "is not complete yet" in refused.err


def change(target: str | Path, author: str) -> None:
    """Commit another version, as any writer of the dataset does."""
    lance.dataset(str(target)).update(
        {"author": f"'{author}'"}, where="text_content = 'page 40 of tea'"
    )


def test_a_version_number_that_was_used_again_is_refused(cfray, job, backup, tmp_path):
    """The target is restored to its first point, and goes on to the number of the second."""
    first = backed_up(cfray, job, backup)
    change(job.target, "Ann")
    second = backed_up(cfray, job, backup)
    after = contents(job.target)
    shutil.rmtree(job.target)
    shutil.rmtree(job.state)
    cfray.run("restore", backup, "--to", job.target, "--point", first["point"]).ended_with(0)
    change(job.target, "Bob")
    before = files_of(tmp_path / "backups")
    refused = cfray.run("backup", job.path, "--to", backup, "--keep-last", "1").ended_with(2)
    assert f"holds another version {second['version']}" in refused.err
    assert files_of(tmp_path / "backups") == before
    to = tmp_path / "second"
    cfray.run("restore", backup, "--to", to, "--point", second["point"]).ended_with(0)
    assert contents(to) == after


def test_a_backup_that_others_wrote_to_is_refused(cfray, job, backup):
    backed_up(cfray, job, backup)
    change(backup, "Eve")
    before = files_of(backup)
    change(job.target, "Ann")
    refused = cfray.run("backup", job.path, "--to", backup).ended_with(2)
    assert "has a version that cfray did not copy" in refused.err
    assert files_of(backup) == before


def test_what_a_killed_backup_or_rotation_left_is_removed(cfray, job, backup):
    backed_up(cfray, job, backup)
    for author, reached in (("Ann", "transferred:2"), ("Ben", "rotated:1")):
        change(job.target, author)
        arguments = ("backup", job.path, "--to", backup, "--keep-last", "1")
        killed = cfray.start(*arguments, CFRAY_FAIL_AT=reached)
        killed.until_ended()
        assert killed.kill().code == -signal.SIGKILL
    change(job.target, "Cid")
    backed_up(cfray, job, backup, "--keep-last", "1")
    beside = Path(f"{backup}.cfray")
    (record,) = (beside / "points").glob("*.json")
    point = json.loads(record.read_text())
    assert files_of(backup).keys() == {file["path"] for file in point["files"]}
    kept = {item["file"]["path"] for item in point["state"]}
    assert files_of(beside).keys() == {*kept, "backup.json", f"points/{record.name}"}


def test_a_point_is_never_removed_by_the_backup_that_made_it(cfray, job, backup):
    """The clock of the machine that made the point before was wrong."""
    first = backed_up(cfray, job, backup)
    record = Path(f"{backup}.cfray/points/{first['point']}.json")
    body = {**json.loads(record.read_text()), "name": "2099-01-01T00-00-00Z"}
    body.pop("seal", None)
    record.with_name("2099-01-01T00-00-00Z.json").write_text(json.dumps(body))
    second = backed_up(cfray, job, backup, "--keep-last", "1")
    assert second["points"] == [second["point"], "2099-01-01T00-00-00Z"]


def test_a_restored_target_that_has_gone_on_is_not_restored_again(cfray, job, backup, tmp_path):
    report = backed_up(cfray, job, backup)
    to = tmp_path / "restored"
    killed = cfray.start(
        "restore", backup, "--to", to, CFRAY_FAIL_AT=f"transferred:{report['files']}"
    )
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    change(to, "Ann")
    before = files_of(tmp_path / "restored.cfray"), files_of(to)
    refused = cfray.run("restore", backup, "--to", to).ended_with(2)
    assert "has been written to since" in refused.err
    assert (files_of(tmp_path / "restored.cfray"), files_of(to)) == before


def test_places_in_one_another_and_secrets_are_refused(cfray, job, backup, tmp_path):
    backed_up(cfray, job, backup)
    (tmp_path / "link").symlink_to(job.target)
    before = files_of(tmp_path)
    for to in (tmp_path / "link/in", f"{job.target}.cfray/in", "", "/", "s3://"):
        cfray.run("backup", job.path, "--to", to).ended_with(2)
    for to in (backup / "in", f"{backup}.cfray/in", "", "/", "s3://"):
        cfray.run("restore", backup, "--to", to).ended_with(2)
    refused = cfray.run("backup", job.path, "--to", "s3://NAME:hidden-value@vault/a").ended_with(2)
    assert "holds a credential" in refused.err
    assert "hidden-value" not in refused.err
    nothing = cfray.run("restore", tmp_path / "nothing", "--list").ended_with(2)
    assert "holds no backup" in nothing.err
    assert files_of(tmp_path) == before
