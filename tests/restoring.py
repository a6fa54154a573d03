"""Give back the values of a source from its frames, as an export does; shares no line with cfray.

``read_type`` reads the name of a type back, ``read_value`` a text of custom_metadata, and
``plain_values`` says what an array holds, so that the two can be compared: instants, dates, times
and durations are counts, decimals ``Decimal``, floats their bits, maps lists of pairs.
"""

import base64
import datetime as dt
import decimal
import json
import math
import re
import struct
import uuid

import numpy as np
import pyarrow as pa

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400


class UnreadableTypeError(ValueError):
    """A type name that names no single type."""


# What an array holds.


def plain_values(array):  # noqa: PLR0911  # a branch a kind of type
    """Say what an array holds, by its buffers where pyarrow's own reading fails."""
    kind = array.type
    if isinstance(kind, pa.UuidType):
        blobs = array.storage.to_pylist()
        return [None if blob is None else str(uuid.UUID(bytes=blob)) for blob in blobs]
    if isinstance(kind, pa.BaseExtensionType):
        return plain_values(array.storage)
    if pa.types.is_dictionary(kind):
        shared = plain_values(array.dictionary)
        return [None if n is None else shared[n] for n in array.indices.to_pylist()]
    if pa.types.is_run_end_encoded(kind):
        shared, ends = plain_values(array.values), array.run_ends.to_pylist()
        rows = range(array.offset, array.offset + len(array))
        return [shared[next(n for n, end in enumerate(ends) if row < end)] for row in rows]
    if pa.types.is_union(kind):
        return plain_union(array)
    if pa.types.is_null(kind):
        return [None] * len(array)
    is_valid = [scalar.is_valid for scalar in array]
    return [
        value if valid else None
        for value, valid in zip(PLAIN[plain_kind(kind)](array), is_valid, strict=True)
    ]


def plain_union(array):
    codes = list(array.buffers()[1].to_pybytes())[array.offset : array.offset + len(array)]
    members = {
        code: plain_values(array.field(index)) for index, code in enumerate(array.type.type_codes)
    }
    if array.type.mode == "sparse":
        return [members[code][row] for row, code in enumerate(codes)]
    places = np.frombuffer(array.buffers()[2], np.int32)[array.offset :].tolist()
    return [members[code][place] for code, place in zip(codes, places, strict=False)]


def plain_kind(kind):
    tests = {
        "temporal": lambda kind: pa.types.is_temporal(kind) and not pa.types.is_interval(kind),
        "decimal": pa.types.is_decimal,
        "float": pa.types.is_floating,
        "struct": pa.types.is_struct,
        "map": pa.types.is_map,
        "list": pa.types.is_nested,
    }
    return next((name for name, test in tests.items() if test(kind)), "scalar")


def plain_counts(array):
    width = pa.int32() if array.type.bit_width == 32 else pa.int64()
    return [count or 0 for count in array.view(width).to_pylist()]


def plain_decimals(array):
    width, raw = array.type.bit_width // 8, array.buffers()[1].to_pybytes()
    return [
        exact_decimal(
            int.from_bytes(raw[row * width : (row + 1) * width], "little", signed=True),
            array.type.scale,
        )
        for row in range(array.offset, array.offset + len(array))
    ]


def exact_decimal(units, scale):
    return decimal.Decimal((int(units < 0), tuple(map(int, str(abs(units)))), -scale))


def plain_floats(array):
    return [None if value is None else bits(float(value)) for value in array.to_pylist()]


def bits(value):
    """Tell -0.0 from 0.0, and NaN from nothing else."""
    return "NaN" if math.isnan(value) else struct.pack("d", value)


def plain_structs(array):
    names = [field.name for field in array.type]
    children = [plain_values(array.field(index)) for index in range(len(names))]
    return [
        tuple(zip(names, (child[row] for child in children), strict=True))
        for row in range(len(array))
    ]


def plain_lists(array):
    return [plain_values(scalar.values) if scalar.is_valid else None for scalar in array]


def plain_maps(array):
    return [
        list(zip(*(plain_values(scalar.values.field(i)) for i in (0, 1)), strict=True))
        if scalar.is_valid
        else None
        for scalar in array
    ]


PLAIN = {
    "temporal": plain_counts,
    "decimal": plain_decimals,
    "float": plain_floats,
    "struct": plain_structs,
    "map": plain_maps,
    "list": plain_lists,
    "scalar": lambda array: array.to_pylist(),
}


# What a type name names.

