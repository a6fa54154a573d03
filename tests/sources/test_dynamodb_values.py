"""DynamoDB's values and keys, read as they travel, and what becomes of those that do not fit."""

import base64
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cfray.conversion.identity import VARIANT_TAGS
from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.dynamodb.records import RecordBuilder
from cfray.sources.dynamodb.settings import VectorAttribute
from cfray.sources.dynamodb.types import KEY, UnreadableItem, read_number, read_value
from tests.contract import oracle
from tests.sources.corpus import CONTEXT, plain_rows, rows
from tests.sources.dynamodb_bed import DynamoDBBed, wire

pytestmark = pytest.mark.server("dynamodb")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(DynamoDBBed)


def read_item(bed, item, key=None):
    """Write an item by the vendor's client, and read it."""
    name = bed.create(bed.fresh(), key or {"pk": "S"})
    bed.put(name, [item])
    [row] = rows(bed.source(name, vectors={"none": VectorAttribute(optional=True)}))
    del row["vectors"]
    return row


def built(items, vectors=None, key=("pk",), context=CONTEXT):
    """Build records of items as they travel; return rows and rejects, in their order."""
    builder = RecordBuilder(key, vectors or {}, "table", context)
    return [
        row
        for part in builder.build(items)
        for row in ([part] if isinstance(part, Reject) else plain_rows(part))
    ]


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("0", 0),
            ("-7", -7),
            ("9007199254740993", 2**53 + 1),
            ("12345678901234567890123456789012345678", 12345678901234567890123456789012345678),
            ("1E+3", 1000),
            ("2.50", 2.5),
            ("0.1", 0.1),
            ("-0.30000000000000004", -0.30000000000000004),
            ("0.0000001", 1e-07),
            ("1e-100", 1e-100),
            ("0.10000000000000000555", None),
            ("-1.2345678901234567890123456789012345678", None),
            ("1E-130", 1e-130),
            (
                "9.9999999999999999999999999999999999999E+125",
                int(Decimal("9.9999999999999999999999999999999999999E+125")),
            ),
        ],
    )
    def test_a_number_is_exact_or_stays_a_text(self, text, number):
        read = read_number(text)
        assert read == number
        assert type(read) is type(number)
        if read is not None:
            assert Decimal(str(read)) == Decimal(text)

    def test_a_text_that_is_no_number_is_refused(self):
        for text in ("", "x", "1,5", "x5", None, "1_000", " 5 ", "NaN", "Infinity", "\u0665"):
            with pytest.raises(UnreadableItem):
                read_number(text)

    def test_a_text_is_no_boolean(self):
        with pytest.raises(UnreadableItem):
            read_value({"BOOL": "false"})

    def test_38_digits_come_back_from_the_store(self, bed):
        digits = "1.2345678901234567890123456789012345678"
        row = read_item(
            bed, {"pk": wire("a"), "n": {"N": digits}, "m": wire({"n": Decimal(digits)})}
        )
        assert row["n"] == ("decimal", f'"{digits}"')
        assert row["m"] == ("struct", f'{{"n":{{"N":"{digits}"}}}}')


