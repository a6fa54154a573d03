"""Texts that look like dates and that cfray does not read, for they may mean two things.

Read are ISO 8601 and RFC 5322 (``conversion.dates``); nothing here reads a date.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Share of the values that must look alike.
_MOSTLY = 0.9
#: What values look like -> why they are not read.
_LOOKS = (
    (
        re.compile(r"\d{1,2}[/.-]\d{1,2}[/.-](\d{4}|\d{2})(\D.*)?"),
        "{example} is ambiguous: day or month may come first; write it as year-month-day",
    ),
    (
        re.compile(r"\d{4}[/.]\d{1,2}[/.]\d{1,2}(\D.*)?|\d{4}-\d{1,2}-\d{1,2}(\D.*)?"),
        "{example} is not ISO 8601: write it as 2024-03-01",
    ),
    (
        re.compile(r"-?\d{9,10}(\.\d+)?|-?\d\.\d+e\+0?9", re.IGNORECASE),
        "{example} is a bare number, perhaps seconds since 1970: write dates as 2024-03-01",
    ),
    (
        re.compile(r"-?\d{12,13}(\.\d+)?|-?\d\.\d+e\+12", re.IGNORECASE),
        "{example} is a bare number, perhaps milliseconds since 1970: write dates as 2024-03-01",
    ),
    (
        re.compile(r"-?\d{15,19}"),
        "{example} is a bare number, perhaps microseconds since 1970: write dates as 2024-03-01",
    ),
    (re.compile(r"(1[5-9]|20)\d{2}"), "{example} is a year alone, which is no day"),
    (re.compile(r"\d{4}-\d{2}"), "{example} is a month, which is no day"),
    (
        re.compile(r"(?=.*\d{4})(?=.*[^\W\d_]{3})[\w ,.:°-]{8,40}"),
        "{example} is no date in a form that is read: write it as 2024-03-01",
    ),
)


def why_unread(texts: Sequence[str]) -> str:
    """Say why values that look like dates are not read; empty where they look like no dates."""
    for look, why in _LOOKS:
        fitting = [text for text in texts if look.fullmatch(text.strip())]
        if fitting and len(fitting) >= _MOSTLY * len(texts):
            return why.format(example=fitting[0].strip())
    return ""