FLAT = {
    str(kind): kind
    for kind in [
        *[pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()],
        *[pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()],
        *[pa.float16(), pa.float32(), pa.float64(), pa.date32(), pa.date64()],
        *[pa.string(), pa.large_string(), pa.string_view()],
        *[pa.binary(), pa.large_binary(), pa.binary_view(), pa.month_day_nano_interval()],
        *[pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")],
        *[pa.duration(unit) for unit in PER_SECOND],
    ]
} | {"uuid": pa.uuid(), "extension<arrow.json>": pa.json_(), "extension<arrow.bool8>": pa.bool8()}
DECIMALS = {
    "decimal32": pa.decimal32,
    "decimal64": pa.decimal64,
    "decimal128": pa.decimal128,
    "decimal256": pa.decimal256,
}
LISTS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
}


class TypeReader:
    """Reads the name of a type from left to right."""

    def __init__(self, name):
        self.rest = name

    def take(self, pattern):
        match = re.match(pattern, self.rest, re.DOTALL)
        if match is None:
            return None
        self.rest = self.rest[match.end() :]
        return match

    def must(self, pattern):
        match = self.take(pattern)
        if match is None:
            raise UnreadableTypeError(self.rest)
        return match

    def kind(self):
        for read in (self.nested, self.encoded, self.parametric, self.flat):
            kind = read()
            if kind is not None:
                return kind
        raise UnreadableTypeError(self.rest)

    def flat(self):
        names = [name for name in FLAT if self.rest.startswith(name)]
        if not names:
            return None
        name = max(names, key=len)
        self.rest = self.rest[len(name) :]
        return FLAT[name]

    def parametric(self):
        if match := self.take(r"timestamp\[(\w+)(?:, tz=([^\]]+))?\]"):
            return pa.timestamp(match[1], match[2])
        if match := self.take(r"(decimal\d+)\((\d+), (-?\d+)\)"):
            return DECIMALS[match[1]](int(match[2]), int(match[3]))
        if match := self.take(r"fixed_size_binary\[(\d+)\]"):
            return pa.binary(int(match[1]))
        return None

    def encoded(self):
        if self.take("dictionary<values="):
            values = self.kind()
            self.must(", indices=")
            index = self.kind()
            ordered = self.must(r", ordered=(\d)>")[1]
            return pa.dictionary(index, values, ordered=ordered == "1")
        if self.take("run_end_encoded<run_ends: "):
            ends = self.kind()
            self.must(", values: ")
            values = self.kind()
            self.must(">")
            return pa.run_end_encoded(ends, values)
        return None

    def nested(self):
        if match := self.take(r"(large_list_view|list_view|large_list|list)<"):
            item = self.field()
            self.must(">")
            return LISTS[match[1]](item)
        if self.take("fixed_size_list<"):
            item = self.field()
            return pa.list_(item, int(self.must(r">\[(\d+)\]")[1]))
        if self.take("map<"):
            keys = self.map_field("key", nullable=False)
            self.must(", ")
            values = self.map_field("value", nullable=True)
            is_sorted = self.take(", keys_sorted") is not None
            self.must(">")
            return pa.map_(keys, values, keys_sorted=is_sorted)
        if self.take("struct<"):
            fields = []
            while not self.take(">"):
                if fields:
                    self.must(", ")
                fields.append(self.field())
            return pa.struct(fields)
        return None

    def field(self):
        name = self.must(r"(.*?): ")[1]
        kind = self.kind()
        return pa.field(name, kind, self.take(" not null") is None)

    def map_field(self, name, *, nullable):
        kind = self.kind()
        is_nullable = nullable and self.take(" not null") is None
        named = self.take(r" \('(.*?)'\)")
        return pa.field(named[1] if named else name, kind, is_nullable)


def read_type(name):
    reader = TypeReader(name)
    kind = reader.kind()
    if reader.rest:
        raise UnreadableTypeError(name)
    return kind


# What a text of custom_metadata holds.


def read_value(kind, text):
    """Read a text of custom_metadata as a value of a type."""
    if text is None:
        return None
    bare = kind
    while True:
        if pa.types.is_dictionary(bare) or pa.types.is_run_end_encoded(bare):
            bare = bare.value_type
        elif isinstance(bare, pa.JsonType):
            bare = bare.storage_type
        else:
            break
    if pa.types.is_string(bare) or pa.types.is_large_string(bare) or pa.types.is_string_view(bare):
        return text
    return from_json(kind, json.loads(text, parse_float=Number, parse_constant=Number))


class Number(str):
    """The text of a number that is no integer."""

    __slots__ = ()


