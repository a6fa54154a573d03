"""A text of a CSV file is converted to its declared type exactly, or is a misfit.

The misfits of a column are named, and the conversion never rounds and never guesses.
"""

import datetime as dt
import decimal
import math

import pyarrow as pa
import pytest

from cfray.formats.csv_types import KNOWN_TYPES, convert_texts, parse_type

UTC = dt.UTC
FITS = [
    ("int8", "-128", -128),
    ("uint8", "255", 255),
    ("int64", "9223372036854775807", 2**63 - 1),
    ("uint64", "18446744073709551615", 2**64 - 1),
    ("double", "0.1", 0.1),
    ("double", "-inf", -math.inf),
    ("float", "0.5", 0.5),
    ("bool", "true", True),
    ("bool", "0", False),
    ("date32", "2020-02-29", dt.date(2020, 2, 29)),
    (
        "timestamp[us]",
        "2020-01-01 10:00:00.000001",
        dt.datetime.fromisoformat("2020-01-01T10:00:00.000001"),
    ),
    ("timestamp[ms, UTC]", "2020-01-01T10:00:00+02:00", dt.datetime(2020, 1, 1, 8, tzinfo=UTC)),
    (
        "timestamp[s, tz=Europe/Berlin]",
        "2020-01-01T10:00:00Z",
        dt.datetime(2020, 1, 1, 10, tzinfo=UTC),
    ),
    ("decimal128(5, 2)", "123.45", decimal.Decimal("123.45")),
    ("list<double>", "[0.1, 2]", [0.1, 2.0]),
    ("list<double>", "[]", []),
    ("list<float>", "[0.5,Infinity]", [0.5, math.inf]),
    ("list<int64>", "[1,-9223372036854775808]", [1, -(2**63)]),
    ("list<string>", '["a","\\u00e9"]', ["a", "é"]),
]
MISFITS = [
    ("int8", "128"),
    ("int64", "9223372036854775808"),
    ("int64", "1.0"),
    ("int64", "0xFFFFFFFFFFFFFFFF"),
    ("int64", " 1"),
    ("uint8", "-1"),
    ("double", "1e400"),
    ("float", "1e39"),
    ("double", "1,5"),
    ("bool", "yes"),
    ("date32", "2021-02-29"),
    ("timestamp[s]", "2020-01-01T00:00:00.5"),
    ("timestamp[s]", "2020-01-01T00:00:00Z"),
    ("timestamp[s, UTC]", "2020-01-01T00:00:00"),
    ("timestamp[ns]", "3000-01-01"),
    ("decimal128(5, 2)", "1.234"),
    ("decimal128(5, 2)", "12345.6"),
    ("list<double>", "[0.1, null]"),
    ("list<double>", "[true]"),
    ("list<double>", "[0.1"),
    ("list<double>", "0.1"),
    ("list<double>", "[1e400]"),
    ("list<float>", "[1e39]"),
    ("list<double>", "[9007199254740993]"),
    ("list<int64>", "[1.0]"),
    ("list<int64>", "[9223372036854775808]"),
    ("list<string>", "[1]"),
]


class TestConvert:
    @pytest.mark.parametrize(("name", "text", "value"), FITS)
    def test_reads_what_fits(self, name, text, value):
        values, misfits = convert_texts(pa.array([text, ""]), parse_type(name))
        assert values.type == parse_type(name)
        assert misfits == []
        assert values.to_pylist() == [value, None]

    @pytest.mark.parametrize(("name", "text"), MISFITS)
    def test_names_what_does_not_fit_and_reads_the_rest(self, name, text):
        fitting_text = next(
            text
            for declared, text, _ in FITS
            if declared.split("[")[0].split("(")[0] == name.split("[")[0].split("(")[0]
        )
        if name.startswith("timestamp"):
            fitting_text = "2020-01-01T00:00:00Z" if "UTC" in name else "2020-01-01T00:00:00"
        values, misfits = convert_texts(
            pa.array(["", fitting_text, text, fitting_text]), parse_type(name)
        )
        assert misfits == [2]
        assert values[1] == values[3]
        assert values[1].is_valid
        assert not values[0].is_valid

    def test_a_misfit_among_texts_that_arrow_casts_is_found(self):
        assert convert_texts(pa.array(["1", "0x10", "7"]), pa.int64())[1] == [1]
        assert convert_texts(pa.array(["1", "1e999", "inf"]), pa.float64())[1] == [1]
        assert convert_texts(pa.array(["1e999", "junk", "inf"]), pa.float64())[1] == [0, 1]


class TestTypeNamed:
    @pytest.mark.parametrize(
        "name",
        [
            "str",
            "int",
            "timestamp",
            "timestamp[m]",
            "timestamp[s, Mars/Base]",
            "decimal128(99, 1)",
            "list<bool>",
            "",
            "binary",
        ],
    )
    def test_an_unknown_name_is_refused(self, name):
        with pytest.raises(ValueError, match="is no type"):
            parse_type(name)

    def test_the_error_lists_what_is_known(self):
        with pytest.raises(ValueError, match="known") as caught:
            parse_type("text")
        assert KNOWN_TYPES in str(caught.value)
