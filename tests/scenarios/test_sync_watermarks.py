"""A sync does not read again what its source says is as the last sync has read it.

The oracle is a fresh migration of the same source into another target, read with pylance.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import lance
import pytest

from cfray.report.names import AGAINST_SOURCE
from tests.scenarios import runs
from tests.scenarios.runs import Job
from tests.scenarios.test_sync import check, counts_of, documents, fresh, job_of, record, synced

#: Seconds; a file this old was not written to while it was read.
OLD = 3600


def write(folder: Path, name: str, rows: list[dict], age: float = OLD) -> Path:
    path = folder / "export" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = time.time() - age
    os.utime(path, (written, written))
    return path


def write_days(folder: Path, days: int, per_day: int = 20, age: float = OLD) -> list[Path]:
    return [
        write(folder, f"day-{day:02d}.jsonl", rows_of(day, per_day), age + days - day)
        for day in range(days)
    ]


def rows_of(day: int, per_day: int = 20, version: int = 0) -> list[dict]:
    return [record(number, version) for number in range(day * per_day, (day + 1) * per_day)]


def shards_of(report: dict) -> tuple[int, int]:
    return report["counts"]["shards_read"], report["counts"]["shards_unread"]


def migrated(cfray, folder: Path, days: int = 6) -> tuple[Job, list[Path]]:
    """Migrate files of a day each, a shard each, and sync once, which reads them all."""
    paths = write_days(folder, days)
    job = job_of(folder, source={"kind": "jsonl", "uri": "export/*.jsonl", "shard_bytes": 6_000})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert shards_of(synced(cfray, job)) == (days, 0)
    return job, paths


def test_files_that_are_as_they_were_are_not_read(cfray, tmp_path):
    job, paths = migrated(cfray, tmp_path)
    report = synced(cfray, job)
    assert shards_of(report) == (0, 6)
    assert (report["stages"]["source"]["rows"], report["counts"]["read"]) == (0, 120)
    assert "6 of 6 shards not read" in " ".join(report["notes"])
    # one changes, one goes, one comes
    write(tmp_path, paths[2].name, rows_of(2)[:10] + rows_of(2, version=1)[10:], OLD / 2)
    paths[4].unlink()
    write(tmp_path, "day-01b.jsonl", rows_of(9))
    asked = cfray.run("sync", job.path, "--dry-run", "--json", "--quiet").ended_with(0).document()
    assert asked["shards_unread"] == 4
    report = synced(cfray, job)
    assert shards_of(report) == (2, 4)
    assert counts_of(report) == (20, 10, 20)
    assert documents(job.target) == fresh(cfray, job, 0)
    assert shards_of(synced(cfray, job)) == (0, 6)
    # who asks for all reads all, and a verification looks at all
    assert shards_of(synced(cfray, job, "--read-all")) == (6, 0)
    against = cfray.run("verify", job.path, "--against", "source", "--json").ended_with(0)
    status, detail = check(against.document(), AGAINST_SOURCE)
    assert status == "pass"
    assert "120 records of 6 shards read again" in detail
    # neither that nor a dry run takes away what the next sync need not read
    cfray.run("sync", job.path, "--dry-run", "--read-all", "--quiet").ended_with(0)
    assert shards_of(synced(cfray, job)) == (0, 6)


def test_a_file_that_was_just_written_is_read_again(cfray, tmp_path):
    """Within the tick of a clock a file may be written again, and have the same size and time."""
    job, paths = migrated(cfray, tmp_path)
    # as if it were written while it is read, however long that takes to begin
    write(tmp_path, paths[5].name, rows_of(5, version=1), age=-600)
    assert counts_of(synced(cfray, job)) == (0, 20, 0)
    status = paths[5].stat()
    paths[5].write_text(paths[5].read_text().replace("of version 1", "of version 7"))
    os.utime(paths[5], ns=(status.st_atime_ns, status.st_mtime_ns))
    report = synced(cfray, job)
    assert shards_of(report) == (1, 5)
    assert counts_of(report) == (0, 20, 0)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_a_file_of_which_only_a_part_has_a_watermark_is_whole(cfray, tmp_path):
    """The end of an old file shares its shard with a file that was just written."""
    write(tmp_path, "a.jsonl", [record(number) for number in range(70)])
    write(tmp_path, "b.jsonl", [record(number) for number in range(100, 105)], age=-600)
    job = job_of(tmp_path, source={"kind": "jsonl", "uri": "export/*.jsonl", "shard_bytes": 3_000})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    shards = synced(cfray, job)["counts"]["shards_read"]
    assert shards > 3
    for _ in range(2):
        report = synced(cfray, job)
        assert counts_of(report) == (0, 0, 0)
        assert report["counts"]["read"] == 75
        assert shards_of(report) == (1, shards - 1)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_a_row_that_the_target_lost_comes_back_from_a_file_that_did_not_change(cfray, tmp_path):
    job, _ = migrated(cfray, tmp_path)
    lance.dataset(str(job.target)).delete("text_content LIKE 'text 45 of %'")
    report = synced(cfray, job, code=4)
    assert shards_of(report) == (1, 5)
    assert counts_of(report) == (1, 0, 0)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_identities_that_files_share_are_settled_as_a_migration_settles_them(cfray, tmp_path):
    job, _ = migrated(cfray, tmp_path)
    job = job.changed(limits={"max_quarantined": "50%"})
    assert shards_of(synced(cfray, job)) == (0, 6)
    # between files that did not change comes one with a record of a later one
    write(tmp_path, "day-03b.jsonl", [record(85, 3), record(900)])
    report = synced(cfray, job, code=3)
    assert shards_of(report) == (7, 0)
    assert documents(job.target) == fresh(cfray, job, 3)
    assert runs.quarantined(cfray, job)[0]["id"] == record(85)["id"]
    # while there are such records, all is read
    assert shards_of(synced(cfray, job, code=3)) == (7, 0)
    (tmp_path / "export" / "day-03b.jsonl").unlink()
    assert shards_of(synced(cfray, job)) == (6, 0)
    assert shards_of(synced(cfray, job)) == (0, 6)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_records_that_do_not_fit_stay_in_quarantine(cfray, tmp_path):
    paths = write_days(tmp_path, 4)
    nameless = [{"text": f"who am I {number}", "embedding": [0.5] * 8} for number in range(3)]
    write(tmp_path, paths[1].name, [*rows_of(1), *nameless], OLD)
    job = job_of(
        tmp_path,
        source={"kind": "jsonl", "uri": "export/*.jsonl", "shard_bytes": 6_000},
        limits={"max_quarantined": "50%"},
    )
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    synced(cfray, job, code=3)
    write(tmp_path, paths[3].name, rows_of(3, version=1), OLD / 2)
    report = synced(cfray, job, code=3)
    assert shards_of(report) == (1, 3)
    assert report["counts"]["quarantined"] == 3
    assert documents(job.target) == fresh(cfray, job, 3)
    texts = {row["content"]["text"] for row in runs.quarantined(cfray, job)}
    assert texts == {row["text"] for row in nameless}
    strict = job.changed(limits={"max_quarantined": 2})
    ended = cfray.run("sync", strict.path, "--quiet").ended_with(1)
    assert "3 of 83 records do not fit" in ended.err


@pytest.mark.parametrize(
    ("refused", "data", "is_lasting"),
    [
        # what the extractor makes of broken bytes may depend on its time and memory
        pytest.param("b.pdf", b"%PDF-1.4 is none", False, id="broken"),
        pytest.param("b.bin", b"\x00\x01" * 5_000, True, id="over max_raw"),
    ],
)
def test_a_document_that_could_not_be_read_is_tried_again(
    cfray, tmp_path, refused, data, is_lasting
):
    """Whether an extraction ends in its time depends on the machine, and the file has no new mark."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, content in (("a.txt", b"a text"), (refused, data), ("c.txt", b"another")):
        (tree / name).write_bytes(content)
        os.utime(tree / name, (time.time() - OLD,) * 2)
    job = runs.write_job(
        tmp_path,
        {
            "name": "documents",
            "source": {"kind": "filesystem", "uri": "tree", "raw": "all", "max_raw": 1_000},
            "mapping": {
                "id": "id",
                "text_content": "text",
                "raw_data": "raw",
                "raw_data_type": "raw_type",
            },
            "target": {"uri": "out.lance"},
            "limits": {"max_quarantined": "50%"},
        },
    )
    code = cfray.run("migrate", job.path, "--quiet").ended_with(0, 3).code
    synced(cfray, job, code=code)
    assert shards_of(synced(cfray, job, code=code)) == ((0, 1) if is_lasting else (1, 0))
    (tree / refused).unlink()
    assert shards_of(synced(cfray, job)) == (1, 0)
    assert shards_of(synced(cfray, job)) == (0, 1)


