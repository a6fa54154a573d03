"""A sync believes nothing that it did not write, and no sync makes damage look whole.

What a kill left is damaged before the sync is run again; a target is damaged before rows leave it; a
source gives fewer records than it counts.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from cfray.report.names import AGAINST_SOURCE
from tests.scenarios.runs import Job
from tests.scenarios.test_sync import (
    DIMENSION,
    check,
    documents,
    embedded_rows,
    embedding_job,
    fresh,
    job_of,
    record,
    synced,
    write,
)
from tests.testbeds.embedding_server import EmbeddingServer


def flip(path: Path, old: bytes, new: bytes) -> bool:
    data = path.read_bytes()
    path.write_bytes(data.replace(old, new))
    return old in data


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


#: What is done to one file of a comparison: the end of its name, and how.
DAMAGES = {
    "frames-cut": ("*.frames", lambda path: path.write_bytes(path.read_bytes()[:2_000])),
    "frames-flipped": ("*.frames", lambda path: flip(path, b"CHANGED", b"INVENT!")),
    "frames-gone": ("*.frames", Path.unlink),
    "rejected-gone": ("*.rejected", Path.unlink),
    "rejected-flipped": ("*.rejected", lambda path: flip(path, b"nobody", b"nobodx")),
    "kept-gone": ("*.kept", Path.unlink),
    "new-flipped": ("*.new", flip_last_byte),
    "rows-flipped": ("*.rows", flip_last_byte),
    "keys-cut": ("*.keys", lambda path: path.write_bytes(path.read_bytes()[:-8])),
    "outcome-flipped": ("outcome-*.json", lambda path: flip(path, b'"read": ', b'"read": 1')),
    "basis-cut": ("basis.json", lambda path: path.write_bytes(path.read_bytes()[:-20])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_killed_sync_left_is_believed_only_as_it_was_written(cfray, tmp_path, damage):
    rows = [record(number) for number in range(60)]
    nameless = {"text": "nobody", "embedding": [0.5] * DIMENSION}
    write(tmp_path, rows)
    job = job_of(tmp_path, limits={"max_quarantined": "50%"})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    changed = [row | {"text": f"CHANGED {row['text']}"} for row in rows[30:]]
    write(tmp_path, [*rows[5:30], *changed, record(90), nameless])
    killed = cfray.start("sync", job.path, "--quiet", CFRAY_FAIL_AT="found:1").wait()
    assert killed.code == -signal.SIGKILL, killed.err
    (folder,) = (job.state / "scratch").glob("*-difference")
    name, harm = DAMAGES[damage]
    paths = sorted(folder.glob(name))
    assert paths
    for path in paths:
        harm(path)
    synced(cfray, job, code=3)
    assert documents(job.target) == fresh(cfray, job, 3)
    (row,) = json.loads(cfray.run("quarantine", "list", job.path, "--json").ended_with(0).out)
    assert row["content"]["text"] == "nobody"


def test_rows_that_leave_take_no_damage_with_them(cfray, tmp_path):
    """Rows that are marked are copied: a damaged text must not get a digest that fits it."""
    for name in ("a", "b"):
        rows = [
            record(number) | {"id": f"{name}{number}", "text": f"TEXTOF{name}{number}"}
            for number in range(3)
        ]
        write(tmp_path, rows, f"{name}.jsonl")
    source = {"kind": "jsonl", "uri": "export/*.jsonl", "shard_bytes": 1}
    job = job_of(tmp_path, source=source)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    files = sorted(Path(job.target).rglob("*.lance"))
    assert sum(flip(path, b"TEXTOFa1", b"TEXTOFZ1") for path in files if path.is_file())
    cfray.run("verify", job.path, "--quiet").ended_with(4)
    write(tmp_path, [], "a.jsonl")
    cfray.run("sync", job.path, "--deletes", "mark", "--quiet").ended_with(4)
    ended = cfray.run("verify", job.path, "--json").ended_with(4)
    status, detail = check(ended.document(), "content of every shard")
    assert status == "fail"
    assert "damaged when they left" in detail


@pytest.mark.parametrize("counts", [(100, 100), (100, 101)])
def test_a_read_that_loses_records_deletes_nothing(cfray, tmp_path, monkeypatch, counts):
    """The store's count is a double's: no real store loses records on demand."""
    rows = [record(number) for number in range(100)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    before = documents(job.target)
    write(tmp_path, rows[:70])
    answers = iter(counts)
    monkeypatch.setattr("cfray.syncing.difference._count", lambda *_: next(answers))
    ended = cfray.run("sync", job.path, "--quiet").ended_with(1)
    assert "70 records were read, but the source counts 100 before" in ended.err
    assert documents(job.target) == before


def corrected(path: Path, rows: list[dict]) -> None:
    """Write rows anew, of the size and with the time that the file had."""
    before = path.stat()
    write(path.parent.parent, rows)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def against(cfray, job: Job, *codes: int) -> str:
    ended = cfray.run("verify", job.path, "--against", "source", "--json").ended_with(*codes)
    return check(ended.document(), AGAINST_SOURCE)[1]


def test_a_text_that_was_refused_and_corrected_is_missed(cfray, tmp_path):
    with EmbeddingServer(DIMENSION) as server:
        rows = embedded_rows(dict.fromkeys(range(12), (0, 0)))
        write(tmp_path, rows)
        job = embedding_job(tmp_path, server, endpoint={"max_tokens": 60}, on_long_text="error")
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
        rows[3]["text"] = "a " * 300
        write(tmp_path, rows)
        synced(cfray, job, code=3)
        assert "looked up" in against(cfray, job, 3)
        rows[3] |= {"text": "corrected", "note": "x" * (600 - len('corrected", "note": "'))}
        corrected(tmp_path / "export" / "part.jsonl", rows)
        assert "1 record is only in the source" in against(cfray, job, 4)


def test_another_record_that_does_not_fit_is_noticed(cfray, tmp_path):
    rows = [record(number) for number in range(20)]
    nameless = {"text": "nobody", "embedding": [0.5] * DIMENSION}
    write(tmp_path, rows)
    job = job_of(tmp_path, limits={"max_quarantined": "50%"})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    write(tmp_path, [*rows, nameless])
    synced(cfray, job, code=3)
    assert "looked up" in against(cfray, job, 3)
    corrected(tmp_path / "export" / "part.jsonl", [*rows, nameless | {"text": "anyone"}])
    assert "other ones (1) are in quarantine" in against(cfray, job, 4)


def test_a_record_that_fits_no_longer_is_not_gone(cfray, tmp_path):
    """It is there and cannot be read: it goes to quarantine, and is not marked as deleted."""
    rows = [record(number) for number in range(20)]
    write(tmp_path, rows)
    job = job_of(tmp_path, limits={"max_quarantined": "50%"})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    write(
        tmp_path,
        [row | ({"embedding": [1.0, 2.0]} if row["id"].endswith("7") else {}) for row in rows[1:]],
    )
    report = synced(cfray, job, "--deletes", "mark", code=3)
    counts = report["counts"]
    assert [counts[f"records_{name}"] for name in ("changed", "gone", "unfit")] == [0, 1, 2]
    statuses = [row["status"] for row in documents(job.target).values()]
    assert (len(statuses), statuses.count("deleted")) == (18, 1)
    assert "looked up" in against(cfray, job, 3)


def test_a_limit_that_was_raised_counts_for_a_sync_that_is_run_again(cfray, tmp_path):
    rows = [record(number) for number in range(20)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    rows[3]["text"] = "x" * 50_000
    write(tmp_path, rows)
    small = job.changed(limits={"max_document": "20KB", "max_quarantined": 0})
    ended = cfray.run("sync", small.path, "--quiet").ended_with(1)
    assert "max_quarantined" in ended.err
    synced(cfray, job)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_a_status_of_the_source_is_not_mixed_with_the_mark(cfray, tmp_path):
    write(tmp_path, [record(number, state="live") for number in range(5)])
    job = job_of(tmp_path, mapping={"id": "id", "text_content": "text", "status": "state"})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    ended = cfray.run("sync", job.path, "--deletes", "mark", "--quiet").ended_with(2)
    assert "mapping.status" in ended.err
    ended = cfray.run("verify", job.path, "--against", "source", "--repair", "--quiet")
    ended.ended_with(0)
    write(tmp_path, [record(number, state="gone") for number in range(5)])
    synced(cfray, job)
    ended = cfray.run("verify", job.path, "--against", "source", "--repair", "--quiet")
    assert "copies shards of the plan anew" in ended.ended_with(2).err
