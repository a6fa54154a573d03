"""The canonical texts that custom_metadata holds, for whole columns of any Arrow type.

A string stays as it is; anything else becomes canonical JSON: keys sorted by code point, no spaces,
a float as the shortest text that reads back to the same float of its width; instants, decimals,
UUIDs and bytes as JSON strings.  Python looks at single values only where Arrow writes them
differently, and then once for each distinct value.  Nothing here knows a store, a file or a
mapping.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache, partial
from json import JSONEncoder

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from cfray.errors import ConfigError
from cfray.records.names import unique_names

_TEXT = pa.string()
#: Seconds of a day.
_DAY = 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime.fromtimestamp(0, UTC)
#: 0001-01-02 and 9999-12-30 in days since 1970-01-01: ``datetime`` can shift all days between them
#: to any time zone.
_FIRST_DAY, _LAST_DAY = -719_161, 2_932_895
#: Characters that JSON requires to be escaped in a string (RFC 8259, section 7).
_ESCAPED = '[\\x00-\\x1f"\\\\]'
#: Arrow's names of a dictionary and of run-end encoding.
_ENCODED = re.compile(
    r"dictionary<values=(?P<shared>.*), indices=u?int\d+, ordered=[01]>"
    r"|run_end_encoded<run_ends: int\d+, values: (?P<runs>.*)>",
    re.DOTALL,
)
#: Extension types that their name alone restores from their storage.
_CARRIED_EXTENSIONS = (pa.UuidType, pa.JsonType, pa.Bool8Type)
_quote = JSONEncoder(ensure_ascii=False).encode
_UUID = b'"00000000-0000-0000-0000-000000000000"'
_HEX_AT = np.flatnonzero(np.frombuffer(_UUID, np.uint8) == ord("0"))


def metadata_texts(array: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Write each value as ``custom_metadata`` holds it.

    A string as it is, anything else as canonical JSON; null stays null.

    Args:
        array: ``(n,)`` of any Arrow type; a single batch, for its text must stay below the 2 GiB
            of a ``StringArray``.

    Raises:
        ConfigError: the type has no text, for this machine does not know a time zone.
    """
    return _texts(array, quoted=False)


def json_texts(array: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Write each value as canonical JSON, strings quoted; otherwise as ``metadata_texts``."""
    return _texts(array)


def type_name(kind: pa.DataType) -> str:
    """Name a type as ``cfray.types`` records it: Arrow's name, with ``uuid`` for ``arrow.uuid``."""
    return str(kind).replace("extension<arrow.uuid>", "uuid")


def unencoded_name(name: str) -> str:
    """Name the type of the values that a type of this name encodes: as a dictionary or as runs."""
    encoded = _ENCODED.fullmatch(name)
    if encoded is None:
        return name.removesuffix("_view") if name in ("string_view", "binary_view") else name
    return unencoded_name(encoded["shared"] or encoded["runs"])


def lossy_reason(kind: pa.DataType) -> str | None:
    """Say what the canonical text and the type's name do not carry; None if they carry all."""
    if kinds.is_union(kind):
        return f"{type_name(kind)}: which member of the union a value came from is not kept"
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, _CARRIED_EXTENSIONS):
        storage = type_name(kind.storage_type)
        return f"{type_name(kind)}: its values are kept as {storage}, the extension type is not"
    if kinds.is_dictionary(kind) and kind.ordered:
        return f"{type_name(kind)}: its values are kept, the order of the categories is not"
    if kinds.is_struct(kind):
        names = [field.name for field in kind]
        if len(set(names)) < len(names):
            return f"{type_name(kind)}: fields of one name are kept under numbered names"
        if any(": " in name for name in names):
            return (
                f"{type_name(kind)}: a field name with a colon and a space makes the type's name "
                "ambiguous"
            )
    inner = (
        [kind.value_type]
        if kinds.is_dictionary(kind)
        else [kind.field(i).type for i in range(kind.num_fields)]
    )
    return next((reason for reason in map(lossy_reason, inner) if reason), None)


