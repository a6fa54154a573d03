"""XML exports: the elements at a path are the records.

Where an element ends is known only from the file's start, so a file is one part, streamed by one
worker in bounded memory.  The parser is the standard library's expat; entities are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from cfray.errors import SourceError
from cfray.formats import lines, xml
from cfray.records.record import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file


class XmlFile(FileSource):
    """Files of XML documents, plain or compressed, in any encoding that they declare."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["xml"]

    kind: Literal["xml"] = "xml"
    #: Path of the elements that are records, by their names from the root as they are written:
    #: ``rss/channel/item``, with ``*`` for any name; or ``//item``, at any depth.  Default: the
    #: children of the root.
    record: str | None = None
    #: Paths below a record of elements whose whole text becomes the field, without the tags in it:
    #: ``body`` or ``article/body``.
    content: list[str] = Field(default_factory=list)

    @field_validator("record")
    @classmethod
    def _is_path(cls, value: str | None) -> str | None:
        xml.RecordPath.parse(value)
        return value

    def check_files(self, files: list[PinnedFile], context: Context) -> None:
        """Refuse files that another kind reads, and an export that is empty."""
        super().check_files(files, context)
        if not any(file.size for file in files):
            raise SourceError(
                f"no record at {self.address}: every file there is empty (0 bytes), and no XML",
                "export the files again, or correct source.uri",
            )

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Make the file a single part."""
        return [FilePart(file, "0", {}, file.size, splittable=False)] if file.size else []

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream the document."""
        with open_file(file) as stream:
            yield from xml.decode(
                lines.read_blocks(stream, None),
                file.name,
                context.batch_bytes,
                path=xml.RecordPath.parse(self.record),
                content=frozenset(self.content),
                max_record=context.max_record,
            )
