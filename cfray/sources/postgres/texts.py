"""Values as texts, as COPY writes them to a file, made into the columns that a live read gives.

What a type of Arrow cannot hold becomes a variant, as in a live read.  Three types come as texts
here that a live read opens: composites, the fields of which a file does not name, dates before
the common era, and intervals, which a file writes in its own style.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.records import values
from cfray.records.record import MISSING, Typed, variant_array
from cfray.records.types import SPARSE
from cfray.sources.postgres.decode import cast_decimals, json_value, make_variants, with_words
from cfray.sources.postgres.types import Column

#: Types of PostgreSQL and PostGIS whose arrays are not separated by commas.
_DELIMITERS = {"box": ";", "geometry": ":", "geography": ":"}
#: An element of an array's text: quoted, a nested array's brace, a delimiter, or bare.
_ARRAY_TOKENS = {
    delimiter: re.compile(
        rf'"((?:[^"\\]|\\.)*)"|([{{}}{delimiter}])|((?:[^{{}}{delimiter}"\\]|\\.)+)', re.DOTALL
    )
    for delimiter in (",", *_DELIMITERS.values())
}
_BOUNDS = re.compile(r"(?:\[-?\d+:-?\d+\])+=")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class BadTextError(ValueError):
    """A text is not of the type that its column has."""


def cast_texts(texts: pa.StringArray, column: Column) -> pa.Array:
    """Make the values of a column from their texts.

    Args:
        texts: a text for each value; null for null.
        column: what the values are.

    Raises:
        BadTextError: a text is not of the column's type.
    """
    try:
        return _cast(texts, column)
    except ValueError as error:
        raise BadTextError(
            f"column {column.name} is not {column.type} throughout: {str(error)[:200]}"
        ) from None


def _cast(texts: pa.StringArray, column: Column) -> pa.Array:
    if column.decoder.endswith("[]"):
        return _cast_arrays(texts, column)
    cast = _CASTS.get(column.decoder)
    return texts.cast(column.arrow) if cast is None else cast(texts, column)


def _cast_bool(texts: pa.StringArray, _column: Column) -> pa.Array:
    known = pc.is_in(texts, pa.array(["t", "f", "true", "false"]))
    if not pc.all(pc.or_(known, texts.is_null())).as_py():
        raise ValueError("a value is neither t nor f")
    return pc.if_else(texts.is_null(), None, pc.is_in(texts, pa.array(["t", "true"])))


def _cast_bytea(texts: pa.StringArray, _column: Column) -> pa.Array:
    return pa.array(
        [None if text is None else _read_bytes(text) for text in texts.to_pylist()], pa.binary()
    )


def _read_bytes(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError("bytea is not in hex (SET bytea_output = 'hex')")
    return bytes.fromhex(text[2:])


def _cast_uuid(texts: pa.StringArray, _column: Column) -> pa.Array:
    storage = [
        None if text is None else bytes.fromhex(text.replace("-", "")) for text in texts.to_pylist()
    ]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(storage, pa.binary(16)))


def _cast_instant(texts: pa.StringArray, column: Column, *, pattern: str) -> pa.Array:
    """Cast dates, times and instants in ISO form; any other text becomes a variant."""
    usual = pc.match_substring_regex(texts, pattern).fill_null(True)
    unusual = ~usual.to_numpy(zero_copy_only=False)
    plain = pc.if_else(usual, texts, None) if unusual.any() else texts
    if pa.types.is_time(column.arrow):
        # Arrow casts no text to a time: it is that of the first day it knows
        instants = pc.binary_join_element_wise("1970-01-01", plain, " ").cast(pa.timestamp("us"))
        return with_words(instants.cast(pa.int64()).cast(column.arrow), unusual, texts)
    return with_words(plain.cast(column.arrow), unusual, texts)


def _cast_decimal(texts: pa.StringArray, column: Column) -> pa.Array:
    return cast_decimals(texts, column.arrow)


def _cast_vector(texts: pa.StringArray, column: Column) -> pa.Array:
    """Cast ``[0.5,1e-3]``."""
    inner = pc.utf8_slice_codeunits(texts, 1, -1)
    lists = pc.split_pattern(inner, ",")
    number_type = column.arrow.value_type
    numbers = pa.array(_read_floats(lists.flatten(), number_type.to_pandas_dtype()), number_type)
    width = column.dimension
    if width is None:
        offsets = _offsets(lists)
        return pa.ListArray.from_arrays(offsets, numbers, type=column.arrow, mask=_null_mask(texts))
    sizes = pc.list_value_length(lists).drop_null()
    if not pc.all(pc.equal(sizes, width)).as_py() and len(sizes):
        raise ValueError(f"a vector does not have {width} numbers")
    return _fixed(numbers.to_numpy(zero_copy_only=False), texts, column.arrow)


def _read_floats(texts: pa.StringArray, kind: type[np.floating]) -> np.ndarray:
    """Read numbers, of which the server writes as many digits as their type has."""
    with np.errstate(over="ignore"):
        numbers: np.ndarray = texts.cast(pa.float32()).to_numpy().astype(kind)
    if not np.isfinite(numbers).all():
        text = texts[int(np.flatnonzero(~np.isfinite(numbers))[0])]
        raise ValueError(f"{text} is beyond the numbers of its vector")
    return numbers


def _offsets(lists: pa.ListArray) -> pa.Array:
    sizes = pc.list_value_length(lists).fill_null(0).to_numpy()
    return pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))


def _null_mask(texts: pa.StringArray) -> pa.Array | None:
    return texts.is_null() if texts.null_count else None


def _fixed(numbers: np.ndarray, texts: pa.StringArray, kind: pa.DataType) -> pa.Array:
    if texts.null_count:
        valid = texts.is_valid().to_numpy(zero_copy_only=False)
        matrix = np.zeros((len(texts), kind.list_size), numbers.dtype)
        matrix[valid] = numbers.reshape(-1, kind.list_size)
        numbers = matrix.reshape(-1)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers, kind.value_type), type=kind, mask=_null_mask(texts)
    )


def _cast_sparsevec(texts: pa.StringArray, _column: Column) -> pa.Array:
    """Cast ``{1:0.5,9:-2}/1000``, whose numbers begin at 1."""
    return pa.array([_read_sparse(text) for text in texts.to_pylist()], SPARSE)


def _read_sparse(text: str | None) -> dict[str, list[int] | np.ndarray] | None:
    if text is None:
        return None
    inner = text[1 : text.rindex("}")]
    pairs = [pair.split(":") for pair in inner.split(",")] if inner else []
    return {
        "indices": [int(index) - 1 for index, _ in pairs],
        "values": _read_floats(pa.array([value for _, value in pairs], pa.string()), np.float32),
    }


def _cast_bits(texts: pa.StringArray, column: Column) -> pa.Array:
    bits = 8 * column.arrow.list_size
    joined = "".join(text for text in texts.to_pylist() if text is not None).encode()
    digits = np.frombuffer(joined, np.uint8) - ord("0")
    if len(digits) != bits * (len(texts) - texts.null_count) or (digits > 1).any():
        raise ValueError(f"a value is not of {bits} bits")
    return _fixed(np.packbits(digits), texts, column.arrow)


def _cast_json(texts: pa.StringArray, column: Column) -> pa.Array:
    return variant_array(
        [
            MISSING if text is None else json_value(text.encode(), column.type)
            for text in texts.to_pylist()
        ]
    )


def _cast_other(texts: pa.StringArray, column: Column) -> pa.Array:
    kinds = pa.repeat(pa.scalar(column.type), len(texts))
    return make_variants(kinds, values.json_texts(texts), texts.is_null())


def _cast_others(texts: pa.StringArray, column: Column) -> pa.Array:
    """Cast arrays of a type that Arrow lacks: nested lists of texts."""
    element = column.type.partition("[")[0].rpartition(".")[2].lower()
    delimiter = _DELIMITERS.get(element, ",")
    return variant_array(
        [
            MISSING if text is None else Typed(column.type, read_array(text, delimiter))
            for text in texts.to_pylist()
        ]
    )


def _cast_arrays(texts: pa.StringArray, column: Column) -> pa.Array:
    """Cast arrays: lists, or variants where one has several dimensions."""
    arrays = [None if text is None else read_array(text) for text in texts.to_pylist()]
    item = Column(column.name, column.type, column.decoder[:-2], column.arrow.value_type)
    if not any(isinstance(value, list) for array in arrays if array for value in array):
        flat = pa.array([value for array in arrays if array for value in array], pa.string())
        items = _cast(flat, item)
        if items.type.equals(column.arrow.value_type):
            sizes = np.array([len(array or ()) for array in arrays], np.int64)
            offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
            return pa.ListArray.from_arrays(
                offsets, items, type=column.arrow, mask=_null_mask(texts)
            )
    return variant_array(
        [MISSING if array is None else Typed(column.type, array) for array in arrays]
    )


def read_array(text: str, delimiter: str = ",") -> list[object]:
    """Read the text of an array: ``{a,"b c",NULL}``; nested lists for several dimensions.

    Args:
        text: of the array.
        delimiter: between its elements.

    Raises:
        ValueError: it is none.
    """
    bounds = _BOUNDS.match(text)
    body = text[bounds.end() :] if bounds else text
    stack: list[list[object]] = []
    position = 0
    while position < len(body):
        match = _ARRAY_TOKENS[delimiter].match(body, position)
        if match is None:
            break
        position = match.end()
        quoted, mark, bare = match.groups()
        if mark == "{":
            stack.append([])
        elif mark == "}":
            closed = stack.pop()
            if not stack:
                if position != len(body):
                    break
                return closed
            stack[-1].append(closed)
        elif mark is None:
            if quoted is None and bare.upper() == "NULL":
                stack[-1].append(None)
            else:
                stack[-1].append(_ESCAPED.sub(r"\1", bare if quoted is None else quoted))
    raise ValueError(f"no array: {text[:80]}")


_DAY = r"\d{4}-\d\d-\d\d"
_CLOCK = r"([01]\d|2[0-3]):\d\d:\d\d(\.\d+)?"
_CASTS: dict[str, Callable[..., pa.Array]] = {
    "bool": _cast_bool,
    "bytea": _cast_bytea,
    "uuid": _cast_uuid,
    "date": partial(_cast_instant, pattern=f"^{_DAY}$"),
    "time": partial(_cast_instant, pattern=f"^{_CLOCK}$"),
    "timestamp": partial(_cast_instant, pattern=rf"^{_DAY} {_CLOCK}([+-]\d\d(:\d\d)?)?$"),
    "decimal": _cast_decimal,
    "vector": _cast_vector,
    "halfvec": _cast_vector,
    "sparsevec": _cast_sparsevec,
    "bits": _cast_bits,
    "json": _cast_json,
    "jsonb": _cast_json,
    "other": _cast_other,
    "others": _cast_others,
}
