"""The quarantine: rows that did not fit, one by one, without those that a replay brought in.

Quarantine files themselves never change: the receipt of a replay says which of their lines came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.conversion.rejects import RejectedRow, row_from_text
from cfray.errors import TargetError
from cfray.target.books import read_books
from cfray.target.documents import RESTORE, parse_document
from cfray.target.ledger import Ledger
from cfray.target.state import State


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row in quarantine.

    Attributes:
        folder: of the quarantine.
        file: name of the row's file.
        line: number of the row's line, from 0.
        content: the row.
    """

    folder: str
    file: str
    line: int
    content: RejectedRow

    @property
    def location(self) -> str:
        """Name the row's line for a message; people count lines from 1."""
        return f"{self.folder}/{self.file}, line {self.line + 1},"

    @property
    def record(self) -> pa.RecordBatch:
        """Read the record as its source gave it, a batch of one row.

        Raises:
            TargetError: the line is damaged.
        """
        text = self.content.record.encode()
        return parse_document(text, self.location, lambda data: row_from_text(data.decode()))


def quarantined_rows(state: State, ledger: Ledger) -> Iterator[QuarantinedRow]:
    """Yield the rows of committed entries that no replay has brought in yet.

    Raises:
        TargetError: a quarantine file or a receipt is missing or damaged.
    """
    books = read_books(state, ledger)
    for file, row_count in books.quarantine_files.items():
        replayed_lines = books.replayed.get(file, set())
        for row in rows_of_file(state, file, row_count):
            if row.line not in replayed_lines:
                yield row


def rows_of_file(state: State, file: str, row_count: int) -> Iterator[QuarantinedRow]:
    """Yield the rows of one file, replayed or not.

    Args:
        state: of the target.
        file: name of the file.
        row_count: how many rows it must have.

    Raises:
        TargetError: it is missing or damaged.
    """
    folder = state.quarantine.uri
    data = state.quarantine.read(file)
    if data is None:
        raise TargetError(f"{folder}/{file} is missing", RESTORE)
    lines = data.splitlines()
    if len(lines) != row_count:
        raise TargetError(
            f"{folder}/{file} is damaged: it has {len(lines):,} lines, and {row_count:,} rows were "
            "quarantined",
            RESTORE,
        )
    for number, line in enumerate(lines):
        location = f"{folder}/{file}, line {number + 1},"
        content = parse_document(line, location, RejectedRow.from_line)
        yield QuarantinedRow(folder, file, number, content)