def _texts(array: pa.Array | pa.ChunkedArray, quoted: bool = True) -> pa.StringArray:
    if isinstance(array, pa.ChunkedArray):
        return pa.concat_arrays(
            [pa.array([], _TEXT), *(_texts(chunk, quoted) for chunk in array.chunks)]
        )
    if len(array) == 0:
        return pa.array([], _TEXT)
    for tests, write in _WRITERS:
        if any(test(array.type) for test in tests):
            return write(array)
    for tests, unwrap in _WRAPPERS:
        if any(test(array.type) for test in tests):
            return unwrap(array, quoted)
    raise ConfigError(
        f"values of type {array.type} have no canonical text",
        "leave the column out, or cast it to another type before the migration",
    )


def _joined(*texts: pa.Array | str) -> pa.StringArray:
    return pc.binary_join_element_wise(*texts, "")


def _masked(texts: pa.StringArray, array: pa.Array) -> pa.StringArray:
    return (
        pc.if_else(array.is_valid(), texts, pa.scalar(None, _TEXT)) if array.null_count else texts
    )


def _each(array: pa.Array, write: Callable[..., str]) -> pa.StringArray:
    """Write every distinct value in Python; null stays null."""
    distinct = array.dictionary_encode()
    return pa.array(map(write, distinct.dictionary.to_pylist()), _TEXT).take(distinct.indices)


def _replaced(
    texts: pa.StringArray, odd: pa.Array, array: pa.Array, write: Callable[..., str]
) -> pa.StringArray:
    """Replace the texts where ``odd`` is true by what ``write`` makes of the values."""
    if not pc.any(odd).as_py():
        return texts
    return pc.replace_with_mask(texts, odd, _each(array.filter(odd), write))


def _quoted_texts(plain: pa.StringArray) -> pa.StringArray:
    odd = pc.fill_null(pc.match_substring_regex(plain, _ESCAPED), fill_value=False)
    return _replaced(_joined('"', plain, '"'), odd, plain, _quote)


def _float_texts(array: pa.Array, write: Callable[[float], str]) -> pa.StringArray:
    """Write floats: as Arrow does from 1e-4 up to 1e10, as ``write`` does beyond.

    Between these, Arrow's text is Python's except that Arrow leaves out the ".0".
    """
    size = np.abs(pc.fill_null(array, 0).to_numpy(zero_copy_only=False))
    # NaN is not in the range either
    in_range = (size >= size.dtype.type(1e-4)) & (size < size.dtype.type(1e10)) | (size == 0)
    texts = array.cast(_TEXT)
    is_integer = pc.invert(pc.match_substring(texts, "."))
    if pc.any(is_integer).as_py():
        texts = pc.if_else(is_integer, _joined(texts, ".0"), texts)
    return _replaced(texts, pa.array(~in_range), array, write)


def _double_text(value: float) -> str:
    text = repr(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


# A rounded text of the largest float may lie beyond it.
@np.errstate(over="ignore")
def _narrow_text(width: type[np.floating], value: float) -> str:
    """Round to ever more digits until the text reads back to the same float of that width."""
    first = 1 if width(float(f"{value:.6g}")) == value else 7
    return _double_text(
        next(
            (
                short
                for digits in range(first, 10)
                if width(short := float(f"{value:.{digits}g}")) == value
            ),
            value,
        )
    )


def _counts(array: pa.Array) -> npt.NDArray[np.int64]:
    """View days, seconds or fractions of them as the integers they are; null gives 0."""
    return np.asarray(
        pc.fill_null(
            array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).cast(pa.int64()), 0
        )
    )


def _trimmed(texts: pa.StringArray, unit: str) -> pa.StringArray:
    """Drop the zeros that end a fraction, and the point if nothing follows it."""
    return texts if unit == "s" else pc.ascii_rtrim(pc.ascii_rtrim(texts, "0"), ".")


