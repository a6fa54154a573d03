"""JSON Lines exports: one object a line; a shard is byte ranges that start and end at a line break.

Ranges are aligned when the plan is made, so workers read exactly their bytes and no line
belongs to two of them.  A compressed file cannot be entered in the middle: it is one part,
streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import pyarrow as pa

from cfray.formats import jsonl, lines
from cfray.records.record import Reject
from cfray.sources.base import Context, Description, Json, Shard
from cfray.sources.files.base import FilePart, FileSource
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.files.listing import PinnedFile, open_file

#: Bytes of a file that are looked at to estimate its number of lines.
_SAMPLE_BYTES = 1024 * 1024


class JsonLines(FileSource):
    """Files of one JSON object a line, plain, ``.gz`` or ``.zst``."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES["jsonl"]

    kind: Literal["jsonl"] = "jsonl"

    def split_file(self, file: PinnedFile, context: Context) -> list[FilePart]:
        """Cut a file at the line breaks nearest to multiples of ``shard_bytes``."""
        if file.codec:
            return [FilePart(file, "0", {"from": 0, "to": None}, file.size, splittable=False)]
        with open_file(file) as stream:
            ranges = lines.split_at_newlines(stream, 0, file.size, self.shard_bytes)
        return [
            FilePart(file, f"{start:015d}", {"from": start, "to": end}, end - start)
            for start, end in ranges
        ]

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Estimate the number of records from the lines in the first MiB of three files.

        Unknown where a file is compressed.
        """
        description = super().describe(context, shards)
        files = self.find_files()
        if any(file.codec for file in files):
            return description
        sampled_bytes = line_breaks = 0
        for file in {files[0], files[len(files) // 2], files[-1]}:
            with open_file(file) as stream:
                block = stream.read(_SAMPLE_BYTES)
            sampled_bytes += len(block)
            line_breaks += block.count(b"\n")
        if not line_breaks:
            return replace(description, rows=None)
        return replace(description, rows=round(description.size * line_breaks / sampled_bytes))

    def read_part(
        self, file: PinnedFile, where: dict[str, Json], context: Context
    ) -> Iterator[pa.RecordBatch | Reject]:
        """Stream one byte range."""
        start, end = where["from"], where["to"]
        assert isinstance(start, int)
        with open_file(file) as stream:
            size = None
            if isinstance(end, int):
                stream.seek(start)
                size = end - start
            runs = lines.gather_records(
                lines.read_blocks(stream, size),
                lines.line_ends,
                lines.record_limit(context.max_record),
                start,
            )
            yield from jsonl.decode(runs, file.name, context.batch_bytes)
