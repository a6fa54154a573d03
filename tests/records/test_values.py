"""Every Arrow value has one canonical text: the one that the contract's oracle gives."""

import datetime as dt
import decimal
import json
import math
import pickle
import struct
import uuid
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.errors import ConfigError
from cfray.records.values import json_texts, lossy_reason, metadata_texts, type_name, unencoded_name
from tests.contract import oracle

CONTRACT = Path(__file__).parent.parent / "contract"
CONTRACT_VALUES = json.loads((CONTRACT / "vectors.json").read_text())["values"]
ARROW_TYPES = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "double": pa.float64(),
    "float": pa.float32(),
    "list<int64>": pa.list_(pa.int64()),
    "list<string>": pa.list_(pa.string()),
    "struct": pa.struct(
        [("b", pa.int64()), ("a", pa.null()), ("Z", pa.string()), ("ä", pa.struct([]))]
    ),
    "timestamp[us]": pa.timestamp("us"),
    "timestamp[us, tz=+02:00]": pa.timestamp("us", "+02:00"),
    "timestamp[us, tz=UTC]": pa.timestamp("us", "UTC"),
    "date32": pa.date32(),
    "time64[us]": pa.time64("us"),
    "decimal128(10, 2)": pa.decimal128(10, 2),
    "uuid": pa.uuid(),
    "binary": pa.binary(),
}
UNION_VALUES = st.one_of(st.integers(-9, 9), st.text(max_size=3))


def expected_texts(values, to_text):
    return [None if value is None else to_text(value) for value in values]


def check_texts(array, values=None):
    """Check that both texts of an array, also sliced and chunked, are those of the oracle."""
    values = array.to_pylist() if values is None else values
    cut = len(array) // 3
    for to_texts, oracle_text in (
        (metadata_texts, oracle.metadata_text),
        (json_texts, oracle.canonical),
    ):
        texts = expected_texts(values, oracle_text)
        assert to_texts(array).to_pylist() == texts
        assert to_texts(array.slice(cut, cut + 1)).to_pylist() == texts[cut : 2 * cut + 1]
        assert (
            to_texts(
                pa.chunked_array([array.slice(cut), array.slice(0, cut)], array.type)
            ).to_pylist()
            == texts[cut:] + texts[:cut]
        )
        assert to_texts(array).type == pa.string()
        to_texts(array).validate(full=True)


def nullable_lists(values):
    return st.lists(st.none() | values, max_size=12)


# The contract.


def test_vectors_are_those_of_the_oracle():
    assert json.loads((CONTRACT / "vectors.json").read_text()) == oracle.build()


@pytest.mark.parametrize(
    ("value", "contract_value"),
    list(zip(oracle.VALUES, CONTRACT_VALUES, strict=True)),
    ids=lambda case: str(case)[:40],
)
def test_every_vector(value, contract_value):
    # A null of a typed column stays null; the word null stands for it only inside a value.
    if contract_value["type"] == "null":
        assert json_texts(pa.array([[None]], pa.list_(pa.null()))).to_pylist() == [
            "[" + contract_value["custom_metadata"] + "]"
        ]
        return
    arrow_type = ARROW_TYPES[contract_value["type"]]
    # The list [true, 2.5] of this value has no Arrow type but a union.
    if contract_value["type"] == "struct":
        mixed_values = pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()),
            pa.array([0, 0], pa.int32()),
            [pa.array([True]), pa.array([2.5])],
        )
        mixed_list = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), mixed_values)
        array = pa.StructArray.from_arrays(
            [pa.array([1]), pa.nulls(1), pa.array(['é\n"']), mixed_list], ["b", "a", "Z", "ä"]
        )
    else:
        array = pa.array([value[1]], arrow_type)
    assert metadata_texts(array).to_pylist() == [contract_value["custom_metadata"]]


# Each type against the oracle.


@given(
    nullable_lists(st.text()), st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])
)
def test_strings(values, arrow_type):
    check_texts(pa.array(values, arrow_type))


def test_every_control_character_is_escaped_as_json_requires():
    check_texts(pa.array([chr(code) for code in range(300)] + ['a\\"b', "\u2028", "\U0001d4b3"]))


@given(nullable_lists(st.booleans()))
def test_booleans(values):
    check_texts(pa.array(values, pa.bool_()))


