"""CSV exports: a header line, then rows; a shard is byte ranges on record boundaries.

No type is ever inferred: a column is text unless ``types`` declares it, so that ids such
as 001 stay what they are.  Quoted fields may hold line breaks, so each file is read once
to find the boundaries when the plan is made; ``newlines_in_values: false`` promises that
no field holds a line break, and saves that pass.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from cfray.errors import SourceError
from cfray.formats import csv, csv_records, lines
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_header import CsvHeader
from cfray.formats.csv_parse import CsvTable
from cfray.formats.csv_types import parse_type
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files import csv_head, partitions
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file

#: Values of ``quote`` and ``escape`` that stand for no character.
_NONE = "none"


class Csv(FileSource):
    """Files of delimited text, plain or compressed."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["csv"]
    later_fields: ClassVar[frozenset[str]] = FileSource.later_fields - {"types"} | {
        "quote",
        "escape",
        "null",
        "columns",
        "decimal",
        "skip_lines",
    }

    kind: Literal["csv"] = "csv"
    #: One ASCII character between fields; "\t" for tab-separated files.  A first line ``sep=;``, as
    #: Excel writes it, names the delimiter of its file and is no record.
    delimiter: str = ","
    #: The ASCII character around quoted fields, or ``none``: every quote is a plain character.
    #: Inside a quoted field two quotes stand for a quote.  A row with text behind a closing quote
    #: goes to quarantine.
    quote: str = '"'
    #: An ASCII character, mostly "\\", that escapes quotes inside quoted fields, as Spark writes
    #: them; with ``quote: none`` it escapes delimiters and line breaks.  Default: none.
    escape: str | None = None
    #: The text, or several, that stands for null where it is not quoted, for example "\\N"; write
    #: it with its quotes where a quoted one is null, too.  With "" an empty field is null and a
    #: quoted empty one an empty text.  Default: no text; an empty field is an empty text, which a
    #: rule of the mapping takes for absent.
    null: str | list[str] | None = None
    #: Names of the columns where the files have no header: their first line is a row.
    columns: list[str] = Field(default_factory=list)
    #: Lines at the start of each file, before its header or its first row, that are no records:
    #: comments, the title of a report.  Default: 0.
    skip_lines: int = Field(default=0, ge=0)
    #: A codec of Python's.  A file that begins with the mark of UTF-16 or UTF-32 is read as such.
    encoding: str = "utf-8"
    #: Declared types by column, or by key of a folder; all others are text.
    types: dict[str, str] = Field(default_factory=dict)
    #: The character before the fraction in columns declared float, double or decimal128.
    decimal: Literal[".", ","] = "."
    #: Whether a quoted field may hold a line break; false spares the plan a pass over the files.
    newlines_in_values: bool = True

    @field_validator("delimiter")
    @classmethod
    def _is_delimiter(cls, value: str) -> str:
        if len(value) != 1 or not value.isascii() or value.isalnum() or value in '"\r\n\0':
            raise ValueError(
                f"delimiter {value!r} must be one ASCII character, no letter, digit, quote or line "
                r'break; a tab is "\t"'
            )
        return value

    @field_validator("quote", mode="before")
    @classmethod
    def _is_quote(cls, value: object) -> object:
        # YAML takes ``null`` and ``no`` for these
        return _NONE if value is None or value is False else value

    @field_validator("quote", "escape")
    @classmethod
    def _is_mark(cls, value: str | None) -> str | None:
        if value in (None, _NONE):
            return value
        if len(value) != 1 or not value.isascii() or value.isalnum() or value in "\r\n\0":
            raise ValueError(
                f"{value!r} must be one ASCII character, no letter, digit or line break, or none; "
                r"in YAML a backslash is '\' or "
                r'"\\"'
            )
        return value

    @field_validator("null")
    @classmethod
    def _are_nulls(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value == []:
            raise ValueError('null names no text; write for example null: "\\\\N", or leave it out')
        return value

    @field_validator("columns")
    @classmethod
    def _are_columns(cls, value: list[str]) -> list[str]:
        repeated = sorted({name for name in value if not name.strip() or value.count(name) > 1})
        if repeated:
            raise ValueError(
                f"columns has an empty or repeated name: {', '.join(map(repr, repeated))}; every "
                "column needs a name of its own"
            )
        return value

    @field_validator("encoding")
    @classmethod
    def _is_codec(cls, value: str) -> str:
        try:
            "".encode(value)
            name = codecs.lookup(value).name
        except LookupError as error:
            raise ValueError(
                f"encoding {value!r} is not known; for example utf-8, latin-1, cp1252 or utf-16"
            ) from error
        return "utf-8" if name == "utf-8-sig" else name

    @field_validator("types")
    @classmethod
    def _are_types(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            parse_type(name)
        return value

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        marks = {"delimiter": self.delimiter, "quote": self._dialect.quote}
        if self._dialect.escape is not None:
            marks["escape"] = self._dialect.escape
        if len(set(marks.values())) < len(marks):
            raise ValueError(
                f"{' and '.join(marks)} must be different characters; two quotes for a quote, "
                "which is the default, need no escape"
            )
        return self

    @property
    def _dialect(self) -> CsvDialect:
        """Give the dialect as the job file has it."""
        nulls = [self.null] if isinstance(self.null, str) else self.null or ()
        return CsvDialect(
            self.delimiter,
            None if self.quote == _NONE else self.quote,
            # an escape that is the quote itself is the quote that is doubled
            None if self.escape in (_NONE, self.quote) else self.escape,
            tuple(nulls),
            self.encoding,
            self.newlines_in_values,
            self.decimal,
        )

    def check_files(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse files whose columns differ, and declared types of columns that are missing."""
        super().check_files(files, context)
        files = [file for file in files if file.size]
        if not files:
            raise SourceError(
                f"no row at {self.address}: every file there is empty (0 bytes)",
                "export the files again, or correct source.uri",
            )
        columns = self._header(files[0], context).columns
        for file in files[1:]:
            if (other_columns := self._header(file, context).columns) != columns:
                raise SourceError(
                    f"{files[0].name} has the columns {', '.join(columns)}, but {file.name} has "
                    f"{', '.join(other_columns)}",
                    "move them in two jobs, or write both with the same header; where the files "
                    "have no header, name the columns in source.columns",
                )

    def check_types(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse declared types of what is neither a column nor a key of a folder."""
        with_rows = [file for file in files if file.size]
        columns = self._header(with_rows[0], context).columns
        keys = partitions.list_keys(files)
        if unknown := sorted({*self.types} - {*columns, *keys}):
            in_folders = f", and its folders have the keys {', '.join(keys)}" if keys else ""
            raise SourceError(
                f"source.types names {', '.join(unknown)}, but {with_rows[0].name} has "
                f"{', '.join(columns)}{in_folders}",
                "correct source.types",
            )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Describe the files; an empty field stands for null unless ``null`` names another text."""
        return replace(super().describe(context, shards), blank_is_null=self.null is None)

    def _notes(self, files: list[PinnedFile], shards: list[Shard]) -> Iterator[str]:
        yield from super()._notes(files, shards)
        with_rows = [file for file in files if file.size]
        if with_rows:
            yield from self._header(with_rows[0], Context()).notes

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut a file on record boundaries near multiples of ``shard_bytes``."""
        if not file.size:
            return []
        header = self._header(file, context)
        start, dialect = header.end, header.dialect
        if file.codec or not csv_head.is_bytewise(dialect):
            return [FilePart(file, "0", {"from": start, "to": None}, file.size, splittable=False)]
        ranges: Sequence[tuple[int, int, int | None]]
        with open_file(file) as stream:
            if self.newlines_in_values or dialect.escape is not None:
                stream.seek(start)
                blocks = lines.read_blocks(stream, file.size - start)
                ranges = csv_records.split_at_records(
                    dialect.keep_pairs_together(blocks),
                    csv_records.RecordEnds(dialect, quoting=self.newlines_in_values),
                    start,
                    self.shard_bytes,
                )
            else:
                ranges = [
                    (first, end, None)
                    for first, end in lines.split_at_newlines(
                        stream, start, file.size, self.shard_bytes
                    )
                ]
        return [
            FilePart(file, f"{first:015d}", {"from": first, "to": end}, end - first, rows)
            for first, end, rows in ranges
        ]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one range of records."""
        start, end = where["from"], where["to"]
        assert isinstance(start, int)
        header = self._header(file, context)
        dialect = header.dialect
        if not csv_head.is_bytewise(dialect):
            dialect = replace(dialect, encoding="utf-8")
        table = CsvTable(file.name, self._schema(header), dialect, header.line)
        find_ends = csv_records.RecordEnds(dialect, start, quoting=self.newlines_in_values)
        # A block becomes a batch; larger blocks leave the processor's cache and read slower.
        block_bytes = min(context.batch_bytes, lines.BLOCK)
        with open_file(file) as stream:
            if isinstance(end, int):
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start, block_bytes)
            else:
                text = csv_head.to_text(
                    lines.read_blocks(stream, None, block_bytes), header.dialect, file.name
                )
                blocks = csv_head.skip_bytes(start, text)
            runs = lines.gather_records(
                dialect.keep_pairs_together(blocks),
                find_ends,
                lines.record_limit(context.max_record),
                start,
            )
            yield from csv.decode(runs, find_ends, table)

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the header's columns with their declared types."""
        if not file.size:
            file = next((other for other in self.find_files() if other.size), file)
        return self._schema(self._header(file, context))

    def _schema(self, header: CsvHeader) -> pa.Schema:
        return pa.schema(
            [(name, parse_type(self.types.get(name, "string"))) for name in header.columns]
        )

    def _header(self, file: PinnedFile, context: Context) -> CsvHeader:
        limit = lines.record_limit(context.max_record)
        return csv_head.open_header(
            file, self._dialect, tuple(self.columns), limit, self.skip_lines
        )
