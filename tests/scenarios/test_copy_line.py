"""The copy as Ray Data runs it: what it counted, and workers that die behind their receipt."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cfray import pipeline
from cfray.copying import driver
from cfray.copying.shard import CopyTask, PlannedShard, copy_shard
from cfray.job.file import read_job
from tests.scenarios import runs
from tests.scenarios.runs import PROVE, Job

ROWS, SHARDS = (20_000, 40) if PROVE else (1_200, 6)
ROUNDS = 20 if PROVE else 3


@pytest.fixture
def migrate(shared_ray) -> Callable[[Job], dict]:
    """Give a function that migrates in this process, a driver on the shared Ray."""
    from rich.console import Console

    from cfray.report.progress import Progress

    shared_ray.join()

    def run(job: Job) -> dict:
        progress = Progress(Console(stderr=True), quiet=True)
        return pipeline.migrate(read_job(Path(job.path)), progress).as_json()

    return run


@pytest.mark.parametrize("second_version", [True, False])
def test_ray_data_counted_the_shards_that_the_run_read(
    migrate, tmp_path, monkeypatch, second_version
):
    from ray.data import DataContext

    monkeypatch.setattr(DataContext.get_current(), "use_datasource_v2", second_version)
    job = runs.write_job(tmp_path, runs.export(tmp_path, ROWS, 16, SHARDS))
    report = migrate(job)
    assert report["exit_code"] == 0
    (items, copy) = report["operators"]["copy"]
    assert (items["name"], copy["name"]) == ("FromItems", "MapBatches(copy_shard)")
    assert items["rows"] == copy["rows"] == report["counts"]["shards_read"] == SHARDS
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(ROWS)]


def publish_and_die(marks: Path, dying: set[int], task: CopyTask, planned: PlannedShard):
    """Copy a shard; the first time, die when its receipt is published and Ray has not heard."""
    receipt = copy_shard(task, planned)
    mark = marks / str(planned.number)
    if planned.number in dying and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_worker_that_dies_behind_its_receipt_doubles_no_row(migrate, tmp_path, monkeypatch, seed):
    marks = tmp_path / "marks"
    marks.mkdir()
    dying = set(random.Random(seed).sample(range(SHARDS), 2))
    monkeypatch.setattr(driver, "copy_shard", partial(publish_and_die, marks, dying))
    job = runs.write_job(tmp_path, runs.export(tmp_path, ROWS, 16, SHARDS))
    report = migrate(job)
    assert report["exit_code"] == 0
    assert {int(path.name) for path in marks.iterdir()} == dying
    assert runs.document_ids(job.target) == [f"doc-{number:07d}" for number in range(ROWS)]
    nonces = {name: len(found) for name, found in runs.receipts(job).items() if name.isdigit()}
    assert nonces == {str(number): 2 if number in dying else 1 for number in range(SHARDS)}
    assert report["operators"]["copy"][-1]["rows"] == report["counts"]["shards_read"] == SHARDS