@pytest.mark.parametrize(
    "arrow_type",
    [
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
    ],
)
def test_integers_to_the_ends_of_their_range(arrow_type):
    info = np.iinfo(arrow_type.to_pandas_dtype())
    check_texts(pa.array([info.min, info.max, 0, None, 7], arrow_type))


@given(nullable_lists(st.floats()))
def test_doubles(values):
    check_texts(pa.array(values, pa.float64()))


@given(nullable_lists(st.floats(width=32)))
def test_floats_of_32_bits(values):
    check_texts(pa.array(values, pa.float32()), expected_texts(values, oracle.Float32))


def neighbours(floats):
    """Give each of these floats with the floats beside it, of both signs."""
    with np.errstate(over="ignore"):
        positive = np.concatenate(
            [
                floats,
                np.nextafter(floats, floats.dtype.type(0)),
                np.nextafter(floats, floats.dtype.type(np.inf)),
            ]
        )
    return np.concatenate([positive, -positive])


def test_every_power_of_two_of_64_bits():
    check_texts(pa.array(neighbours(np.ldexp(1.0, np.arange(-1074, 1024)))))


def test_every_power_of_two_of_32_bits():
    values = neighbours(np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32))
    check_texts(pa.array(values, pa.float32()), expected_texts(values.tolist(), oracle.Float32))


def test_every_power_of_ten_and_the_floats_beside_it():
    values = neighbours(np.array([float(f"1e{exponent}") for exponent in range(-320, 309)]))
    check_texts(pa.array(values))
    narrow = neighbours(
        np.array([float(f"1e{exponent}") for exponent in range(-45, 39)], np.float32)
    )
    check_texts(pa.array(narrow, pa.float32()), expected_texts(narrow.tolist(), oracle.Float32))


@given(
    st.lists(st.tuples(st.integers(-(2**53), 2**53), st.integers(0, 60)), min_size=1, max_size=30)
)
def test_doubles_halfway_between_two_texts(fractions):
    check_texts(pa.array([number / 2**shift for number, shift in fractions]))


def half_text(value):
    """Write a float of 16 bits with the fewest digits that read back to the same 16 bits."""
    if not math.isfinite(value):
        return json.dumps(value)
    for digits in range(1, 6):
        rounded = float(f"{value:.{digits}g}")
        # A float of 16 bits rounds 65520 to infinity.
        if abs(rounded) < 65520 and struct.pack("e", rounded) == struct.pack("e", value):
            return repr(rounded)
    raise AssertionError(value)


def test_every_float_of_16_bits():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    array = pa.array(values, pa.float16())
    assert (
        metadata_texts(array).to_pylist()
        == json_texts(array).to_pylist()
        == [half_text(float(value)) for value in values]
    )
    assert metadata_texts(pa.array([None, np.float16(0.1)], pa.float16())).to_pylist() == [
        None,
        "0.1",
    ]


@given(nullable_lists(st.dates()), st.sampled_from([pa.date32(), pa.date64()]))
def test_dates(values, arrow_type):
    check_texts(pa.array(values, arrow_type))


