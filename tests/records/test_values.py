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
from cfray.records.values import json_texts, lossy_reason, metadata_texts, type_name
from tests.contract import oracle

CONTRACT = Path(__file__).parent.parent / "contract"
VECTORS = json.loads((CONTRACT / "vectors.json").read_text())["values"]
ARROW = {
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
UNION = st.one_of(st.integers(-9, 9), st.text(max_size=3))


def expected(values, write):
    return [None if value is None else write(value) for value in values]


def agrees(array, values=None):
    """Both texts of an array, whole, sliced and chunked, are those of the oracle."""
    values = array.to_pylist() if values is None else values
    cut = len(array) // 3
    for ours, theirs in ((metadata_texts, oracle.metadata_text), (json_texts, oracle.canonical)):
        texts = expected(values, theirs)
        assert ours(array).to_pylist() == texts
        assert ours(array.slice(cut, cut + 1)).to_pylist() == texts[cut : 2 * cut + 1]
        assert (
            ours(pa.chunked_array([array.slice(cut), array.slice(0, cut)], array.type)).to_pylist()
            == texts[cut:] + texts[:cut]
        )
        assert ours(array).type == pa.string()
        ours(array).validate(full=True)


def lists(values):
    return st.lists(st.none() | values, max_size=12)


# The contract.


def test_vectors_are_those_of_the_oracle():
    assert json.loads((CONTRACT / "vectors.json").read_text()) == oracle.build()


@pytest.mark.parametrize(
    ("value", "vector"),
    list(zip(oracle.VALUES, VECTORS, strict=True)),
    ids=lambda item: str(item)[:40],
)
def test_every_vector(value, vector):
    if (
        vector["type"] == "null"
    ):  # in a typed column a null stays null; the word stands for it inside a value
        assert json_texts(pa.array([[None]], pa.list_(pa.null()))).to_pylist() == [
            "[" + vector["custom_metadata"] + "]"
        ]
        return
    kind = ARROW[vector["type"]]
    if vector["type"] == "struct":  # [true, 2.5] has no Arrow type but a union
        mixed = pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()),
            pa.array([0, 0], pa.int32()),
            [pa.array([True]), pa.array([2.5])],
        )
        listed = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), mixed)
        array = pa.StructArray.from_arrays(
            [pa.array([1]), pa.nulls(1), pa.array(['é\n"']), listed], ["b", "a", "Z", "ä"]
        )
    else:
        array = pa.array([value[1]], kind)
    assert metadata_texts(array).to_pylist() == [vector["custom_metadata"]]


# Each type against the oracle.


@given(lists(st.text()), st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))
def test_strings(values, kind):
    agrees(pa.array(values, kind))


def test_every_control_character_is_escaped_as_json_requires():
    agrees(pa.array([chr(code) for code in range(300)] + ['a\\"b', "\u2028", "\U0001d4b3"]))


@given(lists(st.booleans()))
def test_booleans(values):
    agrees(pa.array(values, pa.bool_()))


@pytest.mark.parametrize(
    "kind",
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
def test_integers_to_the_ends_of_their_range(kind):
    info = np.iinfo(kind.to_pandas_dtype())
    agrees(pa.array([info.min, info.max, 0, None, 7], kind))


@given(lists(st.floats()))
def test_doubles(values):
    agrees(pa.array(values, pa.float64()))


@given(lists(st.floats(width=32)))
def test_floats_of_32_bits(values):
    agrees(pa.array(values, pa.float32()), expected(values, oracle.Float32))


def neighbours(powers):
    """Each power of two with the floats beside it, of both signs."""
    with np.errstate(over="ignore"):
        near = np.concatenate(
            [
                powers,
                np.nextafter(powers, powers.dtype.type(0)),
                np.nextafter(powers, powers.dtype.type(np.inf)),
            ]
        )
    return np.concatenate([near, -near])


def test_every_power_of_two_of_64_bits():
    agrees(pa.array(neighbours(np.ldexp(1.0, np.arange(-1074, 1024)))))


def test_every_power_of_two_of_32_bits():
    values = neighbours(np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32))
    agrees(pa.array(values, pa.float32()), expected(values.tolist(), oracle.Float32))


def test_every_power_of_ten_and_the_floats_beside_it():
    values = neighbours(np.array([float(f"1e{e}") for e in range(-320, 309)]))
    agrees(pa.array(values))
    small = neighbours(np.array([float(f"1e{e}") for e in range(-45, 39)], np.float32))
    agrees(pa.array(small, pa.float32()), expected(small.tolist(), oracle.Float32))


@given(
    st.lists(st.tuples(st.integers(-(2**53), 2**53), st.integers(0, 60)), min_size=1, max_size=30)
)
def test_doubles_halfway_between_two_texts(parts):
    agrees(pa.array([number / 2**shift for number, shift in parts]))


