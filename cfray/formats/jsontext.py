"""Parse one JSON text so that nothing in it is changed or dropped without a word.

orjson is fast but keeps the last of two equal keys, turns integers beyond 64 bits into floats
and refuses NaN.  It is believed only where the text proves that none of this happened.  Python's
own parser keeps such integers, and is believed where no key is repeated and no number is beyond
float64; everything else takes the slow, exact path, on which it calls back for each number.

Proof against duplicate keys: each member of an object shows in the text as a quote, optional
white space and a colon.  Strings may show the same, so the text has at least as many of these
marks as members; equal numbers of marks and of parsed members therefore mean that no member
was dropped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

import orjson

from cfray.records.record import canonical

#: Deepest nesting accepted.  Stores that write JSON stop at 100 (MongoDB) or earlier; Python's own
#: parser at about 1000.
MAX_DEPTH = 500

#: Stands between values: white space, the separator of JSON text sequences (RFC 7464), the zeros of
#: a file that was allocated before it was written; and the mark at the seam of joined files.
_BETWEEN = b" \t\r\n\x1e\0"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: In a number so small that it may be zero as a float64, of which the smallest is 5e-324.  Two
#: expressions, each with a beginning that is found fast.
_TINY = (re.compile(rb"e-[0-9]{3}"), re.compile(rb"E-[0-9]{3}"))
_MEMBER_MARK = re.compile(rb'"[ \t\r\n]*:')
#: Floats of orjson below this were no integers beyond 64 bits; half of 2**63, which leaves room
#: for the rounding of ``hypot``.
_SAFE_MAGNITUDE = 2.0**62
#: Types of values that hold no other values.
_PLAIN_TYPES = frozenset({str, int, bool, type(None)})


class InexactJson(ValueError):
    """The text is JSON whose meaning cannot be kept; the message says why."""


class InvalidJson(InexactJson):
    """The text is no JSON at all."""


def between_values(text: bytes) -> bytes:
    """Leave out what may stand before and behind a top-level value."""
    stripped = text.strip(_BETWEEN)
    while stripped.startswith(_BYTE_ORDER_MARK):
        stripped = stripped.removeprefix(_BYTE_ORDER_MARK).strip(_BETWEEN)
    return stripped


def parse_json(data: bytes) -> object:
    """Parse a JSON text exactly.

    Integers stay exact at any size, other numbers are float64, and the bare words NaN, Infinity and
    -Infinity are floats.

    Raises:
        InvalidJson: no JSON.
        InexactJson: invalid UTF-8, a duplicate key, a number beyond float64, a lone surrogate, too
            deep.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_exactly(data)
    if any(tiny.search(data) for tiny in _TINY):
        return _parse_exactly(data)
    marks = len(_MEMBER_MARK.findall(data))
    if marks == _count_members(value, 0, _SAFE_MAGNITUDE):
        return value
    try:
        # orjson has seen that it is JSON in UTF-8, without half a character
        value = json.loads(data.decode())
    except ValueError:  # an integer of more digits than Python reads
        return _parse_exactly(data)
    return value if marks == _count_members(value, 0, math.inf) else _parse_exactly(data)


def _count_members(value: object, depth: int, limit: float) -> float:
    """Count the members of all objects in a value.

    Infinite if the magnitude of a float in it is not below the limit.
    """
    if depth > MAX_DEPTH:
        raise InexactJson(f"nested deeper than {MAX_DEPTH} levels")
    inner_values: Iterable[object]
    if isinstance(value, dict):
        count, inner_values = float(len(value)), value.values()
    elif isinstance(value, list):
        try:
            # The length of a vector is at least its largest magnitude, and the fastest way to look
            # at all of its numbers.
            return 0 if math.hypot(*value) < limit else math.inf
        except (TypeError, OverflowError):
            count, inner_values = 0, value
    else:
        return math.inf if isinstance(value, float) and abs(value) >= limit else 0
    # A loop, not a generator: a single stack frame for each level.
    for item in inner_values:
        if type(item) not in _PLAIN_TYPES:
            count += _count_members(item, depth + 1, limit)
    return count


def _parse_exactly(data: bytes) -> object:
    try:
        value: object = json.loads(
            data.decode(), object_pairs_hook=_unique_keys, parse_float=_finite, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise InexactJson(f"invalid UTF-8 at its byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"not JSON: {error.msg} at its character {error.pos}") from error
    except RecursionError as error:
        raise InexactJson(f"nested deeper than {MAX_DEPTH} levels") from error
    _count_members(value, 0, _SAFE_MAGNITUDE)
    if b"\\u" in data:
        try:
            canonical(value).encode()
        except UnicodeEncodeError as error:
            raise InexactJson(
                f"a lone surrogate escape \\u{ord(error.object[error.start]):04x} is no character"
            ) from error
    return value


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise InexactJson(f"duplicate key {key!r} in an object")
        members[key] = value
    return members


def _finite(text: str) -> float:
    value = float(text)
    is_lost = value == 0.0 and text.lower().partition("e")[0].strip("-0.") != ""
    if math.isinf(value) or is_lost:
        raise InexactJson(f"the number {text[:80]} is beyond float64")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        # Python's guard against quadratic time.
        raise InexactJson(f"an integer of {len(text)} digits; at most 4300 are read") from error
