"""Points of a vector store become record batches: an id, the vectors, and the payload's keys.

A payload key must not replace a field of the point, and vectors stay the same to the bit.
"""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.formats import points
from cfray.records.record import Typed, variant_array
from cfray.records.types import SPARSE
from tests.sources.corpus import plain_rows

IDS = pa.array(["a", "b", "c"])


def test_payload_keys_stand_at_the_top_and_missing_ones_stay_missing():
    batch = points.build_batch(
        IDS,
        {},
        [{"n": 1}, {}, {"n": None, "when": Typed("date", "2024-01-01")}],
        payload_name="payload",
    )
    assert plain_rows(batch) == [
        {"id": "a", "n": ("int64", "1")},
        {"id": "b"},
        {"id": "c", "n": ("null", "null"), "when": ("date", '"2024-01-01"')},
    ]


def test_a_payload_key_named_like_one_of_the_points_own_is_kept_under_another_name():
    payload = [{"id": "x", "vector": 1, "payload.id": "y", "text": "t"}, {}, {}]
    (first, *_) = plain_rows(points.build_batch(IDS, {}, payload, payload_name="payload"))
    assert first == {
        "id": "a",
        "payload.id": ("string", "x"),
        "payload.vector": ("int64", "1"),
        "payload.payload.id": ("string", "y"),
        "text": ("string", "t"),
    }
    (first, *_) = plain_rows(
        points.build_batch(
            IDS, {}, payload, payload_name="payload", texts=pa.array(["of the point", None, None])
        )
    )
    assert (first["text"], first["payload.text"]) == ("of the point", ("string", "t"))


def test_named_vectors_stand_in_one_struct_and_the_unnamed_one_alone():
    kind = pa.list_(pa.float32(), 2)
    column = points.dense_column([[0.5, 1.5], None, [1, 2]], kind)
    batch = points.build_batch(
        IDS,
        {
            "": column,
            "title": column,
            "sparse": points.sparse_column([([7], [0.5]), None, ([], [])]),
        },
        [{}] * 3,
        payload_name="payload",
    )
    assert batch.column("vector").to_pylist() == [[0.5, 1.5], None, [1.0, 2.0]]
    assert batch.column("vectors")[0].as_py() == {
        "title": [0.5, 1.5],
        "sparse": {"indices": [7], "values": [0.5]},
    }
    assert batch.column("vectors")[1].as_py() == {"title": None, "sparse": None}
    assert batch.schema.field("vectors").type == pa.struct([("title", kind), ("sparse", SPARSE)])


def test_dense_vectors_are_the_same_to_the_bit():
    values = np.array([[-0.0, 1e-45], [3.4028235e38, 0.1]], np.float32)
    assert (
        points.dense_column(list(values), pa.list_(pa.float32(), 2)).flatten().to_numpy().tobytes()
        == values.tobytes()
    )


def test_a_vector_of_another_width_is_left_for_its_row_to_be_judged():
    column = points.dense_column([[1.0, 2.0], [1.0], None], pa.list_(pa.float32(), 2))
    assert column.to_pylist() == [[1.0, 2.0], [1.0], None]


def test_ids_of_mixed_types_are_variants():
    ids = variant_array([7, Typed("uuid", "6f9619ff-8b86-d011-b42d-00c04fc964ff"), 2**64 - 1])
    assert [
        row["id"]
        for row in plain_rows(points.build_batch(ids, {}, [{}] * 3, payload_name="payload"))
    ] == [
        ("int64", "7"),
        ("uuid", '"6f9619ff-8b86-d011-b42d-00c04fc964ff"'),
        ("uint64", str(2**64 - 1)),
    ]


#: Keys that are likely to meet: reserved names, and the same names behind the payload's own.
KEYS = st.lists(
    st.sampled_from(["id", "text", "vector", "vectors", "n", "payload", "", "a.b"]), max_size=1
).flatmap(
    lambda names: st.integers(0, 3).map(lambda depth: "payload." * depth + "".join(names))
) | st.text(max_size=4)


@given(st.lists(st.dictionaries(KEYS, st.integers(-9, 9), max_size=5), min_size=1, max_size=4))
def test_no_two_keys_share_a_column_and_a_key_has_one_name_on_every_page(payloads):
    def read(page):
        ids = pa.array([f"r{number}" for number in range(len(page))])
        return plain_rows(points.build_batch(ids, {}, page, payload_name="payload"))

    together = read(payloads)
    for payload, row in zip(payloads, together, strict=True):
        (alone,) = read([payload])
        del alone["id"], row["id"]
        assert alone == row
        assert sorted(int(text) for _, text in row.values()) == sorted(payload.values())


#: The float64 of its text, 7.038531e-26, lies halfway between two float32.
BETWEEN = np.uint32(0x15AE43FD).view(np.float32)


@pytest.mark.parametrize("number", [BETWEEN, -BETWEEN, np.float32(0.1), np.float32(1e-45)])
def test_a_float32_that_came_as_text_is_that_float32(number):
    """JSON writes a float32 as the shortest text that reads back to it."""
    text = float(str(number))
    dense = points.dense_column([[text, 1.0], None], pa.list_(pa.float32(), 2))
    sparse = points.sparse_column([([7], [text]), None])
    assert dense[0].values.to_numpy().tobytes() == np.array([number, 1], np.float32).tobytes()
    assert np.float32(sparse[0]["values"][0].as_py()) == number
    assert np.float32(dense[0].as_py()[0]) == number
