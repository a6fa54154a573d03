"""Rows of bulk-writer files as the records that a live read gives.

The same names of types, the same vectors.

A column is an Arrow type (Parquet) or a variant (JSON); what the job file says
of a field decides where that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.formats import points
from cfray.formats.columns import interleaved
from cfray.formats.jsontext import NotExact, parse
from cfray.records.record import (
    MISSING,
    Reject,
    Typed,
    is_variant,
    parsed,
    variant_texts,
    variant_types,
)
from cfray.sources.milvus.schema import DENSE, Field
from cfray.sources.milvus.types import DYNAMIC

_NAMES = {"Int8": "int8", "Int16": "int16", "Int32": "int32", "Float": "float"}
_HALVES = ("Float16Vector", "BFloat16Vector")


def records_of(
    batch: pa.RecordBatch, primary: str, told: Mapping[str, Field], position: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Make records of rows; a row that cannot become one is set aside.

    Args:
        batch: a file's columns, as they are in it.
        primary: the field that is the record's id.
        told: the fields whose type is known, by name.
        position: where the batch stands.
    """
    bad: dict[int, str] = {}
    vectors: dict[str, pa.Array] = {}
    cells: dict[str, list[object]] = {}
    dense = [one for one in told.values() if one.kind in DENSE or one.kind == "SparseFloatVector"]
    for name in batch.schema.names:
        field, column, kind = batch.schema.field(name), batch[name], told.get(name)
        if kind in dense and kind is not None:
            shown = "" if len(dense) == 1 and kind.kind == "FloatVector" else name
            vectors[shown] = (
                _sparse(field, column, bad)
                if kind.kind == "SparseFloatVector"
                else _dense(kind, field, column, bad)
            )
        elif name != primary:
            cells[name] = _values(
                Field(name, "JSON") if name == DYNAMIC else kind, field, column, bad
            )
    beside = cells.pop(DYNAMIC, [None] * len(batch))
    payload = [
        {name: column[row] for name, column in cells.items() if column[row] is not MISSING}
        for row in range(len(batch))
    ]
    for point, more in zip(payload, beside, strict=True):
        point.update(
            {f"{DYNAMIC}.{key}" if key in point else key: value for key, value in more.items()}
            if isinstance(more, dict)
            else {}
        )
    whole = points.batch(batch[primary], vectors, payload, inside="fields")
    good = [row for row in range(len(batch)) if row not in bad]
    rejects = (
        (
            row,
            Reject(
                bad[row],
                f"{position}: {_id(batch, primary, row)}",
                repr(batch.slice(row, 1).to_pylist()).encode(),
            ),
        )
        for row in sorted(bad)
    )
    yield from interleaved(good, whole.take(pa.array(good, pa.int64())), rejects)


def float_length(field: pa.Field, column: pa.Array) -> int:
    """Give how many floats a first value has; 0 where it is no list of floats."""
    if is_variant(field):
        kind, _, numbers = column.flatten()
        return len(numbers[0]) if kind[0].as_py() == "list<double>" else 0
    return len(column[0]) if field.type == pa.list_(pa.float32()) and column[0].is_valid else 0


def dimension(kind: str, first: pa.RecordBatch, name: str) -> int:
    """Give the width of a field's first vector, in the collection's own count."""
    if kind not in DENSE:
        return 0
    field, column = first.schema.field(name), first[name]
    numbers = column.flatten()[2] if is_variant(field) else column
    length = len(numbers[0]) if len(numbers) and numbers[0].is_valid else 0
    halves = kind in _HALVES and field.type == pa.list_(pa.uint8())
    return length * DENSE[kind][2] // (2 if halves else 1)