def half_text(value):
    """The definition, in plain Python.

    Ever more digits until they read back to the same 16 bits.
    """
    if not math.isfinite(value):
        return json.dumps(value)
    for digits in range(1, 6):
        short = float(f"{value:.{digits}g}")
        if abs(short) < 65520 and struct.pack("e", short) == struct.pack(
            "e", value
        ):  # 65520 rounds to infinity
            return repr(short)
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


@given(lists(st.dates()), st.sampled_from([pa.date32(), pa.date64()]))
def test_dates(values, kind):
    agrees(pa.array(values, kind))


@given(
    lists(st.times()),
    st.sampled_from([pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]),
)
def test_times(values, kind):
    step = {"s": 10**6, "ms": 10**3}.get(kind.unit, 1)
    values = [
        value and value.replace(microsecond=value.microsecond // step * step) for value in values
    ]
    agrees(pa.array(values, kind), values)


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
MIDDLE = st.integers(-62_000_000_000, 253_000_000_000)  # seconds: the years 5 to 9987


@given(
    lists(MIDDLE),
    st.sampled_from(["s", "ms", "us"]),
    st.sampled_from(ZONES),
    st.integers(0, 10**6 - 1),
)
def test_timestamps(seconds, unit, zone, fraction):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    agrees(
        pa.array(
            [None if s is None else s * per_second + fraction % per_second for s in seconds],
            pa.timestamp(unit, zone),
        )
    )


def instant_text(count, zone):
    """The definition for nanoseconds, by way of whole seconds."""
    seconds, fraction = divmod(count, 10**9)
    head, offset = (
        (dt.datetime.fromisoformat("1970-01-01") + dt.timedelta(seconds=seconds)).isoformat(),
        "",
    )
    if zone is not None:
        whole = pa.scalar(seconds, pa.timestamp("s", zone)).as_py().isoformat()
        head, offset = whole[:19], whole[19:]
    tail = f".{fraction:09}".rstrip("0") if fraction else ""
    return f'"{head}{tail}{offset}"'


@given(
    lists(st.integers(-(2**63) + 86_400 * 10**9, 2**63 - 1 - 86_400 * 10**9)),
    st.sampled_from(ZONES),
)
def test_timestamps_keep_nanoseconds(counts, zone):
    texts = expected(counts, lambda count: instant_text(count, zone))
    assert metadata_texts(pa.array(counts, pa.timestamp("ns", zone))).to_pylist() == texts


def test_instants_that_arrow_cannot_lay_out_are_written_in_utc():
    ends = [2**63 - 1, -(2**63), None, 1]
    assert metadata_texts(pa.array(ends, pa.timestamp("ns", "+02:00"))).to_pylist() == [
        '"2262-04-11T23:47:16.854775807+00:00"',
        '"1677-09-21T00:12:43.145224192+00:00"',
        None,
        '"1970-01-01T02:00:00.000000001+02:00"',
    ]
    assert metadata_texts(pa.array(ends, pa.timestamp("s"))).to_pylist() == [
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
    noon = [-1, 0, 1, 719_162, -719_163, -719_528, -719_529, 2_932_896, 2_932_897]
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
    assert metadata_texts(pa.array(noon, pa.int32()).view(pa.date32())).to_pylist() == [
        f'"{text}"' for text in texts
    ]
    seconds = pa.array([day * 86_400 + 43_200 for day in noon], pa.timestamp("s"))
    assert metadata_texts(seconds).to_pylist() == [f'"{text}T12:00:00"' for text in texts]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
def test_summer_time_to_the_second_after_2037_too(zone):
    """Arrow itself knows none after 2037."""
    instants = []
    for year in (1916, 1985, 2037, 2038, 2100):
        hours = [
            dt.datetime(year, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=30 * n)
            for n in range(2 * 24 * 365)
        ]
        offsets = [hour.astimezone(ZoneInfo(zone)).utcoffset() for hour in hours]
        changes = [
            hour
            for hour, before, after in zip(hours[1:], offsets, offsets[1:], strict=False)
            if before != after
        ]
        instants += [
            change + dt.timedelta(seconds=s)
            for change in changes
            for s in (-1800, -60, -1, 0, 1, 60, 1800)
        ]
    assert len(instants) >= 2 * 7 * 2
    agrees(pa.array(instants, pa.timestamp("us", zone)))


def test_an_unknown_time_zone_is_named():
    with pytest.raises(ConfigError, match=r"Mars/Olympus(.|\n)*tzdata") as caught:
        metadata_texts(pa.array([0], pa.timestamp("s", "Mars/Olympus")))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@given(
    lists(st.integers(-(10**9) + 1, 10**9 - 1)),
    st.integers(0, 9),
    st.sampled_from([pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256]),
)
def test_decimals(units, scale, kind):
    agrees(
        pa.array(
            [None if unit is None else decimal.Decimal(unit).scaleb(-scale) for unit in units],
            kind(9, scale),
        )
    )


@given(
    lists(st.integers(-999, 999)),
    st.integers(-9, 19),
    st.sampled_from([pa.decimal128, pa.decimal256]),
)
def test_decimals_whose_text_has_an_exponent(units, scale, kind):
    agrees(
        pa.array(
            [None if unit is None else decimal.Decimal(unit).scaleb(-scale) for unit in units],
            kind(22, scale),
        )
    )


def test_a_decimal_that_arrow_cannot_write_is_refused():
    with pytest.raises(ConfigError, match=r"decimal32\(9, 10\)(.|\n)*wider"):
        metadata_texts(pa.array([1, None], pa.int32()).view(pa.decimal32(9, 10)))


@given(
    lists(st.binary(max_size=9)),
    st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()]),
)
def test_bytes(values, kind):
    agrees(pa.array(values, kind))


