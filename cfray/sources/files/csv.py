"""CSV exports: a header line, then rows; a shard is byte ranges on record boundaries.

No type is ever inferred: a column is text unless ``types`` declares it, so that
ids such as 001 stay what they are.  Quoted fields may hold line breaks, so one
pass over each file finds the boundaries when the plan is made; it is saved where
``newlines_in_values: false`` promises that there are none.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.errors import SourceError
from cfray.formats import csv, csv_records, lines
from cfray.formats.csv_types import type_named
from cfray.records.record import Reject
from cfray.sources.base import Context, Json, Shard
from cfray.sources.files.base import FileSource, Part
from cfray.sources.files.listing import PinnedFile, opened


class Csv(FileSource):
    """Files of delimited text, plain, ``.gz`` or ``.zst``."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

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
                f"delimiter {value!r} must be one ASCII character, no letter, digit, quote or line break"
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
            type_named(name)
        return value

    def shards(self, context: Context) -> list[Shard]:
        """Check that all files have the same columns, then cut them."""
        files = self.files()
        first = self._header(files[0], context).columns
        if unknown := sorted(set(self.types) - set(first)):
            raise SourceError(
                f"source.types names {', '.join(unknown)}, but {files[0].name} has {', '.join(first)}",
                "correct source.types",
            )
        for file in files[1:]:
            if (columns := self._header(file, context).columns) != first:
                raise SourceError(
                    f"{files[0].name} has the columns {', '.join(first)}, but {file.name} has {', '.join(columns)}",
                    "move them in two jobs, or write both with the same header",
                )
        return super().shards(context)

    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Cut a file on record boundaries near multiples of ``shard_bytes``."""
        start = self._header(file, context).end
        if not self._splittable(file):
            return [Part(file, "0", {"from": start, "to": None}, file.size, splittable=False)]
        with opened(file) as stream:
            if not self.newlines_in_values:
                found = lines.aligned(stream, start, file.size, self.shard_bytes)
                return [Part(file, f"{a:015d}", {"from": a, "to": b}, b - a) for a, b in found]
            stream.seek(start)
            source = lines.blocks(stream, file.name, file.size - start)
            cuts = csv_records.ranges(
                source, csv_records.RecordEnds(self.delimiter), start, self.shard_bytes
            )
        return [Part(file, f"{a:015d}", {"from": a, "to": b}, b - a, rows) for a, b, rows in cuts]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one range of records."""
        start, end = where["from"], where["to"]
        assert isinstance(start, int)
        ends = csv_records.RecordEnds(self.delimiter, quoting=self.newlines_in_values)
        splittable = self._splittable(file)
        encoding = self.encoding if splittable or self._bytewise() else "utf-8"
        layout = csv.CsvDialect(
            self.record_schema(file, context), self.delimiter, encoding, self.newlines_in_values
        )
        block = min(
            context.batch_bytes, lines.BLOCK
        )  # a block is a batch; larger ones leave the processor's cache and read slower
        with opened(file) as stream:
            if isinstance(end, int):
                stream.seek(start)
                source = lines.blocks(stream, file.name, end - start, block)
            else:
                source = _behind(
                    start, self._text(lines.blocks(stream, file.name, None, block), file.name)
                )
            runs = lines.whole_records(
                csv_records.unsplit(source), ends, lines.limit_of(context.max_record), start
            )
            yield from csv.decode(runs, ends, layout, file.name)

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema:
        """Give the header's columns with their declared types."""
        return pa.schema(
            [
                (name, type_named(self.types.get(name, "string")))
                for name in self._header(file, context).columns
            ]
        )

    def _header(self, file: PinnedFile, context: Context) -> csv_records.Header:
        encoding = self.encoding if self._bytewise() else "utf-8"
        with opened(file) as stream:
            source = self._text(lines.blocks(stream, file.name, None, lines.HEAD), file.name)
            return csv_records.read_header(
                source, self.delimiter, encoding, file.name, lines.limit_of(context.max_record)
            )

    def _splittable(self, file: PinnedFile) -> bool:
        return not file.codec and self._bytewise()

    def _bytewise(self) -> bool:
        return csv_records.is_bytewise(self.encoding, self.delimiter)

    def _text(self, source: Iterable[bytes], name: str) -> Iterator[bytes]:
        """Turn an encoding whose bytes cannot be cut into UTF-8; leave all others to their rows."""
        if self._bytewise():
            yield from source
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        done = 0
        try:
            for block in source:
                yield decoder.decode(block).encode()
                done += len(block)
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise SourceError(
                f"{name} is not {self.encoding} behind byte {done}: {error}",
                "correct source.encoding or the file",
            ) from error


def _behind(start: int, source: Iterable[bytes]) -> Iterator[bytes]:
    for block in source:
        yield block[start:]
        start = max(0, start - len(block))
