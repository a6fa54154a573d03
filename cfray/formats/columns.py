"""Columnar batches from files, made neutral: no field metadata, and text that is really UTF-8.

Parquet and Arrow files may hold bytes in a string column that are no UTF-8.
Such a row cannot become a Record: it is set aside with its original bytes, and
the rest of the batch goes on.
"""

from __future__ import annotations

import base64
import bisect
import json
from collections.abc import Iterator

import pyarrow as pa

from cfray.records.record import Reject


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Drop the metadata a file's writer left on fields: it has no meaning here."""
    return pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])


def plain_batch(
    batch: pa.RecordBatch, position: str, batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Yield batches whose strings are valid, and a Reject for each row whose strings are not.

    Args:
        batch: as decoded.
        position: where the batch stands in its file.
        batch_bytes: bytes above which a batch is cut.
    """
    columns = batch.columns
    bad: dict[int, str] = {}
    for name, column in zip(batch.schema.names, columns, strict=True):
        for row in _invalid_rows(column):
            bad.setdefault(row, name)
    clean = pa.RecordBatch.from_arrays(columns, schema=plain_schema(batch.schema))
    rejects = []
    for row in sorted(bad):
        content = {
            name: _raw(column, row)
            for name, column in zip(batch.schema.names, columns, strict=True)
        }
        text = json.dumps(content, ensure_ascii=False, default=str).encode()
        rejects.append(
            (
                row,
                Reject(
                    f"column {bad[row]} is not UTF-8", f"{position}, row {row} of its batch", text
                ),
            )
        )
    kept = [row for row in range(len(clean)) if row not in bad]
    if bad:
        clean = clean.take(pa.array(kept, pa.int64()))
    for item in interleaved(kept, clean, iter(rejects)):
        if isinstance(item, Reject):
            yield item
        else:
            yield from pieces(item, batch_bytes)


def interleaved(
    rows: list[int], batch: pa.RecordBatch, rejects: Iterator[tuple[int, Reject]]
) -> Iterator[pa.RecordBatch | Reject]:
    """Yield rows and rejects in the order of the file, so that ordinals are places in it.

    Args:
        rows: the number of each row of ``batch``, ascending.
        batch: the rows that are records.
        rejects: row number and Reject of the others, ascending.
    """
    done = 0
    for row, reject in rejects:
        behind = bisect.bisect_left(rows, row)
        if behind > done:
            yield batch.slice(done, behind - done)
            done = behind
        yield reject
    if done < len(rows):
        yield batch.slice(done)


def pieces(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Halve a batch until each piece fits or is one row.

    An average says nothing of a few large rows among many small ones.
    """
    half = batch.num_rows // 2
    first, second = batch.slice(0, half), batch.slice(half)
    shared = (
        first.nbytes + second.nbytes > 1.5 * batch.nbytes
    )  # a dictionary, which every piece would carry along
    if half == 0 or batch.nbytes <= batch_bytes or shared:
        yield batch
        return
    yield from pieces(first, batch_bytes)
    yield from pieces(second, batch_bytes)


def _invalid_rows(column: pa.Array) -> list[int]:
    """List the rows whose text (also inside lists and structs) is not UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return [row for row in range(len(column)) if not _valid(column.slice(row, 1))]
    return []


def _valid(one: pa.Array) -> bool:
    try:
        pa.concat_arrays([one]).take(pa.array([0])).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _raw(column: pa.Array, row: int) -> object:
    one = column.slice(row, 1)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        raw = one.cast(kind)[0].as_py()
        try:
            return None if raw is None else raw.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode()}
    return one[0].as_py() if _valid(one) else "<not UTF-8>"
