"""JSON exports: a file holds one array of objects, or one object.

The end of an element is known only from the file's start, so a file is one
part, streamed by one worker in bounded memory.  Many records belong into JSON
Lines, which splits.  NaN and Infinity as bare words are read as floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa

from cfray.formats import jsonarray, lines
from cfray.records.record import Reject
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FileSource, Part
from cfray.sources.files.listing import PinnedFile, opened


class JsonFile(FileSource):
    """Files of one JSON array or object, plain, ``.gz`` or ``.zst``."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    kind: Literal["json"] = "json"

    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Leave the file whole."""
        return [Part(file, "0", {}, file.size, splittable=False)]

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream the file."""
        with opened(file) as stream:
            source = lines.blocks(stream, file.name)
            runs = lines.whole_records(
                source, jsonarray.ElementEnds(), lines.limit_of(context.max_record)
            )
            yield from jsonarray.decode(runs, file.name, context.batch_bytes)
