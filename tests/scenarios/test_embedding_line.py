"""The embedding as Ray Data runs it: actors that come and go, and actors that are killed.

The embedding server is a double; its vectors are the same whoever asks, so what is compared is
compared to the bit.
"""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cfray.embedding import line
from cfray.embedding.pieces import Piece
from tests.scenarios import runs
from tests.scenarios.corpora import exported, job_of
from tests.scenarios.runs import PROVE, Job
from tests.testbeds.embedding_server import ACTOR, EmbeddingServer

ROWS, PIECE_ROWS = (20_000, 500) if PROVE else (48, 4)
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}
PIECE_COUNT = ROWS // PIECE_ROWS
ROUNDS = 20 if PROVE else 3


@pytest.fixture(scope="module")
def server():
    with EmbeddingServer(8) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(server, module_cfray, tmp_path_factory) -> Job:
    """Regenerate once, undisturbed."""
    folder = tmp_path_factory.mktemp("line")
    texts = [(f"{number}", f"Title {number}", f"text {number};") for number in range(ROWS)]
    exported(folder, texts, 2)
    endpoint = {"url": server.url, "model": "m", "batch": 128, "timeout": 600}
    job = job_of(folder, {"policy": "regenerate", "endpoint": endpoint, "actors": 2}, "first.lance")
    module_cfray.run("migrate", job.path, **PIECES).ended_with(0)
    return job


def check_same(job: Job, undisturbed: Job) -> None:
    names = runs.uuids(job.target)
    assert len(names) == len(set(names))
    assert runs.digests(job.target) == runs.digests(undisturbed.target)
    assert runs.headers(job.target) == runs.headers(undisturbed.target)


def test_four_actors_are_at_work_and_three_are_gone_before_the_last_piece_ends(
    cfray, undisturbed, server
):
    actors = {"min": 1, "max": 4}
    embedding = {**undisturbed.body["embedding"], "actors": actors}
    job = undisturbed.changed(target={"uri": "grown.lance"}, embedding=embedding)
    all_texts, last_text = server.hold("text "), server.hold(f"text {ROWS - 1};")
    running = cfray.start("migrate", job.path, **PIECES)
    runs.until(lambda: running.ended or server.inside == 4, "four actors wait for the server")
    assert not running.ended, running.wait().err
    all_texts.set()
    runs.until(
        lambda: running.ended or (server.inside == 1 and len(live_actors(running)) == 1),
        "three actors are gone",
    )
    assert not running.ended, "the last piece ended before them"
    last_text.set()
    running.wait().ended_with(0)
    assert job.report()["pool"]["actors"] == job.report()["pool"]["loaded"] == 4
    check_same(job, undisturbed)


def live_actors(running: runs.Running) -> list[int]:
    return [pid for pid in running.workers() if runs.title(pid).startswith(ACTOR)]


class DyingActor(line._PieceActor):
    """Dies once over some pieces, and once behind the receipt of others.

    Behind: the receipt is published, and Ray has not heard of it.

    How large a piece is must be handed in: a worker that imports this module knows no CFRAY_PROVE.
    """

    def __init__(self, marks: Path, rows: int, over: int, behind: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.marks, self.rows, self.over, self.behind = marks, rows, over, behind

    def __call__(self, piece: Piece) -> Any:
        number = piece.first // self.rows
        if number == self.over:
            embed = self.model.embed

            def embed_and_die(column: Any) -> Any:
                vectors = embed(column)
                self.die_once(f"over-{number}")
                return vectors

            self.model.embed = embed_and_die
        result = super().__call__(piece)
        if number == self.behind:
            receipts = [
                name for name in self.task.receipts.list_names() if name.startswith(piece.name)
            ]
            assert receipts, "the receipt is published"
            self.die_once(f"behind-{number}")
        return result

    def die_once(self, mark: str) -> None:
        path = self.marks / mark
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_actors_that_die_over_a_piece_and_behind_its_receipt_change_no_vector(
    shared_ray, undisturbed, monkeypatch, tmp_path, seed
):
    shared_ray.join()
    over, behind = random.Random(seed).sample(range(PIECE_COUNT), 2)
    dying = partial(DyingActor, tmp_path, PIECE_ROWS, over, behind)
    monkeypatch.setattr(line, "_PieceActor", dying)
    job = undisturbed.changed(target={"uri": f"dying-{seed}.lance"})
    runs.called(shared_ray.folder, "migrate", job.path, **PIECES).ended_with(0)
    assert {path.name for path in tmp_path.iterdir()} == {f"over-{over}", f"behind-{behind}"}
    report = job.report()
    assert report["operators"]["embed"][-1]["rows"] == report["counts"]["pieces"] == PIECE_COUNT
    assert report["counts"]["vectors_regenerated"] == ROWS
    assert report["pool"]["loaded"] >= 2 + 1, "a new actor came for one that died"
    check_same(job, undisturbed)
