"""Arrays of any Arrow type, read back from the canonical texts that custom_metadata holds.

The inverse of ``values.metadata_texts``: ``read_texts(metadata_texts(a), a.type)`` is ``a``, but
for the bits of a NaN.  Strings are taken as they are, integers are read by Arrow, everything else
is parsed as JSON, a value at a time, and built from the innermost array outwards.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from cfray.records.names import unique_names

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86_400
#: Days of 400 years of the Gregorian calendar, after which it repeats.
_DAYS_OF_400_YEARS = 146_097
#: ``date.toordinal`` of 1970-01-01.
_EPOCH_ORDINAL = 719_163
#: Digits that the widest decimal type holds, and room for its scale.
_DECIMAL_CONTEXT = Context(prec=200)
_INSTANT = re.compile(
    r"(?P<day>-?\d+-\d\d-\d\d)(T(?P<clock>[\d:.]+)(?P<offset>[+-][\d:]+)?)?", re.ASCII
)


def read_texts(texts: pa.StringArray, kind: pa.DataType) -> pa.Array:
    """Read canonical texts as values of a type; null stays null.

    Args:
        texts: ``(n,)``, as ``values.metadata_texts`` writes them.
        kind: type of the values; a union has no values that could be told from their texts.

    Raises:
        ValueError: a text is none of such a value.
    """
    if kind.equals(pa.string()):
        return texts
    if _is_text(kind):
        return texts.cast(kind)
    if texts.null_count == len(texts):
        return build([None] * len(texts), kind)
    if kinds.is_integer(kind) or kinds.is_boolean(kind):
        return texts.cast(kind)
    if _is_wrapped_text(kind):
        return build(texts.to_pylist(), kind)
    parsed = [None if text is None else parse(text) for text in texts.to_pylist()]
    return build(parsed, kind)


class Digits(str):
    """The digits of a number with a fraction or an exponent, which a float64 may round."""

    __slots__ = ()


def parse(text: str) -> Any:  # parsed JSON
    """Read JSON, numbers with a fraction as their digits, so that a float32 is rounded once.

    By way of a float64, ``7.038531e-26`` is another float32.
    """
    return json.loads(text, parse_float=Digits)


def build(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make an array of canonical JSON that ``parse`` read; None is null.

    Raises:
        ValueError: a value is none of this type.
    """
    for test, make in _BUILDERS:
        if test(kind):
            return make(values, kind)
    return pa.array(values, kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _is_wrapped_text(kind: pa.DataType) -> bool:
    """Tell whether a dictionary, runs or JSON wrap strings, which stand as they are."""
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return _is_text(kind.value_type) or _is_wrapped_text(kind.value_type)
    return isinstance(kind, pa.JsonType)


def _mask(values: Sequence[Any]) -> pa.Array | None:
    is_null = [value is None for value in values]
    return pa.array(is_null) if any(is_null) else None


def _validity(values: Sequence[Any]) -> pa.Buffer:
    return pa.array([value is not None for value in values], pa.bool_()).buffers()[1]


def _extension(values: Sequence[Any], kind: pa.BaseExtensionType) -> pa.Array:
    if isinstance(kind, pa.UuidType):
        storage = pa.array(
            [None if value is None else uuid.UUID(value).bytes for value in values], pa.binary(16)
        )
    else:
        storage = build(values, kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, storage)


def _dictionary(values: Sequence[Any], kind: pa.DictionaryType) -> pa.Array:
    """Encode by hand: pyarrow 26.0.1 encodes no lists of fixed size."""
    numbers: dict[str, int] = {}
    indices = [
        None if value is None else numbers.setdefault(json.dumps(value), len(numbers))
        for value in values
    ]
    distinct = build([json.loads(text) for text in numbers], kind.value_type)
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, kind.index_type), distinct, ordered=kind.ordered
    )


def _runs(values: Sequence[Any], kind: pa.RunEndEncodedType) -> pa.Array:
    return pc.run_end_encode(build(values, kind.value_type), kind.run_end_type)


