"""Conversion turns every record into one frame or one fault, and loses no value of it."""

import datetime as dt
import decimal
import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract import oracle
from tests.conversion.converting import convert, faults_of, frames_of, single_frame

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner_values: (
        st.lists(inner_values, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner_values, max_size=3)
    ),
    max_leaves=8,
)


def json_type(value):
    """Name the type of a JSON value as cfray.types does for sources without a schema."""
    if isinstance(value, list) and value and len({type(item) for item in value}) == 1:
        if isinstance(value[0], int) and not isinstance(value[0], bool):
            return "list<int64>" if all(abs(item) <= 2**53 for item in value) else "list"
        return {str: "list<string>", bool: "list<bool>", float: "list<double>"}.get(
            type(value[0]), "list"
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return (
            "int64" if -(2**63) <= value < 2**63 else ("uint64" if 0 < value < 2**64 else "integer")
        )
    return {
        type(None): "null",
        bool: "bool",
        float: "double",
        str: "string",
        list: "list",
        dict: "struct",
    }[type(value)]


class TestCustomMetadata:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["a", "b", "meta", "é", "x.y"]), JSON_VALUES, max_size=4
            ),
            min_size=1,
            max_size=8,
        ),
        st.booleans(),
    )
    def test_every_json_value_is_there_with_its_text_and_its_type(self, objects, separate_sample):
        sample = [{"id": "s", "a": 1, "b": "x", "meta": {}, "é": 1.5}] if separate_sample else None
        rows = frames_of(
            [{"id": str(number), **record} for number, record in enumerate(objects)], sample=sample
        )
        declared = (
            {"a": "int64", "b": "string", "meta": "struct", "é": "double"}
            if separate_sample
            else {}
        )
        for row, record in zip(rows, objects, strict=True):
            assert {key: text for key, text in row["meta"].items() if key != "original_id"} == {
                key: oracle.metadata_text(value) for key, value in record.items()
            }
            if separate_sample:
                assert row["types"] == {
                    key: json_type(value)
                    for key, value in record.items()
                    if json_type(value) != declared.get(key)
                }

    def test_null_missing_and_the_word_null_are_three_things(self):
        null, word, missing, text = frames_of(
            [{"id": 1, "a": None}, {"id": 2, "a": "null"}, {"id": 3}, {"id": 4, "a": "x"}]
        )
        assert (null["meta"].get("a"), null["types"]) == ("null", {"a": "null"})
        assert (word["meta"].get("a"), word["types"]) == ("null", {})
        assert ("a" in missing["meta"], missing["types"]) == (False, {})
        assert text["meta"]["a"] == "x"

    def test_null_is_absent_where_the_schema_is_fixed(self):
        assert frames_of({"id": [1, 2], "a": ["null", None]})[1]["meta"] == {"original_id": "2"}

    @pytest.mark.parametrize(
        ("value", "arrow_type"),
        [
            (2**53 + 1, pa.int64()),
            (2**64 - 1, pa.uint64()),
            (0.1, pa.float32()),
            (-0.0, pa.float64()),
            (math.nan, pa.float64()),
            (decimal.Decimal("1.50"), pa.decimal128(10, 2)),
            (dt.datetime(2024, 2, 3, 4, 5, 6, 120000, dt.UTC), pa.timestamp("us", "UTC")),
            (dt.date(2024, 2, 3), pa.date32()),
            (b"\x00\xff", pa.binary()),
            (
                {"b": [1, None], "a": {"x": None}},
                pa.struct([("b", pa.list_(pa.int64())), ("a", pa.struct([("x", pa.int8())]))]),
            ),
        ],
        ids=str,
    )
    def test_a_typed_value_is_what_the_oracle_writes(self, value, arrow_type):
        oracle_value = oracle.Float32(value) if arrow_type == pa.float32() else value
        assert single_frame({"id": ["a"], "v": pa.array([value], arrow_type)})["meta"][
            "v"
        ] == oracle.metadata_text(oracle_value)

    def test_what_a_rule_leaves_of_a_nested_field_stays_under_its_dotted_path(self):
        nested = {"by": "ann", "at": {"x": 1, "y": None}, "n": 2**53 + 1}
        for records in ([{"id": 1, "meta": nested}], {"id": [1], "meta": [nested]}):
            row = single_frame(records, {"author": "meta.by", "position": "meta.at.x"})
            assert (row["author"], row["position"]) == ("ann", 1)
            other_fields = {"meta.n": "9007199254740993", "original_id": "1"}
            assert row["meta"] == (
                {"meta.at.y": "null", **other_fields} if isinstance(records, list) else other_fields
            )

    def test_objects_that_are_no_object_in_some_rows_are_all_carried(self):
        values = [{"by": "a", "n": 1}, "text", None, {}, 5]
        rows = frames_of(
            [{"id": number, "m": value} for number, value in enumerate(values)], {"author": "m.by"}
        )
        carried = [
            {key: text for key, text in row["meta"].items() if key != "original_id"} for row in rows
        ]
        assert carried == [{"m.n": "1"}, {"m": "text"}, {"m": "null"}, {"m": "{}"}, {"m": "5"}]
        assert rows[2]["types"] == {"m": "null"}

    def test_a_null_struct_and_a_struct_of_nulls_are_told_apart(self):
        struct_type = pa.struct([("by", pa.string()), ("n", pa.int64())])
        null, empty = frames_of(
            {"id": [1, 2], "m": pa.array([None, {"by": None, "n": None}], struct_type)},
            {"author": "m.by"},
        )
        assert null["types"] == {"m": "null"}
        assert empty["types"] == {}

    def test_a_source_field_with_a_name_of_cfrays_own_does_not_overwrite_it(self):
        row = single_frame([{"id": 1, "original_id": "x", "cfray.types": "y"}])
        assert row["meta"] == {
            "original_id": "1",
            "source.original_id": "x",
            "source.cfray.types": "y",
        }

    @pytest.mark.parametrize(
        ("record", "mapping"),
        [
            ({"id": 1, "original_id": "x", "source.original_id": "y"}, {}),
            ({"id": 1, "meta": {"by": "a", "n": 1}, "meta.n": 2}, {"author": "meta.by"}),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("fixed_schema", [True, False])
    def test_two_fields_never_share_a_key(self, record, mapping, fixed_schema):
        row = single_frame(
            {key: [value] for key, value in record.items()} if fixed_schema else [record], mapping
        )
        assert len(row["meta"]) == 3

    def test_a_row_of_another_type_than_the_sample_says_so(self):
        rows = frames_of([{"id": 1, "a": 1}, {"id": 2, "a": "1"}], sample=[{"id": 0, "a": 5}])
        assert [row["types"] for row in rows] == [{}, {"a": "string"}]
        (row,) = frames_of(
            {"id": ["x"], "a": pa.array([1], pa.int16())}, sample={"id": ["x"], "a": [1]}
        )
        assert row["types"] == {"a": "int16"}


@pytest.mark.parametrize("fixed_schema", [True, False])
class TestColumns:
    """Text, tags, dates and other columns, alike from typed columns and from JSON objects."""

    def row(self, fixed_schema, mapping, /, **values):
        return single_frame(
            {"id": ["k"], **{key: [value] for key, value in values.items()}}
            if fixed_schema
            else [{"id": "k", **values}],
            mapping,
        )

    def test_text_takes_the_first_present_path(self, fixed_schema):
        row = self.row(fixed_schema, {"text_content": ["body", "text"]}, body=None, text="t")
        assert row["text_content"] == "t"
        assert "text" not in row["meta"]
        row = self.row(fixed_schema, {"text_content": ["body", "text"]}, body="", text="t")
        assert (row["text_content"], row["meta"]["text"]) == ("", "t")

    def test_a_template_keeps_its_fields_and_is_null_where_one_of_them_is(self, fixed_schema):
        row = self.row(fixed_schema, {"author": {"template": "{a} ({b})"}}, a="x", b=2)
        assert (row["author"], row["meta"]["a"], row["meta"]["b"]) == ("x (2)", "x", "2")
        assert (
            self.row(fixed_schema, {"author": {"template": "{a} ({b})"}}, a="x", b=None)["author"]
            is None
        )

    @pytest.mark.parametrize("key", ["title", "collection"])
    def test_a_template_that_is_null_does_not_call_its_other_fields_null(self, fixed_schema, key):
        row = self.row(fixed_schema, {key: {"template": "{a} {b}"}}, a="x", b=None)
        assert row["meta"]["a"] == "x"
        assert "a" not in row["types"]

    def test_constants(self, fixed_schema):
        row = self.row(fixed_schema, {"status": {"const": "done"}, "collection": {"const": "mine"}})
        assert (row["status"], row["collection"], row["collection_id"]) == (
            "done",
            "mine",
            oracle.header_uuid("articles", ""),
        )

    @pytest.mark.parametrize(
        ("title", "text", "expected"),
        [
            ("T", "x", "T"),
            (None, "\n \r\n  First line \nsecond", "First line"),
            (None, "é" * 100, "é" * 80),
            (None, "", "k"),
            (None, " \n\t", "k"),
            (None, "\u00a0\u2003\v\n", "k"),
            (None, "\u00a0\n real", "real"),
            (None, None, "k"),
            ("", "x", ""),
        ],
    )
    def test_a_title_falls_back_to_the_first_line_then_to_the_id(
        self, fixed_schema, title, text, expected
    ):
        row = self.row(
            fixed_schema, {"title": "title", "text_content": "body"}, title=title, body=text
        )
        assert row["title"] == expected
        assert row["types"].get("title") == ("null" if title is None else None)

    @pytest.mark.parametrize(
        ("value", "tags"),
        [
            ("one", ["one"]),
            (["a", "b"], ["a", "b"]),
            (None, None),
            (["a", None], ["a"]),
            ([1, 2], ["1", "2"]),
            (5, ["5"]),
        ],
    )
    def test_tags_are_lists_of_strings_and_what_they_cannot_show_is_kept(
        self, fixed_schema, value, tags
    ):
        row = self.row(fixed_schema, {"tags": "tags"}, tags=value)
        assert row["tags"] == tags
        inexact = isinstance(value, list) and not all(isinstance(item, str) for item in value)
        assert row["meta"].get("tags") == (oracle.canonical(value) if inexact else None)

    @pytest.mark.parametrize(
        ("value", "day"),
        [
            ("2024-02-03", "2024-02-03"),
            ("2024-02-03T23:30:00-02:00", "2024-02-04"),
            ("2024-02-03T04:05:06.123456Z", "2024-02-03"),
            ("Sat, 03 Feb 2024 23:30:00 -0200", "2024-02-04"),
            ("3 Feb 2024 00:00:00 +99999999999999999999999", None),
            ("soon", None),
            ("", None),
            (1706932800, None),
            (20240203, None),
            (1.5, None),
            (True, None),
        ],
    )
    def test_dates_give_the_day_in_utc_and_keep_their_value(self, fixed_schema, value, day):
        row = self.row(fixed_schema, {"created_at": "at"}, at=value)
        assert (row["created_at"], row["meta"]["at"]) == (day, oracle.metadata_text(value))

    @pytest.mark.parametrize(
        ("value", "position"),
        [
            (0, 0),
            (2**31 - 1, 2**31 - 1),
            (2**31, None),
            (2**40, None),
            (-1, None),
            (1.5, None),
            ("x", None),
        ],
    )
    def test_a_position_that_does_not_fit_stays_in_custom_metadata(
        self, fixed_schema, value, position
    ):
        row = self.row(fixed_schema, {"position": "at"}, at=value)
        assert (row["position"], row["meta"].get("at")) == (
            position,
            oracle.metadata_text(value) if position is None else None,
        )

    def test_a_version_that_is_none_stays_in_custom_metadata(self, fixed_schema):
        assert self.row(fixed_schema, {"version": "v"}, v="1.2.3")["version"] == "1.2.3"
        row = self.row(fixed_schema, {"version": "v"}, v="v1")
        assert (row["version"], row["meta"]["v"]) == (None, "v1")

    @pytest.mark.parametrize("policy", ["zero", "null"])
    def test_a_missing_vector_is_what_the_job_says_and_counted(self, fixed_schema, policy):
        rows = (
            {"id": ["a", "b"], "v": [[1.0, 2.0], None]}
            if fixed_schema
            else [{"id": "a", "v": [1.0, 2.0]}, {"id": "b"}]
        )
        job = {"mapping": {"vector": "v"}, "embedding": {"missing_vector": policy}}
        assert [row["vector"] for row in frames_of(rows, **job)] == [
            [1.0, 2.0],
            [0.0, 0.0] if policy == "zero" else None,
        ]
        assert convert(rows, **job).counts["missing_vectors"] == 1
        assert list(
            faults_of(rows, mapping={"vector": "v"}, embedding={"missing_vector": "quarantine"})
        ) == [1]

    @pytest.mark.parametrize(
        "wrong_vector",
        [[1.0], [1.0, 2.0, 3.0], [math.nan, 1.0], [1.0, -math.inf], [1.0, None], [1e39, 0.0]],
        ids=str,
    )
    def test_a_vector_that_does_not_fit_is_a_fault_and_the_others_stay(
        self, fixed_schema, wrong_vector
    ):
        values = [[1.0, 2.0], wrong_vector, [3.0, 4.0]]
        rows = (
            {"id": ["a", "b", "c"], "v": values}
            if fixed_schema
            else [{"id": number, "v": value} for number, value in enumerate(values)]
        )
        converted = convert(rows, {"vector": "v"})
        assert [fault.row for fault in converted.faults] == [1]
        assert converted.rows.tolist() == [0, 2]
        assert converted.frames.column("vector").to_pylist() == [[1.0, 2.0], [3.0, 4.0]]

    def test_a_batch_of_faults_alone_is_no_frame(self, fixed_schema):
        converted = convert({"id": [None, None]} if fixed_schema else [{"id": None}, {"id": 1.5}])
        assert (converted.frames.num_rows, len(converted.faults)) == (0, 2)

    def test_a_document_over_the_limit_is_a_fault(self, fixed_schema):
        rows = (
            {"id": ["a", "b"], "text": ["é" * 5, "é" * 6]}
            if fixed_schema
            else [{"id": "a", "text": "é" * 5}, {"id": "b", "text": "é" * 6}]
        )
        assert "limits.max_document" in faults_of(rows, limits={"max_document": 10})[1]


class TestTypedDatesAndVectors:
    @pytest.mark.parametrize(
        ("value", "arrow_type", "day"),
        [
            (dt.date(2024, 2, 3), pa.date32(), "2024-02-03"),
            (dt.date(2024, 2, 3), pa.date64(), "2024-02-03"),
            (dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC), pa.timestamp("s"), "1969-12-31"),
            (
                dt.datetime(2024, 2, 3, 23, 30, tzinfo=dt.timezone(dt.timedelta(hours=-2))),
                pa.timestamp("ns", "-02:00"),
                "2024-02-04",
            ),
            (10**11, pa.timestamp("s"), "5138-11-16"),
            (10**12, pa.timestamp("s"), None),
        ],
        ids=str,
    )
    def test_typed_instants_give_their_day(self, value, arrow_type, day):
        converted = convert(
            {"id": ["a"], "at": pa.array([value], arrow_type)}, {"created_at": "at"}
        )
        assert converted.frames.column("created_at").to_pylist() == [day]
        assert converted.counts["unreadable_dates"] == (day is None)

    def test_a_vector_as_text_is_read_and_a_text_that_is_none_is_a_fault(self):
        texts = ["[0.5, 1]", "", "[1, NaN]", "north", "[1]", '["1", 2]']
        converted = convert(
            {"id": list("abcdef"), "v": texts}, {"vector": "v"}, embedding={"dimension": 2}
        )
        assert converted.frames.column("vector").to_pylist() == [[0.5, 1.0], [0.0, 0.0]]
        assert [fault.row for fault in converted.faults] == [2, 3, 4, 5]

    def test_a_text_that_happens_to_be_called_vector_is_no_vector(self):
        converted = convert({"id": ["a"], "vector": pa.array(["north"])})
        assert not converted.faults
        assert {"key": "vector", "value": "north"} in converted.frames.column("custom_metadata")[
            0
        ].as_py()

    @pytest.mark.parametrize("value", [7, {"a": 1.0}, ["1.0"], [True]], ids=str)
    def test_a_column_called_vector_that_holds_none_is_a_fault_where_it_is_not_null(self, value):
        converted = convert({"id": ["a", "b"], "vector": [value, None]})
        assert [(fault.row, "vector is" in fault.reason) for fault in converted.faults] == [
            (0, True)
        ]
