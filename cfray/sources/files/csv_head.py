"""What stands before the rows of a CSV file, and its bytes as a stream that can be cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain

from cfray.errors import SourceError
from cfray.formats import csv_header, csv_records, lines, text_encoding
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_header import CsvHeader
from cfray.formats.wrong_text import refuse_zero_bytes
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.locations import printable
from cfray.sources.files.text_content import refuse_other_content

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)")


@lru_cache(maxsize=1024)
def open_header(
    file: PinnedFile,
    dialect: CsvDialect,
    columns: tuple[str, ...],
    limit: int,
    skip_lines: int = 0,
) -> CsvHeader:
    """Read what stands before a file's rows; its dialect has the file's own encoding.

    A plan asks several times for each file.  A file that changed has another pin, and opening it
    to read its rows compares it with the pin.

    Args:
        file: the file.
        dialect: as the job file has it.
        columns: names, where the file has no header.
        limit: bytes above which a line is no header.
        skip_lines: lines before the header, or before the rows, that are no records.

    Raises:
        SourceError: the file is no CSV, or its header cannot be read.
    """
    notes = []
    with open_file(file) as stream:
        raw_blocks = lines.read_blocks(stream, None, lines.HEAD)
        first = next(raw_blocks, b"")
        if dialect.encoding == "utf-8" and (marked := text_encoding.marked_encoding(first)):
            dialect = replace(dialect, encoding=marked)
            notes.append(f"{file.name}: its byte order mark says {marked}")
        text = to_text(chain([first], raw_blocks), dialect, file.name)
        head = next(text, b"")
        refuse_other_content(head, "csv", file)
        refuse_zero_bytes(head, file.name)
        skipped = _end_of_lines(head, skip_lines, file.name)
        if skipped:
            content = printable(head[: min(skipped, 200)].decode(errors="replace").strip())
            lines_are = "line is" if skip_lines == 1 else f"{skip_lines:,} lines are"
            notes.append(
                f"{file.name}: its first {lines_are} not read (source.skip_lines): {content}"
            )
        header = csv_header.read_header(
            dialect.keep_pairs_together(chain([head[skipped:]], text)),
            dialect if is_bytewise(dialect) else replace(dialect, encoding="utf-8"),
            file.name,
            limit,
            columns,
        )
    return replace(
        header,
        end=header.end + skipped,
        dialect=replace(header.dialect, encoding=dialect.encoding),
        notes=(*notes, *header.notes),
    )


def _end_of_lines(head: bytes, count: int, name: str) -> int:
    """Find the offset behind the first lines of a text.

    Raises:
        SourceError: there are not so many.
    """
    end = 0
    for _ in range(count):
        line = _LINE.match(head, end)
        if line is None:
            raise SourceError(
                f"{name} has fewer than {count:,} lines (source.skip_lines) in its first "
                f"{len(head):,} bytes",
                "correct source.skip_lines",
            )
        end = line.end()
    return end


def is_bytewise(dialect: CsvDialect) -> bool:
    """Tell whether the rows of a dialect can be cut without decoding them."""
    return csv_records.is_bytewise(dialect.encoding, dialect.marks)


def to_text(blocks: Iterable[bytes], dialect: CsvDialect, name: str) -> Iterator[bytes]:
    """Turn an encoding whose bytes cannot be cut into UTF-8; leave all others to their rows."""
    if is_bytewise(dialect):
        yield from blocks
    else:
        yield from text_encoding.decode_blocks(blocks, dialect.encoding, name)


def skip_bytes(count: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out the first ``count`` bytes of a stream."""
    for block in blocks:
        if body := block[count:]:
            yield body
        count = max(0, count - len(block))
