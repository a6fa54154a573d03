"""The day of an instant of any type and unit, to both ends of its range."""

import datetime as dt

import pyarrow as pa
import pytest

from cfray.conversion.dates import days
from tests.conversion.converting import frames_of

PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
ZONES = [None, "UTC", "+14:00", "-12:00", "Europe/Berlin", "Mars/Olympus"]
FIRST, LAST = dt.date(1, 1, 1), dt.date(9999, 12, 31)


def day_of(number):
    """Write a day by its number from 1970-01-01; null outside the years 1 to 9999."""
    ordinal = number + dt.date(1970, 1, 1).toordinal()
    if not FIRST.toordinal() <= ordinal <= LAST.toordinal():
        return None
    return dt.date.fromordinal(ordinal).isoformat()


def numbers_around(per_day, width=64):
    """Give counts around the ends of the range, of the years and of a day."""
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    edges = [low, low + 1, low + per_day, high - per_day, high - 1, high, 0, -1, 1, per_day]
    for day in (FIRST, LAST):
        number = (day - dt.date(1970, 1, 1)).days * per_day
        edges += [number - 1, number, number + per_day - 1, number + per_day]
    return [edge for edge in edges if low <= edge <= high]


@pytest.mark.parametrize("unit", PER_DAY)
@pytest.mark.parametrize("zone", ZONES)
def test_timestamps(unit, zone):
    counts = numbers_around(PER_DAY[unit])
    column = pa.array([*counts, None], pa.int64()).view(pa.timestamp(unit, zone))
    expected = [day_of(count // PER_DAY[unit]) for count in counts]
    assert days(column).to_pylist() == [*expected, None]
    assert days(column[3:]).to_pylist() == [*expected[3:], None]


def test_dates():
    counts = numbers_around(1, 32)
    column = pa.array([*counts, None], pa.int32()).view(pa.date32())
    assert days(column).to_pylist() == [*map(day_of, counts), None]
    counts = numbers_around(PER_DAY["ms"])  # a date64 within a day, too
    column = pa.array([*counts, None], pa.int64()).view(pa.date64())
    assert days(column).to_pylist() == [*(day_of(n // PER_DAY["ms"]) for n in counts), None]


@pytest.mark.parametrize(
    "kind",
    [pa.time32("s"), pa.time64("ns"), pa.duration("s"), pa.month_day_nano_interval(), pa.int64()],
)
def test_what_is_no_instant_has_no_day(kind):
    assert days(pa.nulls(2, kind)).to_pylist() == [None, None]
    if not pa.types.is_interval(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        assert days(pa.array([1, 5], width).view(kind)).to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("0001-01-01", "0001-01-01"),
        ("0001-01-01T00:00:00+10:00", None),
        ("0001-01-01T12:00:00+10:00", "0001-01-01"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31"),
        ("9999-12-31T23:00:00-10:00", None),
        ("10000-01-01", None),
        ("+10000-01-01", None),
        ("0000-12-31", None),
        ("-0001-01-01", None),
        ("2024-02-30", None),
        ("Fri, 31 Dec 9999 23:59:59 -1000", None),
        ("20240203", "2024-02-03"),
        ("1706933106", None),
        ("", None),
        ("infinity", None),
    ],
)
def test_texts(text, day):
    assert days(pa.array([text, None])).to_pylist() == [day, None]


def test_an_instant_that_has_no_day_stays_whole_in_custom_metadata():
    counts = [2**63 - 1, -(2**63), 0]
    rows = frames_of(
        {"id": ["a", "b", "c"], "at": pa.array(counts).view(pa.timestamp("s"))},
        {"created_at": "at"},
    )
    assert [row["created_at"] for row in rows] == [None, None, "1970-01-01"]
    assert [row["meta"]["at"] for row in rows] == [
        '"292277026596-12-04T15:30:07"',
        '"-292277022657-01-27T08:29:52"',
        '"1970-01-01T00:00:00"',
    ]