def _dense(told: Field, field: pa.Field, column: pa.Array, bad: dict[int, str]) -> pa.Array:
    """Make a vector column of lists of numbers, or of bytes.

    A row of another length is no record.
    """
    lists = column.flatten()[2] if is_variant(field) else column
    given = lists.is_valid().to_numpy(zero_copy_only=False)
    if is_variant(field):
        none = pc.fill_null(pc.equal(variant_types(column), "null"), True).to_numpy(
            zero_copy_only=False
        )  # pyarrow's signature
        bad.update(
            {
                int(row): f"field {told.name}: no list of numbers"
                for row in np.flatnonzero(~given & ~none)
            }
        )
    code, element, packed = DENSE[told.kind]
    halves = told.kind in _HALVES and field.type == pa.list_(pa.uint8())
    width = told.dimension // packed * (2 if halves else 1)
    lengths = pc.list_value_length(lists).fill_null(width).to_numpy()
    for row in np.flatnonzero(lengths != width):
        bad[int(row)] = (
            f"field {told.name}: {lengths[row]} numbers, where the first record has {width}"
        )
    right = given & (lengths == width)
    flat = lists.filter(pa.array(right)).flatten().to_numpy(zero_copy_only=False)
    flat = flat.view(code) if halves else flat
    if told.kind == "BFloat16Vector" and halves:
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    spread = np.zeros((len(column), told.arrow.list_size), element.to_pandas_dtype())
    spread[right] = flat.astype(spread.dtype).reshape(-1, told.arrow.list_size)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(spread.reshape(-1)), told.arrow.list_size, mask=pa.array(~right)
    )


def _sparse(field: pa.Field, column: pa.Array, bad: dict[int, str]) -> pa.Array:
    """Read ``{"index": value}`` or ``{"indices": [...], "values": [...]}``."""
    found: list[tuple[list[int], list[float]] | None] = []
    for row, value in enumerate(_values(Field(field.name, "JSON"), field, column, bad)):
        try:
            found.append(_pairs(value) if isinstance(value, dict) else None)
        except (TypeError, ValueError):
            found.append(None)
            bad[row] = f"field {field.name}: no sparse vector"
    return points.sparse(found)


def _pairs(value: dict[str, object]) -> tuple[list[int], list[float]]:
    """Order by index, as servers do."""
    items: Iterable[tuple[object, object]] = value.items()
    if value.keys() == {"indices", "values"}:
        indices, values = value["indices"], value["values"]
        if not isinstance(indices, list) or not isinstance(values, list):
            raise TypeError
        items = zip(indices, values, strict=True)
    pairs = sorted((int(str(index)), float(str(one))) for index, one in items)
    return [index for index, _ in pairs], [one for _, one in pairs]


def _values(
    told: Field | None, field: pa.Field, column: pa.Array, bad: dict[int, str]
) -> list[object]:
    """Give a column's values, typed as a live read types them."""
    if is_variant(field):
        name = _NAMES.get((told.element or told.kind) if told else "", "")
        texts, kinds = variant_texts(column).to_pylist(), variant_types(column).to_pylist()
        return [
            MISSING if was is None else _typed(name, text if was == "string" else parsed(text))
            for was, text in zip(kinds, texts, strict=True)
        ]
    if told and told.kind == "JSON":
        return [_parsed(field.name, row, text, bad) for row, text in enumerate(column.to_pylist())]
    name = str(field.type.value_type if pa.types.is_list(field.type) else field.type)
    return [_typed(name if name in _NAMES.values() else "", value) for value in column.to_pylist()]


def _typed(name: str, value: object) -> object:
    """Say the type of a number, or of a list of them, that parsed JSON would call otherwise.

    Float32 as its shortest text.
    """
    if isinstance(value, list):
        return (
            Typed(f"list<{name}>", [_short(one) if name == "float" else one for one in value])
            if name
            else value
        )
    return (
        Typed(name, _short(value) if name == "float" else value)
        if name and value is not None
        else value
    )


def _short(value: object) -> object:
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _parsed(name: str, row: int, text: str | None, bad: dict[int, str]) -> object:
    try:
        return None if text is None else parse(text.encode())
    except NotExact as error:
        bad[row] = f"field {name}: {error}"
        return None


def _id(batch: pa.RecordBatch, primary: str, row: int) -> str:
    return str(batch[primary][row].as_py())[:80]
