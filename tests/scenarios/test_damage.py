"""Damage from outside: to a finished target, to a source, to a worker, to the disk's free space."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import lance
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import held, served
from tests.scenarios.runs import PROVE, Job, Runner
from tests.testbeds.embedding_server import EmbeddingServer, embedded

ROWS = 2_400
FLIPS = 10 if PROVE else 2


def check_exact(job: Job, rows: int) -> None:
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(rows)]
    names = runs.uuids(job.target)
    assert len(names) == len(set(names)) == rows + 2


# a finished target


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("finished")
    job = runs.write_job(folder, runs.export(folder, ROWS, 16, 4))
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


def copied(job: Job, name: str) -> Job:
    """Copy a target with what stands beside it."""
    copy = job.changed(target={"uri": f"{name}.lance"})
    shutil.copytree(job.target, copy.target)
    shutil.copytree(job.state, copy.state)
    return copy


def data_file(job: Job) -> Path:
    """Give the largest data file of the target's latest version."""
    files = [
        Path(job.target, "data", file.path)
        for fragment in lance.dataset(job.target).get_fragments()
        for file in fragment.metadata.files
    ]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(bit // 8)
        byte = stream.read(1)[0]
        stream.seek(bit // 8)
        stream.write(bytes([byte ^ 1 << bit % 8]))


def verified(cfray: Runner, jobs: list[Job]) -> list[runs.Ended]:
    """Verify targets."""
    return [cfray.run("verify", job.path, "--json") for job in jobs]


def checks(ended: runs.Ended) -> dict[str, tuple[str, str]]:
    return {
        check["name"]: (check["status"], check["detail"]) for check in ended.document()["checks"]
    }


def test_verify_names_the_file_that_was_damaged(cfray, finished):
    rng = np.random.default_rng(3)
    size = data_file(finished).stat().st_size * 8
    damaged = [copied(finished, f"flipped-{number}") for number in range(FLIPS)]
    for number, job in enumerate(damaged):
        flip(
            data_file(job), int((number + rng.random()) / FLIPS * size)
        )  # one in each part of the file
    damaged.append(copied(finished, "deleted"))
    data_file(damaged[-1]).unlink()
    damaged.append(copied(finished, "cut"))
    os.truncate(data_file(damaged[-1]), size // 16)
    name = f"data/{data_file(finished).name}"
    untouched, *ended = verified(cfray, [finished, *damaged])
    untouched.ended_with(0)
    for job, verification in zip(damaged, ended, strict=True):
        verification.ended_with(4)
        status, detail = checks(verification)["every data file"]
        assert (status, name in detail) == ("fail", True), f"{job.target}: {detail}"
        assert job.report()["exit_code"] == 4


def test_verify_notices_rows_that_somebody_else_deleted_or_added(cfray, finished):
    job, other = copied(finished, "deleted-from"), copied(finished, "added-to")
    lance.dataset(job.target).delete("title = 'Title 700'")
    dataset = lance.dataset(other.target)
    row = dataset.to_table(
        filter="title = 'Title 700'",
        columns=[field.name for field in dataset.schema if field.name != "raw_data"],
    )
    lance.write_dataset(row, other.target, mode="append")
    lacking, added = verified(cfray, [job, other])
    lacking.ended_with(4)
    status, detail = checks(lacking)["content of every shard"]
    assert status == "fail"
    assert "part-0001.parquet" in detail
    assert "1 row was added" in checks(added)["rows that cfray did not write"][1]
    assert checks(added)["content of every shard"][0] == "pass"


# the source


def test_a_source_file_that_changed_since_the_plan_is_named_and_never_mixed_in(cfray, tmp_path):
    shards = 60
    job = runs.write_job(
        tmp_path, {**runs.export(tmp_path, ROWS, 16, shards), "limits": {"workers": 1}}
    )
    killed = cfray.start("migrate", job.path, CFRAY_FAIL_AT="commit:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    changed = tmp_path / "export" / f"part-{shards - 1:04d}.parquet"
    assert str(shards - 1) not in runs.receipts(job), (
        "the last file had been read before the run could be killed"
    )
    original, before = changed.read_bytes(), changed.stat()
    pq.write_table(runs.table(runs.columns(1_000_000, 50, 16, np.random.default_rng(1))), changed)
    stopped = cfray.run("migrate", job.path).ended_with(1)
    assert str(changed) in stopped.err
    assert "changed since the plan was made" in stopped.err
    assert job.report()["exit_code"] == 1
    changed.write_bytes(original)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    stopped = cfray.run("migrate", job.path).ended_with(
        1
    )  # the size is right again, the time is not
    assert str(changed) in stopped.err
    assert set(runs.document_ids(job.target)) <= {
        f"doc-{number:07d}" for number in range(ROWS - ROWS // shards)
    }
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    cfray.run("migrate", job.path).ended_with(0)
    check_exact(job, ROWS)


# a worker


def test_a_worker_that_dies_without_a_word_costs_nothing(cfray, tmp_path):
    rows = 20_000
    job = runs.write_job(tmp_path, runs.export(tmp_path, rows, 64, 4))
    running = cfray.start("migrate", job.path)
    killed: set[int] = set()
    for _ in range(2):
        (worker, *_) = runs.until(lambda: set(running.workers()) - killed, "a worker is at work")
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    running.wait().ended_with(0)
    check_exact(job, rows)
    cfray.run("cleanup", job.path).ended_with(0)
    assert runs.data_files(job.target) == runs.referenced_files(job.target)


# the disk

#: KiB of a disk on which everything fits.
ENOUGH = 500_000


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of 6 MiB, and a way to give it another size in KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield (
        folder,
        lambda kib: subprocess.run(["mount", "-o", f"remount,size={kib}k", folder], check=True),
    )
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on_when_there_is_space(
    cfray, tmp_path, small_disk
):
    folder, resize = small_disk
    rows = 20_000
    body = runs.export(tmp_path, rows, 64, 10)
    job = runs.write_job(tmp_path, {**body, "target": {"uri": str(folder / "out.lance")}})
    stopped = cfray.run("migrate", job.path).ended_with(1)
    assert "No space left" in stopped.err
    assert "free disk space" in stopped.err
    assert "Traceback" not in stopped.err
    resize(ENOUGH)
    cfray.run("migrate", job.path).ended_with(0)
    check_exact(job, rows)
    cfray.run("cleanup", job.path).ended_with(0)
    assert runs.data_files(job.target) == runs.referenced_files(job.target)


def test_a_disk_that_is_full_when_the_new_vectors_are_joined_costs_no_piece(
    cfray, tmp_path, small_disk
):
    """The pieces fit beside the rows; the data file that they are joined to does not."""
    folder, resize = small_disk
    rows, width = 4_000, 256
    body = runs.export(tmp_path, rows, 4, 1)
    kept = runs.write_job(tmp_path, {**body, "target": {"uri": str(folder / "out.lance")}})
    cfray.run("migrate", kept.path).ended_with(0)
    before = runs.digests(kept.target)
    resize((shutil.disk_usage(folder).used + rows * width * 4 * 3 // 2) // 1024)
    with EmbeddingServer(width) as server:
        job = kept.changed(embedding=served(server))
        stopped = cfray.run("embed", job.path).ended_with(1)
        assert "could not write new columns" in stopped.err
        assert "free disk space" in stopped.err
        assert "Traceback" not in stopped.err
        assert runs.digests(kept.target) == before
        resize(ENOUGH)
        asked = len(server.requests)
        cfray.run("embed", job.path).ended_with(0)
        assert len(server.requests) == asked + 1, "the plan asks; no text is embedded again"
    for row in held(job.target).values():
        assert np.array_equal(row["vector"], embedded(row["text_content"], width))
    cfray.run("verify", job.path).ended_with(0)
