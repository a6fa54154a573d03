"""Files in COPY's binary form.

Such a file does not say where a row ends before all of its values are passed, so the lengths of
the values are read one after the other; the values themselves are decoded column by column, as
those of a live read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context
from cfray.sources.postgres.cells import BadCopyError
from cfray.sources.postgres.pages import TRAILER, decode_rows, header_size
from cfray.sources.postgres.types import Column

_BLOCK_BYTES = 4 * MIB
#: Types that a live read asks the server to write as texts, and that are decoded here all the
#: same: a numeric and its arrays of digits.
_NUMERIC = ("numeric", "decimal")


def check_columns(columns: Sequence[Column], name: str) -> None:
    """Refuse types whose binary form is not read.

    Raises:
        SourceError: names the columns.
    """
    unread = [
        f"{column.name} ({column.type})"
        for column in columns
        if column.cast != "{}" and not _is_numeric(column)
    ]
    if unread:
        raise SourceError(
            f"{name}: the binary form of {', '.join(unread)} is not read",
            "write these columns as texts: COPY (SELECT id, column::text FROM ...) TO ...",
        )


def _is_numeric(column: Column) -> bool:
    words = column.type.partition("(")[0].strip().lower()
    return column.decoder == "decimal" or (column.decoder == "other" and words in _NUMERIC)


def binary_column(column: Column) -> Column:
    """Say how a column of a file is decoded, whose numerics are not texts."""
    return replace(column, decoder="numeric") if _is_numeric(column) else column


def read_binary(
    stream: pa.NativeFile, columns: Sequence[Column], name: str, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Read the rows of a file.

    Raises:
        BadCopyError: the file was cut, or its rows are not of these columns.
    """
    decoded = [binary_column(column) for column in columns]
    rows: list[bytes] = []
    size = first = 0
    page_bytes = min(context.batch_bytes, _BLOCK_BYTES)
    for row in _split_rows(stream):
        rows.append(row)
        size += len(row)
        if size >= page_bytes:
            yield from decode_rows(rows, decoded, name, first, context)
            first, rows, size = first + len(rows), [], 0
    if rows:
        yield from decode_rows(rows, decoded, name, first, context)


def _split_rows(stream: pa.NativeFile) -> Iterator[bytes]:
    """Give the bytes of each row."""
    buffer = bytes(stream.read(_BLOCK_BYTES))
    position = header_size(buffer)
    while True:
        end = _row_end(buffer, position)
        if end is not None:
            if end < 0:
                _check_end(buffer, position, stream)
                return
            yield buffer[position:end]
            position = end
            continue
        block = bytes(stream.read(max(_BLOCK_BYTES, len(buffer) - position)))
        if not block:
            raise BadCopyError("it ends without its trailer: it was cut")
        buffer, position = buffer[position:] + block, 0


def _row_end(buffer: bytes, position: int) -> int | None:
    """Give the offset behind a row; None where the buffer ends before, -1 at the trailer."""
    size = len(buffer)
    if position + 2 > size:
        return None
    (count,) = struct.unpack_from(">h", buffer, position)
    if count < 0:
        return -1
    position += 2
    for _ in range(count):
        if position + 4 > size:
            return None
        (length,) = struct.unpack_from(">i", buffer, position)
        position += 4 + max(0, length)
    return position if position <= size else None


def _check_end(buffer: bytes, position: int, stream: pa.NativeFile) -> None:
    if buffer[position : position + 2] != TRAILER:
        raise BadCopyError("a row has a negative number of columns")
    if len(buffer) > position + 2 or stream.read(1):
        raise BadCopyError("bytes stand behind its trailer")
