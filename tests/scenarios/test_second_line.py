"""The second line of a migration: the source is closed before it, and a kill costs little of it.

An embedding server of the tests makes the vectors.  It sees when it is asked and for what, and it
holds a request while a test looks or kills.  Its vectors are the same to the bit whenever they are
made.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import cfray
from cfray.engine import failpoint
from tests.scenarios import runs
from tests.scenarios.corpora import exported, held, job_of, notes, served
from tests.scenarios.runs import PROVE
from tests.testbeds.embedding_server import EmbeddingServer, embedded
from tests.testbeds.point_in_time import PAGE_ROWS, PAGES, PointInTime

WIDTH = 8
ROWS, SHARDS, PIECE_ROWS, ROUNDS = (20_000, 12, 500, 20) if PROVE else (120, 3, 20, 3)
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}
#: Requests of 16 texts that the whole migration takes.
REQUESTS = ROWS // PIECE_ROWS * -(-PIECE_ROWS // 16)
COUNTED = f"{ROWS:,} records read, as many as the files say that they hold"


@pytest.fixture(scope="module")
def module_server():
    with EmbeddingServer(WIDTH) as server:
        yield server


@pytest.fixture
def server(module_server):
    """Give the server of all targets, whose address is part of a model's identity."""
    module_server.requests.clear()
    yield module_server
    module_server.release()


@pytest.fixture(scope="module")
def reference(tmp_path_factory, module_cfray, module_server):
    """Migrate once, undisturbed."""
    folder = tmp_path_factory.mktemp("second")
    exported(folder, notes(ROWS), SHARDS)
    job = job_of(folder, served(module_server), "reference.lance")
    module_cfray.run("migrate", job.path, "--quiet", **PIECES).ended_with(0)
    return job


def new_target(reference, server, name, **embedding):
    """Give the job of the reference for another target."""
    return reference.changed(embedding=served(server, **embedding), target={"uri": f"{name}.lance"})


def killed_at(cfray, boundary, command, job):
    """Run a command until it is killed at a boundary."""
    killed = cfray.start(command, job.path, "--quiet", CFRAY_FAIL_AT=boundary, **PIECES)
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL


def check_of(report, name):
    """Give status and sentence of a check."""
    (check,) = [check for check in report["checks"] if check["name"] == name]
    return check["status"], check["detail"]


def computed_rows(job):
    """Count the rows of the pieces that are computed and wait for the swap."""
    names = {path.name.split(".")[0] for path in job.state.glob("scratch/*/receipts/*.json")}
    return sum(int(name.rsplit("-", 1)[1]) for name in names)


def texts_of(requests):
    """Count the texts of records that requests asked for: the plan asks for a text of its own."""
    known = {text for _, _, text in notes(ROWS)}
    return sum(text in known for _, texts in requests for text in texts)


class _WatchingServer(EmbeddingServer):
    """Notes, as each request comes, what a store was asked for so far."""

    def __init__(self, store: PointInTime) -> None:
        super().__init__(WIDTH)
        self.store = store
        self.logs: list[list[str]] = []

    def arrived(self, path, body):
        self.logs.append(self.store.log())
        return super().arrived(path, body)


@pytest.fixture
def store(tmp_path, shared_ray):
    shared_ray.join()
    (tmp_path / "store").mkdir()
    store = PointInTime(folder=str(tmp_path / "store"))
    store.write("early")
    return store


def job_of_store(store, server, folder):
    job = cfray.Job(
        name="points",
        source={"kind": "jsonl", "uri": "replaced"},
        mapping={"id": "id", "text_content": "text"},
        embedding=served(server),
        target={"uri": str(folder / "out.lance")},
    )
    return job.model_copy(update={"source": store})  # no job file knows this kind


def test_the_source_is_closed_before_the_first_text_is_embedded_and_read_once(store, tmp_path):
    with _WatchingServer(store) as server:
        report = cfray.migrate(job_of_store(store, server, tmp_path))
    assert report.exit_code == 0, report
    of_plan, *of_texts = server.logs
    assert "close view-0" not in of_plan, "the plan looks at the model while its session is open"
    assert of_texts
    for log in of_texts:
        assert log[-1] == "close view-0", "the store was asked for something after its session"
    assert store.log() == of_texts[0], "the second line or the finish asked the store"
    pages = [f"{letter}-{page}" for letter in "abc" for page in range(PAGES)]
    reads = [line.split()[-1] for line in store.log("read")]
    assert sorted(reads) == sorted(2 * pages), "the plan's sample reads a page, and the copy does"
    assert report.counts["vectors_regenerated"] == len(pages) * PAGE_ROWS


