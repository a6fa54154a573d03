"""The types a CSV column can be declared to have, and text turned into them.

A field fits its type or it does not: no rounding of integers, no overflow to
infinity, no date without its zone where the type has one.  What does not fit is
named by its row; the rest of the column is not affected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.formats.jsontext import NotExact, parse

_PLAIN = (
    "string",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float",
    "double",
    "bool",
    "date32",
)
_LISTS = {
    "list<float>": pa.float32(),
    "list<double>": pa.float64(),
    "list<int64>": pa.int64(),
    "list<string>": pa.string(),
}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, *(?:tz=)?([A-Za-z0-9_+:/-]+))?\]")
_DECIMAL = re.compile(r"decimal128\((\d+), *(\d+)\)")
_EXACT = 2**53  # largest magnitude up to which every integer is a float64
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
KNOWN = ", ".join(
    [*_PLAIN, "timestamp[s|ms|us|ns]", "timestamp[us, UTC]", "decimal128(38, 9)", *_LISTS]
)


def type_named(name: str) -> pa.DataType:
    """Give the Arrow type of a declared name.

    Raises:
        ValueError: no such type; the message lists the known ones.
    """
    if name in _PLAIN:
        return pa.type_for_alias(name)
    if name in _LISTS:
        return pa.list_(_LISTS[name])
    try:
        if found := _TIMESTAMP.fullmatch(name):
            unit, zone = found.groups()
            if zone and not _OFFSET.fullmatch(zone):
                ZoneInfo(zone)
            return pa.timestamp(unit, zone)
        if found := _DECIMAL.fullmatch(name):
            return pa.decimal128(int(found[1]), int(found[2]))
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{name!r} is no type: {error}") from error
    raise ValueError(f"{name!r} is no type a CSV column can have; known: {KNOWN}")


def convert(texts: pa.StringArray, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Turn a column of texts into a type; an empty text is null.

    Returns:
        the column, and the indexes of texts that do not fit (null in it).
    """
    present = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if pa.types.is_list(wanted):
        return _lists(present, wanted)
    try:
        return _cast(present, wanted)
    except pa.ArrowInvalid:
        return _each(present, wanted)


def _cast(texts: pa.StringArray, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast a column; name the texts that Arrow casts to something they do not say.

    Hexadecimal integers, infinity from digits.
    """
    found = pc.cast(texts, wanted)
    if pa.types.is_integer(wanted):
        doubtful = pc.match_substring(texts, "x", ignore_case=True)
    elif pa.types.is_floating(wanted) and pc.any(pc.is_inf(found)).as_py():
        doubtful = pc.and_(pc.is_inf(found), pc.match_substring_regex(texts, "[0-9]"))
    else:
        return found, []
    wrong: list[int] = np.flatnonzero(
        pc.fill_null(doubtful, fill_value=False).to_numpy(zero_copy_only=False)
    ).tolist()
    return found, wrong


def _each(texts: pa.StringArray, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast text by text; only where the whole column cannot be cast."""
    pieces: list[pa.Array] = []
    wrong: list[int] = []
    for index in range(len(texts)):
        one = texts.slice(index, 1)
        try:
            found, misfits = _cast(one, wanted)
        except pa.ArrowInvalid:
            found, misfits = None, [0]
        pieces.append(pa.nulls(1, wanted) if misfits else found)
        wrong += [index] * len(misfits)
    return pa.concat_arrays(pieces), wrong


def _lists(texts: pa.StringArray, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Read JSON arrays of exactly the wanted kind of value."""
    fits = _FITS[wanted.value_type]
    values: list[list[object] | None] = []
    wrong: list[int] = []
    for index, text in enumerate(texts.to_pylist()):
        value = None
        if text is not None:
            try:
                parsed = parse(text.encode())
            except NotExact:
                parsed = None
            if isinstance(parsed, list) and fits(parsed):
                value = parsed
            else:
                wrong.append(index)
        values.append(value)
    return pa.array(values, wanted), wrong


def _are_floats(values: list[object], largest: float) -> bool:
    if not set(map(type, values)) <= {int, float}:
        return False
    numbers = (
        np.array(values, np.float64)
        if all(abs(v) <= _EXACT for v in values if type(v) is int)
        else None
    )
    return numbers is not None and not (np.isfinite(numbers) & (np.abs(numbers) > largest)).any()


def _are_integers(values: list[object]) -> bool:
    return set(map(type, values)) <= {int} and all(
        -(2**63) <= v < 2**63 for v in values if isinstance(v, int)
    )


def _are_strings(values: list[object]) -> bool:
    return set(map(type, values)) <= {str}


_FITS: dict[pa.DataType, Callable[[list[object]], bool]] = {
    pa.float32(): partial(_are_floats, largest=float(np.finfo(np.float32).max)),
    pa.float64(): partial(_are_floats, largest=float(np.finfo(np.float64).max)),
    pa.int64(): _are_integers,
    pa.string(): _are_strings,
}
