"""Anyone can compute uuids without cfray: a record's from its id, a reference's from its value."""

import base64
import datetime as dt
import decimal
import json
import math
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.frames.schema import dataset_uuid, header_uuid, record_uuids, uuid_namespace
from tests.contract import oracle
from tests.conversion.converting import faults_of, frames_of, single_frame

CONTRACT = Path(__file__).parent.parent / "contract"
CONTRACT_IDS = json.loads((CONTRACT / "vectors.json").read_text())["ids"]
UID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


class TestIdentity:
    @pytest.mark.parametrize(
        "contract_id",
        CONTRACT_IDS,
        ids=lambda contract_id: f"{contract_id['tag']}:{contract_id['value']}"[:30],
    )
    def test_every_vector_of_the_contract(self, contract_id):
        namespace = uuid_namespace(contract_id["job"], contract_id["source_collection"])
        value = (
            base64.b64decode(contract_id["value"])
            if contract_id["tag"] == "b"
            else contract_id["value"]
        )
        tagged = f"{contract_id['tag']}:{oracle.id_text(contract_id['tag'], value)}"
        assert record_uuids(namespace, pa.array([tagged, "s:x", tagged]).slice(2)).to_pylist() == [
            contract_id["uuid"]
        ]
        assert header_uuid(namespace) == contract_id["header"]
        assert dataset_uuid(contract_id["job"]) == contract_id["dataset"]

    @given(st.lists(st.text(), max_size=20), st.text(), st.text())
    def test_any_id_of_any_job_is_what_the_oracle_computes(self, ids, job, collection):
        computed = record_uuids(
            uuid_namespace(job, collection), pa.array([f"s:{value}" for value in ids], pa.string())
        )
        assert computed.to_pylist() == [
            oracle.record_uuid(job, collection, "s", value) for value in ids
        ]

    @pytest.mark.parametrize(
        ("column", "tag"),
        [
            (pa.array(["", "42", 'naïve "☕"\\']), "s"),
            (pa.array(["x", "y"]).dictionary_encode(), "s"),
            (pa.array([42, -7, 2**53 + 1]), "i"),
            (pa.array([2**64 - 1], pa.uint64()), "i"),
            (pa.array([uuid.UUID(UID).bytes], pa.uuid()), "u"),
            (pa.array([b"\x00\xff", b""]), "b"),
            (pa.array([b"\x01\x02"], pa.binary(2)), "b"),
        ],
        ids=lambda item: str(getattr(item, "type", item)),
    )
    def test_the_tag_follows_the_columns_type(self, column, tag):
        rows = frames_of({"id": column})
        assert [row["uuid"] for row in rows] == [
            oracle.record_uuid("articles", "", tag, value) for value in column.to_pylist()
        ]
        assert [row["meta"]["original_id"] for row in rows] == [
            oracle.id_text(tag, value) for value in column.to_pylist()
        ]

    def test_the_tag_follows_each_json_value(self):
        tagged_ids = [("s", "42"), ("i", 42), ("i", 2**64 - 1), ("i", 10**30), ("i", -7), ("s", "")]
        assert [row["uuid"] for row in frames_of([{"id": value} for _, value in tagged_ids])] == [
            oracle.record_uuid("articles", "", tag, value) for tag, value in tagged_ids
        ]

    @pytest.mark.parametrize("value", [1.5, 42.0, True, None, {"a": 1}, [1], [], {}], ids=str)
    def test_a_value_that_is_no_id_is_a_fault(self, value):
        assert list(faults_of([{"id": "a"}, {"id": value}, {"id": "b"}])) == [1]

    @pytest.mark.parametrize(
        "column",
        [[1.5], [True], [None], [{"a": 1}], [[1]], [decimal.Decimal("1.5")], [dt.date(2024, 1, 1)]],
        ids=str,
    )
    def test_a_column_that_holds_no_ids_is_a_fault_of_every_row(self, column):
        assert list(faults_of({"id": column * 2, "x": [1, 2]})) == [0, 1]

    def test_a_missing_id_is_a_fault_with_the_name_of_the_field(self):
        assert faults_of([{"key": "a"}, {"x": 1}], {"id": "key"}) == {
            1: "no id: key is missing or null"
        }

    def test_a_fallback_takes_the_first_present_id_and_keeps_the_other(self):
        first_row, second_row = frames_of(
            [{"a": "x", "b": 1}, {"a": None, "b": 2}], {"id": ["a", "b"]}
        )
        assert (first_row["uuid"], second_row["uuid"]) == (
            oracle.record_uuid("articles", "", "s", "x"),
            oracle.record_uuid("articles", "", "i", 2),
        )
        assert first_row["meta"] == {"b": "1", "original_id": "x"}
        assert second_row["meta"] == {"a": "null", "original_id": "2"}

    @pytest.mark.parametrize("records", [[{"t": "k", "n": 1}], {"t": ["k"], "n": [1]}])
    def test_a_composite_id_is_the_json_of_its_parts(self, records):
        assert single_frame(records, {"id": {"key": ["t", "n"]}})["uuid"] == oracle.record_uuid(
            "articles", "", "j", ["k", 1]
        )

    def test_a_missing_part_of_a_composite_id_is_null(self):
        rows = frames_of(
            [{"t": 'é"', "n": 1.5}, {"n": 2}, {"t": None, "n": 2**70}], {"id": {"key": ["t", "n"]}}
        )
        assert [row["meta"]["original_id"] for row in rows] == [
            oracle.canonical(key_values) for key_values in (['é"', 1.5], [None, 2], [None, 2**70])
        ]

    def test_a_kept_uuid_is_lower_case_and_other_ids_are_computed(self):
        rows = frames_of(
            {"id": [UID.upper(), "d1"], "up": ["d1", UID.upper()]},
            {"keep_uuid": True, "relationships": {"type": "parent", "to": "up"}},
        )
        computed = oracle.record_uuid("articles", "", "s", "d1")
        assert [row["uuid"] for row in rows] == [UID, computed]
        assert [row["relationships"][0]["id"] for row in rows] == [computed, UID]