@given(lists(st.binary(min_size=5, max_size=5)))
def test_bytes_of_fixed_size(values):
    agrees(pa.array(values, pa.binary(5)))


@given(lists(st.uuids()))
def test_uuids(values):
    agrees(pa.array(values, pa.uuid()))


@given(lists(st.integers(-(2**63), 2**63 - 1)), st.sampled_from(["s", "ms", "us", "ns"]))
def test_durations_are_counts(values, unit):
    agrees(pa.array(values, pa.int64()).view(pa.duration(unit)), values)


def test_intervals_are_months_days_and_nanoseconds():
    agrees(pa.array([pa.MonthDayNano([1, -2, 3]), None, pa.MonthDayNano([0, 0, 0])]))


def test_nulls_stay_null_and_nothing_stays_nothing():
    agrees(pa.nulls(4))
    for kind in [
        *ARROW.values(),
        pa.null(),
        pa.float16(),
        pa.timestamp("ns"),
        pa.list_view(pa.int8()),
        pa.dictionary(pa.int8(), pa.string()),
    ]:
        for ours in (metadata_texts, json_texts):
            assert ours(pa.nulls(3, kind)).to_pylist() == [None] * 3
            assert (
                ours(pa.array([], kind))
                == ours(pa.chunked_array([], kind))
                == pa.array([], pa.string())
            )


# Nested and wrapped values.

LEAVES = [
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
TYPES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(pa.list_view),
        inner.map(pa.large_list_view),
        inner.map(lambda kind: pa.list_(kind, 2)),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(
            lambda fields: pa.struct(list(fields.items()))
        ),
    ),
    max_leaves=5,
)
PLAIN = {
    pa.string(): st.text(max_size=4),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us", "+02:00"): st.integers(-62_000_000_000, 253_000_000_000).map(
        lambda second: dt.datetime.fromtimestamp(second, dt.UTC)
    ),
    pa.binary(): st.binary(max_size=4),
    pa.decimal128(9, 2): st.decimals(-9999, 9999, places=2),
    pa.null(): st.none(),
}


def values_of(kind):
    if kind in PLAIN:
        return st.none() | PLAIN[kind]
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries(
            {field.name: values_of(field.type) for field in kind}
        )
    if pa.types.is_map(kind):
        return st.none() | st.lists(
            st.tuples(st.text(max_size=3), values_of(kind.item_type)), max_size=3
        )
    size = {"min_size": 2, "max_size": 2} if pa.types.is_fixed_size_list(kind) else {"max_size": 3}
    return st.none() | st.lists(values_of(kind.value_type), **size)


@given(st.data())
def test_nested_values(data):
    kind = data.draw(TYPES)
    agrees(pa.array(data.draw(st.lists(values_of(kind), max_size=7)), kind))


@given(lists(st.lists(st.none() | st.floats(width=32), max_size=4)))
def test_floats_keep_their_width_inside_nested_values(rows):
    narrow = [row and [None if v is None else oracle.Float32(v) for v in row] for row in rows]
    agrees(pa.array(rows, pa.list_(pa.float32())), narrow)
    structs = pa.StructArray.from_arrays(
        [pa.array(rows, pa.list_(pa.float32())), pa.array([0.1] * len(rows), pa.float32())],
        ["x", "f"],
    )
    agrees(structs, [{"x": row, "f": oracle.Float32(0.1)} for row in narrow])


def test_keys_are_sorted_by_code_point_and_escaped():
    agrees(
        pa.array([{"ä": 1, "b": 2, "Z": 3, 'q"\n': 4, "\U0001d4b3": 5, "\uffff": 6, "": 7}, None])
    )


