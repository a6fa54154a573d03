"""The facts of a sample of vectors are those of its arrays, however odd the vectors are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import lance
import numpy as np
import pyarrow as pa
import pytest

from cfray.proving.vector_sanity import describe_vectors, project, vector_facts
from cfray.report.facts import Report
from cfray.target.ledger import Entry, EntryKind, Ledger

DOCUMENTS, HEADERS, DIMENSION = 2_900, 3, 8


def facts_of(vectors, is_null=None, collections=None):
    """Give the facts; what a report holds must be JSON, without NaN or infinity."""
    vectors = np.asarray(vectors, np.float32)
    count = len(vectors)
    is_null = np.zeros(count, np.bool_) if is_null is None else np.asarray(is_null)
    facts = vector_facts(vectors, is_null, collections or ["c"] * count)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    return facts


def norms(facts):
    return [facts[f"norm_{name}"] for name in ("smallest", "median", "largest")]


def counts(facts):
    return [facts[name] for name in ("zero", "null", "not_finite", "repeated")]


def places(facts):
    return [(point["x"], point["y"]) for point in facts["projection"]]


# the numbers


def test_lengths_are_those_of_the_vectors():
    facts = facts_of([[3, 4], [0, 1], [8, 6]])
    assert (facts["sampled"], facts["dimension"]) == (3, 2)
    assert norms(facts) == [1, 5, 10]
    assert counts(facts) == [0, 0, 0, 0]


def test_null_zero_and_not_finite_vectors_are_counted_once_and_take_no_part_in_the_rest():
    nan, inf = float("nan"), float("inf")
    vectors = [[0, 0], [nan, 0], [3, 4], [0, -0.0], [inf, 1], [0, 0], [nan, nan], [1, -inf]]
    is_null = [True, False, False, False, False, False, True, False]
    facts = facts_of(vectors, is_null, list("abcdefgh"))
    assert counts(facts) == [2, 2, 3, 0]
    assert norms(facts) == [5, 5, 5]
    assert facts["projection"] == [{"collection": "c", "x": 0, "y": 0}]


def test_each_vector_that_repeats_an_earlier_one_counts():
    facts = facts_of([[1, 2], [3, 4], [1, 2], [1, 2], [0, 5], [-0.0, 5], [1, 2.0000002]])
    assert facts["repeated"] == 3


def test_without_any_vector_there_is_no_length_and_no_picture():
    facts = facts_of(np.zeros((3, 4)), [True, False, True])
    assert counts(facts) == [1, 2, 0, 0]
    assert norms(facts) == [None, None, None]
    assert facts["projection"] == []


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_the_square_of_a_number_may_leave_the_range_of_float32(size):
    facts = facts_of([[3 * size, 4 * size], [-3 * size, -4 * size], [0, 0.5 * size]])
    assert norms(facts) == pytest.approx([0.5 * size, 5 * size, 5 * size], rel=1e-5)
    assert counts(facts) == [0, 0, 0, 0]
    assert {abs(x) for x, _ in places(facts)} >= {1}


# the picture


def test_the_picture_shows_the_directions_in_which_vectors_differ_most():
    """Distances in the picture are those of the vectors: these lie in a tilted plane."""
    rng = np.random.default_rng(4)
    axes = np.linalg.qr(rng.standard_normal((16, 2)))[0].T
    plane = rng.standard_normal((60, 2)) * [5, 1]
    points = project(plane @ axes + rng.standard_normal(16))
    assert np.abs(points).max() == 1
    true, shown = (
        np.linalg.norm(values[:, None] - values[None], axis=2) for values in (plane, points)
    )
    assert shown == pytest.approx(true * (shown.max() / true.max()), abs=1e-9)
    assert np.ptp(points[:, 0]) > np.ptp(points[:, 1]) > 0


def test_the_picture_has_the_same_sides_whichever_vector_comes_first():
    rng = np.random.default_rng(3)
    for _ in range(10):
        vectors = rng.standard_normal((40, 6)) * [9, 5, 1, 1, 1, 1]
        order = rng.permutation(40)
        assert project(vectors[order]) == pytest.approx(project(vectors)[order], abs=1e-9)


def test_every_point_has_the_collection_of_its_row():
    """Two collections that lie apart: each has one side of the picture, nulls or not."""
    rng = np.random.default_rng(2)
    collections = [("left", "right")[number] for number in rng.integers(0, 2, 80)]
    centres = np.where(np.array(collections)[:, None] == "left", -9, 9)
    vectors = rng.standard_normal((80, 5)) + centres
    vectors[7], vectors[9] = 0, np.nan
    facts = facts_of(vectors, np.arange(80) % 11 == 0, collections)
    sides = {(point["collection"], point["x"] > 0) for point in facts["projection"]}
    assert len(facts["projection"]) == 80 - 8 - 2
    assert sides == {("left", False), ("right", True)}


def test_a_picture_has_500_points_of_four_digits():
    facts = facts_of(np.random.default_rng(1).standard_normal((700, 3)))
    assert len(facts["projection"]) == 500
    assert all(round(number, 4) == number for place in places(facts) for number in place)


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[0.1, 0.2, 0.7]], [(0, 0)]),
        ([[0.1, 0.2, 0.7]] * 7, [(0, 0)] * 7),
        ([[2.0], [4.0], [3.0]], [(-1, 0), (1, 0), (0, 0)]),
        ([[1.0, 2.0], [3.0, 6.0]], [(-1, 0), (1, 0)]),
    ],
    ids=["one row", "all rows equal", "width 1", "on a line"],
)
def test_what_has_no_extent_in_a_direction_is_zero_there(vectors, expected):
    facts = facts_of(vectors)
    assert places(facts) == expected
    # a zero with a sign would be written with it
    assert "-0.0" not in {str(number) for place in places(facts) for number in place}


# the dataset


def write_target(folder: Path, table: pa.Table) -> SimpleNamespace:
    """Write a table as a target; give the run of a command on it."""
    uri = str(folder / "t.lance")
    lance.write_dataset(table, uri, max_rows_per_file=1_000, enable_stable_row_ids=True)
    rows = len(table)
    entries = {"0": Entry(EntryKind.SHARD, 0, rows, "n")} if rows else {}
    ledger = Ledger(1, 1, rows, ("f",), entries)
    target = SimpleNamespace(uri=uri, open=lambda: lance.dataset(uri), ledger=lambda: ledger)
    plan = SimpleNamespace(shards=[])
    return SimpleNamespace(target=target, plan=plan, report=Report("verify", "job", uri))


def frames(vectors: np.ndarray, headers: int = HEADERS) -> pa.Table:
    count = len(vectors)
    values = pa.array(np.asarray(vectors, np.float32).ravel())
    kinds = ["dataset_header"] * headers + ["document"] * (count - headers)
    return pa.table(
        {
            "vector": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
            "collection": pa.array([None if row % 2 else "even" for row in range(count)]),
            "record_type": kinds,
            "text_content": [f"secret {row}" for row in range(count)],
        }
    )


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(6).standard_normal((HEADERS + DOCUMENTS, DIMENSION))


def test_a_sample_of_the_documents_is_described_and_repeats(tmp_path, vectors):
    vectors[:HEADERS] = 0  # a zero vector would be that of a header
    run = write_target(tmp_path, frames(vectors))
    describe_vectors(run)
    facts = run.report.vectors
    assert (facts["sampled"], facts["dimension"]) == (2_000, DIMENSION)
    assert counts(facts) == [0, 0, 0, 0]
    lengths = np.linalg.norm(vectors[HEADERS:], axis=1)
    assert lengths.min() - 1e-5 <= facts["norm_smallest"] < facts["norm_median"]
    assert facts["norm_median"] == pytest.approx(np.median(lengths), rel=0.02)
    assert {point["collection"] for point in facts["projection"]} == {"", "even"}
    assert "secret" not in json.dumps(facts)
    assert (run.report.checks, run.report.notes) == ([], [])
    describe_vectors(run)
    assert run.report.vectors == facts
    # the rows that an update writes again are read last
    run.target.open().update({"text_content": "'secret'"}, where="collection = 'even'")
    describe_vectors(run)
    assert run.report.vectors == facts


def test_all_documents_of_a_small_target_are_the_sample(tmp_path, vectors):
    vectors[5], vectors[6] = 0, vectors[7]
    table = frames(vectors[:40])
    column = table["vector"].combine_chunks()
    is_null = pa.array([row == 8 for row in range(40)])
    column = pa.FixedSizeListArray.from_arrays(column.values, DIMENSION, mask=is_null)
    run = write_target(tmp_path, table.set_column(0, "vector", column))
    describe_vectors(run)
    assert run.report.vectors["sampled"] == 40 - HEADERS
    assert counts(run.report.vectors) == [1, 1, 0, 1]


def test_a_null_and_a_nan_inside_a_vector_of_another_writer_are_not_finite(tmp_path, vectors):
    table = frames(vectors[:40])
    values = table["vector"].combine_chunks().values.to_pylist()
    values[5 * DIMENSION], values[6 * DIMENSION + 1] = None, float("nan")
    column = pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), DIMENSION)
    run = write_target(tmp_path, table.set_column(0, "vector", column))
    describe_vectors(run)
    assert counts(run.report.vectors) == [0, 0, 2, 0]
    assert len(run.report.vectors["projection"]) == 40 - HEADERS - 2


@pytest.mark.parametrize("rows", [0, HEADERS])
def test_nothing_is_said_of_a_target_without_documents(tmp_path, vectors, rows):
    run = write_target(tmp_path, frames(vectors[:rows], headers=rows))
    describe_vectors(run)
    assert (run.report.vectors, run.report.notes) == ({}, [])


@pytest.mark.parametrize("kind", [None, pa.list_(pa.float64(), 4), pa.list_(pa.float32())])
def test_a_column_that_is_missing_or_has_another_type_is_left_to_its_check(tmp_path, vectors, kind):
    table = frames(vectors[:40]).drop_columns(["vector"])
    if kind is not None:
        table = table.append_column("vector", pa.nulls(40, kind))
    run = write_target(tmp_path, table)
    describe_vectors(run)
    assert (run.report.vectors, run.report.notes) == ({}, [])


def test_vectors_that_cannot_be_read_leave_a_note_and_no_facts(tmp_path, vectors):
    run = write_target(tmp_path, frames(vectors))
    describe_vectors(run)
    assert run.report.vectors
    for file in Path(run.target.uri, "data").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    describe_vectors(run)
    assert run.report.vectors == {}
    (note,) = run.report.notes
    assert note.startswith("the vectors are not described, for they cannot be read: ")
    assert len(note) < 300
