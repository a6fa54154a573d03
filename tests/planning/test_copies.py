"""Copies are found by content, in every Arrow type and whatever the order of columns."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfray.formats.columns import normal_batch
from cfray.planning.copies import copy_warnings
from cfray.records.record import from_objects, with_file
from tests.arrow_arrays import make_array, make_type

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(st.integers(0, 10**9))
def test_every_type_is_compared(seed):
    array = make_array(make_type(seed), 4, seed)
    batch = normal_batch(
        pa.RecordBatch.from_arrays([pa.array(range(len(array))), array], ["n", "x"])
    )
    warnings = copy_warnings([with_file(batch, "a"), with_file(batch, "b")])
    assert len(warnings) == (batch.num_rows >= 2)
    other = batch.set_column(0, "n", pa.array(range(100, 100 + batch.num_rows)))
    assert copy_warnings([with_file(batch, "a"), with_file(other, "b")]) == []


@pytest.mark.parametrize(
    ("record", "is_copy"),
    [
        ({"v": [1.0] * 20, "id": 1, "none": None}, True),
        ({"id": 1, "v": [1.0] * 20, "none": None}, True),
        ({"id": 1, "v": [1.0] * 20}, False),
        ({"id": "1", "v": [1.0] * 20, "none": None}, False),
        ({"id": 1, "v": [2.0] * 20, "none": None}, False),
        ({"id": 1, "v": [1] * 20, "none": None}, False),
    ],
)
def test_json_values_are_compared_with_their_types(record, is_copy):
    first = from_objects([{"id": 1, "v": [1.0] * 20, "none": None}] * 2)
    second = from_objects([record] * 2)
    warnings = copy_warnings([with_file(first, "a"), with_file(second, "b")])
    assert bool(warnings) == is_copy


def test_most_records_of_the_smaller_file_must_be_equal():
    def batch(file, numbers):
        return with_file(pa.RecordBatch.from_pydict({"id": list(numbers)}), file)

    assert copy_warnings([batch("a", range(100)), batch("b", range(95, 105))])
    assert copy_warnings([batch("a", range(100)), batch("b", range(97, 107))]) == []
    (warning,) = copy_warnings([batch("a", range(100)), batch("b", range(90, 99))])
    assert warning.startswith("THE SAME RECORDS TWICE: 9 of 9 sampled records stand in a and in b")


def test_batches_without_a_file_are_not_compared():
    batch = pa.RecordBatch.from_pydict({"id": [1, 2]})
    assert copy_warnings([batch, batch]) == []
