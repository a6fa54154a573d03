"""How well the vector index finds the true neighbours is measured, and the dataset says how to search.

What an index finds is counted here with pylance and NumPy alone.
"""

from __future__ import annotations

import json

import lance
import numpy as np
import pytest

from cfray.report.names import INDEX_RECALL
from tests.scenarios import runs
from tests.scenarios.runs import Job

ROWS, DIMENSION, K = 6_000, 32, 10


def migrated(cfray, folder, code: int, **vector) -> Job:
    body = runs.export(folder, ROWS, DIMENSION, 2)
    job = runs.write_job(folder, {**body, "index": {"vector": vector, "text": [], "scalar": []}})
    cfray.run("migrate", job.path).ended_with(code)
    return job


def check_of(report) -> tuple[str, str]:
    (check,) = [check for check in report["checks"] if check["name"] == INDEX_RECALL]
    return check["status"], check["detail"]


def recall(dataset: lance.LanceDataset, **options) -> float:
    """Count how many of the true neighbours of 60 documents a search finds."""
    table = dataset.to_table(columns=["vector"], filter="record_type = 'document'")
    column = table["vector"].combine_chunks()
    vectors = column.values.to_numpy().reshape(-1, DIMENSION)
    found = 0
    for row in range(0, ROWS, ROWS // 60):
        true = np.argsort(-(vectors @ vectors[row]))[: K + 1]
        hits = dataset.to_table(
            columns=["vector", "_distance"],
            nearest={"column": "vector", "q": vectors[row], "k": K + 1, **options},
            filter="record_type = 'document'",
            prefilter=True,
        )["vector"].combine_chunks()
        hits = hits.values.to_numpy().reshape(-1, DIMENSION)
        bound = (vectors[true] @ vectors[row]).min() - 1e-6
        found += int((hits @ vectors[row] >= bound).sum())
    return found / (len(range(0, ROWS, ROWS // 60)) * (K + 1))


@pytest.fixture(scope="module")
def indexed(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("indexed")
    return migrated(module_cfray, folder, 0, type="IVF_RQ", metric="cosine", recall=0.995)


def test_the_settings_in_the_dataset_reach_the_recall_that_was_asked_for(indexed):
    dataset = lance.dataset(indexed.target)
    settings = json.loads(dataset.schema.metadata[b"cfray.search"])
    report = indexed.report()
    status, detail = check_of(report)
    assert status == "pass"
    assert {name: report["search"][name] for name in settings} == settings
    assert report["search"]["recall"] >= 0.995
    assert f"{report['search']['recall_by_default']:.3f} with Lance's defaults" in detail
    # by other queries than those that chose them
    assert recall(dataset, **settings) >= 0.98
    assert recall(dataset, **settings) > recall(dataset)


def test_the_report_describes_a_sample_of_the_vectors(indexed):
    """The corpus has 6,000 vectors of length 1, no two alike."""
    dataset = lance.dataset(indexed.target)
    report = indexed.report()
    facts = report["vectors"]
    points = facts.pop("projection")
    lengths = [facts.pop(f"norm_{name}") for name in ("smallest", "median", "largest")]
    assert lengths == pytest.approx([1, 1, 1], abs=1e-5)
    counted = dict.fromkeys(("zero", "null", "not_finite", "repeated"), 0)
    assert facts == {"sampled": 2_000, "dimension": DIMENSION, **counted}
    names = dataset.to_table(columns=["collection"], filter="record_type = 'document'")
    assert {point["collection"] for point in points} == set(names["collection"].to_pylist())
    assert len(points) == 500
    assert "vectors" in report["stages"]
    assert "Vectors, by a sample of 2,000" in (indexed.state / "report.html").read_text()


def test_verify_measures_again_and_adds_no_version(cfray, indexed):
    before = lance.dataset(indexed.target).version
    report = cfray.run("verify", indexed.path, "--json").ended_with(0).document()
    assert check_of(report)[0] == "pass"
    assert report["vectors"] == indexed.report()["vectors"]
    assert lance.dataset(indexed.target).version == before


def test_an_index_that_no_search_helps_is_a_failure(cfray, tmp_path):
    """One code for a whole vector tells 6,000 random vectors badly apart."""
    job = migrated(cfray, tmp_path, 4, type="IVF_PQ", num_sub_vectors=1, recall=1.0)
    status, detail = check_of(job.report())
    assert status == "fail"
    assert "no search reaches 1.0 of the 10 nearest" in detail
    search = job.report()["search"]
    assert search["recall"] >= search["recall_by_default"]
    assert "nprobes" in detail


def test_vectors_that_lance_cannot_index_are_said_with_the_way_out(cfray, tmp_path):
    """By l2 the square of a vector must be a float32."""
    directions = np.random.default_rng(2).standard_normal((20_000, 4))  # of several partitions
    lines = [
        json.dumps({"id": f"i{row}", "v": (1e20 * vector).tolist()})
        for row, vector in enumerate(directions)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    body = {
        "name": "long",
        "source": {"kind": "jsonl", "uri": "./rows.jsonl"},
        "mapping": {"id": "id", "vector": "v"},
        "target": {"uri": "long.lance"},
        "index": {"vector": {"type": "IVF_FLAT", "metric": "l2"}, "text": [], "scalar": []},
    }
    ended = cfray.run("migrate", runs.write_job(tmp_path, body).path).ended_with(1)
    assert "the index on vector cannot be built" in ended.err
    assert "set index.vector.type to none" in ended.err
    body["index"]["vector"]["type"] = "none"
    cfray.run("migrate", runs.write_job(tmp_path, body).path).ended_with(0)