@given(
    nullable_lists(st.times()),
    st.sampled_from([pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]),
)
def test_times(values, arrow_type):
    microseconds = {"s": 10**6, "ms": 10**3}.get(arrow_type.unit, 1)
    values = [
        value and value.replace(microsecond=value.microsecond // microseconds * microseconds)
        for value in values
    ]
    check_texts(pa.array(values, arrow_type), values)


def test_times_keep_nanoseconds():
    array = pa.array([1, 3_600_000_000_100, None], pa.time64("ns"))
    assert metadata_texts(array).to_pylist() == ['"00:00:00.000000001"', '"01:00:00.0000001"', None]


def test_a_time_outside_the_day_stays_a_count():
    assert metadata_texts(
        pa.array([-1, 86_400, 0], pa.int32()).view(pa.time32("s"))
    ).to_pylist() == ["-1", "86400", '"00:00:00"']


ZONES = [
    None,
    "UTC",
    "Etc/UTC",
    "+02:00",
    "-03:30",
    "Europe/Berlin",
    "America/St_Johns",
    "Africa/Monrovia",
]
# Seconds of the years 5 to 9987.
SECONDS = st.integers(-62_000_000_000, 253_000_000_000)


@given(
    nullable_lists(SECONDS),
    st.sampled_from(["s", "ms", "us"]),
    st.sampled_from(ZONES),
    st.integers(0, 10**6 - 1),
)
def test_timestamps(seconds, unit, zone, fraction):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    check_texts(
        pa.array(
            [
                None if second is None else second * per_second + fraction % per_second
                for second in seconds
            ],
            pa.timestamp(unit, zone),
        )
    )


def instant_text(count, zone):
    """Write an instant in nanoseconds: the text of its whole seconds, and the decimals."""
    seconds, fraction = divmod(count, 10**9)
    if zone is None:
        epoch = dt.datetime.fromisoformat("1970-01-01")
        instant, offset = (epoch + dt.timedelta(seconds=seconds)).isoformat(), ""
    else:
        text = pa.scalar(seconds, pa.timestamp("s", zone)).as_py().isoformat()
        instant, offset = text[:19], text[19:]
    decimals = f".{fraction:09}".rstrip("0") if fraction else ""
    return f'"{instant}{decimals}{offset}"'


@given(
    nullable_lists(st.integers(-(2**63) + 86_400 * 10**9, 2**63 - 1 - 86_400 * 10**9)),
    st.sampled_from(ZONES),
)
def test_timestamps_keep_nanoseconds(counts, zone):
    texts = expected_texts(counts, lambda count: instant_text(count, zone))
    assert metadata_texts(pa.array(counts, pa.timestamp("ns", zone))).to_pylist() == texts


def test_instants_that_arrow_cannot_lay_out_are_written_in_utc():
    extremes = [2**63 - 1, -(2**63), None, 1]
    assert metadata_texts(pa.array(extremes, pa.timestamp("ns", "+02:00"))).to_pylist() == [
        '"2262-04-11T23:47:16.854775807+00:00"',
        '"1677-09-21T00:12:43.145224192+00:00"',
        None,
        '"1970-01-01T02:00:00.000000001+02:00"',
    ]
    assert metadata_texts(pa.array(extremes, pa.timestamp("s"))).to_pylist() == [
        '"292277026596-12-04T15:30:07"',
        '"-292277022657-01-27T08:29:52"',
        None,
        '"1970-01-01T00:00:01"',
    ]


def test_days_that_arrow_cannot_lay_out_are_written_all_the_same():
    days = pa.array([2**31 - 1, -(2**31), None, 0], pa.int32()).view(pa.date32())
    assert metadata_texts(days).to_pylist() == [
        '"5881580-07-11"',
        '"-5877641-06-23"',
        None,
        '"1970-01-01"',
    ]


def test_years_of_any_length_are_written():
    days = [-1, 0, 1, 719_162, -719_163, -719_528, -719_529, 2_932_896, 2_932_897]
    texts = [
        "1969-12-31",
        "1970-01-01",
        "1970-01-02",
        "3939-01-01",
        "0000-12-31",
        "0000-01-01",
        "-0001-12-31",
        "9999-12-31",
        "10000-01-01",
    ]
    assert metadata_texts(pa.array(days, pa.int32()).view(pa.date32())).to_pylist() == [
        f'"{text}"' for text in texts
    ]
    seconds = pa.array([day * 86_400 + 43_200 for day in days], pa.timestamp("s"))
    assert metadata_texts(seconds).to_pylist() == [f'"{text}T12:00:00"' for text in texts]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
def test_summer_time_to_the_second_after_2037_too(zone):
    """Arrow itself knows no summer time after 2037."""
    instants = []
    for year in (1916, 1985, 2037, 2038, 2100):
        half_hours = [
            dt.datetime(year, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=30 * n)
            for n in range(2 * 24 * 365)
        ]
        offsets = [instant.astimezone(ZoneInfo(zone)).utcoffset() for instant in half_hours]
        changes = [
            instant
            for instant, offset_before, offset_after in zip(
                half_hours[1:], offsets, offsets[1:], strict=False
            )
            if offset_before != offset_after
        ]
        instants += [
            change + dt.timedelta(seconds=seconds)
            for change in changes
            for seconds in (-1800, -60, -1, 0, 1, 60, 1800)
        ]
    assert len(instants) >= 2 * 7 * 2
    check_texts(pa.array(instants, pa.timestamp("us", zone)))


def test_an_unknown_time_zone_is_named():
    with pytest.raises(ConfigError, match=r"Mars/Olympus(.|\n)*tzdata") as refused:
        metadata_texts(pa.array([0], pa.timestamp("s", "Mars/Olympus")))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


@given(
    nullable_lists(st.integers(-(10**9) + 1, 10**9 - 1)),
    st.integers(0, 9),
    st.sampled_from([pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256]),
)
def test_decimals(units, scale, decimal_type):
    check_texts(
        pa.array(
            [None if unit is None else decimal.Decimal(unit).scaleb(-scale) for unit in units],
            decimal_type(9, scale),
        )
    )


@given(
    nullable_lists(st.integers(-999, 999)),
    st.integers(-9, 19),
    st.sampled_from([pa.decimal128, pa.decimal256]),
)
def test_decimals_whose_text_has_an_exponent(units, scale, decimal_type):
    check_texts(
        pa.array(
            [None if unit is None else decimal.Decimal(unit).scaleb(-scale) for unit in units],
            decimal_type(22, scale),
        )
    )


@pytest.mark.parametrize(
    ("arrow_type", "width"),
    [
        (pa.decimal32(9, 10), 4),
        (pa.decimal64(18, 40), 8),
        (pa.decimal128(5, 45), 16),
        (pa.decimal256(76, 90), 32),
    ],
)
def test_decimals_that_arrow_cannot_write_are_written_all_the_same(arrow_type, width):
    units = [0, -12_345, 7]
    raw = b"".join(unit.to_bytes(width, "little", signed=True) for unit in units)
    validity = pa.array([True, True, False]).buffers()[1]
    array = pa.Array.from_buffers(arrow_type, 3, [validity, pa.py_buffer(raw)])
    expected = [decimal.Decimal(unit).scaleb(-arrow_type.scale) for unit in units[:2]]
    for offset in (0, 1):
        texts = json_texts(array.slice(offset)).to_pylist()
        assert texts == [*(f'"{value}"' for value in expected[offset:]), None]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_a_date_with_a_time_of_day_keeps_it(counts):
    dates = pa.array(counts, pa.int64()).view(pa.date64())
    instants = json_texts(pa.array(counts, pa.int64()).view(pa.timestamp("ms"))).to_pylist()
    midnight = "T00:00:00"
    assert json_texts(dates).to_pylist() == [
        text and text.replace(midnight + '"', '"') for text in instants
    ]


@given(
    nullable_lists(st.binary(max_size=9)),
    st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()]),
)
def test_bytes(values, arrow_type):
    check_texts(pa.array(values, arrow_type))


