"""Vectors that a model makes are faithful and made once; awkward texts and models are said so.

A real model makes them here; what a kill costs is seen in ``test_second_line.py``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import uuid

import numpy as np
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import (
    MAPPING,
    REGENERATE,
    cosine,
    documents,
    exported,
    held,
    job_of,
    notes,
    served,
    through_the_model,
)
from tests.scenarios.runs import PROVE

DOCUMENTS, SAMPLED = (60_000, 2_000) if PROVE else (96, 48)
SHARDS = 16 if PROVE else 2
#: Rows of a piece: each actor has several.
PIECE_ROWS = 4_096 if PROVE else 16
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}


def check_alike(target: str, reference: str) -> None:
    """Two targets hold the same rows, to the letter but for the last bits of bf16 vectors."""
    rows, expected_rows = held(target), held(reference)
    assert rows.keys() == expected_rows.keys()
    for name, row in rows.items():
        expected = expected_rows[name]
        assert {k: v for k, v in row.items() if k != "vector"} == {
            k: v for k, v in expected.items() if k != "vector"
        }
    similarity = cosine(
        np.stack([rows[name]["vector"] for name in rows]),
        np.stack([expected_rows[name]["vector"] for name in rows]),
    )
    assert similarity.min() > 0.999


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, module_cfray):
    """Regenerate once, undisturbed."""
    folder = tmp_path_factory.mktemp("embed")
    exported(folder, documents(DOCUMENTS), SHARDS)
    job = job_of(folder, REGENERATE, "first.lance")
    module_cfray.run("migrate", job.path, "--quiet", **PIECES).ended_with(0)
    return job


def test_vectors_are_the_models_own(undisturbed, naive, record_property):
    rows = list(held(undisturbed.target).values())
    assert len(rows) == DOCUMENTS
    picked = np.random.default_rng(5).choice(len(rows), SAMPLED, replace=False)
    expected = naive.encode([rows[index]["text_content"] for index in picked], batch_size=32)
    similarity = cosine(np.stack([rows[index]["vector"] for index in picked]), expected)
    record_property("lowest cosine of the sample", f"{similarity.min():.6f}")
    assert similarity.min() > 0.999
    origins = {row["x_vector_origin"] for row in rows}
    assert len(origins) == 1
    assert re.fullmatch(r"regenerated model=[0-9a-f]{16}", origins.pop())


def test_each_actor_loads_the_model_once(undisturbed, record_property):
    report = undisturbed.report()
    record_property("regenerated", undisturbed.counted())
    assert report["pool"]["loaded"] == report["pool"]["actors"] == len(os.sched_getaffinity(0))
    assert through_the_model(report) == DOCUMENTS == report["counts"]["vectors_regenerated"]
    assert report["counts"]["texts_truncated"] > 0
    assert 0 < report["pool"]["busy"] <= report["pool"]["alive"]


def test_a_query_finds_a_document_by_its_title(cfray, undisturbed):
    row = min(held(undisturbed.target).values(), key=lambda row: row["uuid"])
    answer = (
        cfray.run(
            "query", undisturbed.target, row["title"], "--k", "10", "--mode", "hybrid", "--json"
        )
        .ended_with(0)
        .document()
    )
    assert row["uuid"] in [hit["uuid"] for hit in answer["hits"]]


@pytest.mark.prove
def test_a_killed_run_embeds_no_finished_piece_again(cfray, undisturbed, record_property):
    """The driver is killed at the second piece, then an actor in the middle of the next run."""
    job = undisturbed.changed(target={"uri": "killed.lance"})
    killed = cfray.start("migrate", job.path, "--quiet", CFRAY_FAIL_AT="piece:2", **PIECES)
    killed.until_ended()
    killed.kill()
    names = {path.name.split(".")[0] for path in job.state.glob("scratch/*/receipts/*.json")}
    finished = sum(int(name.rsplit("-", 1)[1]) for name in names)
    assert 2 * PIECE_ROWS <= finished < DOCUMENTS
    again = cfray.start("migrate", job.path, "--quiet", **PIECES)
    actor = runs.until(
        lambda: [pid for pid in again.workers() if "embed_piece" in runs.title(pid)] or again.ended,
        "an actor embeds",
    )
    if actor is not True:
        os.kill(actor[0], signal.SIGKILL)
    again.wait().ended_with(0)
    report = job.report()
    assert report["counts"]["pieces_adopted"] == len(names)
    record_property(
        "resumed", {"done before": finished, "actor killed": actor is not True, **job.counted()}
    )
    assert through_the_model(report) == DOCUMENTS - finished, (
        "texts of finished pieces went through the model again, or some never did"
    )
    # an actor that is killed while it loads the model has not loaded it
    assert report["pool"]["loaded"] - report["pool"]["actors"] in (
        (0, 1) if actor is not True else (0,)
    )
    check_alike(job.target, undisturbed.target)


def test_awkward_texts(tmp_path, cfray, record_property):
    """Texts are truncated, blank, not UTF-8, a million characters, alike, or cut into chunks."""
    long = " ".join(f"stone{number} in the river" for number in range(300))
    lines = [
        json.dumps({"id": "long", "body": long}), json.dumps({"id": "blank", "body": " "}), json.dumps({"id": "null", "body": None}),
        json.dumps({"id": "none"}), json.dumps({"id": 1.5, "name": "repaired", "body": "a record whose id is no id"}), '{"id": "surrogate", "body": "a \\ud800 b"}', json.dumps({"id": "huge", "body": "word " * 200_000}),
        *(json.dumps({"id": f"twin{number}", "body": "the same text"}) for number in range(3)),
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    source, mapping = {"kind": "jsonl", "uri": "./in.jsonl"}, {"text_content": "body"}
    job = job_of(
        tmp_path,
        {**REGENERATE, "chunk": {"tokens": 100, "overlap": 10}},
        source=source,
        mapping=mapping,
        limits={"max_quarantined": 5},
    )
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    rows = held(job.target)
    texts = {
        next(
            entry["value"] for entry in row["custom_metadata"] if entry["key"] == "original_id"
        ): row
        for row in rows.values()
        if not row["x_chunk_of"]
    }
    assert set(texts) == {"long", "blank", "null", "none", "huge", "twin0", "twin1", "twin2"}
    reasons = sorted(row["reason"] for row in runs.quarantined(cfray, job))
    assert len(reasons) == 2
    assert "cannot be an id" in reasons[0]
    assert "surrogate" in reasons[1]
    for name in ("blank", "null", "none"):
        assert not texts[name]["vector"].any()
        assert texts[name]["x_vector_origin"] is None
    assert np.array_equal(texts["twin0"]["vector"], texts["twin2"]["vector"])
    counts = job.report()["counts"]
    record_property("counted", job.counted())
    assert counts["missing_vectors"] == 3
    assert counts["texts_truncated"] == 2
    assert counts["read"] == counts["staged"] + counts["quarantined"] == 10
    chunks = [row for row in rows.values() if row["x_chunk_of"]]
    assert counts["frames"] == counts["staged"] + len(chunks)
    assert counts["derived_frames"] == len(chunks)
    pieces = sorted(
        (row for row in chunks if row["x_chunk_of"] == texts["long"]["uuid"]),
        key=lambda row: row["position"],
    )
    assert [row["position"] for row in pieces] == list(range(len(pieces)))
    assert pieces[0]["text_content"] == long[: len(pieces[0]["text_content"])]
    assert pieces[-1]["text_content"] == long[-len(pieces[-1]["text_content"]) :]
    for number, row in enumerate(pieces):
        assert row["uuid"] == str(
            uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "cfray:deb/"), f"chunk:{number}:s:long")
        )
        assert {"type": "member_of", "id": texts["long"]["uuid"]}.items() <= row["relationships"][
            0
        ].items()

    repaired = job.changed(mapping={"id": ["name", "id"], "text_content": "body"})
    cfray.run("quarantine", "replay", repaired.path, "--quiet").ended_with(3)
    brought = [
        row
        for row in held(job.target).values()
        if row["text_content"] == "a record whose id is no id"
    ]
    assert len(brought) == 1
    assert np.linalg.norm(brought[0]["vector"]) == pytest.approx(1, abs=1e-4)


def test_vectors_kept_narrowed_and_in_another_width(tmp_path, cfray):
    """A projection learned from the source's own vectors; a half-width copy of the column."""
    rows = [(f"{number}", f"Title {number}", f"text {number}") for number in range(600)]
    vectors = np.random.default_rng(2).standard_normal((600, 32)) @ np.diag(1 / np.arange(1, 33))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    exported(tmp_path, rows, 2, vectors)
    embedding = {
        "policy": "keep",
        "reduce": {"method": "pca", "dimension": 12},
        "columns": {"half": {"of": "vector", "dtype": "float16"}},
    }
    job = job_of(tmp_path, embedding, mapping={**MAPPING, "vector": "embedding"})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    rows_by_uuid = held(job.target)
    narrow = np.stack([row["vector"] for row in rows_by_uuid.values()])
    by_id = {
        next(
            entry["value"] for entry in row["custom_metadata"] if entry["key"] == "original_id"
        ): index
        for index, row in enumerate(rows_by_uuid.values())
    }
    wide = np.empty_like(vectors)
    for number, index in by_id.items():
        wide[index] = vectors[int(number)]
    assert narrow.shape == (600, 12)
    wide_neighbours = np.argsort(-(wide @ wide.T), axis=1)[:, 1:11]
    narrow_neighbours = np.argsort(-(narrow @ narrow.T), axis=1)[:, 1:11]
    assert (
        np.mean(
            [
                len(set(wide_row) & set(narrow_row)) / 10
                for wide_row, narrow_row in zip(wide_neighbours, narrow_neighbours, strict=True)
            ]
        )
        > 0.8
    )
    for row in rows_by_uuid.values():
        assert np.array_equal(
            np.array(row["x_vector_half"], np.float16), row["vector"].astype(np.float16)
        )
        assert row["x_vector_origin"] == "kept"


