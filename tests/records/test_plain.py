"""Variant columns become plain ones: one type a column, every value exact or refused."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.records.plain import Unfit, fitted, sampled_schema
from cfray.records.record import MISSING, Typed, from_objects, is_variant

TEXT, FLOATS = pa.string(), pa.list_(pa.float64())


def plain(objects, sample=None):
    """Make the records of JSON objects plain, with the types of a sample of them."""
    batch = from_objects(objects)
    schema = sampled_schema([batch if sample is None else from_objects(sample)], plain=True)
    return fitted(batch, schema, plain=True)


VALUES = {
    "integers": st.integers(-(2**63), 2**63 - 1),
    "floats": st.floats(allow_nan=False),
    "texts": st.text(),
    "booleans": st.booleans(),
    "integer lists": st.lists(st.integers(-(2**53), 2**53), min_size=1),
    "float lists": st.lists(st.floats(allow_nan=False), min_size=1),
    "text lists": st.lists(st.text(), min_size=1),
}


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_values_of_one_type_come_through_as_they_are(kind, data):
    values = data.draw(st.lists(VALUES[kind] | st.none(), min_size=1, max_size=9))
    column = plain([{"x": value} for value in values]).column("x")
    assert column.to_pylist() == values


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_no_mixture_of_values_is_refused_or_loses_a_row(values):
    column = plain([{"x": value} for value in values]).column("x")
    assert len(column) == len(values)
    assert [value is None for value in column.to_pylist()] == [value is None for value in values]


def test_a_missing_key_and_a_null_are_null():
    batch = plain([{"x": 1}, {"x": None}, {"y": "a"}])
    assert batch.to_pydict() == {"x": [1, None, None], "y": [None, None, "a"]}


def test_numbers_that_json_has_no_word_for_come_through():
    column = plain([{"x": math.nan}, {"x": math.inf}, {"x": -math.inf}, {"x": 1}]).column("x")
    values = column.to_pylist()
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1.0]


def test_a_type_of_a_store_is_a_text():
    column = plain([{"x": Typed("date", "2024-05-01T00:00:00Z")}, {"x": MISSING}]).column("x")
    assert column.to_pylist() == ["2024-05-01T00:00:00Z", None]


@pytest.mark.parametrize(
    ("kind", "value", "arrow_type"),
    [
        ("int16", 7, pa.int64()),
        ("float", 0.5, pa.float64()),
        ("list<int8>", [7, -7], pa.list_(pa.int64())),
        ("list<float>", [0.5, 1.5], FLOATS),
        ("point", {"lat": 0.5}, TEXT),
    ],
)
def test_numbers_of_a_store_are_numbers(kind, value, arrow_type):
    column = plain([{"x": Typed(kind, value)}, {"x": None}]).column("x")
    assert column.type == arrow_type
    assert column.to_pylist() == ['{"lat":0.5}' if arrow_type == TEXT else value, None]


@pytest.mark.parametrize(
    ("sample", "late", "kind"),
    [
        (1, "1", "string"),
        (1, 1.0, "double"),
        (1, True, "bool"),
        (1, 2**63, "uint64"),
        (0.5, 2**53 + 1, "int64"),
        (True, 1, "int64"),
        ([1], [0.5], "list<double>"),
        ([1], ["a"], "list<string>"),
        (["a"], [1], "list<int64>"),
        ([0.5], {"a": 1}, "struct"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row(sample, late, kind):
    with pytest.raises(Unfit) as refused:
        plain([{"x": sample}, {"x": None}, {"x": late}], sample=[{"x": sample}])
    assert (refused.value.field, refused.value.row, refused.value.kind) == ("x", 2, kind)


@pytest.mark.parametrize(
    ("sample", "late", "read"),
    [
        (0.5, 7, 7.0),
        ([0.5], [1, 2], [1.0, 2.0]),
        ([0.5], [1, 2.5], [1.0, 2.5]),
        ([1], [], []),
        (["a"], [], []),
        ("a", {"b": [1]}, '{"b":[1]}'),
    ],
)
def test_a_value_that_fits_is_exact(sample, late, read):
    batch = plain([{"x": sample}, {"x": late}], sample=[{"x": sample}])
    assert batch.column("x").to_pylist() == [sample, read]


def test_a_field_that_the_sample_lacks_is_a_text_or_stays_a_variant():
    batch, schema = from_objects([{"x": 1, "late": [1, 2]}]), from_objects([{"x": 1}]).schema
    exact = fitted(batch, schema, plain=False)
    assert all(is_variant(field) for field in exact.schema)
    assert plain([{"x": 1, "late": [1, 2]}], sample=[{"x": 1}]).column("late").to_pylist() == [
        "[1,2]"
    ]


def test_columns_with_a_type_at_the_source_are_widened_and_never_narrowed():
    narrow = pa.RecordBatch.from_pydict({"x": pa.array([1], pa.int16())})
    wide = pa.RecordBatch.from_pydict({"x": pa.array([0.5], pa.float64())})
    schema = sampled_schema([narrow, wide], plain=True)
    assert schema.field("x").type == pa.float64()
    assert fitted(narrow, schema, plain=True).column("x").to_pylist() == [1.0]
    with pytest.raises(Unfit):
        fitted(wide, sampled_schema([narrow], plain=True), plain=True)


def test_vectors_of_two_widths_are_lists():
    batches = [
        pa.RecordBatch.from_pydict({"v": pa.array([[0.5] * width], pa.list_(pa.float32(), width))})
        for width in (2, 3)
    ]
    schema = sampled_schema(batches, plain=True)
    rows = [fitted(batch, schema, plain=True).column("v").to_pylist() for batch in batches]
    assert rows == [[[0.5] * 2], [[0.5] * 3]]


def test_texts_and_numbers_of_two_batches_are_no_column():
    batches = [pa.RecordBatch.from_pydict({"x": [value]}) for value in (1, "a")]
    with pytest.raises(Unfit, match="string"):
        sampled_schema(batches, plain=True)
