"""The types a CSV column can be declared to have, and text turned into them.

A field fits its type or it does not: no rounding of integers, no overflow to infinity, no
date without its zone where the type has a zone.  What does not fit is named by its row; the
other rows of the column are not affected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.formats.jsontext import InexactJson, parse_json

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
#: Largest magnitude up to which every integer is a float64 (IEEE 754).
_LARGEST_EXACT_INTEGER = 2**53
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
KNOWN_TYPES = ", ".join(
    [*_PLAIN, "timestamp[s|ms|us|ns]", "timestamp[us, UTC]", "decimal128(38, 9)", *_LISTS]
)


def parse_type(name: str) -> pa.DataType:
    """Give the Arrow type of a declared name.

    Raises:
        ValueError: no such type; the message lists the known ones.
    """
    if name in _PLAIN:
        return pa.type_for_alias(name)
    if name in _LISTS:
        return pa.list_(_LISTS[name])
    try:
        if timestamp := _TIMESTAMP.fullmatch(name):
            unit, zone = timestamp.groups()
            if zone and not _OFFSET.fullmatch(zone):
                ZoneInfo(zone)
            return pa.timestamp(unit, zone)
        if decimal := _DECIMAL.fullmatch(name):
            return pa.decimal128(int(decimal[1]), int(decimal[2]))
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{name!r} is no type: {error}") from error
    raise ValueError(f"{name!r} is no type a CSV column can have; known: {KNOWN_TYPES}")


def convert_texts(
    texts: pa.StringArray, declared: pa.DataType, *, decimal: str = "."
) -> tuple[pa.Array, list[int]]:
    """Turn a column of texts into the declared type; an empty text is null.

    Args:
        texts: the column.
        declared: its type.
        decimal: the character before the fraction of a number; with a comma a point is none, for
            it may separate thousands.

    Returns:
        The column, and the indexes of texts that do not fit (null in the column).
    """
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if decimal != "." and (pa.types.is_floating(declared) or pa.types.is_decimal(declared)):
        # what holds a point must not become a number: "x" makes it none
        texts = pc.replace_substring(pc.replace_substring(texts, ".", "x"), decimal, ".")
    if pa.types.is_list(declared):
        return _parse_lists(texts, declared)
    try:
        return _cast(texts, declared)
    except pa.ArrowInvalid:
        return _cast_one_by_one(texts, declared)


def _cast(texts: pa.StringArray, declared: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast a column, and name the texts that Arrow casts to something they do not say.

    Arrow reads hexadecimal integers, and infinity from digits.
    """
    values = pc.cast(texts, declared)
    if pa.types.is_integer(declared):
        is_misread = pc.match_substring(texts, "x", ignore_case=True)
    elif pa.types.is_floating(declared) and pc.any(pc.is_inf(values)).as_py():
        is_misread = pc.and_(pc.is_inf(values), pc.match_substring_regex(texts, "[0-9]"))
    else:
        return values, []
    misfits: list[int] = np.flatnonzero(
        pc.fill_null(is_misread, fill_value=False).to_numpy(zero_copy_only=False)
    ).tolist()
    return values, misfits


def _cast_one_by_one(texts: pa.StringArray, declared: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast text by text; needed only where the column cannot be cast at once."""
    values: list[pa.Array] = []
    misfits: list[int] = []
    for index in range(len(texts)):
        try:
            value, misread = _cast(texts.slice(index, 1), declared)
        except pa.ArrowInvalid:
            value, misread = None, [0]
        values.append(pa.nulls(1, declared) if misread else value)
        misfits += [index] * len(misread)
    return pa.concat_arrays(values), misfits


def _parse_lists(texts: pa.StringArray, declared: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Read JSON arrays of exactly the declared kind of value."""
    fits = _FITS[declared.value_type]
    values: list[list[object] | None] = []
    misfits: list[int] = []
    for index, text in enumerate(texts.to_pylist()):
        value = None
        if text is not None:
            try:
                parsed = parse_json(text.encode())
            except InexactJson:
                parsed = None
            if isinstance(parsed, list) and fits(parsed):
                value = parsed
            else:
                misfits.append(index)
        values.append(value)
    return pa.array(values, declared), misfits


def _are_floats(values: list[object], largest: float) -> bool:
    if not set(map(type, values)) <= {int, float}:
        return False
    numbers = (
        np.array(values, np.float64)
        if all(abs(v) <= _LARGEST_EXACT_INTEGER for v in values if type(v) is int)
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
