"""Parse one JSON text so that nothing in it is changed or dropped without a word.

orjson is fast but keeps the last of two equal keys, turns integers beyond 64
bits into floats and refuses NaN.  It is believed only where the text proves
that none of this happened; everything else takes the slow, exact path.

Proof against duplicate keys: each member of an object shows in the text as a
quote, optional white space and a colon.  Strings may show the same, so the
text has at least as many of these marks as members; equal numbers of marks and
of parsed members therefore mean that no member was dropped.
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

_MARK = re.compile(rb'"[ \t\r\n]*:')
_SAFE = (
    2.0**62
)  # orjson floats below this were no integers beyond 64 bits; half of 2**63, which leaves room for hypot's rounding
_PLAIN = frozenset({str, int, bool, type(None)})  # nothing inside them needs a look


class NotExact(ValueError):
    """The text is JSON whose meaning cannot be kept; the message says why."""


class NotJson(NotExact):
    """The text is no JSON at all."""


def parse(data: bytes) -> object:
    """Parse a JSON text.

    Integers stay exact at any size, other numbers are float64, and the bare words NaN, Infinity and
    -Infinity are floats.

    Raises:
        NotJson: no JSON.
        NotExact: invalid UTF-8, a duplicate key, a number beyond float64, a lone surrogate, too
            deep.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _exact(data)
    if len(_MARK.findall(data)) == _members(value, 0):
        return value
    return _exact(data)


def _members(value: object, depth: int) -> float:
    """Count the members of all objects in a value.

    Infinite if a number in it may have been an integer.
    """
    if depth > MAX_DEPTH:
        raise NotExact(f"nested deeper than {MAX_DEPTH} levels")
    inner: Iterable[object]
    if isinstance(value, dict):
        found, inner = float(len(value)), value.values()
    elif isinstance(value, list):
        try:
            # The length of a vector is at least its largest magnitude, and the fastest way to look
            # at all of its numbers.
            return 0 if math.hypot(*value) < _SAFE else math.inf
        except (TypeError, OverflowError):
            found, inner = 0, value
    else:
        return math.inf if isinstance(value, float) and abs(value) >= _SAFE else 0
    for item in inner:  # a loop, not a generator: one stack frame a level
        if type(item) not in _PLAIN:
            found += _members(item, depth + 1)
    return found


def _exact(data: bytes) -> object:
    try:
        value: object = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise NotExact(f"invalid UTF-8 at its byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON: {error.msg} at its character {error.pos}") from error
    except RecursionError as error:
        raise NotExact(f"nested deeper than {MAX_DEPTH} levels") from error
    _members(value, 0)
    if b"\\u" in data:
        try:
            canonical(value).encode()
        except UnicodeEncodeError as error:
            raise NotExact(
                f"a lone surrogate escape \\u{ord(error.object[error.start]):04x} is no character"
            ) from error
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise NotExact(f"duplicate key {key!r} in an object")
        found[key] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotExact(f"the number {text[:80]} is beyond float64")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:  # Python's guard against quadratic time
        raise NotExact(f"an integer of {len(text)} digits; at most 4300 are read") from error
