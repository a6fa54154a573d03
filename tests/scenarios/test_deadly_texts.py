"""A text that ends the process which embeds it costs its record, and no other one.

The embedding server is a double that kills the actor which sends it a deadly text, so a death costs
the start of an actor, and no load of a model.  One test has a model of torch in the actor's own
process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfray.embedders.batches import LocalModel
from cfray.embedding import line
from cfray.embedding.model import ModelSettings
from tests.scenarios import runs
from tests.scenarios.corpora import exported, held, job_of
from tests.scenarios.runs import PROVE, Job
from tests.testbeds.embedding_server import EmbeddingServer, embedded
from tests.testbeds.models import minilm_l6

WIDTH = 8
#: Rows, and rows of a piece; 65,536 is the largest piece that texts are embedded in.
ROWS, PIECE_ROWS = (150_000, 65_536) if PROVE else (20, 4)
REASON = "the embedding actor died three times over this text"


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH, max_batch=4_096) as server:
        yield server


def text_of(number: int) -> str:
    return f"document {number} about a stone in the river"


def deadly(*numbers: int) -> Callable[[str], bool]:
    """Call the texts of some documents deadly."""
    return {text_of(number) for number in numbers}.__contains__


def deaths_over(*numbers: int, piece_rows: int = PIECE_ROWS) -> int:
    """Count the deaths that deadly documents cost.

    A range of two rows or more kills once, a row three times.
    """
    ranges = set()
    for number in numbers:
        first, rows = number // piece_rows * piece_rows, piece_rows
        while rows > 1:
            ranges.add((first, rows))
            rows //= 2
            first += rows * (number >= first + rows)
    return len(ranges) + 3 * len(numbers)


def pieces_of(rows: int) -> dict[str, str]:
    """Give the setting by which pieces have so many rows."""
    return {"CFRAY_PIECE_ROWS": str(rows)}


@pytest.fixture
def job_of_server(tmp_path, server):
    """Give a function that writes an export and its job for the server's model."""

    def write(texts: Iterable[str], actors: int = 2, api: str = "openai", **embedding: Any) -> Job:
        rows = [(str(number), f"Title {number}", text) for number, text in enumerate(texts)]
        exported(tmp_path, rows, 1)
        url = {"openai": server.url, "tei": server.root}[api]
        endpoint = {"url": url, "api": api, "model": "m", "batch": 2_048, "timeout": 600}
        return job_of(
            tmp_path,
            {"policy": "regenerate", "endpoint": endpoint, "actors": actors, **embedding},
            limits={"max_quarantined": 2},
        )

    return write


def by_original_id(target: str) -> dict[int, dict[str, Any]]:
    """Read a target's documents, and their chunks, by the number of the record."""
    return {
        int(entry["value"]): row
        for row in held(target).values()
        for entry in row["custom_metadata"]
        if entry["key"] == "original_id"
    }


def check_embedded(job: Job, numbers: set[int]) -> None:
    """See that the target holds exactly these documents, each with the vector of its text."""
    rows = by_original_id(job.target)
    assert set(rows) == numbers
    assert len(held(job.target)) == len(numbers)
    vectors = np.stack([row["vector"] for row in rows.values()])
    expected = np.stack([embedded(text_of(number), WIDTH) for number in rows])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert all(row["x_vector_origin"].startswith("regenerated ") for row in rows.values())