def test_what_a_store_counted_is_in_the_report_of_a_resume_without_the_store(
    store, tmp_path, monkeypatch, server
):
    class Stopped(BaseException):
        pass

    reach = failpoint.reach

    def reach_or_stop(point):
        if point == "copied":
            raise Stopped
        reach(point)

    job = job_of_store(store, server, tmp_path)
    monkeypatch.setattr(failpoint, "reach", reach_or_stop)
    with pytest.raises(Stopped):
        cfray.migrate(job)
    monkeypatch.setattr(failpoint, "reach", reach)
    shutil.rmtree(store.folder)
    report = cfray.migrate(job)
    assert report.exit_code == 0, report
    (count,) = [check for check in report.checks if check.name == "source count"]
    assert count.status == "pass"
    assert "the source counts as many (asked at " in count.detail


def test_a_driver_killed_between_the_lines_is_resumed_without_the_source(cfray, tmp_path, server):
    """Nothing but ``migrate`` goes on with a copied target, and each command says what it is."""
    exported(tmp_path, notes(ROWS), SHARDS)
    job = job_of(tmp_path, served(server))
    for boundary in ("duplicates:1", "copied:1"):
        killed_at(cfray, boundary, "migrate", job)
        assert texts_of(server.requests) == 0
        check_copied(cfray, job)
    answer = cfray.run("query", job.target, "stone 7", "--mode", "auto", "--json")
    assert answer.ended_with(0).document()["mode"] == "text"
    check_refused_sections(cfray, job)
    shutil.rmtree(tmp_path / "export")
    cfray.run("migrate", job.path, "--quiet", **PIECES).ended_with(0)
    assert texts_of(server.requests) == ROWS
    report = job.report()
    assert check_of(report, "source count") == ("pass", COUNTED)
    assert check_of(report, "vectors as the job asks")[0] == "pass"
    assert cfray.run("status", job.path, "--json").document()["stage"] == "complete"
    for row in held(job.target).values():
        assert np.array_equal(row["vector"], embedded(row["text_content"], WIDTH))


def check_copied(cfray, job):
    """Ask each command about a copied target; none of them changes it."""
    report = cfray.run("verify", job.path, "--json").ended_with(4).document()
    failed = [check["name"] for check in report["checks"] if check["status"] == "fail"]
    assert failed == ["vectors as the job asks"]
    status = cfray.run("status", job.path, "--json").ended_with(0).document()
    assert (status["stage"], status["state"], status["finished"]) == ("copied", "copied", False)
    rows = held(job.target).values()
    assert {len(row["vector"]) for row in rows} == {1}
    assert not any(row["vector"].any() for row in rows)
    assert {row["x_vector_origin"] for row in rows} == {None}
    before = runs.digests(job.target), runs.uuids(job.target)
    ledger, receipts = runs.ledger(job.target), runs.receipts(job)
    for command in (("optimize",), ("quarantine", "replay"), ("embed",)):
        assert "migrate" in cfray.run(*command, job.path, "--quiet").ended_with(2).err, command
    plan = (job.state / "plan.json").read_bytes()
    other = job.changed(embedding={**job.body["embedding"], "on_long_text": "error"})
    assert "migrate" in cfray.run("embed", other.path, "--quiet").ended_with(2).err
    assert (job.state / "plan.json").read_bytes() == plan, "a refused command changed the plan"
    assert (runs.digests(job.target), runs.uuids(job.target)) == before
    assert (runs.ledger(job.target), runs.receipts(job)) == (ledger, receipts)


def check_refused_sections(cfray, job):
    """The source's vectors were not copied, and the chunks are cut."""
    embedding = job.body["embedding"]
    for other, name in (
        ({"policy": "keep"}, "embedding.policy is keep"),
        ({**embedding, "policy": "remap"}, "embedding.policy is remap"),
        ({**embedding, "chunk": {"tokens": 8}}, "embedding.chunk was changed"),
    ):
        assert name in cfray.run("migrate", job.changed(embedding=other).path).ended_with(2).err


