"""JSON Lines exports: one object a line; a shard is byte ranges that start and end at a line break.

Ranges are aligned when the plan is made, so workers read exactly their bytes and no line
belongs to two of them.  A compressed file, and one in UTF-16 or UTF-32, cannot be entered in the
middle: it is one part, streamed.  So is a file whose values do not end where lines do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.formats import json_layouts, json_structure, jsonl, lines, text_encoding
from cfray.formats.wrong_text import HEAD_BYTES
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files.base import FilePart, FileSource, parts_of
from cfray.sources.files.json_text import open_text, read_head
from cfray.sources.files.json_values import ValueReader, parse_path, single_object_note
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.text_content import refuse_other_content
from cfray.sources.files.unread_arrays import (
    beside_note,
    count_unread,
    describe_unread,
    sum_unread,
)

#: Bytes of a file that are looked at to estimate its number of lines.
_SAMPLE_BYTES = 1024 * 1024


class JsonLines(FileSource):
    """Files of one JSON object a line, plain or compressed, in UTF-8, UTF-16 or UTF-32."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["jsonl"]
    later_fields: ClassVar[frozenset[str]] = FileSource.later_fields | {"records"}
    unfingerprinted: ClassVar[frozenset[str]] = FileSource.unfingerprinted | {"ignore"}

    kind: Literal["jsonl"] = "jsonl"
    #: The key under which each line holds its record or an array of records, such as ``data`` or,
    #: with dots between keys, ``response.hits``.  Default: each line is a record.
    records: str | None = None
    #: Arrays of records beside ``records`` that this job leaves to another job, or to nobody, by
    #: their keys with dots between them.  ``plan`` warns of each other one, and ``strict`` refuses.
    ignore: list[str] = Field(default_factory=list)

    @field_validator("records")
    @classmethod
    def _is_path(cls, value: str | None) -> str | None:
        parse_path(value)
        return value

    @property
    def _reader(self) -> ValueReader:
        return ValueReader(parse_path(self.records), keeps_going=True)

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut a file at the line breaks nearest to multiples of ``shard_bytes``."""
        if not file.size:
            return []
        with open_file(file) as stream:
            head = stream.read(HEAD_BYTES)
            encoding = text_encoding.json_encoding(head)
            text = head.decode(encoding, "ignore").encode() if encoding != "utf-8" else head
            layout = json_layouts.jsonl_layout(text)
            if layout == "lines" and file.codec is None and encoding == "utf-8":
                refuse_other_content(head, "jsonl", file)
                ranges = lines.split_at_newlines(stream, 0, file.size, self.shard_bytes)
                return [
                    FilePart(file, f"{start:015d}", {"from": start, "to": end}, end - start)
                    for start, end in ranges
                ]
        refuse_other_content(text, "jsonl", file)
        if layout == "values":
            parts = self._reader.split(file)
            return [replace(part, where={**part.where, "layout": layout}) for part in parts]
        where: dict[str, Json] = {"from": 0, "to": None}
        if layout != "lines":
            where["layout"] = layout
        return [FilePart(file, "0", where, file.size, splittable=False)]

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Estimate the number of records from the lines in the first MiB of three files.

        Unknown where a file is compressed, or holds records that are no lines.
        """
        description = super().describe(context, shards)
        parts = [part for shard in shards for part in parts_of(shard)]
        if self.records:
            return self._describe_pages(description, parts)
        if any(file.codec or "layout" in where for file, where in parts):
            return description
        files = [file for file, _ in parts]
        sampled_bytes = line_breaks = 0
        for file in {files[0], files[len(files) // 2], files[-1]}:
            with open_file(file) as stream:
                block = stream.read(_SAMPLE_BYTES)
            sampled_bytes += len(block)
            line_breaks += block.count(b"\n")
        if not line_breaks:
            return replace(description, rows=None)
        return replace(description, rows=round(description.size * line_breaks / sampled_bytes))

    def _describe_pages(
        self, description: Description, parts: list[tuple[PinnedFile, dict[str, Json]]]
    ) -> Description:
        """Say which records are not read: of pages one a line, those in the first file's head."""
        unread = sum_unread(parts)
        if not unread.counts:
            unread = count_unread([read_head(parts[0][0])], parse_path(self.records))
            unread.is_head = True
            unread.counts = {
                name: count for name, count in unread.counts.items() if name not in unread.columns
            }
        return describe_unread(description, unread, self.ignore, self.records)

    def _notes(self, files: list[PinnedFile], shards: list[Shard]) -> Iterator[str]:
        yield from super()._notes(files, shards)
        parts = [part for shard in shards for part in parts_of(shard)]
        yield from beside_note(parts)
        if self.records and files:
            yield from self._page_note(files[0])
        elif files:
            yield from single_object_note(files[0], self.kind)
        names = sorted({file.name for file, where in parts if "layout" in where})
        if names:
            yield (
                f"not one JSON object a line, so read value by value: {', '.join(names[:10])}"
                f"{' …' if len(names) > 10 else ''}"
            )

    def _page_note(self, file: PinnedFile) -> Iterator[str]:
        """Name what the first lines hold beside their records."""
        path = parse_path(self.records)
        beside = json_structure.find_containers([read_head(file)], path).beside
        if beside:
            yield f"not read, it stands beside the records of {file.name}: {', '.join(beside)}"

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one byte range."""
        if where.get("layout") == "values":
            yield from self._reader.read(file, where, context)
            return
        start, end = where["from"], where["to"]
        assert isinstance(start, int)
        find_ends = json_structure.separator_ends if "layout" in where else lines.line_ends
        with ExitStack() as stack:
            if isinstance(end, int):
                stream = stack.enter_context(open_file(file))
                stream.seek(start)
                blocks = lines.read_blocks(stream, end - start)
            else:
                blocks = stack.enter_context(open_text(file))
            runs = lines.gather_records(
                blocks, find_ends, lines.record_limit(context.max_record), start
            )
            yield from jsonl.decode(runs, file.name, context.batch_bytes, parse_path(self.records))
