"""The distance of the k-th neighbour is that of a NumPy computation over all rows at once."""

from __future__ import annotations

from types import SimpleNamespace

import lance
import numpy as np
import pyarrow as pa
import pytest

from cfray.proving.neighbours import Queries, draw_row_ids, nearest_in
from cfray.proving.read_target import Fragments
from cfray.target.ledger import Entry, EntryKind, Ledger
from cfray.target.origins import RowOrigins

ROWS, DIMENSION, K = 3_000, 24, 10


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    vectors = np.random.default_rng(5).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    vectors[17] = vectors[18]  # two rows of one vector
    vectors[30] = 0  # no vector
    return vectors


@pytest.fixture(scope="module")
def dataset(vectors, tmp_path_factory):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    uri = str(tmp_path_factory.mktemp("vectors") / "vectors.lance")
    table = pa.table({"vector": column})
    return lance.write_dataset(table, uri, max_rows_per_file=700, enable_stable_row_ids=True)


def origins() -> RowOrigins:
    ledger = Ledger(1, 1, ROWS, ("f",), {"0": Entry(EntryKind.SHARD, 0, ROWS, "n")})
    return RowOrigins(SimpleNamespace(shards=[]), ledger)


def by_numpy(vectors: np.ndarray, row: int, metric: str) -> np.ndarray:
    """Compute the sorted distances of all other rows that have a vector."""
    wide = vectors.astype(np.float64)
    others = np.delete(wide, row, axis=0)
    others = others[others.any(axis=1)]
    if metric == "l2":
        return np.sort(((others - wide[row]) ** 2).sum(axis=1))
    products = others @ wide[row]
    if metric == "dot":
        return np.sort(-products)
    cosines = products / np.linalg.norm(others, axis=1) / np.linalg.norm(wide[row])
    return np.sort(2 - 2 * cosines)


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_the_nearest_are_those_of_numpy(dataset, vectors, metric):
    rows = np.array([0, 17, 18, 999, ROWS - 1])
    queries = Queries(rows, vectors[rows], metric)
    ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    assert len(ids) > 1
    nearest = nearest_in(queries, K, Fragments(dataset.uri, dataset.version, ids, origins()))
    for row, found in zip(rows, nearest, strict=True):
        np.testing.assert_allclose(found, by_numpy(vectors, row, metric)[:K], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_vectors_that_lie_close_together_far_from_the_origin_keep_their_order(
    metric, tmp_path_factory
):
    """In float32 their distances are nothing but rounding."""
    near = 1_000 + 0.01 * np.random.default_rng(2).standard_normal((2_000, 16))
    near = near.astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(near.ravel()), 16)
    uri = str(tmp_path_factory.mktemp("near") / "near.lance")
    dataset = lance.write_dataset(pa.table({"vector": column}), uri, enable_stable_row_ids=True)
    queries = Queries(np.array([3]), near[3:4], metric)
    (nearest,) = nearest_in(queries, K, Fragments(dataset.uri, 1, [0], origins()))
    wide = np.delete(near.astype(np.float64), 3, axis=0)
    query = near[3].astype(np.float64)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1)[:, None]
        query /= np.linalg.norm(query)
    expected = np.sort(((wide - query) ** 2).sum(axis=1))[:K]
    np.testing.assert_allclose(nearest, expected, rtol=1e-9)


def test_of_fewer_rows_the_missing_neighbours_are_infinitely_far(dataset, vectors):
    queries = Queries(np.array([0]), vectors[:1], "l2")
    (nearest,) = nearest_in(queries, ROWS + 5, Fragments(dataset.uri, 1, [0], origins()))
    # of the fragment's 700 rows one is the query's own, and one has no vector
    assert np.isfinite(nearest).sum() == 700 - 2


def test_rows_are_drawn_from_every_entry_and_only_once():
    entries = {
        "0": Entry(EntryKind.SHARD, 0, 50, "n"),
        "1": Entry(EntryKind.SHARD, 100, 50, "n"),
    }
    ranges = RowOrigins(SimpleNamespace(shards=[]), Ledger(1, 1, 150, ("f",), entries))
    drawn = draw_row_ids(ranges, 80, seed=1)
    assert len(set(drawn)) == 80
    assert set(drawn) <= {*range(50), *range(100, 150)}
    assert sorted(draw_row_ids(ranges, 500, seed=1)) == [*range(50), *range(100, 150)]


def test_only_rows_with_the_texts_of_a_query_are_its_neighbours(vectors, tmp_path):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION)
    kinds = ["document" if row % 3 else None for row in range(ROWS)]
    names = [f"c{row % 5}" for row in range(ROWS)]
    table = pa.table({"vector": column, "record_type": kinds, "collection": names})
    uri = str(tmp_path / "named.lance")
    dataset = lance.write_dataset(table, uri, max_rows_per_file=700, enable_stable_row_ids=True)
    document = ("record_type", "document")
    conditions = ((document, ("collection", "c1")), (document,), (document, ("collection", "none")))
    queries = Queries(np.full(3, -1), vectors[[4, 4, 4]], "l2", conditions)
    ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    found = nearest_in(queries, K, Fragments(uri, dataset.version, ids, origins()))
    wide = vectors.astype(np.float64)
    squares = ((wide - wide[4]) ** 2).sum(axis=1)
    squares[30] = np.inf  # no vector
    rows = np.arange(ROWS)
    for number, fits in enumerate(((rows % 3 != 0) & (rows % 5 == 1), rows % 3 != 0)):
        assert np.allclose(found[number], np.sort(squares[fits])[:K], rtol=1e-9)
    assert np.isinf(found[2]).all()