def test_records_of_folders_keep_the_order_of_their_fields(cfray, tmp_path):
    """A shard that is cut along an earlier line reads as one that is cut anew."""
    for year, month in ((2024, "02"), (2024, "11"), (2025, "01")):
        folder = tmp_path / "export" / f"year={year}" / f"month={month}"
        folder.mkdir(parents=True)
        rows = [record(int(f"{year}{month}{number}")) for number in range(9)]
        # in the minute before a sync reads it, a file has no watermark
        write(tmp_path, f"year={year}/month={month}/part.jsonl", rows, age=-600)
    job = job_of(tmp_path, source={"kind": "jsonl", "uri": "export", "shard_bytes": 3_000})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    for _ in range(2):
        report = synced(cfray, job)
        assert counts_of(report) == (0, 0, 0)
        assert shards_of(report)[1] == 0
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)
    assert documents(job.target) == fresh(cfray, job, 0)


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "index"])
def test_what_a_sync_left_is_not_believed_where_it_is_damaged(cfray, tmp_path, damage):
    job, paths = migrated(cfray, tmp_path)
    folder = job.state / "scratch" / "watermarks"
    files = sorted(folder.glob("*.rows"))
    assert len(files) == 6
    if damage == "index":
        files = [folder / "watermarks.json"]
    for file in files:
        data = file.read_bytes()
        if damage == "gone":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(data[:-30])
        else:
            file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    write(tmp_path, paths[0].name, rows_of(0, version=1), OLD / 2)
    report = synced(cfray, job)
    assert shards_of(report) == (6, 0)
    assert documents(job.target) == fresh(cfray, job, 0)
    assert shards_of(synced(cfray, job)) == (0, 6)
    assert len(list(folder.iterdir())) == 7


