"""Arrays of every type that pyarrow can make: nested, sliced, with nulls at every depth.

``make_type`` makes a type, ``make_array`` fills it: the ends of each range are among the values, null
lists hide values, list views overlap, dictionaries hold values that no row uses.
"""

import random
import struct
import uuid

import numpy as np
import pyarrow as pa

#: Milliseconds.
DAY = 86_400_000
UNITS = ("s", "ms", "us", "ns")
ZONES = (None, "UTC", "+02:00", "-00:30", "Europe/Berlin", "Asia/Kolkata")

LEAVES = [
    *[pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()],
    *[pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()],
    *[pa.float16(), pa.float32(), pa.float64()],
    *[pa.string(), pa.large_string(), pa.string_view()],
    *[pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3), pa.binary(0)],
    *[pa.decimal32(9, 2), pa.decimal64(18, 18), pa.decimal128(38, 5), pa.decimal256(76, -3)],
    *[pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")],
    *[pa.timestamp(unit, zone) for unit in UNITS for zone in ZONES],
    *[pa.duration(unit) for unit in UNITS],
    pa.month_day_nano_interval(),
    *[pa.uuid(), pa.json_(), pa.bool8(), pa.opaque(pa.int64(), "geometry", "somebody")],
    pa.fixed_shape_tensor(pa.float32(), [2, 1]),
]
ITEM_NAMES = ["item", "element", ""]
NAMES = ["a", "b", "a.b", "", ".", "value", "original_id", "cfray.types", "ä: ", "é"]
MAP_KEYS = [pa.string(), pa.int32(), pa.string_view(), pa.binary(2), pa.date32(), pa.uuid()]


def make_type(seed, depth=3):
    """Make a type with at most ``depth`` levels of nesting; the same seed gives the same type."""
    return _type(random.Random(seed), depth)


def _type(draw, depth):
    shape = draw.choice([*SHAPES, *["leaf"] * 4]) if depth else "leaf"
    if shape == "leaf":
        return draw.choice(LEAVES)
    if shape == "struct":
        return pa.struct([_field(draw, depth, NAMES) for _ in range(draw.randint(0, 3))])
    return SHAPES[shape](draw, depth)


def _field(draw, depth, names=ITEM_NAMES):
    kind = _type(draw, depth - 1)
    nullable = draw.random() > 0.5 or pa.types.is_null(kind)
    return pa.field(draw.choice(names), kind, nullable)


def _members(draw, depth):
    kinds = [_type(draw, depth - 1) for _ in range(draw.randint(1, 3))]
    return [pa.field(f"m{number}", kind) for number, kind in enumerate(kinds)]


SHAPES = {
    "struct": None,
    "list": lambda draw, depth: pa.list_(_field(draw, depth)),
    "large_list": lambda draw, depth: pa.large_list(_field(draw, depth)),
    "list_view": lambda draw, depth: pa.list_view(_field(draw, depth)),
    "large_list_view": lambda draw, depth: pa.large_list_view(_field(draw, depth)),
    "fixed": lambda draw, depth: pa.list_(_field(draw, depth), draw.randint(0, 3)),
    "map": lambda draw, depth: pa.map_(
        draw.choice(MAP_KEYS), _field(draw, depth), keys_sorted=draw.random() > 0.5
    ),
    "dictionary": lambda draw, depth: pa.dictionary(
        draw.choice([pa.int8(), pa.uint32(), pa.int64()]),
        _type(draw, depth - 1),
        ordered=draw.random() > 0.5,
    ),
    "runs": lambda draw, depth: pa.run_end_encoded(
        draw.choice([pa.int16(), pa.int32(), pa.int64()]), _type(draw, depth - 1)
    ),
    "dense": lambda draw, depth: pa.dense_union(_members(draw, depth)),
    "sparse": lambda draw, depth: pa.sparse_union(_members(draw, depth)),
}

TEXTS = ["", "a", "null", '"quoted"', "[1]", "ü\n", "x" * 20, "\u0000", "2024-02-03", "\U0001d4b3"]
#: Units that fit into the number of digits of each decimal type.
DIGITS = {32: 10**9 - 1, 64: 10**18 - 1, 128: 10**38 - 1, 256: 10**76 - 1}


def make_array(kind, count, seed):
    """Fill an array of a type; the same seed gives the same array."""
    return _make(kind, count, random.Random(seed))


def _valid(count, draw):
    return [draw.random() > 0.25 for _ in range(count)]


def _mask(count, draw):
    return pa.array([not valid for valid in _valid(count, draw)], pa.bool_())


def _make(kind, count, draw):  # noqa: PLR0911  # a branch a kind of type
    if pa.types.is_null(kind):
        return pa.nulls(count)
    if isinstance(kind, pa.BaseExtensionType):
        storage = _make(kind.storage_type, count, draw)
        return pa.ExtensionArray.from_storage(kind, storage)
    if pa.types.is_dictionary(kind):
        shared = _make(kind.value_type, draw.randint(1, 4), draw)
        places = [draw.randrange(len(shared)) if valid else None for valid in _valid(count, draw)]
        return pa.DictionaryArray.from_arrays(
            pa.array(places, kind.index_type), shared, ordered=kind.ordered
        )
    if pa.types.is_run_end_encoded(kind):
        ends = sorted({draw.randint(1, count) for _ in range(3)} | {count}) if count else []
        values = _make(kind.value_type, len(ends), draw)
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, kind.run_end_type), values, kind)
    if pa.types.is_union(kind):
        return _union(kind, count, draw)
    if pa.types.is_nested(kind):
        return _nested(kind, count, draw)
    return _leaf(kind, count, draw)