@given(nullable_lists(st.binary(min_size=5, max_size=5)))
def test_bytes_of_fixed_size(values):
    check_texts(pa.array(values, pa.binary(5)))


@given(nullable_lists(st.uuids()))
def test_uuids(values):
    check_texts(pa.array(values, pa.uuid()))


@given(nullable_lists(st.integers(-(2**63), 2**63 - 1)), st.sampled_from(["s", "ms", "us", "ns"]))
def test_durations_are_counts(values, unit):
    check_texts(pa.array(values, pa.int64()).view(pa.duration(unit)), values)


def test_intervals_are_months_days_and_nanoseconds():
    check_texts(pa.array([pa.MonthDayNano([1, -2, 3]), None, pa.MonthDayNano([0, 0, 0])]))


def test_nulls_stay_null_and_an_empty_array_stays_empty():
    check_texts(pa.nulls(4))
    for arrow_type in [
        *ARROW_TYPES.values(),
        pa.null(),
        pa.float16(),
        pa.timestamp("ns"),
        pa.list_view(pa.int8()),
        pa.dictionary(pa.int8(), pa.string()),
    ]:
        for to_texts in (metadata_texts, json_texts):
            assert to_texts(pa.nulls(3, arrow_type)).to_pylist() == [None] * 3
            assert (
                to_texts(pa.array([], arrow_type))
                == to_texts(pa.chunked_array([], arrow_type))
                == pa.array([], pa.string())
            )


# Nested and wrapped values.

