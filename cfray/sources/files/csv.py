"""CSV exports: a header line, then rows; a shard is byte ranges on record boundaries.

No type is ever inferred: a column is text unless ``types`` declares it, so that ids such
as 001 stay what they are.  Quoted fields may hold line breaks, so each file is read once
to find the boundaries when the plan is made; ``newlines_in_values: false`` promises that
no field holds a line break, and saves that pass.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.errors import SourceError
from cfray.formats import csv, csv_records, lines
from cfray.formats.csv_types import parse_type
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file


class Csv(FileSource):
    """Files of delimited text, plain, ``.gz`` or ``.zst``."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["csv"]

    kind: Literal["csv"] = "csv"
    #: One ASCII character between fields; "\t" for tab-separated files.
    delimiter: str = ","
    #: A codec of Python's.
    encoding: str = "utf-8"
    #: Declared types by column; all others are text.
    types: dict[str, str] = Field(default_factory=dict)
    #: Whether a quoted field may hold a line break; false spares the plan a pass over the files.
    newlines_in_values: bool = True

    @field_validator("delimiter")
    @classmethod
    def _is_delimiter(cls, value: str) -> str:
        if len(value) != 1 or not value.isascii() or value.isalnum() or value in '"\r\n\0':
            raise ValueError(
                f"delimiter {value!r} must be one ASCII character, no letter, digit, quote or line "
                "break"
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

    def check_files(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse files whose columns differ, and declared types of columns that are missing."""
        super().check_files(files, context)
        columns = self._header(files[0], context).columns
        if unknown := sorted(set(self.types) - set(columns)):
            raise SourceError(
                f"source.types names {', '.join(unknown)}, but {files[0].name} has "
                f"{', '.join(columns)}",
                "correct source.types",
            )
        for file in files[1:]:
            if (other_columns := self._header(file, context).columns) != columns:
                raise SourceError(
                    f"{files[0].name} has the columns {', '.join(columns)}, but {file.name} has "
                    f"{', '.join(other_columns)}",
                    "move them in two jobs, or write both with the same header",
                )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Describe the files; an empty field stands for null, since CSV cannot write a null."""
        return replace(super().describe(context, shards), blank_is_null=True)

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut a file on record boundaries near multiples of ``shard_bytes``."""
        start = self._header(file, context).end
        if not self._is_splittable(file):
            return [FilePart(file, "0", {"from": start, "to": None}, file.size, splittable=False)]
        ranges: Sequence[tuple[int, int, int | None]]
        with open_file(file) as stream:
            if self.newlines_in_values:
                stream.seek(start)
                ranges = csv_records.split_at_records(
                    lines.read_blocks(stream, file.size - start),
                    csv_records.RecordEnds(self.delimiter),
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
        is_raw = self._is_splittable(file) or self._is_bytewise()
        dialect = csv.CsvDialect(
            self.record_schema(file, context),
            self.delimiter,
            self.encoding if is_raw else "utf-8",
            self.newlines_in_values,
        )
        find_ends = csv_records.RecordEnds(self.delimiter, quoting=self.newlines_in_values)
        # A block becomes a batch; larger blocks leave the processor's cache and read slower.
        block_bytes = min(context.batch_bytes, lines.BLOCK)
        with open_file(file) as stream:
            if isinstance(end, int):
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start, block_bytes)
            else:
                text = self._text(lines.read_blocks(stream, None, block_bytes), file.name)
                blocks = _skip_bytes(start, text)
            runs = lines.gather_records(
                csv_records.keep_crlf_together(blocks),
                find_ends,
                lines.record_limit(context.max_record),
                start,
            )
            yield from csv.decode(runs, find_ends, dialect, file.name)

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the header's columns with their declared types."""
        columns = self._header(file, context).columns
        return pa.schema([(name, parse_type(self.types.get(name, "string"))) for name in columns])

    def _header(self, file: PinnedFile, context: Context) -> csv_records.CsvHeader:
        encoding = self.encoding if self._is_bytewise() else "utf-8"
        with open_file(file) as stream:
            blocks = self._text(lines.read_blocks(stream, None, lines.HEAD), file.name)
            return csv_records.read_header(
                blocks, self.delimiter, encoding, file.name, lines.record_limit(context.max_record)
            )

    def _is_splittable(self, file: PinnedFile) -> bool:
        return not file.codec and self._is_bytewise()

    def _is_bytewise(self) -> bool:
        return csv_records.is_bytewise(self.encoding, self.delimiter)

    def _text(self, blocks: Iterable[bytes], name: str) -> Iterator[bytes]:
        """Turn an encoding whose bytes cannot be cut into UTF-8; leave all others to their rows."""
        if self._is_bytewise():
            yield from blocks
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        decoded_bytes = 0
        try:
            for block in blocks:
                yield decoder.decode(block).encode()
                decoded_bytes += len(block)
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise SourceError(
                f"{name} is not {self.encoding} behind byte {decoded_bytes}: {error}",
                "correct source.encoding or the file",
            ) from error


def _skip_bytes(count: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out the first ``count`` bytes of a stream."""
    for block in blocks:
        yield block[count:]
        count = max(0, count - len(block))
