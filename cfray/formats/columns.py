"""Columnar batches from files, made neutral: no field metadata, and text that is really UTF-8.

Parquet and Arrow files may hold bytes in a string column that are no UTF-8.  Such a row
cannot become a Record: it is set aside with its original bytes, and the other rows of the
batch go on.
"""

from __future__ import annotations

import base64
import bisect
import json
from collections.abc import Iterator

import pyarrow as pa

from cfray.records.record import Reject


def drop_field_metadata(schema: pa.Schema) -> pa.Schema:
    """Drop the metadata that a file's writer left on fields: it has no meaning here."""
    return pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])


def separate_invalid_text(
    batch: pa.RecordBatch, position: str, batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Yield batches whose strings are valid, and a Reject for each row whose strings are not.

    Args:
        batch: as decoded.
        position: where the batch stands in its file.
        batch_bytes: bytes above which a batch is cut.
    """
    batch = pa.RecordBatch.from_arrays(batch.columns, schema=drop_field_metadata(batch.schema))
    invalid_columns: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for row in _invalid_rows(column):
            invalid_columns.setdefault(row, name)
    rejects = (
        (
            row,
            Reject(
                f"column {invalid_columns[row]} is not UTF-8",
                f"{position}, row {row} of its batch",
                _row_content(batch, row),
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
    first, second = batch.slice(0, half), batch.slice(half)
    # A dictionary, which each half would carry along: halving such a batch saves nothing.
    is_shared = first.nbytes + second.nbytes > 1.5 * batch.nbytes
    if half == 0 or batch.nbytes <= batch_bytes or is_shared:
        yield batch
        return
    yield from split_by_bytes(first, batch_bytes)
    yield from split_by_bytes(second, batch_bytes)


def _invalid_rows(column: pa.Array) -> list[int]:
    """List the rows whose text (also inside lists and structs) is not UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return [row for row in range(len(column)) if not _is_valid(column.slice(row, 1))]
    return []


def _is_valid(value: pa.Array) -> bool:
    """Tell whether all text in an array of one row is UTF-8."""
    try:
        pa.concat_arrays([value]).take(pa.array([0])).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _row_content(batch: pa.RecordBatch, row: int) -> bytes:
    """Write a row as JSON; text that is not UTF-8 as base64."""
    content = {
        name: _raw_value(column, row)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return json.dumps(content, ensure_ascii=False, default=str).encode()


def _raw_value(column: pa.Array, row: int) -> object:
    value = column.slice(row, 1)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        is_large = pa.types.is_large_string(column.type)
        raw = value.cast(pa.large_binary() if is_large else pa.binary())[0].as_py()
        try:
            return None if raw is None else raw.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode()}
    return value[0].as_py() if _is_valid(value) else "<not UTF-8>"