def check_quarantined(job: Job, numbers: set[int], reason: str = REASON) -> None:
    """See that these records alone are in quarantine, as frames, each with the reason."""
    entries = [
        json.loads(line)
        for path in (job.state / "quarantine").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sorted(int(entry["id"]) for entry in entries) == sorted(numbers)
    assert all(entry["stage"] == "embed" and entry["form"] == "frame" for entry in entries)
    assert all(reason in entry["reason"] and entry["position"] for entry in entries)
    counts = job.report()["counts"]
    assert counts["quarantined"] == len(numbers)
    assert counts["read"] == counts["staged"] + counts["quarantined"]


def test_a_deadly_text_is_quarantined_alone_and_comes_in_when_the_model_is_mended(
    cfray, job_of_server, server, record_property
):
    number = PIECE_ROWS + PIECE_ROWS // 2 + 1
    job = job_of_server(map(text_of, range(ROWS)))
    server.kill(deadly(number))
    cfray.run("migrate", job.path, **pieces_of(PIECE_ROWS)).ended_with(3)
    record_property("counted", {"actors that died": len(server.deaths), **job.counted()})
    assert len(set(server.deaths)) == len(server.deaths) == deaths_over(number) <= 20
    check_embedded(job, set(range(ROWS)) - {number})
    check_quarantined(job, {number})
    cfray.run("quarantine", "replay", job.path).ended_with(3)  # the text is deadly still
    assert len(server.deaths) == deaths_over(number) + 3
    check_quarantined(job, {number})
    server.mend()
    cfray.run("quarantine", "replay", job.path).ended_with(0)
    check_embedded(job, set(range(ROWS)))
    assert runs.quarantined(cfray, job) == []


def test_two_deadly_texts_are_quarantined_alone_though_the_run_is_killed_over_them(
    cfray, job_of_server, server
):
    piece_rows = PIECE_ROWS if PROVE else 2
    numbers = {piece_rows, piece_rows + 1}
    job = job_of_server(map(text_of, range(ROWS)))
    server.kill(deadly(*numbers))
    deaths = deaths_over(*numbers, piece_rows=piece_rows)
    running = cfray.start("migrate", job.path, **pieces_of(piece_rows))
    runs.until(
        lambda: running.ended or len(server.deaths) >= deaths // 2, "half of the deaths were died"
    )
    assert not running.ended, running.wait().err
    running.kill()
    cfray.run("migrate", job.path, **pieces_of(piece_rows)).ended_with(3)
    # the kill of the driver ended an actor, too, whose start counts
    assert deaths - 1 <= len(server.deaths) <= deaths
    check_embedded(job, set(range(ROWS)) - numbers)
    check_quarantined(job, numbers)


def test_a_model_that_dies_over_every_text_stops_the_run_and_quarantines_nothing(
    cfray, job_of_server, server
):
    job = job_of_server(map(text_of, range(2)), actors=1)
    server.kill(lambda text: True)
    stopped = cfray.run("migrate", job.path, **pieces_of(2)).ended_with(1)
    assert "the embedding actors die over every text" in stopped.err
    assert "remedy: give the actors more memory" in stopped.err
    assert len(server.deaths) == 1 + 2 + 3, "over both rows, the first row twice, another text"
    assert runs.quarantined(cfray, job) == []
    assert not runs.vectors(job.target).any(), "no vector changed"
    server.mend()
    cfray.run("migrate", job.path, **pieces_of(2)).ended_with(0)
    check_embedded(job, {0, 1})


def test_actors_that_die_while_they_load_the_model_stop_the_run_and_quarantine_nothing(
    cfray, job_of_server, server
):
    """An actor has the server count the tokens of no text before it embeds its first one."""
    job = job_of_server(map(text_of, range(2)), actors=1, api="tei")
    server.kill(lambda text: text == "a")
    stopped = cfray.run("migrate", job.path, **pieces_of(2)).ended_with(1)
    assert "embedding actors died 3 times while they loaded the model" in stopped.err
    assert "remedy: give them more memory" in stopped.err
    assert len(server.deaths) == 3
    assert runs.quarantined(cfray, job) == []
    server.mend()
    cfray.run("migrate", job.path, **pieces_of(2)).ended_with(0)
    check_embedded(job, {0, 1})


def test_a_deadly_chunk_takes_its_document_out_with_all_of_its_chunks(cfray, job_of_server, server):
    long = " ".join(["stones"] * 60)
    texts = [long, f"{long} deadly {long}", long]
    job = job_of_server(texts, actors=1, chunk={"tokens": 50})
    server.kill(lambda text: "deadly" in text and len(text) < len(long))
    cfray.run("migrate", job.path, **pieces_of(1)).ended_with(3)
    rows = held(job.target).values()
    documents = {row["uuid"] for row in rows if row["x_chunk_of"] is None}
    assert set(by_original_id(job.target)) == {0, 2}
    assert {row["x_chunk_of"] for row in rows} == {None, *documents}
    check_quarantined(job, {1}, reason=f"chunk 2: {REASON}")
    server.mend()
    cfray.run("quarantine", "replay", job.path).ended_with(0)
    chunks = [row for row in held(job.target).values() if row["x_chunk_of"]]
    assert any("deadly" in row["text_content"] for row in chunks)
    assert all(row["vector"].any() for row in held(job.target).values())


class DyingModel(ModelSettings):
    """A real model that ends its process with no word, over a text or while it is loaded."""

    def load(self) -> LocalModel:
        """Load the model, if the mark beside it does not say that it cannot be loaded."""
        folder = Path(self.spec.model)
        with (folder.parent / "loads").open("a") as loads:
            loads.write(".")
        if (folder.parent / "too large").exists():
            os._exit(139)
        local = super().load()
        model = local.texts.embedder.model
        model.preprocess = partial(die_over_deadly_texts, model.preprocess)
        return local


def die_over_deadly_texts(preprocess: Callable[..., Any], texts: list[str], **options: Any) -> Any:
    if any("deadly" in text for text in texts):
        os._exit(139)
    return preprocess(texts, **options)


@pytest.fixture
def local_model(tmp_path):
    """Save a static model of sentence-transformers, 8 wide, with the tokenizer of a real one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_l6() / "tokenizer.json"))
    tokenizer.no_truncation()
    module = StaticEmbedding(tokenizer, embedding_dim=WIDTH)
    folder = tmp_path / "static"
    SentenceTransformer(modules=[module], device="cpu").save(str(folder))
    return folder


@pytest.mark.prove
def test_a_text_that_ends_the_process_of_a_model_of_torch_is_quarantined_alone(
    shared_ray, monkeypatch, tmp_path, local_model
):
    """First the model cannot be loaded, which counts for no row; then a text ends its process."""
    monkeypatch.setattr(line, "ModelSettings", DyingModel)
    shared_ray.join()
    exported(tmp_path, [("0", "A", "a stone"), ("1", "B", "deadly"), ("2", "C", "a river")], 1)
    job = job_of(
        tmp_path,
        {"policy": "regenerate", "model": str(local_model), "actors": 1},
        limits={"max_quarantined": 1},
    )
    migrate = partial(runs.called, shared_ray.folder, "migrate", job.path, **pieces_of(1))
    (tmp_path / "too large").touch()
    stopped = migrate().ended_with(1)
    assert "embedding actors died 3 times while they loaded the model" in stopped.err
    # three times for a piece; whether other pieces are begun before the run ends is chance
    assert 3 <= len((tmp_path / "loads").read_text()) <= 3 * 3
    assert not (job.state / "quarantine").exists()
    (tmp_path / "too large").unlink()
    migrate().ended_with(3)
    assert job.report()["pool"]["loaded"] == 1 + 3, "once, and after each of three deaths"
    rows = by_original_id(job.target)
    assert set(rows) == {0, 2}
    assert all(np.linalg.norm(row["vector"]) > 0 for row in rows.values())
    check_quarantined(job, {1})