LEAF_TYPES = [
    pa.string(),
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("us", "+02:00"),
    pa.binary(),
    pa.decimal128(9, 2),
    pa.null(),
]
NESTED_TYPES = st.recursive(
    st.sampled_from(LEAF_TYPES),
    lambda inner_types: st.one_of(
        inner_types.map(pa.list_),
        inner_types.map(pa.large_list),
        inner_types.map(pa.list_view),
        inner_types.map(pa.large_list_view),
        inner_types.map(lambda arrow_type: pa.list_(arrow_type, 2)),
        inner_types.map(lambda arrow_type: pa.map_(pa.string(), arrow_type)),
        st.dictionaries(st.text(max_size=3), inner_types, max_size=3).map(
            lambda fields: pa.struct(list(fields.items()))
        ),
    ),
    max_leaves=5,
)
LEAF_VALUES = {
    pa.string(): st.text(max_size=4),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us", "+02:00"): SECONDS.map(
        lambda second: dt.datetime.fromtimestamp(second, dt.UTC)
    ),
    pa.binary(): st.binary(max_size=4),
    pa.decimal128(9, 2): st.decimals(-9999, 9999, places=2),
    pa.null(): st.none(),
}


def values_of(arrow_type):
    if arrow_type in LEAF_VALUES:
        return st.none() | LEAF_VALUES[arrow_type]
    if pa.types.is_struct(arrow_type):
        return st.none() | st.fixed_dictionaries(
            {field.name: values_of(field.type) for field in arrow_type}
        )
    if pa.types.is_map(arrow_type):
        return st.none() | st.lists(
            st.tuples(st.text(max_size=3), values_of(arrow_type.item_type)), max_size=3
        )
    size = (
        {"min_size": 2, "max_size": 2}
        if pa.types.is_fixed_size_list(arrow_type)
        else {"max_size": 3}
    )
    return st.none() | st.lists(values_of(arrow_type.value_type), **size)


@given(st.data())
def test_nested_values(data):
    arrow_type = data.draw(NESTED_TYPES)
    check_texts(pa.array(data.draw(st.lists(values_of(arrow_type), max_size=7)), arrow_type))


@given(nullable_lists(st.lists(st.none() | st.floats(width=32), max_size=4)))
def test_floats_keep_their_width_inside_nested_values(rows):
    narrow = [
        row and [None if number is None else oracle.Float32(number) for number in row]
        for row in rows
    ]
    check_texts(pa.array(rows, pa.list_(pa.float32())), narrow)
    structs = pa.StructArray.from_arrays(
        [pa.array(rows, pa.list_(pa.float32())), pa.array([0.1] * len(rows), pa.float32())],
        ["x", "f"],
    )
    check_texts(structs, [{"x": row, "f": oracle.Float32(0.1)} for row in narrow])


def test_keys_are_sorted_by_code_point_and_escaped():
    check_texts(
        pa.array([{"ä": 1, "b": 2, "Z": 3, 'q"\n': 4, "\U0001d4b3": 5, "\uffff": 6, "": 7}, None])
    )


def test_what_a_null_parent_hides_stays_hidden():
    list_array = pa.ListArray.from_arrays(
        pa.array([0, 2, 3, 4], pa.int32()),
        pa.array(["a", "b", "c", "d"]),
        mask=pa.array([False, True, False]),
    )
    check_texts(list_array, [["a", "b"], None, ["d"]])
    check_texts(
        pa.FixedSizeListArray.from_arrays(
            pa.array([1.5, 2.5, 3.5, 4.5]), 2, mask=pa.array([True, False])
        ),
        [None, [3.5, 4.5]],
    )
    check_texts(
        pa.StructArray.from_arrays([pa.array([1, 2])], ["a"], mask=pa.array([True, False])),
        [None, {"a": 2}],
    )
    list_views = pa.ListViewArray.from_arrays(
        pa.array([2, 0, 0], pa.int32()),
        pa.array([1, 3, 2], pa.int32()),
        pa.array([1, 2, 3]),
        mask=pa.array([False, True, False]),
    )
    check_texts(list_views, [[3], None, [1, 2]])


@given(nullable_lists(st.text(max_size=2)))
def test_dictionaries(values):
    check_texts(pa.array(values, pa.string()).dictionary_encode())
    check_texts(
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None, 1]), pa.array(["used", None, "unused"])
        ),
        ["used", None, None, None],
    )
    check_texts(pa.array([1.5, 1e22, None, 1.5]).dictionary_encode())


@given(
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.text(max_size=2)), min_size=1, max_size=6)
)
def test_runs(runs):
    values = [value for count, value in runs for _ in range(count)]
    array = pa.RunEndEncodedArray.from_arrays(
        np.cumsum([count for count, _ in runs]).astype(np.int32),
        pa.array([text for _, text in runs], pa.string()),
    )
    check_texts(array, values)


