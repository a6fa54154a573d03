"""JSON Lines exports: one object a line; a shard is byte ranges that start and end at a line break.

Ranges are aligned when the plan is made, so workers read exactly their bytes
and no line belongs to two of them.  A compressed file cannot be entered in the
middle: it is one part, streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import pyarrow as pa

from cfray.formats import jsonl, lines
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files.base import FileSource, Part
from cfray.sources.files.listing import PinnedFile, opened

#: Bytes of a file that are looked at to estimate its number of lines.
_LOOK = 1024 * 1024


class JsonLines(FileSource):
    """Files of one JSON object a line, plain, ``.gz`` or ``.zst``."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    kind: Literal["jsonl"] = "jsonl"

    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Cut a file at the line breaks nearest to multiples of ``shard_bytes``."""
        if file.codec:
            return [Part(file, "0", {"from": 0, "to": None}, file.size, splittable=False)]
        with opened(file) as stream:
            ranges = lines.aligned(stream, 0, file.size, self.shard_bytes)
        return [
            Part(file, f"{start:015d}", {"from": start, "to": end}, end - start)
            for start, end in ranges
        ]

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Estimate the number of records from the lines in the first MiB of some files.

        Unknown where a file is compressed.
        """
        told = super().describe(context, shards)
        files = self.files()
        if any(file.codec for file in files):
            return told
        seen = broken = 0
        for file in {files[0], files[len(files) // 2], files[-1]}:
            with opened(file) as stream:
                block = stream.read(_LOOK)
            seen += len(block)
            broken += block.count(b"\n")
        return replace(told, rows=round(told.size * broken / seen) if broken else None)

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one byte range."""
        start = where["from"]
        assert isinstance(start, int)
        with opened(file) as stream:
            size = None
            if isinstance(end := where["to"], int):
                stream.seek(start)
                size = end - start
            found = lines.blocks(stream, file.name, size)
            runs = lines.whole_records(
                found, lines.newlines, lines.limit_of(context.max_record), start
            )
            yield from jsonl.decode(runs, file.name, context.batch_bytes)
