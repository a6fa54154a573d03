"""Columns of COPY's binary form, decoded to Arrow without a loss.

A value that Arrow's type cannot hold (an infinite date, a decimal that is NaN, 24:00, an array of
two dimensions) makes its column of that batch a variant, in which each value carries its type.

Source: PostgreSQL, src/backend/utils/adt (``*_send``); pgvector, src (``*_send``)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.formats.jsontext import InexactJson, parse_json
from cfray.records import values
from cfray.records.record import MISSING, VARIANT, Typed, variant_array
from cfray.records.types import SPARSE
from cfray.sources.postgres.arrays import decode_array
from cfray.sources.postgres.cells import BadCopyError, Cells
from cfray.sources.postgres.numerics import numeric_text
from cfray.sources.postgres.types import Column

#: PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.
_EPOCH_DAYS, _EPOCH_MICROSECONDS = 10_957, 946_684_800_000_000
_DAY_MICROSECONDS = 86_400_000_000
#: The greatest and the least number stand for the infinities.
_INT4, _INT8 = np.iinfo(np.int32), np.iinfo(np.int64)
#: Texts of JSON that may hold a number with more digits than a float64 keeps, or the integer -0.
_UNUSUAL_NUMBER = re.compile(rb"[0-9.]{16}|-0(?![.0-9eE])")
_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)')


def decode_column(cells: Cells, column: Column) -> pa.Array:
    """Decode the values of a column; of type ``column.arrow`` or ``VARIANT``.

    Raises:
        BadCopyError: the bytes are not what COPY writes for this type.
    """
    if column.decoder.endswith("[]"):
        item = column.arrow.value_type
        decode = _DECODERS[column.decoder[:-2]]
        return decode_array(cells, column, lambda items: decode(items, item))
    if column.decoder in _VARIANTS:
        return _VARIANTS[column.decoder](cells, column)
    return _DECODERS[column.decoder](cells, column.arrow)


def _decode_number(cells: Cells, arrow: pa.DataType) -> pa.Array:
    kind = np.dtype(arrow.to_pandas_dtype()).newbyteorder(">").str
    return pa.array(cells.fixed(kind), arrow, mask=_null(cells))


def _null(cells: Cells) -> npt.NDArray[np.bool_] | None:
    valid = cells.valid
    return None if valid.all() else ~valid


def _decode_bool(cells: Cells, arrow: pa.DataType) -> pa.Array:
    return pa.array(cells.fixed("u1") != 0, arrow, mask=_null(cells))


def _decode_text(cells: Cells, _arrow: pa.DataType) -> pa.Array:
    return _as_text(cells.binary())


def _as_text(binary: pa.BinaryArray) -> pa.StringArray:
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())


def _decode_bytea(cells: Cells, _arrow: pa.DataType) -> pa.Array:
    return cells.binary()


def _decode_uuid(cells: Cells, _arrow: pa.DataType) -> pa.Array:
    if (cells.lengths[cells.valid] != 16).any():
        raise BadCopyError("a uuid is not of 16 bytes")
    storage = cells.binary().cast(pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _decode_date(cells: Cells, arrow: pa.DataType) -> pa.Array:
    days = cells.fixed(">i4")
    infinite = ((days == _INT4.max) | (days == _INT4.min)) & cells.valid
    finite = np.where(infinite, 0, days).astype(np.int64) + _EPOCH_DAYS
    dates = pa.array(finite.astype(np.int32), pa.int32(), mask=_null(cells)).cast(arrow)
    return _with_infinities(dates, infinite, days > 0)


def _decode_timestamp(cells: Cells, arrow: pa.DataType) -> pa.Array:
    counts = cells.fixed(">i8")
    infinite = ((counts == _INT8.max) | (counts == _INT8.min)) & cells.valid
    finite = np.where(infinite, 0, counts)
    if (finite > _INT8.max - _EPOCH_MICROSECONDS).any():
        raise BadCopyError("an instant behind the year 294246 is beyond Arrow's range")
    finite = np.where(cells.valid, finite + _EPOCH_MICROSECONDS, 0)
    instants = pa.array(finite, pa.int64(), mask=_null(cells)).cast(arrow)
    return _with_infinities(instants, infinite, counts > 0)


def _decode_time(cells: Cells, arrow: pa.DataType) -> pa.Array:
    counts = cells.fixed(">i8")
    midnight = (counts == _DAY_MICROSECONDS) & cells.valid
    times = pa.array(np.where(midnight, 0, counts), pa.int64(), mask=_null(cells)).cast(arrow)
    return with_words(times, midnight, pa.repeat(pa.scalar("24:00:00"), len(counts)))


def _with_infinities(
    column: pa.Array, infinite: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_]
) -> pa.Array:
    return with_words(column, infinite, pc.if_else(pa.array(positive), "infinity", "-infinity"))


def with_words(column: pa.Array, rows: npt.NDArray[np.bool_], words: pa.Array) -> pa.Array:
    """Put words in the place of values in some rows; such a column is a variant."""
    if not rows.any():
        return column
    mask = pa.array(rows)
    kinds = pc.if_else(mask, "string", values.type_name(column.type))
    texts = pc.if_else(mask, words, values.json_texts(column))
    return make_variants(kinds, texts, pc.and_(column.is_null(), pc.invert(mask)))


def make_variants(kinds: pa.Array, texts: pa.Array, mask: pa.Array) -> pa.StructArray:
    """Make a variant column of names of types and canonical texts; null where ``mask`` is true."""
    null = pa.scalar(None, pa.string())
    children = [
        pc.if_else(mask, null, kinds),
        pc.if_else(mask, null, texts),
        pa.nulls(len(kinds), VARIANT.field(2).type),
    ]
    return pa.StructArray.from_arrays(children, fields=list(VARIANT), mask=mask)


def _decode_decimal(cells: Cells, arrow: pa.DataType) -> pa.Array:
    return cast_decimals(_as_text(cells.binary()), arrow)


def cast_decimals(texts: pa.StringArray, arrow: pa.DataType) -> pa.Array:
    """Make decimals of their texts; where one is NaN, a variant."""
    special = pc.match_substring_regex(texts, "[A-Za-z]").fill_null(False)
    rows = special.to_numpy(zero_copy_only=False)
    numbers = pc.if_else(special, pa.scalar(None, pa.string()), texts) if rows.any() else texts
    decimals = numbers.cast(arrow)
    if not rows.any():
        return decimals
    kinds = pc.if_else(special, "string", values.type_name(arrow))
    column_texts = pc.if_else(special, texts, values.json_texts(decimals))
    return make_variants(kinds, column_texts, texts.is_null())


def _decode_vector(cells: Cells, arrow: pa.DataType) -> pa.Array:
    """Decode dense vectors: two int16, the first the number of floats, then the floats."""
    number = arrow.value_type
    kind = np.dtype(number.to_pandas_dtype()).newbyteorder(">")
    counts = (cells.lengths[cells.valid] - 4) // kind.itemsize
    if (cells.numbers(">i2") != counts).any():
        raise BadCopyError("a vector does not have as many numbers as it says")
    floats = cells.inner(4).joined().view(kind).astype(kind.newbyteorder("="))
    width = getattr(arrow, "list_size", None)
    if width is None:
        offsets = np.zeros(len(cells.lengths) + 1, np.int32)
        sizes = np.zeros(len(cells.lengths), np.int64)
        sizes[cells.valid] = counts
        np.cumsum(sizes, out=offsets[1:])
        return pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(floats, number), type=arrow, mask=cells.mask
        )
    if (counts != width).any():
        raise BadCopyError(f"a vector does not have {width} numbers")
    return _fixed_lists(floats, cells, arrow)


def _fixed_lists(numbers: npt.NDArray[np.generic], cells: Cells, arrow: pa.DataType) -> pa.Array:
    """Make fixed-size lists of the numbers of all values that are not null."""
    if not cells.valid.all():
        matrix = np.zeros((len(cells.lengths), arrow.list_size), numbers.dtype)
        matrix[cells.valid] = numbers.reshape(-1, arrow.list_size)
        numbers = matrix.reshape(-1)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers, arrow.value_type), type=arrow, mask=cells.mask
    )


def _decode_sparsevec(cells: Cells, _arrow: pa.DataType) -> pa.Array:
    """Decode sparse vectors: three int32 (width, count, 0), the indices from 0, the floats."""
    counts = np.zeros(len(cells.lengths), np.int64)
    counts[cells.valid] = cells.numbers(">i4", 4)
    if (cells.lengths[cells.valid] != 12 + 8 * counts[cells.valid]).any():
        raise BadCopyError("a sparse vector does not have as many numbers as it says")
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    indices = cells.inner(12, 4 * counts).joined().view(">i4").astype(np.uint32)
    values_at = Cells(cells.block, cells.starts + 12 + 4 * counts, cells.lengths)
    floats = values_at.inner(0, 4 * counts).joined().view(">f4").astype(np.float32)
    children = [
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(indices)),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(floats)),
    ]
    return pa.StructArray.from_arrays(children, fields=list(SPARSE), mask=cells.mask)


def _decode_bits(cells: Cells, arrow: pa.DataType) -> pa.Array:
    """Decode bits as bytes: an int32, the number of bits, then the bytes."""
    if (cells.lengths[cells.valid] != 4 + arrow.list_size).any():
        raise BadCopyError(f"a binary vector does not have {8 * arrow.list_size} bits")
    return _fixed_lists(cells.inner(4).joined(), cells, arrow)


def _decode_jsonb(cells: Cells, column: Column) -> pa.Array:
    """Decode jsonb: a byte, the version of its form, then JSON."""
    if (cells.numbers("u1") != 1).any():
        raise BadCopyError("a jsonb has another version than 1")
    return _variants(cells.inner(1), partial(json_value, kind=column.type))


def _decode_json(cells: Cells, column: Column) -> pa.Array:
    return _variants(cells, partial(json_value, kind=column.type))


def _decode_others(cells: Cells, column: Column) -> pa.Array:
    """Decode an array of texts that stand for values of another type."""
    return _variants(cells, lambda text: Typed(column.type, parse_json(text)))


def _variants(cells: Cells, parse: Callable[[bytes], object]) -> pa.Array:
    texts = cells.binary().to_pylist()
    return variant_array([MISSING if text is None else parse(text) for text in texts])


def json_value(text: bytes, kind: str) -> object:
    """Parse JSON; what cannot be kept by parsing it stays a text, under the name of its type."""
    if _UNUSUAL_NUMBER.search(text) and not _has_exact_numbers(text):
        return Typed(kind, text.decode())
    try:
        return parse_json(text)
    except InexactJson:
        return Typed(kind, text.decode())


def _has_exact_numbers(text: bytes) -> bool:
    """Tell whether float64 keeps every number of a JSON text that is no integer; and none is -0."""
    for match in _NUMBER.finditer(text):
        number = (match[1] or b"").decode()
        if number == "-0":
            return False
        if ("." in number or "e" in number.lower()) and (
            Decimal(repr(float(number))) != Decimal(number)
        ):
            return False
    return True


def _decode_numeric(cells: Cells, column: Column) -> pa.Array:
    """Decode numerics of a file; a live read asks for their texts."""
    texts = pa.array(
        [None if value is None else numeric_text(value) for value in cells.binary().to_pylist()],
        pa.string(),
    )
    if not column.is_variant:
        return cast_decimals(texts, column.arrow)
    kinds = pa.repeat(pa.scalar(column.type), len(texts))
    return make_variants(kinds, values.json_texts(texts), texts.is_null())


def _decode_other(cells: Cells, column: Column) -> pa.Array:
    """Decode texts that stand for values of a type that Arrow lacks."""
    texts = _as_text(cells.binary())
    kinds = pa.repeat(pa.scalar(column.type), len(texts))
    return make_variants(kinds, values.json_texts(texts), texts.is_null())


_DECODERS: dict[str, Callable[..., pa.Array]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid", "float4", "float8"), _decode_number),
    "bool": _decode_bool,
    "text": _decode_text,
    "bytea": _decode_bytea,
    "uuid": _decode_uuid,
    "date": _decode_date,
    "time": _decode_time,
    "timestamp": _decode_timestamp,
    "decimal": _decode_decimal,
    "vector": _decode_vector,
    "halfvec": _decode_vector,
    "sparsevec": _decode_sparsevec,
    "bits": _decode_bits,
}
_VARIANTS: dict[str, Callable[[Cells, Column], pa.Array]] = {
    "json": _decode_json,
    "jsonb": _decode_jsonb,
    "numeric": _decode_numeric,
    "other": _decode_other,
    "others": _decode_others,
}
