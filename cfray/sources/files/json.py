"""JSON exports: a file holds one array of objects, or one object.

The end of an element is known only from the file's start, so a file is one part, streamed
by one worker in bounded memory.  Large exports are better written as JSON Lines, which can
be split.  NaN and Infinity as bare words are read as floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa

from cfray.formats import jsonarray, lines
from cfray.records.record import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file


class JsonFile(FileSource):
    """Files of one JSON array or object, plain, ``.gz`` or ``.zst``."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["json"]

    kind: Literal["json"] = "json"

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Make the file a single part."""
        return [FilePart(file, "0", {}, file.size, splittable=False)]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream the file."""
        with open_file(file) as stream:
            runs = lines.gather_records(
                lines.read_blocks(stream),
                jsonarray.ElementEnds(),
                lines.record_limit(context.max_record),
            )
            yield from jsonarray.decode(runs, file.name, context.batch_bytes)
