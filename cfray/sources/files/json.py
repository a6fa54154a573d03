"""JSON exports: a file holds an array of objects, or objects one after the other.

The end of an element is known only from the file's start, so a file is one part, streamed
by one worker in bounded memory.  Large exports are better written as JSON Lines, which can
be split.  NaN and Infinity as bare words are read as floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.errors import SourceError
from cfray.formats.json_rows import Orient
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files.base import FilePart, FileSource, parts_of
from cfray.sources.files.json_text import read_head
from cfray.sources.files.json_values import ValueReader, parse_path, single_object_note
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.text_content import refuse_other_content
from cfray.sources.files.unread_arrays import beside_note, describe_unread, sum_unread


class JsonFile(FileSource):
    """Files of JSON arrays or objects, plain or compressed, in UTF-8, UTF-16 or UTF-32."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["json"]
    later_fields: ClassVar[frozenset[str]] = FileSource.later_fields | {"records", "orient"}
    unfingerprinted: ClassVar[frozenset[str]] = FileSource.unfingerprinted | {"ignore"}

    kind: Literal["json"] = "json"
    #: The key under which the records stand in a file of one object, such as ``data`` or, with dots
    #: between keys, ``response.hits``.  What stands beside them is not read; ``plan`` names it.
    #: Default: the records stand in a top-level array, or are the top-level objects.
    records: str | None = None
    #: Arrays of records beside ``records`` that this job leaves to another job, or to nobody, by
    #: their keys with dots between them.  ``plan`` warns of each other one with its number of
    #: records, and ``strict`` refuses it.
    ignore: list[str] = Field(default_factory=list)
    #: How the records are written, in the words of pandas' ``to_json``.  ``records``: each as an
    #: object.  ``index``: an object whose members are the records; the key becomes the field
    #: ``$key``.  ``columns``: an object of columns, each an object of rows; up to 64 MiB.
    #: ``list``: an object of columns, each an array, as ``to_dict("list")`` gives it; up to 64 MiB.
    #: ``split``: ``{"columns": [names], "data": [rows]}``.  ``header``: an array of arrays, of
    #: which the first holds the names.
    orient: Orient = "records"

    @field_validator("records")
    @classmethod
    def _is_path(cls, value: str | None) -> str | None:
        parse_path(value)
        return value

    @property
    def _reader(self) -> ValueReader:
        return ValueReader(parse_path(self.records), self.orient)

    def check_files(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse files that hold no JSON, and an export that is empty."""
        super().check_files(files, context)
        if not any(file.size for file in files):
            raise SourceError(
                f"no record at {self.address}: every file there is empty (0 bytes), which is no "
                "JSON",
                "export the files again, or correct source.uri",
            )
        for file in files:
            refuse_other_content(read_head(file), "json", file)

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Make the file a single part, or each array or object under ``records`` one."""
        return self._reader.split(file) if file.size else []

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream the part."""
        yield from self._reader.read(file, where, context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Describe the files; say which records in them are not read."""
        description = super().describe(context, shards)
        parts = [part for shard in shards for part in parts_of(shard)]
        return describe_unread(description, sum_unread(parts), self.ignore, self.records)

    def _notes(self, files: list[PinnedFile], shards: list[Shard]) -> Iterator[str]:
        yield from super()._notes(files, shards)
        yield from beside_note(part for shard in shards for part in parts_of(shard))
        with_records = [file for file in files if file.size]
        if self.records is None and self.orient == "records" and with_records:
            yield from single_object_note(with_records[0], self.kind)
