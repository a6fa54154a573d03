"""``cfray embed`` makes the vectors of a finished dataset anew, exactly, after any kill.

Everything else stays as it was to the bit.
"""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import MAPPING, REGENERATE, cosine, exported, held, job_of, shortened
from tests.scenarios.runs import PROVE

#: Rows, and rows of a piece: a kill leaves a piece computed and another not.
FINISHED, PIECE_ROWS = (200_000, 4_096) if PROVE else (700, 600)
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, module_cfray):
    """Migrate short texts with vectors of no model's, indexed."""
    folder = tmp_path_factory.mktemp("finished")
    rows = shortened(FINISHED)
    vectors = np.random.default_rng(3).standard_normal((FINISHED, 24)).astype(np.float32)
    exported(folder, rows, 4, vectors)
    index = {"vector": {"type": "IVF_FLAT"}}
    job = job_of(
        folder,
        {"policy": "keep"},
        "kept.lance",
        mapping={**MAPPING, "vector": "embedding"},
        index=index,
    )
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


def test_embed_killed_twice(cfray, finished, naive, record_property):
    """Other columns stay to the bit, the old version stays readable, no piece is computed twice."""
    before = runs.digests(finished.target)
    version = lance.dataset(finished.target).version
    reader = lance.dataset(finished.target)
    other_columns = reader.to_table(
        columns=[
            name
            for name in reader.schema.names
            if name not in ("vector", "x_vector_origin", "raw_data")
        ],
        with_row_id=True,
    )
    job = finished.changed(embedding=REGENERATE)
    computed: dict[str, int] = {}
    for boundary in ("piece:1", "joined:1"):
        killed = cfray.start("embed", job.path, "--quiet", CFRAY_FAIL_AT=boundary, **PIECES)
        killed.until_ended()
        killed.kill()
        earlier, computed = (
            computed,
            {
                path.name: path.stat().st_mtime_ns
                for path in job.state.glob("scratch/embed-*/*.arrow")
            },
        )
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
    assert dataset.schema.field("vector").type == pa.list_(pa.float32(), 384)
    now = dataset.to_table(columns=other_columns.column_names[:-1], with_row_id=True)

    def documents_of(table):
        return table.filter(pa.compute.equal(table["record_type"], "document")).sort_by("_rowid")

    assert documents_of(now).equals(documents_of(other_columns))
    assert {item.name for item in dataset.describe_indices()} >= {"vector_idx"}
    rows = list(held(finished.target).values())
    expected = naive.encode([row["text_content"] for row in rows[:100]])
    assert cosine(np.stack([row["vector"] for row in rows[:100]]), expected).min() > 0.999
    cfray.run("verify", job.path, "--quiet").ended_with(0)
    cfray.run("cleanup", job.path).ended_with(0)
    hit = (
        cfray.run(
            "query",
            finished.target,
            rows[7]["text_content"],
            "--mode",
            "vector",
            "--k",
            "3",
            "--json",
        )
        .ended_with(0)
        .document()
    )
    assert rows[7]["text_content"] in [found_row["text_content"] for found_row in hit["hits"]]
    cfray.run("embed", job.path, "--quiet").ended_with(0)
    assert "already" in " ".join(job.report()["notes"])
    assert runs.data_files(finished.target) <= runs.referenced_files(finished.target) | {
        path for path in runs.data_files(finished.target) if "/" in path[5:]
    }


def test_embed_says_what_it_cannot_do(cfray, finished):
    for embedding, word in (
        ({"policy": "keep", "missing_vector": "null"}, "keep"),
        ({**REGENERATE, "columns": {"title": {"of": "title"}}}, "columns"),
        ({**REGENERATE, "on_long_text": "error"}, "on_long_text"),
    ):
        assert (
            word in cfray.run("embed", finished.changed(embedding=embedding).path).ended_with(2).err
        )
