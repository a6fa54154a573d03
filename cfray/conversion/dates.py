"""Days in UTC, as ContextFrame's date columns hold them, of instants of any type.

A date column has only the day; the whole value goes to custom_metadata.  A value that cannot be
read as an instant gives null and is counted, never guessed: a bare number may count seconds or
milliseconds, so it is not read.
"""

from __future__ import annotations

import datetime as dt
from email.utils import parsedate_to_datetime

import pyarrow as pa
import pyarrow.compute as pc

#: Units of a timestamp in a second.
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: 0001-01-01 and 9999-12-31 in days since 1970-01-01.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896


def days(column: pa.Array) -> pa.StringArray:
    """Write each instant as YYYY-MM-DD in UTC; null where a value is null or is no instant.

    Texts are read as ISO 8601, else as RFC 5322.  An instant without an offset is read as UTC.
    """
    kind = column.type
    if isinstance(kind, pa.DictionaryType):
        return days(column.dictionary_decode())
    if pa.types.is_date(kind):
        return _format_days(column.cast(pa.timestamp("ms")))
    if pa.types.is_timestamp(kind):
        return _format_days(column.cast(pa.timestamp(kind.unit)) if kind.tz is None else column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _read_days(column.cast(pa.string()))
    return pa.nulls(len(column), pa.string())


def _format_days(instants: pa.Array) -> pa.StringArray:
    """Write the days of timestamps, each distinct day once.

    A year that four digits cannot hold gives null.
    """
    unit = instants.type.unit
    per_day = pa.scalar(_PER_SECOND[unit] * 86_400, pa.int64())
    count = instants.cast(pa.int64())
    # Arrow divides towards zero; days before 1970 must be rounded down.
    day = pc.divide(count, per_day)
    day = pc.if_else(pc.greater(pc.multiply(day, per_day), count), pc.subtract(day, 1), day)
    has_four_digits = pc.and_(pc.greater_equal(day, _FIRST_DAY), pc.less_equal(day, _LAST_DAY))
    distinct = pc.if_else(has_four_digits, day, None).dictionary_encode()
    texts = pc.strftime(
        distinct.dictionary.cast(pa.int32()).cast(pa.date32()).cast(pa.timestamp("s")),
        format="%Y-%m-%d",
    )
    return texts.take(distinct.indices)


def _read_days(texts: pa.StringArray) -> pa.StringArray:
    """Read the days of texts, each distinct text once."""
    distinct = texts.dictionary_encode()
    read = pa.array([_read_day(text) for text in distinct.dictionary.to_pylist()], pa.string())
    return read.take(distinct.indices)


def _read_day(text: str) -> str | None:
    """Read a text as the day of an instant; None where it is no instant."""
    try:
        instant = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            instant = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    try:
        utc = instant.astimezone(dt.UTC) if instant.tzinfo else instant
    except OverflowError:
        return None
    return f"{utc.year:04d}-{utc.month:02d}-{utc.day:02d}"