def references(records, to="ref", **rule):
    """Give, for each row, the uuids that its relationship rule points to."""
    mapping = {
        "id": "id",
        "relationships": [{"type": "related", "to": to, **rule}],
        "member_of": False,
    }
    return [
        [relationship["id"] for relationship in row["relationships"]]
        for row in frames_of(records, mapping)
    ]


def uuids_of(tag, *values, collection=""):
    return [oracle.record_uuid("articles", collection, tag, value) for value in values]


class TestRelationships:
    @pytest.mark.parametrize("fixed_schema", [True, False])
    @pytest.mark.parametrize(
        ("record_id", "reference", "expected"),
        [
            (7, 42, uuids_of("i", 42)),
            (7, "42", uuids_of("i", 42)),
            (7, "042", uuids_of("s", "042")),
            (7, "x", uuids_of("s", "x")),
            ("a", 42, uuids_of("s", "42")),
            ("a", "42", uuids_of("s", "42")),
            ("a", ["b", "c", "b"], uuids_of("s", "b", "c", "b")),
            (7, ["1", "2"], uuids_of("i", 1, 2)),
            ("a", [1, 2], uuids_of("s", "1", "2")),
            ("a", [], []),
            ("a", None, []),
            ("a", ["b", None], uuids_of("s", "b")),
        ],
        ids=str,
    )
    def test_a_reference_is_cast_to_the_ids_type(
        self, fixed_schema, record_id, reference, expected
    ):
        assert references(
            {"id": [record_id], "ref": [reference]}
            if fixed_schema
            else [{"id": record_id, "ref": reference}]
        ) == [expected]

    @pytest.mark.parametrize("width", [pa.float64(), pa.float32(), pa.float16()], ids=str)
    def test_a_float_that_is_an_integer_refers_as_one(self, width):
        column = pa.array(np.array([3.0, -2.0, 0.5, np.nan, np.inf, 0.0]), pa.float64()).cast(width)
        ids = list(range(6))
        assert references({"id": ids, "ref": column}) == [
            uuids_of("i", 3),
            uuids_of("i", -2),
            uuids_of("s", "0.5"),
            [],
            uuids_of("s", "Infinity"),
            uuids_of("i", 0),
        ]
        assert references({"id": [1], "ref": pa.array([[3.0, 4.5, None]], pa.list_(width))}) == [
            [*uuids_of("i", 3), *uuids_of("s", "4.5")]
        ]

    def test_a_json_float_that_is_an_integer_refers_as_one(self):
        values = [3.0, 0.5, [1.0, 2.5], [1, 2.0], math.nan, None]
        records = [{"id": n, "ref": value} for n, value in enumerate(values)]
        assert references(records) == [
            uuids_of("i", 3),
            uuids_of("j", 0.5),
            [*uuids_of("i", 1), *uuids_of("j", 2.5)],
            uuids_of("i", 1, 2),
            [],
            [],
        ]

    def test_a_float_that_may_stand_for_another_integer_refers_to_none(self):
        # 2**53 + 1 is no float64, and becomes 2**53
        far = [2.0**53 - 1, 2.0**53, -(2.0**60)]
        expected = [
            uuids_of("i", 2**53 - 1),
            uuids_of("s", "9007199254740992.0"),
            uuids_of("s", "-1.152921504606847e+18"),
        ]
        assert references({"id": [1, 2, 3], "ref": far}) == expected
        assert references([{"id": n, "ref": value} for n, value in enumerate(far)]) == [
            expected[0],
            uuids_of("j", 2.0**53),
            uuids_of("j", -(2.0**60)),
        ]
        narrow = pa.array([2.0**24 - 1, 2.0**24], pa.float32())
        assert references({"id": [1, 2], "ref": narrow}) == [
            uuids_of("i", 2**24 - 1),
            uuids_of("s", "16777216.0"),
        ]

    @pytest.mark.parametrize(
        ("text", "tag", "value"),
        [
            ("3.0", "i", 3),
            ("3.00", "i", 3),
            ("3.5", "s", "3.5"),
            ("3.", "s", "3."),
            ("-0", "s", "-0"),
        ],
    )
    def test_a_text_with_a_fraction_of_zeros_refers_to_an_integer(self, text, tag, value):
        assert references({"id": [1], "ref": [text]}) == [uuids_of(tag, value)]

    def test_an_integral_decimal_is_an_integer_as_id_and_as_reference(self):
        big = 10**20 + 1
        ids = pa.array([decimal.Decimal(big), decimal.Decimal(7)], pa.decimal128(38, 0))
        scaled = pa.array([decimal.Decimal(7), decimal.Decimal("7.5")], pa.decimal128(20, 9))
        rows = frames_of(
            {"id": ids, "ref": scaled}, {"relationships": {"type": "parent", "to": "ref"}}
        )
        assert [row["uuid"] for row in rows] == uuids_of("i", big, 7)
        assert [row["meta"]["original_id"] for row in rows] == [str(big), "7"]
        assert rows[0]["relationships"][0]["id"] == rows[1]["uuid"]
        assert rows[1]["relationships"][0]["id"] == uuids_of("s", "7.500000000")[0]
        assert references({"id": [7, 8], "ref": ids}) == [uuids_of("i", big), uuids_of("i", 7)]
        assert references({"id": ["7", str(big)], "ref": ids})[1] == uuids_of("s", "7")

    @pytest.mark.parametrize("scale", [-2, 0, 9])
    def test_a_decimal_with_a_fraction_is_no_id(self, scale):
        whole = pa.array([decimal.Decimal(1200)], pa.decimal128(20, scale))
        assert single_frame({"id": whole})["uuid"] == uuids_of("i", 1200)[0]
        fraction = pa.array([decimal.Decimal("1.5"), decimal.Decimal(2)], pa.decimal128(20, 9))
        (fault,) = faults_of({"id": fraction}).items()
        assert fault == (0, "id is 1.500000000, which is no integer and cannot be an id")

    def test_sixteen_bytes_and_a_uuid_refer_to_each_other(self):
        blob = uuid.UUID(UID).bytes
        uuid_ids = pa.array([blob], pa.uuid())
        for kind in (pa.binary(16), pa.binary()):
            assert references({"id": uuid_ids, "ref": pa.array([blob], kind)}) == [
                uuids_of("u", UID)
            ]
            byte_ids = pa.array([blob], kind)
            for reference in (UID, UID.upper()):
                assert references({"id": byte_ids, "ref": [reference]}) == [uuids_of("b", blob)]
            assert references({"id": byte_ids, "ref": uuid_ids}) == [uuids_of("b", blob)]
        assert references({"id": [UID], "ref": pa.array([blob])}) == [uuids_of("s", UID)]
        assert references({"id": ["x"], "ref": pa.array([b"abc"])}) == [uuids_of("b", b"abc")]

    @pytest.mark.parametrize("spelling", ["{%s}", "%s"])
    @pytest.mark.parametrize("dashes", [True, False])
    def test_other_spellings_of_a_uuid_refer_to_a_uuid(self, spelling, dashes):
        text = spelling % (UID.upper() if dashes else UID.replace("-", ""))
        column = pa.array([uuid.UUID(UID).bytes], pa.uuid())
        assert references({"id": column, "ref": [text]}) == [uuids_of("u", UID)]

    def test_null_rows_of_a_list_column_point_nowhere(self):
        for list_type in (
            pa.list_(pa.string()),
            pa.large_list(pa.string()),
            pa.list_(pa.string(), 1),
        ):
            column = pa.array([None, ["b"], None, ["c"]], list_type)
            assert references({"id": ["w", "x", "y", "z"], "ref": column}) == [
                [],
                uuids_of("s", "b"),
                [],
                uuids_of("s", "c"),
            ]

    def test_a_fallback_takes_the_first_present_reference_of_each_row(self):
        records = [
            {"id": "1", "a": "x", "b": "y"},
            {"id": "2", "a": None, "b": "y"},
            {"id": "3", "b": "y"},
        ]
        expected = [uuids_of("s", "x"), uuids_of("s", "y"), uuids_of("s", "y")]
        assert references(records, to=["a", "b"]) == expected
        assert (
            references(
                {"id": ["1", "2", "3"], "a": ["x", None, None], "b": ["y"] * 3}, to=["a", "b"]
            )
            == expected
        )

    def test_a_reference_to_a_uuid_id_is_normalised_and_odd_text_harms_nothing(self):
        column = pa.array([uuid.UUID(UID).bytes] * 3, pa.uuid())
        assert references({"id": column, "ref": [UID.upper(), "x", UID + "\n"]}) == [
            uuids_of("u", UID),
            uuids_of("s", "x"),
            uuids_of("s", UID + "\n"),
        ]

    def test_a_composite_reference_and_one_into_another_collection(self):
        mapping = {
            "id": {"key": ["t", "n"]},
            "relationships": [{"type": "parent", "to": {"key": ["t", "up"]}}],
            "member_of": False,
        }
        assert (
            single_frame({"t": ["k"], "n": [2], "up": [1]}, mapping)["relationships"][0]["id"]
            == uuids_of("j", ["k", 1])[0]
        )
        assert references({"id": ["a"], "ref": ["b"]}, collection="people") == [
            uuids_of("s", "b", collection="people")
        ]

    def test_membership_comes_last_and_references_stay_in_custom_metadata(self):
        row = single_frame(
            {"id": [1], "ref": ["42"]}, {"relationships": {"type": "parent", "to": "ref"}}
        )
        assert [relationship["type"] for relationship in row["relationships"]] == [
            "parent",
            "member_of",
        ]
        assert (
            row["relationships"][1]["id"]
            == row["collection_id"]
            == oracle.header_uuid("articles", "")
        )
        assert row["meta"]["ref"] == "42"