def test_wrong_models_and_servers(tmp_path, cfray):
    from tests.testbeds.embedding_server import EmbeddingServer

    exported(tmp_path, notes(20), 1)
    nowhere = cfray.run(
        "migrate", job_of(tmp_path, {**REGENERATE, "model": "./no-such-model"}).path
    ).ended_with(2)
    assert "no-such-model" in nowhere.err
    down = {
        "policy": "regenerate",
        "endpoint": {"url": "http://127.0.0.1:9", "model": "m", "timeout": 1},
    }
    assert "127.0.0.1:9" in cfray.run("migrate", job_of(tmp_path, down).path).ended_with(1).err
    assert not (tmp_path / "out.lance").exists()
    with EmbeddingServer(16) as server:
        embedding = served(server)
        whole = job_of(tmp_path, embedding, "whole.lance")
        cfray.run("migrate", whole.path, "--quiet").ended_with(0)
        assert len(held(whole.target)) == 20
        server.fail("too few", on=(2,))  # the plan asks once, then the second line does
        short = job_of(tmp_path, embedding, "short.lance")
        assert "vectors" in cfray.run("migrate", short.path, "--quiet").ended_with(1, 2).err
        assert {len(row["vector"]) for row in held(short.target).values()} == {1}
        cfray.run("migrate", short.path, "--quiet").ended_with(0)
        assert runs.digests(short.target) == runs.digests(whole.target)
    other = whole.changed(embedding={**REGENERATE})
    assert "embedding" in cfray.run("migrate", other.path).ended_with(2).err
