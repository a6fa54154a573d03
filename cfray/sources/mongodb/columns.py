"""Make the columns of a page: the values of one field in many documents, as variants.

Values of one type are written together, column by column; only embedded documents and
mixed arrays are read value by value.  A value that cannot be read is a fault of its
document alone.
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from cfray.records.record import VARIANT
from cfray.records.values import metadata_texts
from cfray.sources.mongodb import elements as bson
from cfray.sources.mongodb import values
from cfray.sources.mongodb.elements import DamagedBsonError, document_end, read_elements
from cfray.sources.mongodb.layouts import Span
from cfray.sources.mongodb.number_arrays import read_number_arrays
from cfray.sources.mongodb.values import quote, write_json
from cfray.sources.mongodb.vectors import read_vector

#: Every integer up to this magnitude is a float64 (IEEE 754).
_EXACT_INT = 2**53
#: Type of an array's elements -> name of the array's type.
_ARRAY_NAMES = {
    bson.DOUBLE: "list<double>",
    bson.INT32: "list<int32>",
    bson.INT64: "list<int64>",
    bson.BOOL: "list<bool>",
}
#: What a document becomes that extended JSON cannot write without doubt: its bytes in base64.
RAW_DOCUMENT = "bson"


@dataclass(slots=True)
class Field:
    """A field's values in a page.

    Attributes:
        rows: number of the document that each value is from.
        kinds: type of each value.
        spans: where each value is.
    """

    rows: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Values:
    """Values of one type as the children of a variant array.

    Attributes:
        types: the name of all of them, or a name for each.
        texts: canonical texts; None where ``numbers`` suffice.
        numbers: of each value, or None where no value is a list of numbers.
    """

    types: str | list[str]
    texts: pa.Array | Sequence[str | None] | None
    numbers: pa.Array | None = None


#: Reads values of one type; notes the faults by index.
_Reader: TypeAlias = Callable[[bytes, Sequence[Span], dict[int, str]], _Values]


def build_column(data: bytes, values_of: Field, count: int, faults: dict[int, str]) -> pa.Array:
    """Make the variant column of a field.

    Args:
        data: holds the documents.
        values_of: the field's values.
        count: documents of the page.
        faults: gets the row of each value that cannot be read, and why.
    """
    groups: dict[int, list[int]] = {}
    for index, kind in enumerate(values_of.kinds):
        groups.setdefault(kind, []).append(index)
    arrays = []
    positions = np.full(count, -1, np.int64)
    rows = np.asarray(values_of.rows, np.int64)
    written = 0
    for kind, indexes in groups.items():
        spans = [values_of.spans[index] for index in indexes]
        group_faults: dict[int, str] = {}
        arrays.append(_variants(_READERS[kind](data, spans, group_faults), len(spans)))
        group_rows = rows[indexes]
        positions[group_rows] = np.arange(written, written + len(spans))
        written += len(spans)
        for index, reason in group_faults.items():
            faults.setdefault(int(group_rows[index]), reason)
    if len(arrays) == 1 and written == count and bool((positions == np.arange(count)).all()):
        return arrays[0]
    indices = pa.array(positions, mask=positions < 0)
    return pa.concat_arrays(arrays).take(indices)


def _variants(read: _Values, count: int) -> pa.StructArray:
    types = (
        pa.repeat(pa.scalar(read.types), count)
        if isinstance(read.types, str)
        else pa.array(read.types, pa.string())
    )
    texts = pa.nulls(count, pa.string()) if read.texts is None else read.texts
    if not isinstance(texts, pa.Array):
        texts = pa.array(texts, pa.string())
    numbers = pa.nulls(count, VARIANT[2].type) if read.numbers is None else read.numbers
    return pa.StructArray.from_arrays([types, texts, numbers], fields=list(VARIANT))


def _numbers(
    data: bytes, spans: Sequence[Span], _: dict[int, str], *, name: str, dtype: str
) -> _Values:
    joined = b"".join(data[start:end] for start, end in spans)
    array = np.frombuffer(joined, dtype)
    return _Values(name, metadata_texts(pa.array(array)))


def _dates(data: bytes, spans: Sequence[Span], _: dict[int, str]) -> _Values:
    joined = b"".join(data[start:end] for start, end in spans)
    instants = pa.array(np.frombuffer(joined, "<i8")).view(pa.timestamp("ms", "UTC"))
    return _Values("date", metadata_texts(instants))


def _bools(data: bytes, spans: Sequence[Span], _: dict[int, str]) -> _Values:
    return _Values("bool", ["true" if data[start] else "false" for start, _ in spans])


def _object_ids(data: bytes, spans: Sequence[Span], _: dict[int, str]) -> _Values:
    return _Values("objectId", [f'"{data[start:end].hex()}"' for start, end in spans])


def _constants(
    _data: bytes, spans: Sequence[Span], _: dict[int, str], *, name: str, text: str
) -> _Values:
    return _Values(name, [text] * len(spans))


def _texts(data: bytes, spans: Sequence[Span], faults: dict[int, str]) -> _Values:
    try:
        if not any(data[end - 1] for _, end in spans):
            return _Values("string", [data[start + 4 : end - 1].decode() for start, end in spans])
    except UnicodeDecodeError:
        pass
    return _each(data, spans, faults, name="string", read=values.read_text, write=str)


def _each(
    data: bytes,
    spans: Sequence[Span],
    faults: dict[int, str],
    *,
    name: str,
    read: Callable[[bytes, int, int], object],
    write: Callable[[object], str] = write_json,
) -> _Values:
    """Read values one by one; a value that is damaged is a fault."""
    types, texts = [name] * len(spans), [""] * len(spans)
    for index, (start, end) in enumerate(spans):
        try:
            texts[index] = write(read(data, start, end))
        except values.AmbiguousNameError:
            types[index] = RAW_DOCUMENT
            texts[index] = f'"{b64encode(data[start:end]).decode()}"'
        except (DamagedBsonError, RecursionError) as error:
            faults[index] = f"its BSON cannot be read: {error}"
    return _Values(types, texts)


def _documents(data: bytes, spans: Sequence[Span], faults: dict[int, str]) -> _Values:
    def read(data: bytes, start: int, end: int) -> object:
        return values.read_document(data, start, document_end(data, start, end))

    return _each(data, spans, faults, name="struct", read=read)


def _arrays(data: bytes, spans: Sequence[Span], faults: dict[int, str]) -> _Values:
    number_arrays = read_number_arrays(data, spans)
    if len(number_arrays) == len(spans) and all(
        kind == bson.DOUBLE for kind, _ in number_arrays.values()
    ):
        lists = [number_arrays[index][1] for index in range(len(spans))]
        return _Values("list<double>", None, _number_lists(lists))
    types: list[str] = ["list"] * len(spans)
    texts: list[str | None] = ["[]"] * len(spans)
    lists_of_rows: list[np.ndarray | None] = [None] * len(spans)
    for index, (start, end) in enumerate(spans):
        try:
            if index in number_arrays:
                kind, numbers = number_arrays[index]
                types[index], texts[index] = _number_array(kind, numbers)
                if kind == bson.DOUBLE or _is_exact(numbers):
                    lists_of_rows[index] = numbers.astype(np.float64)
                continue
            types[index], texts[index], lists_of_rows[index] = _mixed_array(data, start, end)
        except values.AmbiguousNameError:
            types[index], texts[index] = (
                RAW_DOCUMENT,
                f'"{b64encode(data[start:end]).decode()}"',
            )
        except (DamagedBsonError, RecursionError) as error:
            faults[index] = f"its BSON cannot be read: {error}"
    return _Values(types, texts, _number_lists(lists_of_rows))


def _number_array(kind: int, numbers: np.ndarray) -> tuple[str, str | None]:
    """Name the type of an array of numbers and write it, unless its numbers suffice."""
    if kind == bson.DOUBLE or (kind == bson.INT64 and _is_exact(numbers)):
        return _ARRAY_NAMES[kind], None
    return _ARRAY_NAMES[kind], f"[{','.join(map(str, numbers.tolist()))}]"


def _mixed_array(data: bytes, start: int, end: int) -> tuple[str, str, np.ndarray | None]:
    """Read an array that is not numbers of one type in their usual layout."""
    end = document_end(data, start, end)
    members = read_elements(data, start, end)
    kinds = {kind for _, kind, _, _ in members}
    if kinds == {bson.OBJECT_ID}:
        return "list<objectId>", write_json([data[at:to].hex() for _, _, at, to in members]), None
    if kinds == {bson.STRING}:
        quoted = (quote(values.read_text(data, at, to)) for _, _, at, to in members)
        return "list<string>", f"[{','.join(quoted)}]", None
    items = values.read_array(data, start, end)
    if len(kinds) == 1 and kinds <= _ARRAY_NAMES.keys():
        kind = kinds.pop()
        if kind == bson.INT64:
            items = [int(values.read_int64(data, at)[0]) for _, _, at, _ in members]
        numbers = None
        if kind in (bson.DOUBLE, bson.INT32, bson.INT64):
            numbers = np.asarray(items, np.float64)
        return _ARRAY_NAMES[kind], write_json(items), numbers
    numbers = None
    if kinds and kinds <= {bson.DOUBLE, bson.INT32}:
        numbers = np.asarray(items, np.float64)
    return "list", write_json(items), numbers


def _is_exact(numbers: np.ndarray) -> bool:
    return bool((numbers <= _EXACT_INT).all() and (numbers >= -_EXACT_INT).all())


def _number_lists(lists: Sequence[np.ndarray | None]) -> pa.Array:
    """Make a list array of float64 of numpy arrays; None gives null."""
    is_null = np.fromiter((numbers is None for numbers in lists), np.bool_, len(lists))
    lengths = [0 if numbers is None else len(numbers) for numbers in lists]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    present = [numbers for numbers in lists if numbers is not None]
    flat = np.concatenate(present).astype(np.float64) if present else np.empty(0)
    mask = pa.array(is_null) if is_null.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.float64()), mask=mask)


def _binaries(data: bytes, spans: Sequence[Span], _: dict[int, str]) -> _Values:
    types: list[str] = []
    texts: list[str | None] = []
    lists: list[np.ndarray | None] = []
    for start, end in spans:
        subtype, content = values.read_binary(data, start, end)
        vector = read_vector(content) if subtype == values.VECTOR_BINARY else None
        if vector is not None:
            types.append(vector.type_name)
            texts.append(vector.text)
            lists.append(vector.numbers)
            continue
        is_uuid = subtype == values.UUID_BINARY and len(content) == 16
        types.append("uuid" if is_uuid else binary_type(subtype))
        value = str(uuid.UUID(bytes=content)) if is_uuid else b64encode(content).decode()
        texts.append(f'"{value}"')
        lists.append(None)
    has_vector = any(numbers is not None for numbers in lists)
    return _Values(types, texts, _number_lists(lists) if has_vector else None)


def binary_type(subtype: int) -> str:
    """Name the type of binary values of a subtype."""
    return "binary" if subtype == values.GENERIC_BINARY else f"binary({subtype})"


_READERS: dict[int, _Reader] = {
    bson.DOUBLE: partial(_numbers, name="double", dtype="<f8"),
    bson.STRING: _texts,
    bson.DOCUMENT: _documents,
    bson.ARRAY: _arrays,
    bson.BINARY: _binaries,
    bson.UNDEFINED: partial(_constants, name="undefined", text="null"),
    bson.OBJECT_ID: _object_ids,
    bson.BOOL: _bools,
    bson.DATE: _dates,
    bson.NULL: partial(_constants, name="null", text="null"),
    bson.REGEX: partial(_each, name="regex", read=values.read_regex),
    bson.DB_POINTER: partial(_each, name="dbPointer", read=values.read_pointer),
    bson.CODE: partial(_each, name="javascript", read=values.read_text),
    bson.SYMBOL: partial(_each, name="symbol", read=values.read_text),
    bson.CODE_WITH_SCOPE: partial(_each, name="javascriptWithScope", read=values.read_scoped_code),
    bson.INT32: partial(_numbers, name="int32", dtype="<i4"),
    bson.TIMESTAMP: partial(_each, name="timestamp", read=values.read_timestamp_parts),
    bson.INT64: partial(_numbers, name="int64", dtype="<i8"),
    bson.DECIMAL: partial(_each, name="decimal", read=values.read_decimal),
    bson.MIN_KEY: partial(_constants, name="minKey", text='{"$minKey":1}'),
    bson.MAX_KEY: partial(_constants, name="maxKey", text='{"$maxKey":1}'),
}
