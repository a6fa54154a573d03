"""Content hashes do not depend on the order of rows, and every change of a value shows in them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.frames import digests
from cfray.frames.schema import frame_schema

SCHEMA = frame_schema(3)
TEXTS = st.one_of(st.none(), st.text(max_size=8))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text_content": TEXTS,
            "vector": st.one_of(
                st.none(), st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)
            ),
            "title": st.text(max_size=5),
            "tags": st.one_of(st.none(), st.lists(TEXTS, max_size=3)),
            "position": st.one_of(st.none(), st.integers(-5, 5)),
            "custom_metadata": st.lists(
                st.fixed_dictionaries({"key": st.text(max_size=3), "value": TEXTS}), max_size=3
            ),
            "relationships": st.lists(
                st.fixed_dictionaries({"type": st.sampled_from(["parent", "child"]), "id": TEXTS}),
                max_size=2,
            ),
        }
    ),
    min_size=1,
    max_size=8,
)


def make_frames(rows):
    return pa.RecordBatch.from_pylist(
        [{"uuid": f"{number:036d}", **row} for number, row in enumerate(rows)], schema=SCHEMA
    )


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows, random):
    frames = make_frames(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert digests.add_hashes({}, digests.content_hashes(frames)) == digests.add_hashes(
        {}, digests.content_hashes(frames.take(pa.array(order)))
    )


@given(ROWS, st.integers(0, 8))
def test_batches_add_up(rows, cut):
    frames = make_frames(rows)
    sums = digests.add_hashes(
        digests.add_hashes({}, digests.content_hashes(frames.slice(0, cut))),
        digests.content_hashes(frames.slice(cut)),
    )
    assert sums == digests.add_hashes({}, digests.content_hashes(frames))


@given(ROWS, ROWS)
def test_other_content_has_other_sums(first_rows, second_rows):
    first_frames, second_frames = make_frames(first_rows), make_frames(second_rows)
    are_same = first_frames.equals(second_frames)
    first_sums = digests.add_hashes({}, digests.content_hashes(first_frames))
    assert (first_sums == digests.add_hashes({}, digests.content_hashes(second_frames))) == are_same


@given(ROWS, st.integers(0, 8))
def test_sums_of_two_sets_of_rows_add_up_and_subtract(rows, cut):
    frames = make_frames(rows)
    total_sums, first_sums, second_sums = (
        digests.add_hashes({}, digests.content_hashes(rows_of_sum))
        for rows_of_sum in (frames, frames.slice(0, cut), frames.slice(cut))
    )
    assert digests.add_sums(first_sums, second_sums) == total_sums
    assert digests.subtract_sums(total_sums, second_sums) == first_sums


def test_a_group_that_one_side_lacks_keeps_its_sum():
    assert digests.add_sums({"text": 2**64 - 1}, {"text": 2, "vector": 3}) == {
        "text": 1,
        "vector": 3,
    }
    assert digests.subtract_sums({"text": 1, "vector": 3}, {"text": 2}) == {
        "text": 2**64 - 1,
        "vector": 3,
    }


def hashes_of_row(**columns):
    row = {
        "text_content": "abc",
        "vector": [1.0, 2.0, 3.0],
        "title": "t",
        "tags": ["a", "b"],
        "custom_metadata": [{"key": "k", "value": "v"}],
        "relationships": [{"type": "parent", "id": "x"}],
    }
    return digests.content_hashes(make_frames([{**row, **columns}]))


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ({"text_content": "abd"}, "text"),
        ({"text_content": None}, "text"),
        ({"title": ""}, "text"),
        ({"vector": [1.0, 2.0, 3.0000002]}, "vector"),
        ({"vector": [1.0, 2.0, -3.0]}, "vector"),
        ({"vector": None}, "vector"),
        ({"tags": ["ab"]}, "relations"),
        ({"tags": ["a", "b", ""]}, "relations"),
        ({"tags": ["b", "a"]}, "relations"),
        ({"tags": None}, "relations"),
        ({"tags": []}, "relations"),
        ({"custom_metadata": [{"key": "kv", "value": ""}]}, "metadata"),
        ({"custom_metadata": [{"key": "k", "value": None}]}, "metadata"),
        ({"custom_metadata": []}, "metadata"),
        ({"relationships": [{"type": "parent", "uri": "x"}]}, "relations"),
        ({"author": ""}, "rest"),
        ({"raw_data_type": "x"}, "rest"),
    ],
)
def test_each_change_shows_in_its_group_alone(columns, group):
    original_hashes, changed_hashes = hashes_of_row(), hashes_of_row(**columns)
    assert [
        name for name in original_hashes if original_hashes[name][0] != changed_hashes[name][0]
    ] == [group]


@given(st.lists(st.one_of(st.none(), st.binary(max_size=200)), min_size=1, max_size=30))
def test_a_value_hashes_the_same_whatever_stands_beside_it(values):
    single_hashes = [digests.row_hashes(pa.array([value], pa.binary()))[0] for value in values]
    assert list(digests.row_hashes(pa.array(values, pa.binary()))) == single_hashes
    assert (
        list(digests.row_hashes(pa.array([b"before", *values], pa.binary()).slice(1)))
        == single_hashes
    )


def test_two_rows_that_swap_their_vectors_show():
    rows = [{"title": "a", "vector": [1.0, 0.0, 0.0]}, {"title": "b", "vector": [0.0, 1.0, 0.0]}]
    swapped = [{"title": "a", "vector": [0.0, 1.0, 0.0]}, {"title": "b", "vector": [1.0, 0.0, 0.0]}]
    assert (
        digests.add_hashes({}, digests.content_hashes(make_frames(rows)))["vector"]
        != digests.add_hashes({}, digests.content_hashes(make_frames(swapped)))["vector"]
    )


def test_rows_that_all_say_the_same_hash_as_if_they_stood_alone():
    column = pa.array(["same"] * 5)
    assert (digests.row_hashes(column) == digests.row_hashes(pa.array(["same"]))[0]).all()


def test_values_are_stable():
    """Receipts hold these sums for ever: a change breaks verify of every existing target."""
    frames = make_frames(
        [
            {
                "text_content": "naïve ☕",
                "vector": [0.5, -0.0, 1e-30],
                "title": "t",
                "tags": ["x"],
                "position": 7,
                "custom_metadata": [{"key": "k", "value": "1"}],
                "relationships": [],
            }
        ]
    )
    sums = digests.add_hashes({}, digests.content_hashes(frames))
    assert {group: f"{total:016x}" for group, total in sums.items()} == STABLE_SUMS


STABLE_SUMS = {
    "text": "de665dae1671cc10",
    "vector": "c6381607ecfe325d",
    "metadata": "e46a615fc5fdfcc8",
    "relations": "2eb10e98586077d6",
    "rest": "566338177f39b9ef",
}


def test_lists_of_floats_differ_by_a_fraction():
    column = pa.array([[0.25, 0.5], [0.25, 0.75]], pa.list_(pa.float32()))
    first_hash, second_hash = digests.row_hashes(column)
    assert first_hash != second_hash


@pytest.mark.parametrize("number_type", [pa.float16(), pa.float32(), pa.int8()])
def test_further_vectors_hash_in_their_own_width(number_type):
    values = pa.array(np.arange(6).astype(number_type.to_pandas_dtype()), number_type)
    column = pa.FixedSizeListArray.from_arrays(values, 3)
    hashes = digests.row_hashes(column)
    assert hashes[0] != hashes[1]
    assert digests.row_hashes(column.slice(1))[0] == hashes[1]