def from_json(kind, value):  # noqa: PLR0911  # a branch a kind of type
    if value is None:
        return None
    if isinstance(kind, pa.UuidType):
        return str(uuid.UUID(value))
    if isinstance(kind, pa.BaseExtensionType):
        return from_json(kind.storage_type, value)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return from_json(kind.value_type, value)
    if pa.types.is_floating(kind):
        widths = {16: np.float16, 32: np.float32, 64: np.float64}
        return bits(float(widths[kind.bit_width](float(value))))
    if pa.types.is_decimal(kind):
        read = decimal.Decimal(value)
        return exact_decimal(int(read.scaleb(kind.scale, decimal.Context(prec=100))), kind.scale)
    if pa.types.is_interval(kind):
        return pa.MonthDayNano(value)
    if pa.types.is_temporal(kind):
        return temporal(kind, value)
    if binary(kind):
        return base64.b64decode(value)
    if pa.types.is_struct(kind):
        assert set(value) == {field.name for field in kind}
        return tuple((field.name, from_json(field.type, value[field.name])) for field in kind)
    if pa.types.is_map(kind):
        return [
            (from_json(kind.key_type, key), from_json(kind.item_type, item)) for key, item in value
        ]
    if pa.types.is_nested(kind):
        return [from_json(kind.value_type, item) for item in value]
    return value


def binary(kind):
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def temporal(kind, value):
    if pa.types.is_duration(kind) or type(value) is int:
        return value  # a time of day outside the day is a bare count, too
    if pa.types.is_time(kind):
        return clock(value, PER_SECOND[kind.unit])
    day, _, time = value.partition("T")
    days = day_number(day)
    if pa.types.is_date32(kind):
        assert not time
        return days
    per_second = PER_SECOND["ms" if pa.types.is_date64(kind) else kind.unit]
    time, offset = re.fullmatch(r"([^+-]*)(.*)", time).groups()
    seconds = 0
    if offset:
        sign = -1 if offset[0] == "-" else 1
        hours, minutes, *rest = map(int, offset[1:].split(":"))
        seconds = sign * (hours * 3600 + minutes * 60 + sum(rest))
    count = days * DAY * per_second + (clock(time, per_second) if time else 0)
    return count - seconds * per_second


def clock(text, per_second):
    hours, minutes, seconds = text.split(":")
    whole, _, fraction = seconds.partition(".")
    total = int(hours) * 3600 + int(minutes) * 60 + int(whole)
    return total * per_second + (
        int(fraction) * per_second // 10 ** len(fraction) if fraction else 0
    )


def day_number(text):
    """Count the days from 1970-01-01 to a day of any year (proleptic Gregorian calendar)."""
    sign = -1 if text.startswith("-") else 1
    year, month, day = text.lstrip("-").split("-")
    year = sign * int(year)
    cycles, within = divmod(year - 2000, 400)
    return dt.date(2000 + within, int(month), int(day)).toordinal() - 719_163 + cycles * 146_097


# What a frame holds.


def read_frames(frames):
    """List the records of frames: (custom_metadata without cfray.types, types of the row)."""
    records = []
    for entries in frames.column("custom_metadata").to_pylist():
        texts = {entry["key"]: entry["value"] for entry in entries}
        assert len(texts) == len(entries), "a key stands twice in custom_metadata"
        records.append((texts, json.loads(texts.pop("cfray.types", "{}"))))
    return records


def path_of(key, rules=()):
    """Find the field that a key of custom_metadata stands for.

    Args:
        key: of custom_metadata or of ``cfray.types``.
        rules: the paths that the job's rules name.
    """
    entered = {path[:depth] for path in rules for depth in range(1, len(path))}
    root = re.sub(r"^(source\.)+", "", key)
    wanted = key[: len(key) - len(root)].count("source.")
    number = 0
    for level in range(wanted + 1):
        name = "source." * level + root
        reserved = name.rpartition("source.")[2] in ("original_id", "cfray.types")
        number = max(number, level + reserved)
        fields = sorted(splits((), name.split("."), entered), key=lambda path: (-len(path), path))
        flat = [path for path in fields[1:] if len(path) == 1]
        for path in [fields[0], *flat, *(path for path in fields[1:] if len(path) > 1)]:
            if number == wanted:
                return path
            number += 1
    raise AssertionError(key)


def splits(parent, words, entered):
    """List the paths of a dotted name whose parents a rule leads into."""
    found = {(*parent, ".".join(words))}
    for count in range(1, len(words)):
        child = (*parent, ".".join(words[:count]))
        if child in entered:
            found |= set(splits(child, words[count:], entered))
    return found


def restored_fields(texts, row_types, types, rules, without=()):
    """Restore a record of a source with a fixed schema: path -> value; nothing stands for null.

    ``without`` names the columns that are not restored exactly.
    """
    fields = {}
    for key, text in texts.items():
        if key == "original_id" or (path := path_of(key, rules))[0] in without:
            continue
        name = row_types.get(key, types.get(key))
        fields[path] = read_value(read_type(name), text)
    return {path: value for path, value in fields.items() if value is not None}


def unnumbered(values):
    """Write values with the names that fields of one struct share as the source has them."""
    return re.sub(r"#\d+(?=',)", "", repr(values))