def _union(kind, count, draw):
    members = [field.type for field in (kind.field(i) for i in range(kind.num_fields))]
    names = [kind.field(i).name for i in range(kind.num_fields)]
    codes = [draw.choice(kind.type_codes) for _ in range(count)]
    options = {"field_names": names, "type_codes": kind.type_codes}
    if kind.mode == "sparse":
        children = [_make(member, count, draw) for member in members]
        return pa.UnionArray.from_sparse(pa.array(codes, pa.int8()), children, **options)
    children = [_make(member, count, draw) for member in members]
    places = pa.array([codes[:row].count(code) for row, code in enumerate(codes)], pa.int32())
    return pa.UnionArray.from_dense(pa.array(codes, pa.int8()), places, children, **options)


def _nested(kind, count, draw):  # noqa: PLR0911  # a branch a kind of type
    mask = _mask(count, draw)
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        if not fields:
            return pa.array([None if null else {} for null in mask.to_pylist()], kind)
        children = [_make(field.type, count, draw) for field in fields]
        return pa.StructArray.from_arrays(children, fields=fields, mask=mask)
    if pa.types.is_fixed_size_list(kind):
        items = _make(kind.value_type, count * kind.list_size, draw)
        if kind.list_size:
            return pa.FixedSizeListArray.from_arrays(items, type=kind, mask=mask)
        validity = pa.array([not null for null in mask.to_pylist()], pa.bool_()).buffers()[1]
        return pa.Array.from_buffers(kind, count, [validity], children=[items])
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        items = _make(kind.value_type, 6, draw)
        starts = [draw.randint(0, 6) for _ in range(count)]
        sizes = [draw.randint(0, 6 - start) for start in starts]
        width = pa.int32() if pa.types.is_list_view(kind) else pa.int64()
        make = pa.ListViewArray if pa.types.is_list_view(kind) else pa.LargeListViewArray
        return make.from_arrays(
            pa.array(starts, width), pa.array(sizes, width), items, type=kind, mask=mask
        )
    sizes = [draw.randint(0, 3) for _ in range(count)]
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if pa.types.is_map(kind):
        keys = _make(kind.key_type, int(ends[-1]), NeverNull(draw))
        items = _make(kind.item_type, int(ends[-1]), draw)
        return pa.MapArray.from_arrays(
            pa.array(ends, pa.int32()), keys, items, type=kind, mask=mask
        )
    is_large = pa.types.is_large_list(kind)
    items = _make(kind.value_type, int(ends[-1]), draw)
    make = pa.LargeListArray if is_large else pa.ListArray
    offsets = pa.array(ends, pa.int64() if is_large else pa.int32())
    return make.from_arrays(offsets, items, type=kind, mask=mask)


class NeverNull:
    """Draws as another does, but no nulls: the keys of a map have none."""

    def __init__(self, draw):
        self.draw = draw

    def random(self):
        return 1.0

    def __getattr__(self, name):
        return getattr(self.draw, name)


def _leaf(kind, count, draw):
    values = [_leaf_value(kind, draw) if valid else None for valid in _valid(count, draw)]
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.array(values, kind)
    if pa.types.is_floating(kind):
        width = {16: np.float16, 32: np.float32, 64: np.float64}[kind.bit_width]
        numbers = np.array([0.0 if value is None else value for value in values], width)
        return pa.array(numbers, kind, mask=np.array([value is None for value in values], bool))
    if pa.types.is_decimal(kind):
        raw = b"".join(
            (value or 0).to_bytes(kind.bit_width // 8, "little", signed=True) for value in values
        )
        validity = pa.array([value is not None for value in values], pa.bool_()).buffers()[1]
        return pa.Array.from_buffers(kind, count, [validity, pa.py_buffer(raw)])
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    return pa.array(values, kind)


def _leaf_value(kind, draw):  # noqa: PLR0911  # a branch a kind of type
    if pa.types.is_boolean(kind):
        return draw.random() > 0.5
    if pa.types.is_floating(kind):
        return _float(kind.bit_width, draw)
    if pa.types.is_decimal(kind):
        top = DIGITS[kind.bit_width]
        return draw.choice([0, 1, -1, top, -top, draw.randint(-top, top)])
    if pa.types.is_interval(kind):
        return pa.MonthDayNano([_integer(32, draw), _integer(32, draw), _integer(64, draw)])
    if pa.types.is_time(kind):
        day = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return draw.choice([0, 1, day - 1, draw.randrange(day)])
    if pa.types.is_date64(kind):
        return DAY * draw.choice(
            [0, 1, -1, 2**63 // DAY - 1, -(2**63 // DAY), draw.randint(-(9**9), 9**9)]
        )
    if pa.types.is_temporal(kind):
        near = draw.randint(-(2**kind.bit_width // 8), 2**kind.bit_width // 8)
        return draw.choice([near, _integer(kind.bit_width, draw)])
    if pa.types.is_integer(kind):
        if pa.types.is_unsigned_integer(kind):
            return draw.choice([0, 1, 2**kind.bit_width - 1, draw.getrandbits(kind.bit_width)])
        return _integer(kind.bit_width, draw)
    if pa.types.is_fixed_size_binary(kind):
        return draw.randbytes(kind.byte_width)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return draw.choice(TEXTS)
    return draw.choice([b"", b"\x00\xff", draw.randbytes(15)])


def _integer(width, draw):
    top = 2 ** (width - 1)
    return draw.choice([0, 1, -1, top - 1, -top, draw.randrange(-top, top)])


def _float(width, draw):
    code = {16: "e", 32: "f", 64: "d"}[width]
    drawn = struct.unpack(code, draw.randbytes(width // 8))[0]
    return draw.choice([0.0, -0.0, 1.0, 0.1, float("nan"), float("inf"), float("-inf"), drawn])


def unique_ids(count):
    return pa.array([str(uuid.UUID(int=number)) for number in range(count)])
