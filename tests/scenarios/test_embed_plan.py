"""``cfray embed --plan`` says what a re-embedding would do, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import lance
import pytest

from tests.scenarios.corpora import documents, exported, job_of
from tests.testbeds.embedding_server import EmbeddingServer

DOCUMENTS = 300
CHUNK = {"tokens": 40}


@pytest.fixture(scope="module")
def server():
    with EmbeddingServer(16) as server:
        yield server


def regenerate(server, **more):
    endpoint = {"url": server.url, "model": "first", "batch": 8, **more.pop("endpoint", {})}
    return {"policy": "regenerate", "endpoint": endpoint, "chunk": CHUNK, **more}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_cfray, server):
    """Migrate real texts, with chunks of the long ones, in four fragments that are merged."""
    folder = tmp_path_factory.mktemp("finished")
    exported(folder, documents(DOCUMENTS), 4)
    index = {"vector": {"type": "none"}, "text": [], "scalar": []}
    job = job_of(folder, regenerate(server), index=index)
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


def files(job) -> dict[str, tuple[int, int]]:
    """List every file of the target and its state with size and time."""
    paths = [path for root in (Path(job.target), job.state) for path in root.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_it_counts_rows_chunks_pieces_and_what_the_new_model_would_cut(cfray, finished, server):
    before = files(finished)
    endpoint = {"model": "second", "max_tokens": 20, "price_per_million_tokens": 1_000_000}
    job = finished.changed(embedding=regenerate(server, endpoint=endpoint))
    ended = cfray.run("embed", job.path, "--plan", "--json").ended_with(0)
    assert files(finished) == before, "a plan changes nothing"
    plan = ended.document()
    target = lance.dataset(finished.target)
    rows = target.count_rows("record_type = 'document'")
    chunks = target.count_rows("x_chunk_of IS NOT NULL")
    assert (plan["rows"], plan["chunks"]) == (rows, chunks)
    assert rows == DOCUMENTS + chunks
    assert chunks > 0
    assert (plan["model"], plan["dimension"], plan["old_dimension"]) == ("second", 16, 16)
    seen = plan["embedding"]
    assert seen["texts"] + seen["blank"] == plan["sampled"] == rows
    assert seen["chunks"] == chunks
    assert 0 < seen["chunks_truncated"] < seen["truncated"] <= seen["texts"]
    assert seen["tokens_lost"] > 0
    # the price is one a token, of which the model sees twenty of each text at most
    assert 0 < seen["cost"] <= 20 * rows
    assert plan["disk_parts"]["vectors"] == rows * 16 * 4
    text = cfray.run("embed", job.path, "--plan").ended_with(0).out
    assert f"{rows:,} rows, {chunks:,} chunks among them" in text
    assert f"{seen['chunks_truncated']:,} of them chunks" in text
    assert "nothing was written" in text
    assert files(finished) == before


def test_its_pieces_are_those_of_the_run(cfray, finished, server):
    job = finished.changed(embedding=regenerate(server, endpoint={"model": "third"}))
    plan = cfray.run("embed", job.path, "--plan", "--json").ended_with(0).document()
    before = sum(path.stat().st_size for path in Path(job.target, "data").rglob("*.lance"))
    cfray.run("embed", job.path, "--quiet").ended_with(0)
    after = sum(path.stat().st_size for path in Path(job.target, "data").rglob("*.lance"))
    assert job.report()["counts"]["pieces"] == plan["lines"]["pieces"] > 1
    assert plan["disk"] == pytest.approx(after - before, rel=0.25)
    again = cfray.run("embed", job.path, "--plan", "--json").ended_with(0).document()
    assert again["nothing_to_do"] is True
    assert "already" in again["notes"][0]


def test_it_refuses_what_embed_refuses(cfray, finished, server):
    for embedding, word in (
        ({"policy": "keep"}, "keep"),
        (regenerate(server, chunk={"tokens": 60}), "chunk"),
    ):
        before = files(finished)
        job = finished.changed(embedding=embedding)
        assert word in cfray.run("embed", job.path, "--plan").ended_with(2).err
        document = cfray.run("embed", job.path, "--plan", "--json").ended_with(2).document()
        assert document["exit_code"] == 2
        assert files(finished) == before
    other = finished.changed(target={"uri": "absent.lance"})
    assert "no target" in cfray.run("embed", other.path, "--plan").ended_with(2).err
