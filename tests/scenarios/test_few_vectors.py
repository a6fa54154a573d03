"""Corpora of many records of which few or none has a vector are indexed as far as they can be."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.scenarios import runs

#: The first number of records of which a target is indexed by itself (``index.vector.type: auto``).
ROWS, WIDTH = 50_000, 8


def job_of(folder, with_vector, kind):
    """Write an export of two files, of whose records some have a vector, and its job."""
    (folder / "in").mkdir()
    rng = np.random.default_rng(3)
    for part in range(2):
        numbers = np.arange(part * ROWS, (part + 1) * ROWS)
        vectors = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
        has_none = ~np.isin(numbers, with_vector)
        lists = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.ravel()), WIDTH, mask=pa.array(has_none)
        )
        table = pa.table({"id": numbers.astype(str), "text": numbers.astype(str), "v": lists})
        pq.write_table(table, folder / f"in/{part}.parquet")
    body = {
        "name": "few",
        "source": {"kind": "parquet", "uri": "./in", "shard_bytes": 1},
        "mapping": {"text_content": "text", "vector": "v"},
        "index": {"text": [], "vector": {"type": kind}},
        "target": {"uri": "out.lance"},
    }
    return runs.write_job(folder, body)


@pytest.mark.parametrize(
    ("with_vector", "kind", "missing", "indexed"),
    [
        (0, "auto", "zero", False),
        (3, "IVF_FLAT", "zero", True),
        (3, "IVF_SQ", "null", True),
        (3, "auto", "zero", False),
        (ROWS + 1, "auto", "zero", True),
    ],
)
def test_a_corpus_of_few_vectors_is_indexed_as_far_as_it_can_be(
    cfray, tmp_path, with_vector, kind, *, missing, indexed
):
    job = job_of(tmp_path, np.arange(max(1, with_vector)), kind)
    job = runs.write_job(tmp_path, {**job.body, "embedding": {"missing_vector": missing}})
    if not with_vector:
        body = {**job.body, "mapping": {"text_content": "text"}}
        for part in (tmp_path / "in").iterdir():
            pq.write_table(pq.read_table(part).drop_columns(["v"]), part)
        job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert job.report()["counts"]["frames"] == 2 * ROWS
    dataset = lance.dataset(job.target)
    names = {index.name for index in dataset.describe_indices()}
    assert ("vector_idx" in names) is indexed
    if indexed:
        query = dataset.to_table(columns=["vector"], filter="text_content = '2'")["vector"][0]
        found = dataset.to_table(nearest={"column": "vector", "q": query.as_py(), "k": 1})
        assert found["text_content"].to_pylist() == ["2"]
    version = dataset.version
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert lance.dataset(job.target).version == version
