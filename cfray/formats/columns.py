"""Columnar batches from files, made neutral: normal types, and text that is really UTF-8.

This is the door of every Arrow source: behind it no column has a view, a dictionary or another type
that ``arrow_types`` replaces.  Parquet and Arrow files may hold bytes in a string column that are
no UTF-8.  Such a row cannot become a Record: it is set aside with its original bytes, and the other
rows of the batch go on.
"""

from __future__ import annotations

import base64
import bisect
import json
from collections.abc import Iterator

import pyarrow as pa

from cfray.formats.arrow_types import child_fields, normal_schema, normal_type
from cfray.formats.invalid_text import check_buffers, invalid_text_rows
from cfray.formats.normal_arrays import (
    expanded_bytes,
    expands,
    normal_array,
    union_variants,
)
from cfray.records import values
from cfray.records.record import Reject, is_variant, variant_texts

__all__ = [
    "batch_size",
    "interleave",
    "normal_batch",
    "normal_schema",
    "normal_type",
    "separate_invalid_text",
    "split_by_bytes",
]


def normal_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Make a batch whose columns have normal types, in the schema that ``normal_schema`` gives.

    Raises:
        ArrowInvalid: the buffers of a column contradict each other.
        ConfigError: the values of a column cannot be written; says which column it is.
    """
    schema = normal_schema(batch.schema)
    columns = []
    for field, column in zip(schema, batch.columns, strict=True):
        if not column.type.equals(field.type):
            check_buffers(column)
        columns.append(
            union_variants(column) if is_variant(field) else normal_array(column, field.type)
        )
    if not columns:
        # rows without any column are rows all the same
        return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def separate_invalid_text(
    batch: pa.RecordBatch, position: str, batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Yield normal batches whose strings are valid, and a Reject for each row whose are not.

    Args:
        batch: as decoded.
        position: where the batch stands in its file.
        batch_bytes: bytes above which a batch is cut.
    """
    first_row = 0
    for part in _split_shared(batch, batch_bytes):
        yield from _separate(normal_batch(part), position, first_row, batch_bytes)
        first_row += part.num_rows


def _separate(
    batch: pa.RecordBatch, position: str, first_row: int, batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    invalid_columns: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for row in invalid_text_rows(column):
            invalid_columns.setdefault(row, name)
    rejects = (
        (
            row,
            Reject(
                f"column {invalid_columns[row]} is not UTF-8",
                f"{position}, row {first_row + row} of its batch",
                row_content(batch, row),
            ),
        )
        for row in sorted(invalid_columns)
    )
    valid_rows = [row for row in range(len(batch)) if row not in invalid_columns]
    valid = batch.take(pa.array(valid_rows, pa.int64())) if invalid_columns else batch
    for item in interleave(valid_rows, valid, rejects):
        if isinstance(item, Reject):
            yield item
        else:
            yield from split_by_bytes(item, batch_bytes)


def interleave(
    rows: list[int], batch: pa.RecordBatch, rejects: Iterator[tuple[int, Reject]]
) -> Iterator[pa.RecordBatch | Reject]:
    """Yield records and rejects in the order of the file, which their ordinals count.

    Args:
        rows: the number of each row of ``batch``, ascending.
        batch: the rows that are records.
        rejects: row number and Reject of the other rows, ascending.
    """
    start = 0
    for row, reject in rejects:
        end = bisect.bisect_left(rows, row)
        if end > start:
            yield batch.slice(start, end - start)
            start = end
        yield reject
    if start < len(rows):
        yield batch.slice(start)


def split_by_bytes(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Halve a batch until each half is within ``batch_bytes`` or is a single row.

    Halving weighs each half: an average says nothing of a few large rows among many small ones.
    """
    half = batch.num_rows // 2
    if half == 0 or batch.nbytes <= batch_bytes:
        yield batch
        return
    yield from split_by_bytes(batch.slice(0, half), batch_bytes)
    yield from split_by_bytes(batch.slice(half), batch_bytes)


def batch_size(batch: pa.RecordBatch) -> int:
    """Estimate the bytes that a batch of any types takes once its columns are normal."""
    return sum(map(expanded_bytes, batch.columns))


def _split_shared(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Halve a batch whose rows share bytes until what they take when written out is in bounds."""
    shared = [column for column in batch.columns if expands(column.type)]
    half = batch.num_rows // 2
    if half == 0 or not shared or sum(map(expanded_bytes, shared)) <= batch_bytes:
        yield batch
        return
    yield from _split_shared(batch.slice(0, half), batch_bytes)
    yield from _split_shared(batch.slice(half), batch_bytes)


def row_content(batch: pa.RecordBatch, row: int) -> bytes:
    """Write a row as JSON; text that is not UTF-8 as base64."""
    content: dict[str, object] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        value = column.slice(row, 1)
        content[field.name] = _raw_value(variant_texts(value) if is_variant(field) else value)
    return json.dumps(content, ensure_ascii=False).encode()


def _raw_value(value: pa.Array) -> object:
    """Give an array of one value as parsed JSON, each text in it that is not UTF-8 as base64."""
    kind = value.type
    if not value[0].is_valid:
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _raw_text(value)
    if pa.types.is_struct(kind):
        fields = child_fields(kind)
        return {field.name: _raw_value(value.field(i)) for i, field in enumerate(fields)}
    if pa.types.is_map(kind):
        return [[_raw_value(value.field(i)) for i in (0, 1)] for value in _items(value)]
    if pa.types.is_nested(kind):
        return [_raw_value(item) for item in _items(value)]
    return json.loads(values.json_texts(value)[0].as_py())


def _raw_text(value: pa.Array) -> object:
    is_large = pa.types.is_large_string(value.type)
    raw = value.cast(pa.large_binary() if is_large else pa.binary())[0].as_py()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _items(value: pa.Array) -> list[pa.Array]:
    """Give the items of a list, or the entries of a map, as arrays of one value."""
    items = value[0].values
    return [items.slice(index, 1) for index in range(len(items))]