def _floats(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind.equals(pa.float32()):
        texts = [None if value is None else str(value) for value in values]
        return pa.array(texts, pa.string()).cast(kind)
    width: Any = {16: np.float16, 64: np.float64}[kind.bit_width]
    numbers = np.array([0 if value is None else float(value) for value in values]).astype(width)
    is_null = np.array([value is None for value in values], np.bool_)
    return pa.array(numbers, kind, mask=is_null)


def _decimals(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make decimals from their bytes, for pyarrow 26.0.1 refuses some scales."""
    width = kind.bit_width // 8
    units = (
        0
        if value is None
        else int(Decimal(value).scaleb(kind.scale, _DECIMAL_CONTEXT).to_integral_exact())
        for value in values
    )
    data = b"".join(unit.to_bytes(width, "little", signed=True) for unit in units)
    return pa.Array.from_buffers(kind, len(values), [_validity(values), pa.py_buffer(data)])


def _bytes(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return pa.array([None if value is None else base64.b64decode(value) for value in values], kind)


def _structs(values: Sequence[Any], kind: pa.StructType) -> pa.Array:
    names = unique_names([field.name for field in kind])
    children = [
        build([None if value is None else value[name] for value in values], kind.field(index).type)
        for index, name in enumerate(names)
    ]
    if not children:
        return pa.array(values, kind)
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=_mask(values))


def _offsets(values: Sequence[Any], width: type[np.integer[Any]]) -> pa.Array:
    counts = [0 if value is None else len(value) for value in values]
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(width)
    return pa.array(offsets)


def _flattened(values: Sequence[Any]) -> list[Any]:
    return [item for value in values if value is not None for item in value]


def _lists(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    items = build(_flattened(values), kind.value_type)
    if kinds.is_large_list(kind):
        offsets = _offsets(values, np.int64)
        return pa.LargeListArray.from_arrays(offsets, items, type=kind, mask=_mask(values))
    return pa.ListArray.from_arrays(
        _offsets(values, np.int32), items, type=kind, mask=_mask(values)
    )


def _list_views(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    items = build(_flattened(values), kind.value_type)
    is_large = kinds.is_large_list_view(kind)
    offsets = _offsets(values, np.int64 if is_large else np.int32)
    sizes = pc.subtract(offsets.slice(1), offsets.slice(0, len(values)))
    array: type[Any] = pa.LargeListViewArray if is_large else pa.ListViewArray
    return array.from_arrays(
        offsets.slice(0, len(values)), sizes, items, type=kind, mask=_mask(values)
    )


def _fixed_lists(values: Sequence[Any], kind: pa.FixedSizeListType) -> pa.Array:
    filled = [[None] * kind.list_size if value is None else value for value in values]
    if any(len(value) != kind.list_size for value in filled):
        raise ValueError(f"a list of another length than {kind.list_size}")
    items = build(_flattened(filled), kind.value_type)
    # lists of no items: ``from_arrays`` of pyarrow 26.0.1 divides by their length
    return pa.Array.from_buffers(kind, len(values), [_validity(values)], children=[items])


def _maps(values: Sequence[Any], kind: pa.MapType) -> pa.Array:
    pairs = _flattened(values)
    keys = build([key for key, _ in pairs], kind.key_type)
    items = build([item for _, item in pairs], kind.item_type)
    return pa.MapArray.from_arrays(
        _offsets(values, np.int32), keys, items, type=kind, mask=_mask(values)
    )


def _intervals(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return pa.array([None if value is None else pa.MonthDayNano(value) for value in values], kind)


def _times(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make dates, times of day, instants and durations of what they count."""
    count = _counter(kind)
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    # a bare count is a duration, or a time of day outside the day
    known: dict[Any, int | None] = {None: None}
    for value in values:
        if value not in known:
            known[value] = value if isinstance(value, int) else count(value)
    counts = [known[value] for value in values]
    return pa.array(counts, width).view(kind)


def _counter(kind: pa.DataType) -> Callable[[str], int]:
    """Give what counts the units of a type up to a value that its text says."""
    if kinds.is_date32(kind):
        return _days
    per_second = _PER_SECOND["ms" if kinds.is_date64(kind) else kind.unit]
    if kinds.is_time(kind):
        return lambda text: _clock(text, per_second)
    return lambda text: _instant(text, per_second)


def _instant(text: str, per_second: int) -> int:
    """Count from 1970-01-01 to an instant, or to the midnight that a day begins with."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no instant")
    count = _days(match["day"]) * _DAY_SECONDS * per_second
    if match["clock"]:
        count += _clock(match["clock"], per_second)
    if match["offset"]:
        sign = -1 if match["offset"][0] == "-" else 1
        count -= sign * _clock(match["offset"][1:], 1) * per_second
    return count


def _clock(text: str, per_second: int) -> int:
    """Count the units of ``hours:minutes``, with or without seconds and their fraction."""
    hours, minutes, *rest = text.split(":")
    seconds, _, fraction = (rest[0] if rest else "0").partition(".")
    count = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * per_second
    return count + (int(fraction) * per_second // 10 ** len(fraction) if fraction else 0)


def _days(text: str) -> int:
    """Count the days from 1970-01-01; of any year, which ``date`` does not know."""
    sign = -1 if text.startswith("-") else 1
    year, month, day = text.lstrip("-").split("-")
    cycles, within = divmod(sign * int(year) - 2000, 400)
    ordinal = date(2000 + within, int(month), int(day)).toordinal()
    return ordinal - _EPOCH_ORDINAL + cycles * _DAYS_OF_400_YEARS


#: Tests of a type, the first that holds counting, and what makes its arrays.
_BUILDERS: list[tuple[Callable[[pa.DataType], bool], Callable[[Sequence[Any], Any], pa.Array]]] = [
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extension),
    (kinds.is_dictionary, _dictionary),
    (kinds.is_run_end_encoded, _runs),
    (kinds.is_floating, _floats),
    (kinds.is_decimal, _decimals),
    (kinds.is_interval, _intervals),
    (kinds.is_temporal, _times),
    (kinds.is_binary, _bytes),
    (kinds.is_large_binary, _bytes),
    (kinds.is_binary_view, _bytes),
    (kinds.is_fixed_size_binary, _bytes),
    (kinds.is_struct, _structs),
    (kinds.is_map, _maps),
    (kinds.is_list, _lists),
    (kinds.is_large_list, _lists),
    (kinds.is_list_view, _list_views),
    (kinds.is_large_list_view, _list_views),
    (kinds.is_fixed_size_list, _fixed_lists),
]
