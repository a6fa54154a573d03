"""XML exports: the elements at a path are the records.

Where an element ends is known only from the file's start, so a file is one part, streamed by one
worker in bounded memory.  The plan looks at the head of each file, and names what stands outside of
the records.  The parser is the standard library's expat; entities are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.errors import SourceError
from cfray.formats import lines, xml
from cfray.formats.xml_paths import RecordPath
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files import notes
from cfray.sources.files.base import FilePart, FileSource, parts_of
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.unread_arrays import sum_unread
from cfray.sources.files.unread_elements import (
    count_outside,
    describe_outside,
    files_without_record,
)


class XmlFile(FileSource):
    """Files of XML documents, plain or compressed, in any encoding that they declare."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["xml"]
    unfingerprinted: ClassVar[frozenset[str]] = FileSource.unfingerprinted | {"ignore"}

    kind: Literal["xml"] = "xml"
    #: Path of the elements that are records, by their names from the root as they are written:
    #: ``rss/channel/item``, with ``*`` for any name; or ``//item``, at any depth.  Default: the
    #: children of the root.
    record: str | None = None
    #: Paths below a record of elements whose whole text becomes the field, without the tags in it:
    #: ``body`` or ``article/body``.
    content: list[str] = Field(default_factory=list)
    #: Paths of elements outside of the records that this job leaves to another job, or to nobody,
    #: with all that is in them: ``rss/channel/title``, with ``*`` for any name, and ``$text`` for
    #: text.  ``plan`` warns of each other one with its number, and ``strict`` refuses it.
    ignore: list[str] = Field(default_factory=list)

    @field_validator("record")
    @classmethod
    def _is_path(cls, value: str | None) -> str | None:
        RecordPath.parse(value)
        return value

    @field_validator("ignore")
    @classmethod
    def _are_paths(cls, value: list[str]) -> list[str]:
        for text in value:
            if RecordPath.parse(text).at_any_depth:
                raise ValueError(f"{text!r}: write the path from the root: a/b/c")
        return value

    @property
    def _rules(self) -> xml.RecordRules:
        path = RecordPath.parse(self.record)
        return xml.RecordRules(path, frozenset(self.content), tuple(self.ignore))

    def check_files(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse files that another kind reads, and an export that is empty."""
        super().check_files(files, context)
        if not any(file.size for file in files):
            raise SourceError(
                f"no record at {self.address}: every file there is empty (0 bytes), and no XML",
                "export the files again, or correct source.uri",
            )

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Make the file a single part; look at what stands outside of the records in its head."""
        if not file.size:
            return []
        where = count_outside(file, self._rules)
        return [FilePart(file, "0", where, file.size, splittable=False)]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream the document."""
        planned = frozenset(sum_unread([(file, where)]).counts)
        with open_file(file) as stream:
            yield from xml.decode(
                lines.read_blocks(stream, None),
                file.name,
                context.batch_bytes,
                rules=replace(self._rules, planned=planned),
                max_record=context.max_record,
            )

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Describe the files; say which elements and texts in them are not read."""
        description = super().describe(context, shards)
        parts = [part for shard in shards for part in parts_of(shard)]
        return describe_outside(description, parts, self.ignore, self.record)

    def _notes(self, files: list[PinnedFile], shards: list[Shard]) -> Iterator[str]:
        yield from super()._notes(files, shards)
        parts = [part for shard in shards for part in parts_of(shard)]
        yield from notes.empty_notes(files_without_record(parts))