@pytest.mark.parametrize("dense", [True, False])
@given(values=st.lists(UNION_VALUES, max_size=9))
def test_unions(dense, values):
    codes = pa.array([9 if isinstance(value, str) else 5 for value in values], pa.int8())
    names = {"field_names": ["number", "word"], "type_codes": [5, 9]}
    if dense:
        numbers, words = (
            [value for value in values if isinstance(value, python_type)]
            for python_type in (int, str)
        )
        offsets = [
            sum(type(earlier) is type(value) for earlier in values[:row])
            for row, value in enumerate(values)
        ]
        members = [pa.array(numbers, pa.int64()), pa.array(words, pa.string())]
        array = pa.UnionArray.from_dense(codes, pa.array(offsets, pa.int32()), members, **names)
    else:
        members = [
            pa.array([value if isinstance(value, int) else None for value in values], pa.int64()),
            pa.array([value if isinstance(value, str) else "-" for value in values], pa.string()),
        ]
        array = pa.UnionArray.from_sparse(codes, members, **names)
    for to_texts, oracle_text in (
        (metadata_texts, oracle.metadata_text),
        (json_texts, oracle.canonical),
    ):
        assert to_texts(array).to_pylist() == expected_texts(values, oracle_text)
        assert to_texts(array[1:]).to_pylist() == expected_texts(values[1:], oracle_text)


def test_an_extension_type_is_written_as_its_storage():
    array = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "x"]))
    check_texts(array, ['{"a": 1}', None, "x"])
    check_texts(
        pa.ListArray.from_arrays(
            pa.array([0, 2], pa.int32()), pa.array([uuid.UUID(int=1), None], pa.uuid())
        ),
        [[uuid.UUID(int=1), None]],
    )


def test_a_struct_that_repeats_a_name_has_numbered_names():
    array = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["twice", "twice"])
    check_texts(array, [{"twice#1": 1, "twice#2": 2}])


# Types that the text and the name of the type cannot carry.


def test_type_names():
    assert type_name(pa.timestamp("us", "UTC")) == "timestamp[us, tz=UTC]"
    assert type_name(pa.uuid()) == "uuid"
    assert type_name(pa.list_(pa.uuid())) == "list<item: uuid>"


@pytest.mark.parametrize(
    ("encoded", "plain"),
    [
        (pa.dictionary(pa.int8(), pa.string(), ordered=True), pa.string()),
        (pa.dictionary(pa.uint32(), pa.list_(pa.int8())), pa.list_(pa.int8())),
        (pa.run_end_encoded(pa.int16(), pa.dictionary(pa.int8(), pa.binary_view())), pa.binary()),
        (pa.string_view(), pa.string()),
        (pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))]),) * 2,
    ],
)
def test_the_name_of_an_encoding_gives_the_name_of_what_it_encodes(encoded, plain):
    assert unencoded_name(type_name(encoded)) == type_name(plain)


@pytest.mark.parametrize(
    "arrow_type",
    [
        *ARROW_TYPES.values(),
        *LEAF_TYPES,
        pa.uuid(),
        pa.map_(pa.string(), pa.uuid()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.month_day_nano_interval(),
        pa.json_(),
        pa.bool8(),
    ],
)
def test_types_that_are_carried_exactly(arrow_type):
    assert lossy_reason(arrow_type) is None
    assert lossy_reason(pa.struct([("dc:title", pa.list_(arrow_type))])) is None


@pytest.mark.parametrize(
    ("arrow_type", "word"),
    [
        (pa.dense_union([pa.field("a", pa.int8())]), "union"),
        (pa.opaque(pa.int8(), "t", "v"), "arrow.opaque"),
        (pa.dictionary(pa.int8(), pa.string(), ordered=True), "order of the categories"),
        (pa.struct([pa.field("a", pa.int8()), pa.field("a", pa.int8())]), "numbered"),
        (pa.struct([pa.field("a: int8", pa.int8())]), "ambiguous"),
    ],
)
def test_types_that_are_not_carried_exactly_say_why(arrow_type, word):
    assert word in lossy_reason(arrow_type)
    for outer_type in (
        pa.list_(arrow_type),
        pa.struct([("x", arrow_type)]),
        pa.map_(pa.string(), arrow_type),
        pa.dictionary(pa.int8(), arrow_type),
        pa.run_end_encoded(pa.int32(), arrow_type),
    ):
        assert word in lossy_reason(outer_type)
