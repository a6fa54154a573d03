"""``cfray embed`` makes the vectors of a finished dataset anew, exactly, after any kill.

Everything else stays as it was to the bit.  An embedding server of the tests makes the vectors; at
full size a model does.
"""

from __future__ import annotations

import signal

import lance
import numpy as np
import pyarrow as pa
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import (
    MAPPING,
    REGENERATE,
    copy_of,
    cosine,
    exported,
    held,
    job_of,
    notes,
    served,
    shortened,
)
from tests.scenarios.runs import PROVE
from tests.testbeds.embedding_server import EmbeddingServer, embedded

#: Rows, and rows of a piece: a kill leaves a piece computed and another not.
FINISHED, PIECE_ROWS = (200_000, 4_096) if PROVE else (280, 240)
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}
SOURCE_WIDTH, WIDTH = 24, 8


@pytest.fixture(scope="module")
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_cfray):
    """Migrate short texts with vectors of no model's, indexed."""
    folder = tmp_path_factory.mktemp("finished")
    vectors = np.random.default_rng(3).standard_normal((FINISHED, SOURCE_WIDTH))
    rows = shortened(FINISHED) if PROVE else notes(FINISHED)
    exported(folder, rows, 2, vectors.astype(np.float32))
    job = job_of(
        folder,
        {"policy": "keep"},
        "kept.lance",
        mapping={**MAPPING, "vector": "embedding"},
        index={"vector": {"type": "IVF_FLAT"}},
    )
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


@pytest.fixture(scope="module")
def few(tmp_path_factory, module_cfray):
    """Migrate few short texts and a long one, with vectors that are kept."""
    folder = tmp_path_factory.mktemp("few")
    vectors = np.random.default_rng(5).standard_normal((31, SOURCE_WIDTH)).astype(np.float32)
    exported(folder, [*notes(30), ("long", "Long", "a long text " * 10)], 1, vectors)
    job = job_of(folder, {"policy": "keep"}, mapping={**MAPPING, "vector": "embedding"})
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


def killed_at(cfray, boundary, job):
    """Run ``embed`` until it is killed at a boundary."""
    killed = cfray.start("embed", job.path, "--quiet", CFRAY_FAIL_AT=boundary, **PIECES)
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL


def computed_pieces(job):
    """Give the files of the pieces that wait for the swap: path -> when each was written."""
    return {path: path.stat().st_mtime_ns for path in job.state.glob("scratch/embed-*/*/*.arrow")}


def check_new_vectors(target):
    """The vectors are those of the new model."""
    rows = list(held(target).values())
    if not PROVE:
        for row in rows:
            assert np.array_equal(row["vector"], embedded(row["text_content"], WIDTH))
        return
    from tests.scenarios.corpora import library

    expected = library().encode([row["text_content"] for row in rows[:100]])
    assert cosine(np.stack([row["vector"] for row in rows[:100]]), expected).min() > 0.999