class TestTypes:
    def test_null_missing_and_empty_are_three_things(self, bed):
        row = read_item(bed, {"pk": wire("a"), "null": {"NULL": True}, "empty": {"S": ""}})
        assert row["null"] == ("null", "null")
        assert row["empty"] == ("string", "")
        assert "missing" not in row

    def test_a_set_is_no_list_and_has_no_order(self):
        for order in (["b", "a", "é"], ["é", "b", "a"]):
            [row] = built([{"pk": wire("a"), "s": {"SS": order}, "n": {"NS": ["10", "9", "-1.5"]}}])
            assert row["s"] == ("list<SS>", '["a","b","é"]')
            assert row["n"] == ("list<NS>", "[-1.5,9,10]")
        assert read_value({"L": [{"S": "b"}, {"S": "a"}]}) == ["b", "a"]

    def test_what_json_does_not_have_stays_as_it_travelled_inside_a_map(self):
        value = {
            "M": {"b": {"B": "AAEC"}, "s": {"BS": ["AQ==", "AA=="]}, "m": {"M": {"N": {"S": "x"}}}}
        }
        assert read_value(value) == {
            "b": {"B": "AAEC"},
            "s": {"BS": ["AA==", "AQ=="]},
            # a map that reads like a value is told from one
            "m": {"M": {"N": "x"}},
        }

    def test_an_unknown_type_is_rejected_with_its_item(self):
        item = {"pk": wire("a"), "x": {"Q": "1"}}
        [reject] = built([item])
        assert "type Q" in reject.reason
        assert json.loads(reject.content) == item
        assert reject.position == "table:a"

    def test_an_item_above_the_limit_is_rejected(self):
        some = [
            {"pk": wire(f"{n}"), "text": wire("x" * size)} for n, size in enumerate((5, 900, 5))
        ]
        first, reject, last = built(some, context=Context(max_record=500))
        assert "max_document" in reject.reason
        assert [first["pk"][1], last["pk"][1]] == ["0", "2"]


class TestKeys:
    @pytest.mark.parametrize(
        ("kind", "value", "expected"),
        [
            ("S", "é/x", ("string", "é/x")),
            ("N", 42, ("int64", "42")),
            ("N", 10**30, ("integer", "1" + "0" * 30)),
            ("N", Decimal("1.5"), (KEY, '["1.5"]')),
            ("N", Decimal("1.2345678901234567890123"), (KEY, '["1.2345678901234567890123"]')),
            ("B", b"\x00\xff", ("binary", '"AP8="')),
        ],
    )
    def test_the_partition_key_is_the_id(self, bed, kind, value, expected):
        row = read_item(bed, {"pk": wire(value)}, {"pk": kind})
        assert row["id"] == expected

    def test_two_keys_are_one_id_that_anyone_can_compute(self, bed):
        row = read_item(bed, {"pk": wire('a,"b"'), "sk": wire(7)}, {"pk": "S", "sk": "N"})
        assert row["id"] == (KEY, '["a,\\"b\\"",7]')
        assert (row["pk"], row["sk"]) == (("string", 'a,"b"'), ("int64", "7"))
        assert VARIANT_TAGS[KEY] == "j"
        assert oracle.record_uuid("job", "table", "j", row["id"][1])

    def test_keys_that_differ_by_type_or_by_where_they_end_are_two_ids(self):
        items = [
            {"pk": {"S": "a"}, "sk": {"S": "b,c"}},
            {"pk": {"S": "a,b"}, "sk": {"S": "c"}},
            {"pk": {"S": "1"}, "sk": {"N": "1"}},
            {"pk": {"S": "1"}, "sk": {"S": "1"}},
            {"pk": {"B": "AAE="}, "sk": {"N": "0.5"}},
        ]
        ids = [row["id"] for row in built(items, key=("pk", "sk"))]
        assert len(set(ids)) == len(ids)
        assert ids[-1] == (KEY, '["AAE=","0.5"]')

    def test_attributes_named_like_columns_keep_their_values(self):
        names = ("id", "vectors", "item.id", "vector")
        [row] = built([{"pk": wire("a"), **{name: wire(f"of {name}") for name in names}}])
        assert row["id"] == ("string", "a")
        assert row["item.id"] == ("string", "of id")
        assert row["item.vectors"] == ("string", "of vectors")
        assert row["item.item.id"] == ("string", "of item.id")
        assert row["vector"] == ("string", "of vector")

    def test_an_item_without_its_key_is_rejected(self):
        [reject] = built([{"other": wire("a")}])
        assert "no key attribute pk" in reject.reason


