"""Rows of a table as they come from COPY, and the pages of records that are made of them.

COPY sends each row as one message, so where a row begins and ends needs no look at it; that the
columns of each row end where the row does is checked all the same.

Source: https://www.postgresql.org/docs/current/protocol-flow.html, COPY Operations
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.columns import interleave, split_by_bytes
from cfray.formats.invalid_text import invalid_text_rows
from cfray.formats.jsontext import InexactJson
from cfray.records.record import Reject
from cfray.runtime.plurals import counted
from cfray.sources.base import Context
from cfray.sources.postgres.cells import BadCopyError, split_rows
from cfray.sources.postgres.client import Connection
from cfray.sources.postgres.decode import decode_column
from cfray.sources.postgres.errors import ConnectionLostError
from cfray.sources.postgres.records import assemble
from cfray.sources.postgres.types import Column

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
#: What stands for the number of a row's columns behind the last row.
TRAILER = b"\xff\xff"
#: The signature, four bytes of flags and four with the length of an extension.
HEADER_BYTES = len(SIGNATURE) + 8
#: A flag that says that rows begin with the number of their row (PostgreSQL 11 and earlier).
_OIDS = 1 << 16
#: Bytes of a row's content that a reject keeps.
_KEPT_BYTES = 1 << 16


class RowStream:
    """The rows of a query, page by page; after a lost connection it goes on where it was.

    That is exact only where the rows come in the same order again, of the same snapshot; elsewhere
    the caller reads the whole shard again.
    """

    def __init__(
        self, connection: Connection, query: str, page_bytes: int, *, can_repeat: bool
    ) -> None:
        """Ask for nothing yet.

        Args:
            connection: in a transaction.
            query: of the rows.
            page_bytes: what a page aims at.
            can_repeat: whether the query gives the same rows in the same order again.
        """
        self._connection, self._query, self._page_bytes = connection, query, page_bytes
        self._can_repeat = can_repeat
        self._rows: Iterator[bytes] | None = None
        self._is_open, self._delivered = True, 0

    def pages(self) -> Iterator[list[bytes]]:
        """Give all rows.

        Raises:
            SourceError: terminal, or transient after the last attempt.
        """
        settings, context = self._connection.settings, self._connection.context
        while page := settings.send_request(self._next_page, context):
            yield page

    def _next_page(self) -> list[bytes]:
        """Give the next rows; none at the end."""
        try:
            if self._rows is None:
                self._rows = self._start()
            page: list[bytes] = []
            size = 0
            for row in self._rows:
                page.append(row)
                size += len(row)
                if size >= self._page_bytes:
                    break
        except Exception:
            self._rows, self._is_open = None, False
            raise
        self._delivered += len(page)
        return page

    def _start(self) -> Iterator[bytes]:
        if self._delivered and not self._can_repeat:
            raise ConnectionLostError(
                f"the connection ended after {counted(self._delivered, 'records')}"
            )
        if not self._is_open:
            self._connection.open_and_begin()
            self._is_open = True
        rows = copied_rows(self._connection.copy(self._query))
        for _ in range(self._delivered):
            next(rows)
        return rows


def copied_rows(messages: Iterator[bytes]) -> Iterator[bytes]:
    """Give the rows of a copy without its header and its trailer.

    Raises:
        BadCopyError: there is no header, or no trailer at the end.
    """
    first = next(messages, b"")
    row = first[header_size(first) :]
    while row != TRAILER:
        if row:
            yield row
        following = next(messages, None)
        if following is None:
            raise BadCopyError("it ends without its trailer")
        row = following
    if next(messages, None) is not None:
        raise BadCopyError("rows stand behind its trailer")


def header_size(head: bytes) -> int:
    """Give the bytes of the header of a copy.

    Raises:
        BadCopyError: it is no header, or one that changes what the rows mean.
    """
    if not head.startswith(SIGNATURE) or len(head) < HEADER_BYTES:
        raise BadCopyError("it does not begin as a binary COPY")
    flags, extension = struct.unpack_from(">ii", head, len(SIGNATURE))
    if flags & _OIDS:
        raise BadCopyError("its rows have numbers (OIDs), which no PostgreSQL since 12 writes")
    if flags & 0xFFFF_0000 or extension < 0:
        raise BadCopyError(f"its header has flags that are not known: {flags:#x}")
    return HEADER_BYTES + int(extension)


def decode_rows(
    rows: Sequence[bytes], columns: Sequence[Column], position: str, first: int, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Make records of a page's rows.

    Args:
        rows: as they were copied.
        columns: of the table.
        position: where the rows are from.
        first: number of the first row there.
        context: of the run.

    Raises:
        BadCopyError: the rows are not what COPY writes for these columns.
    """
    largest = max(map(len, rows), default=0)
    reasons = {
        number: f"the record has {len(row):,} bytes, and limits.max_document allows "
        f"{context.max_record:,}"
        for number, row in enumerate(rows if largest > context.max_record else ())
        if len(row) > context.max_record
    }
    fitting = [number for number in range(len(rows)) if number not in reasons]
    try:
        batch = _decode([rows[number] for number in fitting], columns)
    except (UnicodeDecodeError, InexactJson):
        reasons |= _find_invalid_texts([(number, rows[number]) for number in fitting], columns)
        fitting = [number for number in fitting if number not in reasons]
        batch = _decode([rows[number] for number in fitting], columns)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for row in invalid_text_rows(column):
            reasons.setdefault(fitting[row], f"column {name} is not UTF-8")
    if reasons:
        kept = [row for row, number in enumerate(fitting) if number not in reasons]
        batch = batch.take(pa.array(kept, pa.int64()))
        fitting = [fitting[row] for row in kept]
    rejects = (
        (
            number,
            Reject(
                reasons[number], f"{position}, row {first + number}", rows[number][:_KEPT_BYTES]
            ),
        )
        for number in sorted(reasons)
    )
    for item in interleave(fitting, batch, rejects):
        if isinstance(item, Reject):
            yield item
        else:
            yield from split_by_bytes(item, context.batch_bytes)


def _find_invalid_texts(
    rows: Sequence[tuple[int, bytes]], columns: Sequence[Column]
) -> dict[int, str]:
    """Name the rows that cannot be decoded because a text is not UTF-8, row by row."""
    reasons: dict[int, str] = {}
    for number, row in rows:
        for column in columns:
            try:
                _decode_cells([row], columns, column)
            except (UnicodeDecodeError, InexactJson):
                reasons.setdefault(number, f"column {column.name} is not UTF-8")
    return reasons


def _decode(rows: Sequence[bytes], columns: Sequence[Column]) -> pa.RecordBatch:
    return assemble(columns, _decode_cells(rows, columns), len(rows))


def _decode_cells(
    rows: Sequence[bytes], columns: Sequence[Column], only: Column | None = None
) -> list[pa.Array]:
    """Decode the columns of whole rows, or only one of them."""
    block = np.frombuffer(b"".join(rows), np.uint8)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ends = np.cumsum(lengths)
    cells = split_rows(block, ends - lengths, ends, len(columns))
    return [
        decode_column(of_column, column)
        for column, of_column in zip(columns, cells, strict=True)
        if only is None or column is only
    ]


def refuse_copy(error: BadCopyError, name: str) -> SourceError:
    """Say that what came is not what the plan expects."""
    return SourceError(
        f"{name}: what COPY gives cannot be read: {error}",
        "report it with the server's version and the table's definition",
    )