def test_embed_killed_twice(cfray, finished, server, record_property):
    """Other columns stay to the bit, the old version stays readable, no piece is computed twice."""
    before = runs.digests(finished.target)
    version = lance.dataset(finished.target).version
    reader = lance.dataset(finished.target)
    made = ("vector", "x_vector_origin", "raw_data")
    other_columns = reader.to_table(
        columns=[name for name in reader.schema.names if name not in made], with_row_id=True
    )
    job = finished.changed(embedding=REGENERATE if PROVE else served(server))
    computed: dict = {}
    for boundary in ("piece:1", "unindexed:1"):
        killed_at(cfray, boundary, job)
        earlier, computed = computed, computed_pieces(job)
        record_property(f"killed at {boundary}, pieces computed", len(computed))
        assert computed
        assert earlier.items() <= computed.items(), "a computed piece was computed again"
        assert runs.digests(finished.target) == before, "half of a new space must not be seen"
    cfray.run("embed", job.path, "--quiet", **PIECES).ended_with(0)
    counts, pool = job.report()["counts"], job.report()["pool"]
    record_property("brought to its end", job.counted())
    assert counts["pieces_adopted"] == counts["pieces"] == -(-FINISHED // PIECE_ROWS)
    assert pool.get("texts_embedded", 0) == 0
    assert runs.digests(finished.target, version) == before
    assert reader.count_rows() == len(other_columns)
    dataset = lance.dataset(finished.target)
    assert dataset.schema.field("vector").type == pa.list_(pa.float32(), 384 if PROVE else WIDTH)
    now = dataset.to_table(columns=other_columns.column_names[:-1], with_row_id=True)

    def documents_of(table):
        return table.filter(pa.compute.equal(table["record_type"], "document")).sort_by("_rowid")

    assert documents_of(now).equals(documents_of(other_columns))
    assert {item.name for item in dataset.describe_indices()} >= {"vector_idx"}
    check_new_vectors(finished.target)
    cfray.run("verify", job.path, "--quiet").ended_with(0)
    cfray.run("cleanup", job.path).ended_with(0)
    text = next(iter(held(finished.target).values()))["text_content"]
    asked = cfray.run("query", job.path, text, "--mode", "vector", "--k", "3", "--json")
    hits = asked.ended_with(0).document()["hits"]
    assert text in [hit["text_content"] for hit in hits]
    cfray.run("embed", job.path, "--quiet").ended_with(0)
    assert "already" in " ".join(job.report()["notes"])
    assert runs.data_files(finished.target) <= runs.referenced_files(finished.target) | {
        path for path in runs.data_files(finished.target) if "/" in path[5:]
    }


def test_embed_keeps_vectors_narrowed_and_in_another_type(cfray, few):
    """The vectors that are there are made narrower, and no model is asked."""
    wide = held(few.target)
    embedding = {
        "policy": "keep",
        "reduce": {"method": "truncate", "dimension": 2},
        "columns": {"half": {"of": "vector", "dtype": "float16"}},
    }
    job = copy_of(few, "narrowed.lance").changed(embedding=embedding)
    cfray.run("embed", job.path, "--quiet").ended_with(0)
    rows = held(job.target)
    assert rows.keys() == wide.keys()
    for uuid, row in rows.items():
        assert np.array_equal(row["vector"], wide[uuid]["vector"][:2])
        assert np.array_equal(
            np.array(row["x_vector_half"], np.float16), row["vector"].astype(np.float16)
        )
        assert row["x_vector_origin"] == "kept"
    cfray.run("verify", job.path, "--quiet").ended_with(0)


def test_embed_does_not_reduce_kept_vectors_twice(cfray, few):
    def reduced(job, dimension):
        how = {"method": "truncate", "dimension": dimension}
        return job.changed(embedding={"policy": "keep", "reduce": how})

    job = reduced(copy_of(few, "reduced.lance"), 8)
    cfray.run("embed", job.path, "--quiet").ended_with(0)
    before = runs.digests(job.target)
    refused = cfray.run("embed", reduced(job, 2).path).ended_with(2)
    assert "are reduced already" in refused.err
    assert "migrate into a new target.uri" in refused.err
    cfray.run("embed", job.path, "--quiet").ended_with(0)
    assert runs.digests(job.target) == before


def test_embed_adds_and_refreshes_the_vectors_of_further_columns(cfray, few, server):
    """Further columns are of the same model as the vector, whatever model that is."""
    copy = copy_of(few, "columns.lance")
    columns = {"columns": {"title": {"of": "title"}, "half": {"of": "vector", "dtype": "float16"}}}
    with EmbeddingServer(WIDTH + 4) as other:
        for model, width in ((server, WIDTH), (other, WIDTH + 4)):
            job = copy.changed(embedding=served(model, **columns))
            cfray.run("embed", job.path, "--quiet").ended_with(0)
            for row in held(job.target).values():
                assert np.array_equal(row["vector"], embedded(row["text_content"], width))
                of_title = np.array(row["x_vector_title"], np.float32)
                assert np.array_equal(of_title, embedded(row["title"], width))
                assert np.array_equal(
                    np.array(row["x_vector_half"], np.float16), row["vector"].astype(np.float16)
                )
            cfray.run("verify", job.path, "--quiet").ended_with(0)
        left_out = job.changed(embedding=served(other, columns={"title": {"of": "title"}}))
        refused = cfray.run("embed", left_out.path).ended_with(2)
    assert "embedding.columns leaves out half" in refused.err


def test_embed_refuses_a_long_text_where_the_job_says_so(cfray, few, server):
    copy = copy_of(few, "refused.lance")
    limited = served(server, on_long_text="error", endpoint={"max_tokens": 20})
    strict = copy.changed(embedding=limited, limits={"max_quarantined": 0})
    before = runs.digests(copy.target)
    stopped = cfray.run("embed", strict.path).ended_with(1)
    assert "the embedding refused 1 record" in stopped.err
    assert runs.digests(copy.target) == before
    lenient = copy.changed(embedding=limited, limits={"max_quarantined": 1})
    asked = len(server.requests)
    cfray.run("embed", lenient.path, "--quiet").ended_with(3)
    assert len(server.requests) == asked + 1, "the plan asks; the piece is computed already"
    (listed,) = runs.quarantined(cfray, lenient)
    assert (listed["stage"], listed["id"]) == ("embed", "long")
    texts = {row["text_content"] for row in held(copy.target).values()}
    assert texts == {text for _, _, text in notes(30)}
    cfray.run("verify", lenient.path, "--quiet").ended_with(3)


def test_embed_says_what_it_cannot_do(cfray, finished, server):
    for embedding, word in (
        ({"policy": "keep", "missing_vector": "null"}, "keep"),
        (served(server, columns={"title": {"of": "title"}}, chunk={"tokens": 8}), "chunk"),
    ):
        refused = cfray.run("embed", finished.changed(embedding=embedding).path).ended_with(2)
        assert word in refused.err