def _date_texts(array: pa.Array) -> pa.StringArray:
    """Write dates.

    A date64 may hold a time of day, which Arrow's format forbids: it is written as an instant.
    """
    per_day = 1 if kinds.is_date32(array.type) else _DAY * 1000
    counts = _counts(array)
    days = counts // per_day
    odd = (days < _FIRST_DAY) | (days > _LAST_DAY) | (counts % per_day != 0)
    near = pa.array(np.where(odd, 0, days).astype(np.int32)).view(pa.date32())
    texts = _joined('"', near.cast(_TEXT), '"')
    write = partial(_odd_date, per_day)
    return _masked(_replaced(texts, pa.array(odd), pa.array(counts), write), array)


def _odd_date(per_day: int, count: int) -> str:
    day, time = divmod(count, per_day)
    return _far_instant(1000, "", count) if time else f'"{_day_text(day)}"'


def _time_texts(array: pa.Array) -> pa.StringArray:
    """Write times of day; a count outside the day, which Arrow forbids, stays a bare count."""
    texts = array.cast(_TEXT)
    return _replaced(
        _joined('"', _trimmed(texts, array.type.unit), '"'),
        pc.starts_with(texts, "<"),
        pa.array(_counts(array)),
        str,
    )


def _timestamp_texts(array: pa.Array) -> pa.StringArray:
    """Write instants.

    An instant outside the years 1 to 9999, or in the first or the last day of the int64 range,
    is written in UTC.
    """
    counts, unit, zone = _counts(array), array.type.unit, array.type.tz
    per_second = _PER_SECOND[unit]
    first = max(_FIRST_DAY * _DAY * per_second, _DAY * per_second - 2**63)
    last = min(_LAST_DAY * _DAY * per_second, 2**63 - _DAY * per_second)
    far = (counts < first) | (counts > last)
    local, offset = np.where(far, 0, counts), "" if zone is None else "+00:00"
    write = partial(_far_instant, per_second, offset)
    if zone not in (None, "UTC"):
        shift = _shift(local // per_second, array.type)
        local = local + shift * per_second
        offset = _each(pa.array(shift), _offset_text)
    texts = pa.array(local).view(pa.timestamp(unit)).cast(_TEXT)
    texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    texts = _joined('"', _trimmed(texts, unit), offset, '"')
    return _masked(_replaced(texts, pa.array(far), pa.array(counts), write), array)


def _offset_text(seconds: int) -> str:
    """Write a UTC offset, for example ``+01:00``."""
    return _EPOCH.astimezone(timezone(timedelta(seconds=seconds))).isoformat()[19:]


@lru_cache
def time_zone(name: str) -> tzinfo:
    """Give a time zone by the name that an Arrow type has for it.

    Raises:
        ConfigError: this machine does not know it.
    """
    try:
        zone: tzinfo = pa.scalar(0, pa.timestamp("s", name)).as_py().tzinfo
    except (pa.ArrowInvalid, LookupError, ValueError) as error:
        raise ConfigError(
            f"this machine does not know the time zone {name}",
            "install the system's time zone data (tzdata), or cast the column to UTC before the "
            "migration",
        ) from error
    return zone


def _shift(seconds: npt.NDArray[np.int64], kind: pa.DataType) -> npt.NDArray[np.int64]:
    """Give the UTC offset at each instant, in seconds.

    ``zoneinfo`` is asked once for each distinct day, and for each instant on a day on which the
    offset changes.  Arrow is not asked, for it knows no summer time after 2037: pyarrow 26.0.1
    ignores the rule that ends a TZif file (RFC 8536, section 3.3).
    """
    zone = time_zone(kind.tz)

    def at(second: int) -> int:
        instant = _EPOCH + timedelta(seconds=second)
        return round((instant.astimezone(zone).replace(tzinfo=UTC) - instant).total_seconds())

    days = pa.array(seconds // _DAY).dictionary_encode()
    ends = np.array(
        [(at(day * _DAY), at(day * _DAY + _DAY - 1)) for day in days.dictionary.to_pylist()]
    )[days.indices.to_numpy()]
    shift: npt.NDArray[np.int64] = ends[:, 0]
    for i in np.flatnonzero(ends[:, 0] != ends[:, 1]):
        shift[i] = at(int(seconds[i]))
    return shift


def _day_text(day: int) -> str:
    text = str(np.datetime64(day, "D"))
    return "-" + text[1:].zfill(10) if text[0] == "-" else text.zfill(10)


def _far_instant(per_second: int, offset: str, count: int) -> str:
    seconds, fraction = divmod(count, per_second)
    day, second = divmod(seconds, _DAY)
    tail = f".{fraction + per_second}".replace(".1", ".", 1).rstrip("0") if fraction else ""
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f'"{_day_text(day)}T{clock}{tail}{offset}"'


def _decimal_texts(array: pa.Array) -> pa.StringArray:
    digits = array.cast(_TEXT)
    # Arrow writes "<scale out of range ...>" where the scale is too large for the width.
    if pc.any(pc.starts_with(digits, "<")).as_py():
        digits = _masked(pa.array(map(str, _decimals(array)), _TEXT), array)
    return _joined('"', digits, '"')


def _decimals(array: pa.Array) -> Iterator[Decimal]:
    """Read decimals from their bytes, for pyarrow 26.0.1 reads them from Arrow's text."""
    width, scale = array.type.bit_width // 8, array.type.scale
    raw = array.buffers()[1].to_pybytes()
    for start in range(array.offset * width, (array.offset + len(array)) * width, width):
        units = int.from_bytes(raw[start : start + width], "little", signed=True)
        digits = tuple(map(int, str(abs(units))))
        yield Decimal((int(units < 0), digits, -scale))


def _base64_texts(array: pa.Array) -> pa.StringArray:
    return _each(
        array.cast(pa.large_binary()),
        lambda value: f'"{b2a_base64(value, newline=False).decode()}"',
    )


def _uuid_texts(array: pa.Array) -> pa.StringArray:
    storage, count = array.storage, len(array)
    digits = storage.buffers()[1][storage.offset * 16 :][: count * 16].to_pybytes().hex().encode()
    text = np.tile(np.frombuffer(_UUID, np.uint8), (count, 1))
    text[:, _HEX_AT] = np.frombuffer(digits, np.uint8).reshape(count, 32)
    starts = np.arange(count + 1, dtype=np.int32) * np.int32(len(_UUID))
    return _masked(
        pa.StringArray.from_buffers(count, pa.py_buffer(starts), pa.py_buffer(text)), array
    )


def _struct_texts(array: pa.StructArray) -> pa.StringArray:
    names = unique_names([field.name for field in array.type])
    fields = sorted((name, index) for index, name in enumerate(names))
    texts = [pa.repeat("{", len(array))]
    for name, index in fields:
        comma = "," if len(texts) > 1 else ""
        texts += [comma + _quote(name) + ":", pc.fill_null(_texts(array.field(index)), "null")]
    return _masked(_joined(*texts, "}"), array)


def _list_texts(array: pa.Array) -> pa.StringArray:
    # Only lists of fixed size have no offsets.
    size = getattr(array.type, "list_size", None)
    starts = (
        np.asarray(array.offsets).astype(np.int64)
        if size is None
        else (np.arange(len(array) + 1) + array.offset) * size
    )
    values = array.values.slice(starts[0], starts[-1] - starts[0])
    if kinds.is_map(array.type):
        texts = _joined(
            "[", _texts(values.field(0)), ",", pc.fill_null(_texts(values.field(1)), "null"), "]"
        )
    else:
        texts = _texts(values)
    return _masked(_joined_lists(texts, starts - starts[0]), array)


def _view_texts(array: pa.Array) -> pa.StringArray:
    # A view is not cast to a list, for pyarrow 26.0.1 loses values then.
    sizes = np.where(array.is_valid(), array.sizes, 0).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    indices = np.repeat(array.offsets.to_numpy() - starts[:-1], sizes) + np.arange(starts[-1])
    return _masked(_joined_lists(_texts(array.values).take(pa.array(indices)), starts), array)


def _joined_lists(texts: pa.StringArray, starts: npt.NDArray[np.int64]) -> pa.StringArray:
    """Join the texts of items to JSON arrays; list i begins at item ``starts[i]``."""
    lists = pa.LargeListArray.from_arrays(pa.array(starts), pc.fill_null(texts, "null"))
    return _joined("[", pc.binary_join(lists, ","), "]")


def _run_texts(array: pa.RunEndEncodedArray, quoted: bool) -> pa.StringArray:
    rows = np.arange(len(array)) + array.offset
    runs = np.searchsorted(array.run_ends.to_numpy(), rows, "right")
    return _texts(array.values, quoted).take(pa.array(runs))


def _union_texts(array: pa.UnionArray, quoted: bool) -> pa.StringArray:
    # The type codes and offsets of a slice are those of the whole array in pyarrow 26.0.1.
    rows = slice(array.offset, array.offset + len(array))
    members = [_texts(array.field(index), quoted) for index in range(array.type.num_fields)]
    # Type codes are 0 to 127.
    starts = np.zeros(128, np.int64)
    starts[array.type.type_codes] = np.cumsum([0, *map(len, members)])[:-1]
    codes = np.frombuffer(array.buffers()[1], np.int8)[rows]
    is_dense = array.type.mode == "dense"
    positions = (
        np.frombuffer(array.buffers()[2], np.int32)[rows] if is_dense else np.arange(len(array))
    )
    return pa.concat_arrays(members).take(pa.array(starts[codes] + positions))


_Tests = tuple[Callable[[pa.DataType], bool], ...]
_WRITERS: tuple[tuple[_Tests, Callable[[pa.Array], pa.StringArray]], ...] = (
    ((kinds.is_null, kinds.is_boolean, kinds.is_integer), lambda array: array.cast(_TEXT)),
    ((kinds.is_float64,), partial(_float_texts, write=_double_text)),
    ((kinds.is_float32,), partial(_float_texts, write=partial(_narrow_text, np.float32))),
    (
        (kinds.is_float16,),
        lambda array: _each(array.cast(pa.float32()), partial(_narrow_text, np.float16)),
    ),
    ((kinds.is_date,), _date_texts),
    ((kinds.is_time,), _time_texts),
    ((kinds.is_timestamp,), _timestamp_texts),
    ((kinds.is_duration,), lambda array: array.view(pa.int64()).cast(_TEXT)),
    (
        (kinds.is_interval,),
        lambda array: pa.array(
            [value and "[{},{},{}]".format(*value) for value in array.to_pylist()], _TEXT
        ),
    ),
    ((kinds.is_decimal,), _decimal_texts),
    (
        (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary),
        _base64_texts,
    ),
    ((lambda kind: isinstance(kind, pa.UuidType),), _uuid_texts),
    ((kinds.is_struct,), _struct_texts),
    ((kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list, kinds.is_map), _list_texts),
    ((kinds.is_list_view, kinds.is_large_list_view), _view_texts),
)
_WRAPPERS: tuple[tuple[_Tests, Callable[[pa.Array, bool], pa.StringArray]], ...] = (
    (
        (kinds.is_string, kinds.is_large_string, kinds.is_string_view),
        lambda array, quoted: (_quoted_texts if quoted else pa.array)(array.cast(_TEXT)),
    ),
    (
        (kinds.is_dictionary,),
        lambda array, quoted: _texts(array.dictionary, quoted).take(array.indices),
    ),
    ((kinds.is_run_end_encoded,), _run_texts),
    ((kinds.is_union,), _union_texts),
    (
        (lambda kind: isinstance(kind, pa.BaseExtensionType),),
        lambda array, quoted: _texts(array.storage, quoted),
    ),
)