def test_what_a_null_parent_hides_stays_hidden():
    lists_ = pa.ListArray.from_arrays(
        pa.array([0, 2, 3, 4], pa.int32()),
        pa.array(["a", "b", "c", "d"]),
        mask=pa.array([False, True, False]),
    )
    agrees(lists_, [["a", "b"], None, ["d"]])
    agrees(
        pa.FixedSizeListArray.from_arrays(
            pa.array([1.5, 2.5, 3.5, 4.5]), 2, mask=pa.array([True, False])
        ),
        [None, [3.5, 4.5]],
    )
    agrees(
        pa.StructArray.from_arrays([pa.array([1, 2])], ["a"], mask=pa.array([True, False])),
        [None, {"a": 2}],
    )
    views = pa.ListViewArray.from_arrays(
        pa.array([2, 0, 0], pa.int32()),
        pa.array([1, 3, 2], pa.int32()),
        pa.array([1, 2, 3]),
        mask=pa.array([False, True, False]),
    )
    agrees(views, [[3], None, [1, 2]])


@given(lists(st.text(max_size=2)))
def test_dictionaries(values):
    agrees(pa.array(values, pa.string()).dictionary_encode())
    agrees(
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None, 1]), pa.array(["used", None, "unused"])
        ),
        ["used", None, None, None],
    )
    agrees(pa.array([1.5, 1e22, None, 1.5]).dictionary_encode())


@given(
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.text(max_size=2)), min_size=1, max_size=6)
)
def test_runs(runs):
    values = [value for count, value in runs for _ in range(count)]
    array = pa.RunEndEncodedArray.from_arrays(
        np.cumsum([count for count, _ in runs]).astype(np.int32),
        pa.array([v for _, v in runs], pa.string()),
    )
    agrees(array, values)


@pytest.mark.parametrize("dense", [True, False])
@given(values=st.lists(UNION, max_size=9))
def test_unions(dense, values):
    codes = pa.array([9 if isinstance(value, str) else 5 for value in values], pa.int8())
    names = {"field_names": ["number", "word"], "type_codes": [5, 9]}
    if dense:
        numbers, words = ([v for v in values if isinstance(v, kind)] for kind in (int, str))
        places = [
            sum(type(earlier) is type(value) for earlier in values[:i])
            for i, value in enumerate(values)
        ]
        members = [pa.array(numbers, pa.int64()), pa.array(words, pa.string())]
        array = pa.UnionArray.from_dense(codes, pa.array(places, pa.int32()), members, **names)
    else:
        members = [
            pa.array([v if isinstance(v, int) else None for v in values], pa.int64()),
            pa.array([v if isinstance(v, str) else "-" for v in values], pa.string()),
        ]
        array = pa.UnionArray.from_sparse(codes, members, **names)
    for ours, theirs in ((metadata_texts, oracle.metadata_text), (json_texts, oracle.canonical)):
        assert ours(array).to_pylist() == expected(values, theirs)
        assert ours(array[1:]).to_pylist() == expected(values[1:], theirs)


def test_an_extension_type_is_written_as_its_storage():
    array = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "x"]))
    agrees(array, ['{"a": 1}', None, "x"])
    agrees(
        pa.ListArray.from_arrays(
            pa.array([0, 2], pa.int32()), pa.array([uuid.UUID(int=1), None], pa.uuid())
        ),
        [[uuid.UUID(int=1), None]],
    )


def test_a_struct_that_repeats_a_name_is_refused():
    array = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["twice", "twice"])
    with pytest.raises(ConfigError, match=r"twice(.|\n)*rename"):
        metadata_texts(array)


# What the text and the type's name do not carry.


def test_type_names():
    assert type_name(pa.timestamp("us", "UTC")) == "timestamp[us, tz=UTC]"
    assert type_name(pa.uuid()) == "uuid"
    assert type_name(pa.list_(pa.uuid())) == "list<item: uuid>"


@pytest.mark.parametrize(
    "kind",
    [
        *ARROW.values(),
        *LEAVES,
        pa.uuid(),
        pa.map_(pa.string(), pa.uuid()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.month_day_nano_interval(),
    ],
)
def test_types_that_are_carried_exactly(kind):
    assert lossy_reason(kind) is None
    assert lossy_reason(pa.struct([("dc:title", pa.list_(kind))])) is None


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (pa.dense_union([pa.field("a", pa.int8())]), "union"),
        (pa.json_(), "arrow.json"),
        (pa.struct([pa.field("a", pa.int8()), pa.field("a", pa.int8())]), "repeat"),
        (pa.struct([pa.field("a: int8", pa.int8())]), "ambiguous"),
    ],
)
def test_types_that_are_not_say_why(kind, word):
    assert word in lossy_reason(kind)
    for outer in (
        pa.list_(kind),
        pa.struct([("x", kind)]),
        pa.map_(pa.string(), kind),
        pa.dictionary(pa.int8(), kind),
        pa.run_end_encoded(pa.int32(), kind),
    ):
        assert word in lossy_reason(outer)
