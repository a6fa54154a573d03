"""Parse whole CSV records by pyarrow, every column as text or null, and name what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.csv as pacsv

from cfray.formats.csv_dialect import CsvDialect, restore_marks
from cfray.formats.lines import BOM


@dataclass(frozen=True, slots=True)
class CsvTable:
    """The table that a file holds.

    Attributes:
        name: of the file, for positions.
        schema: the columns in their order, with their declared types.
        dialect: of the rows.
        header: the header without its line break; empty where the job file names the columns.
    """

    name: str
    schema: pa.Schema
    dialect: CsvDialect
    header: bytes = b""


def empty_table(table: CsvTable) -> pa.Table:
    """Make a table of texts without rows."""
    return pa.schema([(column, pa.string()) for column in table.schema.names]).empty_table()


def parse_records(
    data: bytes, row_count: int, table: CsvTable
) -> tuple[pa.Table, dict[int, str]] | None:
    """Parse records of UTF-8 text; None if they are not ``row_count`` records to pyarrow.

    Record ends are line breaks to both of us, so equal counts mean equal records.

    Returns:
        The fields of the rows that fit, and row -> why it does not fit.
    """
    if not row_count:
        return empty_table(table), {}
    faults: dict[int, str] = {}
    names, dialect = table.schema.names, table.dialect
    data, marks = dialect.resolve_escapes(data)
    if data.startswith(BOM):
        # pyarrow would drop it, but only a file's first bytes are a mark; it ignores blank lines.
        data = b"\n" + data
    owner = "the header has" if table.header else "source.columns has"
    try:
        texts = pacsv.read_csv(
            pa.BufferReader(data),
            pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            pacsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=True,
                invalid_row_handler=partial(_note_fault, faults, owner),
            ),
            pacsv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=bool(dialect.nulls),
                null_values=dialect.null_texts or None,
                quoted_strings_can_be_null=dialect.has_quoted_nulls,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if texts.num_rows + len(faults) != row_count:
        return None
    return restore_marks(texts, marks) if marks else texts, faults


def _note_fault(faults: dict[int, str], owner: str, row: pacsv.InvalidRow) -> str:
    faults[row.number - 1] = f"{row.actual_columns} fields, but {owner} {row.expected_columns}"
    return "skip"