def test_a_kill_at_each_boundary_repeats_at_most_the_pieces_in_flight(
    cfray, reference, server, record_property
):
    """What is computed is not computed again; the end is that of a run that nothing disturbed."""
    job = new_target(reference, server, "boundaries")
    killed_at(cfray, "piece:2", "migrate", job)
    finished = computed_rows(job)
    assert finished >= 2 * PIECE_ROWS
    mark = len(server.requests)
    for boundary, in_place in (("joined:1", False), ("embedded:1", True)):
        killed_at(cfray, boundary, "migrate", job)
        assert (runs.digests(job.target) == runs.digests(reference.target)) is in_place, boundary
        # a piece in flight may have been computed, and its receipt not written
        assert texts_of(server.requests[mark:]) <= ROWS - finished, f"after {boundary}"
        assert computed_rows(job) == ROWS
        mark, finished = len(server.requests), ROWS
    record_property("texts sent once more", texts_of(server.requests) - ROWS)
    cfray.run("migrate", job.path, "--quiet", **PIECES).ended_with(0)
    check_like(job, reference)
    assert texts_of(server.requests[mark:]) == 0
    cfray.run("cleanup", job.path).ended_with(0)
    assert not list(job.state.glob("scratch/embed-*")), "the killed run's pieces stay for ever"


def check_like(job, reference):
    """Two targets hold the same documents to the bit, and headers that say the same."""
    assert runs.digests(job.target) == runs.digests(reference.target)
    rows, expected_rows = (
        [(*row[:4], row[5]) for row in runs.headers(target)]  # without the job's fingerprint
        for target in (job.target, reference.target)
    )
    assert rows == expected_rows


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_a_random_text_the_end_is_exact(cfray, reference, server, seed, record_property):
    """A driver, or an actor, dies while the server holds a request; migrate is run again."""
    rng = random.Random(seed)
    request = rng.randrange(2, REQUESTS)
    kills_actor = rng.random() < 0.5
    server.fail("slow", on=(request,))
    job = new_target(reference, server, f"round{seed}", actors=2)
    running = cfray.start("migrate", job.path, "--quiet", **PIECES)
    runs.until(lambda: len(server.requests) >= request or running.ended, "a request is held")
    if kills_actor:
        actors = [pid for pid in running.workers() if "embed_piece" in runs.title(pid)]
        os.kill(rng.choice(actors), signal.SIGKILL)
        server.release()
        running.wait().ended_with(0)
        # the actor that died may have loaded no model yet, and the last piece may need no new actor
        assert 1 <= job.report()["pool"]["loaded"] <= 3
        most = 2 * PIECE_ROWS
    else:
        running.process.kill()
        running.until_ended()
        server.release()
        running.kill()
        most = 4 * PIECE_ROWS  # two actors, each with a piece at work and the next one
    record_property("killed", "an actor" if kills_actor else "the driver")
    cfray.run("migrate", job.path, "--quiet", **PIECES).ended_with(0)
    check_like(job, reference)
    repeated = texts_of(server.requests) - ROWS
    record_property("texts sent once more", repeated)
    assert 0 <= repeated <= most


def test_an_interrupt_does_not_wait_for_the_model(cfray, reference, server):
    """A request that the server holds for minutes must not hold the driver."""
    server.fail("slow", on=(3,))
    job = new_target(reference, server, "interrupted")
    running = cfray.start("migrate", job.path, "--quiet", **PIECES)
    runs.until(lambda: len(server.requests) >= 3 or running.ended, "a request is held")
    running.signal(signal.SIGTERM)
    assert "run the same command again" in running.wait().ended_with(143).err
    server.release()
    assert "interrupted" in job.report()["verdict"]


def test_ray_data_runs_both_lines_and_every_piece_is_a_row_of_it(reference):
    operators = json.loads((Path(f"{reference.target}.cfray") / "report.json").read_text())
    assert operators["counts"]["pieces"] == ROWS // PIECE_ROWS
    rows = [
        operator["rows"]
        for operator in operators["operators"]["embed"]
        if "embed_piece" in operator["name"]
    ]
    assert rows
    assert sum(rows) == ROWS // PIECE_ROWS