@pytest.mark.parametrize("where", ["compared", "found", "written", "synced", "compact"])
def test_a_killed_sync_believes_no_more_than_was_committed(cfray, tmp_path, where):
    job, paths = migrated(cfray, tmp_path)
    write(tmp_path, paths[1].name, rows_of(1, version=1), OLD / 2)
    write(tmp_path, paths[4].name, rows_of(4, version=1)[:15], OLD / 2)
    killed = cfray.start("sync", job.path, "--quiet", CFRAY_FAIL_AT=f"{where}:1").wait()
    assert killed.code == -signal.SIGKILL, killed.err
    write(tmp_path, paths[4].name, rows_of(4, version=2), OLD / 3)
    synced(cfray, job)
    assert documents(job.target) == fresh(cfray, job, 0)
    report = synced(cfray, job)
    assert counts_of(report) == (0, 0, 0)
    assert shards_of(report) == (0, 6)


def test_an_earlier_version_gets_again_what_it_lacks(cfray, tmp_path):
    job, paths = migrated(cfray, tmp_path)
    version = lance.dataset(str(job.target)).version
    write(tmp_path, paths[2].name, rows_of(2, version=1), OLD / 2)
    synced(cfray, job)
    cfray.run("rollback", job.path, "--to-version", version).ended_with(0)
    report = synced(cfray, job)
    assert shards_of(report) == (1, 5)
    assert counts_of(report) == (0, 20, 0)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_sync_after_sync_of_files_at_random(cfray, tmp_path):
    """Files are cut into shards, and share shards; some are written, some come, some go."""
    generator = random.Random(7)
    rows = {
        f"{number:02d}.jsonl": [
            record(100 * number + row) for row in range(generator.randrange(1, 40))
        ]
        for number in range(12)
    }
    for name, part in rows.items():
        write(tmp_path, name, part)
    job = job_of(tmp_path, source={"kind": "jsonl", "uri": "export/*.jsonl", "shard_bytes": 5_000})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    synced(cfray, job)
    unread = 0
    for step in range(1, 6):
        for name in generator.sample(sorted(rows), 2):
            part = rows[name]
            part[generator.randrange(len(part))] |= {"rank": f"step {step}"}
            if generator.random() < 0.5:
                part.pop()
            part.append(record(5_000 + 100 * step + len(part)))
            write(tmp_path, name, part, OLD - 10 * step)
        gone = generator.choice(sorted(rows))
        shutil.move(tmp_path / "export" / gone, tmp_path / gone)
        moved = f"{generator.randrange(100):02d}-{step}.jsonl"
        rows[moved] = rows.pop(gone)
        write(tmp_path, moved, rows[moved])
        report = synced(cfray, job)
        unread += report["counts"]["shards_unread"]
        assert documents(job.target) == fresh(cfray, job, 0)
        assert report["counts"]["read"] == sum(map(len, rows.values()))
    assert unread >= 5 * 5


