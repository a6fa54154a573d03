"""Rows join a target, or leave it, together with their vectors: no version has one without the other.

An embedding server of the tests makes the vectors, the same to the bit whenever they are made.
"""

from __future__ import annotations

import json
from typing import Any

import lance
import numpy as np
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import held, served
from tests.scenarios.runs import Job
from tests.testbeds.embedding_server import EmbeddingServer, embedded

WIDTH, SOURCE_WIDTH = 8, 5
ROWS = 24
#: Rows without an id, of which one has a text that is cut into chunks; and a row without a text.
UNNAMED, LONG, BLANK = (3, 6), (6, 11), 17
#: Tokens of a text, which cfray estimates as four bytes each, and of a chunk.
MOST_TOKENS = 25
LIMITED = {"endpoint": {"max_tokens": MOST_TOKENS}, "chunk": {"tokens": 12, "overlap": 2}}


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


def text_of(number: int) -> str:
    if number == BLANK:
        return " "
    return f"text {number} of a river" + " and of its stone" * (10 if number in LONG else 0)


def job_of(folder, embedding: dict[str, Any], **more: Any) -> Job:
    """Write the rows and their job; each row has a vector of the source."""
    vectors = np.random.default_rng(4).standard_normal((ROWS, SOURCE_WIDTH)).round(3)
    with (folder / "rows.jsonl").open("w") as lines:
        for number in range(ROWS):
            row = {"other": f"o{number}", "title": f"Title {number}", "text": text_of(number)}
            if number not in UNNAMED:
                row["id"] = f"i{number}"
            lines.write(json.dumps(row | {"vector": vectors[number].tolist()}) + "\n")
    body = {
        "name": "joining",
        "source": {"kind": "jsonl", "uri": "rows.jsonl"},
        "mapping": {"id": "id", "text_content": "text", "title": "title", "vector": "vector"},
        "limits": {"max_quarantined": "50%"},
        "target": {"uri": "out.lance"},
        "embedding": embedding,
    }
    return runs.write_job(folder, {**body, **more})


def every_id(job: Job) -> dict[str, Any]:
    """Give the mapping by which each row has an id."""
    return {**job.body["mapping"], "id": ["id", "other"]}


def check_vectors(job: Job) -> int:
    """Check every version since the vectors were made; give the number of the first of them.

    Documents and chunks have the vector of their text; only a document without text has zeros.
    """
    versions = [version["version"] for version in lance.dataset(job.target).versions()]
    with_vectors = [
        version
        for version in versions
        if lance.dataset(job.target, version=version).schema.field("vector").type.list_size == WIDTH
    ]
    assert versions[-1] in with_vectors
    for version in with_vectors:
        for row in held(job.target, version).values():
            text = row["text_content"]
            expected = np.zeros(WIDTH, np.float32)
            if text.strip():
                expected = embedded(text[: 4 * MOST_TOKENS], WIDTH)
            assert np.array_equal(row["vector"], expected), (version, text)
            assert (row["x_vector_origin"] is None) is not bool(text.strip())
    return with_vectors[0]


def frames_in_quarantine(job: Job) -> list[dict[str, Any]]:
    """Read the lines of the quarantine whose rows left the target."""
    lines = [
        json.loads(line)
        for path in sorted((job.state / "quarantine").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line for line in lines if line.get("form") == "frame"]


def contents(target: str) -> list[bytes]:
    """Read the documents, without the model's name: what becomes of long texts is part of it."""
    dataset = lance.dataset(target)
    batches = dataset.scanner(
        filter="record_type = 'document'", blob_handling="all_binary"
    ).to_batches()
    rows = (row for batch in batches for row in batch.to_pylist())
    texts = [repr(sorted((row | {"x_vector_origin": None}).items())) for row in rows]
    return sorted(text.encode() for text in texts)


def uuids_of(rows: dict[str, dict[str, Any]], text: str) -> set[str]:
    """Give the uuids of a document and of its chunks."""
    (document,) = [
        uuid
        for uuid, row in rows.items()
        if row["text_content"] == text and row["x_chunk_of"] is None
    ]
    return {document, *(uuid for uuid, row in rows.items() if row["x_chunk_of"] == document)}


def test_refused_documents_leave_and_come_back_with_their_chunks_and_vectors(
    cfray, tmp_path, server
):
    """A record without an id joins for the first time; a document with a long text comes back."""
    job = job_of(tmp_path, served(server, on_long_text="error", **LIMITED))
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    swap = check_vectors(job)
    copied, swapped = held(job.target, swap - 1), held(job.target, swap)
    leaving = uuids_of(copied, text_of(LONG[1]))
    assert len(leaving) > 1
    assert copied.keys() - swapped.keys() == leaving
    counts = job.report()["counts"]
    assert [counts[name] for name in ("read", "staged", "quarantined")] == [ROWS, ROWS - 3, 3]
    (refused,) = [row for row in runs.quarantined(cfray, job) if row["stage"] == "embed"]
    assert refused["id"] == f"i{LONG[1]}"
    (frame,) = frames_in_quarantine(job)
    assert frame["stage"] == "embed"
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(3)

    cut = job.changed(mapping=every_id(job), embedding=served(server, **LIMITED))
    cfray.run("quarantine", "replay", cut.path, "--quiet").ended_with(0)
    assert job.report()["counts"]["texts_truncated"] == len(LONG)
    check_vectors(job)
    rows = held(job.target)
    assert leaving < rows.keys(), "the document and its chunks have their uuids again"
    versions = [item["version"] for item in lance.dataset(job.target).versions()]
    sizes = {len(held(job.target, version)) for version in versions if version >= swap}
    assert sizes == {len(swapped), len(rows)}, "they joined at once"
    cfray.run("verify", cut.path, "--against", "source", "--quiet").ended_with(0)
    assert runs.quarantined(cfray, cut) == []
    fresh = cut.changed(target={"uri": "fresh.lance"})
    cfray.run("migrate", fresh.path, "--quiet").ended_with(0)
    assert fresh.report()["counts"]["texts_truncated"] == len(LONG)
    assert contents(job.target) == contents(fresh.target)
    assert runs.headers(job.target) == runs.headers(fresh.target)


def test_embed_sends_a_document_without_text_to_quarantine_where_the_job_says_so(
    cfray, tmp_path, server
):
    kept = job_of(tmp_path, {"policy": "keep"})
    kept = kept.changed(mapping=every_id(kept))
    cfray.run("migrate", kept.path, "--quiet").ended_with(0)
    copied = held(kept.target)
    job = kept.changed(
        embedding=served(server, missing_vector="quarantine", endpoint=LIMITED["endpoint"])
    )
    cfray.run("embed", job.path, "--quiet").ended_with(3)
    check_vectors(job)
    (left,) = copied.keys() - held(job.target).keys()
    assert copied[left]["text_content"] == " "
    (listed,) = runs.quarantined(cfray, job)
    assert listed["stage"] == "embed"
    assert "missing_vector is quarantine" in listed["reason"]
    assert len(frames_in_quarantine(job)) == 1
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(3)

    filled = job.changed(embedding=served(server, endpoint=LIMITED["endpoint"]))
    cfray.run("quarantine", "replay", filled.path, "--quiet").ended_with(0)
    assert held(job.target).keys() == copied.keys()
    assert not held(job.target)[left]["vector"].any()
    check_vectors(job)
    cfray.run("verify", filled.path, "--quiet").ended_with(0)