class TestVectors:
    declared = VectorAttribute(dtype="float32", byte_order="big", dimension=3)

    def one(self, value, **declared):
        item = {"pk": wire("a")} | ({} if value is None else {"v": value})
        [row] = built([item], {"v": VectorAttribute(**declared)})
        return row

    def test_a_list_of_numbers_is_float32_to_the_bit(self):
        numbers = np.random.default_rng(5).standard_normal(200).astype(np.float32)
        # its shortest text lies exactly between two float32
        numbers[0] = np.float32("7.038531e-26")
        value = {"L": [{"N": str(number)} for number in numbers]}
        row = self.one(value)
        assert np.array_equal(np.float32(row["vectors"]["v"]).view("u4"), numbers.view("u4"))

    @pytest.mark.parametrize("byte_order", ["little", "big"])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_packed_numbers_keep_their_type_and_their_bits(self, dtype, byte_order):
        numbers = np.random.default_rng(6).standard_normal(7).astype(dtype)
        order = ">" if byte_order == "big" else "<"
        packed = numbers.astype(numbers.dtype.newbyteorder(order)).tobytes()
        value = {"B": base64.b64encode(packed).decode()}
        declared = VectorAttribute(dtype=dtype, byte_order=byte_order, dimension=7)
        [batch] = RecordBuilder(("pk",), {"v": declared}, "table", CONTEXT).build(
            [{"pk": wire("a"), "v": value}]
        )
        column = batch.column("vectors").field("v")
        names = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}
        assert column.type == pa.list_(names[dtype], 7)
        assert np.asarray(column.values).astype(dtype).tobytes() == numbers.tobytes()

    def test_packed_numbers_that_nobody_declared_end_the_read(self):
        with pytest.raises(SourceError, match="must say what they are") as error:
            self.one({"B": "AACAPw=="})
        assert "dtype" in error.value.remedy

    def test_a_number_type_without_a_width_is_refused(self):
        with pytest.raises(ValidationError, match="dimension"):
            DynamoDBBed("http://127.0.0.1:1").source("any", vectors={"v": {"dtype": "float32"}})

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "is missing"),
            ({"NULL": True}, "is null"),
            ({"L": []}, "is empty"),
            ({"N": "0.5"}, "type N"),
            ({"S": "[1,2,3]"}, "type S"),
            ({"NS": ["1", "2"]}, "type NS"),
            ({"L": [{"N": "1"}, {"S": "x"}]}, "something else than numbers"),
            ({"L": [{"N": "1"}]}, "has 1 numbers"),
            ({"B": base64.b64encode(b"12345").decode()}, "5 bytes"),
            ({"B": base64.b64encode(b"12345678").decode()}, "has 2 numbers"),
        ],
    )
    def test_a_declared_vector_that_is_none_is_rejected_with_its_reason(self, value, reason):
        item = {"pk": wire("a")} | ({} if value is None else {"v": value})
        [reject] = built([item], {"v": self.declared})
        assert reason in reject.reason
        assert json.loads(reject.content) == item

    def test_an_optional_vector_may_be_missing_among_others(self):
        declared = VectorAttribute(optional=True)
        values = [{"L": [{"N": "1"}, {"N": "2"}]}, {"NULL": True}, None, {"L": [{"N": "3"}]}]
        some = [{"pk": wire("a")} | ({"v": value} if value else {}) for value in values]
        assert [row["vectors"]["v"] for row in built(some, {"v": declared})] == [
            [1, 2],
            None,
            None,
            [3],
        ]

    def test_rejects_and_records_keep_the_order_of_the_items(self):
        some = [{"pk": wire(f"{n}"), **({"v": wire([1, 2, 3])} if n % 3 else {})} for n in range(9)]
        parts = built(some, {"v": VectorAttribute(dimension=3)})
        assert [isinstance(part, Reject) for part in parts] == [n % 3 == 0 for n in range(9)]

    def test_a_vector_that_nobody_declared_is_a_list_of_numbers(self, bed):
        row = read_item(bed, {"pk": wire("a"), "v": wire([0.5, 0.25])})
        assert row["v"] == ("list<double>", "[0.5,0.25]")
