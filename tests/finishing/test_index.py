"""Which indexes are due, and by which distance vectors are compared; on real datasets, without Ray."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from cfray.finishing.index import VectorCount, Work, choose_metric, metric_notes, unfinished
from cfray.job.spec import Index

ROWS, WIDTH = 600, 16


@pytest.fixture
def uri(tmp_path):
    """Write a dataset with a vector index of the kind IVF_FLAT by l2."""
    vectors = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    table = pa.table(
        {
            "uuid": [f"{number:036d}" for number in range(ROWS)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH),
        }
    )
    uri = str(tmp_path / "t.lance")
    dataset = lance.write_dataset(table, uri, enable_stable_row_ids=True)
    dataset.create_index("vector", "IVF_FLAT", metric="l2", num_partitions=2, name="vector_idx")
    return uri


def spec(**vector):
    return Index.model_validate({"vector": vector, "text": [], "scalar": []})


@pytest.mark.parametrize(
    ("vector", "work"),
    [
        ({"type": "IVF_FLAT"}, None),
        ({"type": "IVF_FLAT", "metric": "l2"}, None),
        ({"type": "IVF_FLAT", "metric": "cosine"}, Work.REPLACE),
        ({"type": "IVF_SQ"}, Work.REPLACE),
        ({"type": "IVF_PQ", "num_sub_vectors": 4}, Work.REPLACE),
        ({"type": "none"}, None),
        ({"type": "auto"}, None),
    ],
)
def test_a_vector_index_is_replaced_only_where_the_job_file_says_another(uri, vector, work):
    indexes = unfinished(lance.dataset(uri), spec(**vector), "cosine", VectorCount(ROWS))
    assert [state for _, state in indexes] == ([] if work is None else [work])


def test_indexes_that_are_missing_or_lag_behind_are_due(uri):
    section = Index.model_validate({"vector": {"type": "IVF_FLAT"}, "text": [], "scalar": ["uuid"]})
    assert {
        planned.name: work
        for planned, work in unfinished(lance.dataset(uri), section, None, VectorCount(ROWS))
    } == {"uuid_idx": Work.BUILD}
    dataset = lance.dataset(uri)
    lance.write_dataset(dataset.to_table(limit=3), uri, mode="append")
    works = {
        planned.name: work
        for planned, work in unfinished(lance.dataset(uri), section, None, VectorCount(ROWS))
    }
    assert works == {"uuid_idx": Work.BUILD, "vector_idx": Work.COMPLETE}


@pytest.mark.parametrize(
    ("asked", "source", "metric", "word"),
    [
        ("dot", "l2", "dot", "job file"),
        (None, "l2", "l2", "source"),
        (None, None, "cosine", "default"),
    ],
)
def test_the_metric_is_the_jobs_else_the_sources_else_cosine(asked, source, metric, word):
    chosen, reason = choose_metric(spec(metric=asked), source)
    assert chosen == metric
    assert word in reason


def test_the_report_says_which_metric_an_index_really_has_and_why(uri):
    dataset = lance.dataset(uri)
    assert metric_notes(dataset, spec(metric="l2"), "cosine") == [
        "vector index: IVF_FLAT, by l2 (index.vector.metric of the job file)",
        (
            "index.vector.metric is l2; the source searches by cosine, so a search here finds other "
            "neighbours"
        ),
    ]
    assert metric_notes(dataset, spec(), "l2") == [
        "vector index: IVF_FLAT, by l2 (the metric of the source)"
    ]
    assert metric_notes(dataset, spec(), None) == [
        (
            "vector index: IVF_FLAT, by l2 (as it was built before; cosine would be the default: the "
            "source names no single metric)"
        )
    ]
    dataset.drop_index("vector_idx")
    assert metric_notes(lance.dataset(uri), spec(), "l2") == [
        "no vector index; a search compares every vector, by l2 (the metric of the source)"
    ]


def test_a_target_without_vectors_has_no_metric(tmp_path):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.0], pa.float32()), 1)
    dataset = lance.write_dataset(pa.table({"vector": vectors}), str(tmp_path / "t.lance"))
    assert metric_notes(dataset, spec(), None) == []


@pytest.mark.parametrize("kind", ["auto", "IVF_FLAT", "IVF_SQ"])
def test_where_no_record_has_a_vector_there_is_none_to_index(uri, kind):
    lance.dataset(uri).drop_index("vector_idx")
    assert unfinished(lance.dataset(uri), spec(type=kind), None, VectorCount(0, ROWS)) == []


def test_auto_goes_by_the_vectors_and_not_by_the_rows(uri):
    lance.dataset(uri).drop_index("vector_idx")
    for vectors, works in ((49_999, []), (50_000, [Work.BUILD])):
        count = VectorCount(vectors, 1_000_000)
        indexes = unfinished(lance.dataset(uri), spec(), None, count)
        assert [work for _, work in indexes] == works