def test_documents_in_folders_are_extracted_anew_where_a_file_changed(cfray, tmp_path):
    """What a folder says of itself is its header's text, also after its README has changed."""
    tree = tmp_path / "tree"

    def put(name: str, text: str, age: float = OLD) -> None:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)

    for folder in range(5):
        put(f"f{folder}/README.md", f"# What folder {folder} is\n")
        for number in range(4):
            put(f"f{folder}/{number}.txt", f"text {number} of {folder} " * 100)
    job = runs.write_job(
        tmp_path,
        {
            "name": "documents",
            "source": {"kind": "filesystem", "uri": "tree", "shard_bytes": 30_000},
            "mapping": {"id": "id", "text_content": "text", "collection": "collection"},
            "target": {"uri": "out.lance"},
        },
    )
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    shards = synced(cfray, job)["counts"]["shards_read"]
    assert shards >= 2
    assert shards_of(synced(cfray, job)) == (0, shards)
    put("f0/README.md", "# What else it is\n", OLD / 2)
    put("f0/new.txt", "a new text", OLD / 2)
    (tree / "f0" / "1.txt").unlink()
    report = synced(cfray, job)
    assert counts_of(report) == (1, 1, 1)
    assert shards_of(report) == (1, shards - 1)

    def is_as_migrated() -> bool:
        again = job.changed(target={"uri": f"again-{random.getrandbits(32)}.lance"})
        cfray.run("migrate", again.path, "--quiet").ended_with(0)
        assert documents(job.target) == documents(again.target)
        headers = [
            {row[1]: row[2] for row in runs.headers(target) if row[3] == "collection_header"}
            for target in (job.target, again.target)
        ]
        assert headers[0]["f0"].startswith(("# What else", "Collection f0"))
        return headers[0] == headers[1]

    assert is_as_migrated()
    (tree / "f0" / "README.md").unlink()
    synced(cfray, job)
    assert is_as_migrated()
