"""A server's Retry-After header is converted to seconds, whether a number or a date."""

import datetime as dt
from email.utils import format_datetime

import pytest

from cfray.runtime.retry_after import retry_after_seconds


@pytest.mark.parametrize(
    ("header", "seconds"), [("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("0.5", 0.5)]
)
def test_a_number_is_seconds(header, seconds):
    assert retry_after_seconds(header) == seconds


def test_a_date_is_the_time_until_then():
    in_an_hour = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert 3_590 < retry_after_seconds(format_datetime(in_an_hour, usegmt=True)) <= 3_600


def test_a_date_without_a_zone_is_in_utc():
    in_an_hour = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(hours=1)
    assert 3_590 < retry_after_seconds(format_datetime(in_an_hour)) <= 3_600


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "soon",
        "-1",
        "inf",
        "-inf",
        "nan",
        "Mon, 99 Foo 2026 00:00:00 GMT",
        "Tue, 01 Jan 2002 00:00:00 GMT",
        "Tue, 01 Jan 99999999999999999999 00:00:00 GMT",
    ],
)
def test_a_header_that_names_no_pause_to_keep_is_none(header):
    assert retry_after_seconds(header) is None
