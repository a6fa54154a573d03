"""Instants of any kind, made the day in UTC that ContextFrame's date columns hold.

The column has only the day; the full value goes to custom_metadata.  A value
that cannot be read as an instant gives null and is counted, never guessed:
a bare number may be seconds or milliseconds, so it is not read.
"""

from __future__ import annotations

import datetime as dt
from email.utils import parsedate_to_datetime

import pyarrow as pa
import pyarrow.compute as pc

_DAY = r"^\d{4}-\d{2}-\d{2}$"


def days(column: pa.Array) -> pa.StringArray:
    """Write each instant as YYYY-MM-DD in UTC; null where there is none or it cannot be read.

    Texts are read as ISO 8601, else as RFC 5322; an instant without an offset is taken as UTC.
    """
    kind = column.type
    if isinstance(kind, pa.DictionaryType):
        return days(column.dictionary_decode())
    if pa.types.is_date(kind):
        return _formatted(column.cast(pa.timestamp("ms")))
    if pa.types.is_timestamp(kind):
        return _formatted(column.cast(pa.timestamp(kind.unit)) if kind.tz is None else column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_texts(column.cast(pa.string()))
    return pa.nulls(len(column), pa.string())


def _formatted(instants: pa.Array) -> pa.StringArray:
    """Format instants; years that four digits cannot hold give null."""
    seconds = instants.cast(pa.timestamp(instants.type.unit)).cast(pa.int64()) if instants.type.tz else instants.cast(pa.int64())
    naive = seconds.cast(pa.timestamp(instants.type.unit))
    texts = pc.strftime(naive, format="%Y-%m-%d")
    return pc.if_else(pc.match_substring_regex(texts, _DAY), texts, None)


def _from_texts(texts: pa.StringArray) -> pa.StringArray:
    distinct = texts.dictionary_encode()
    read = pa.array([_day(text) for text in distinct.dictionary.to_pylist()], pa.string())
    return read.take(distinct.indices)


def _day(text: str | None) -> str | None:
    try:
        instant = dt.datetime.fromisoformat((text or "").strip())
    except ValueError:
        try:
            instant = parsedate_to_datetime(text or "")
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    try:
        utc = instant.astimezone(dt.UTC) if instant.tzinfo else instant
    except OverflowError:
        return None
    return f"{utc.year:04d}-{utc.month:02d}-{utc.day:02d}"
