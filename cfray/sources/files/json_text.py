"""Open the text of a JSON file, whatever its Unicode encoding and compression."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

from cfray.formats import lines, text_encoding
from cfray.formats.wrong_text import HEAD_BYTES
from cfray.sources.files.listing import PinnedFile, open_file


@contextmanager
def open_text(file: PinnedFile, block_bytes: int = lines.BLOCK) -> Iterator[Iterator[bytes]]:
    """Open a JSON file as blocks of UTF-8, whatever its Unicode encoding."""
    with open_file(file) as stream:
        blocks = lines.read_blocks(stream, None, block_bytes)
        first = next(blocks, b"")
        encoding = text_encoding.json_encoding(first)
        blocks = chain([first] if first else [], blocks)
        if encoding == "utf-8":
            yield blocks
        else:
            yield text_encoding.decode_blocks(blocks, encoding, file.name)


def read_head(file: PinnedFile) -> bytes:
    """Read the first bytes of a JSON file as UTF-8."""
    with open_text(file, HEAD_BYTES) as blocks:
        return next(blocks, b"")


def slice_blocks(blocks: Iterable[bytes], start: int, end: int | None) -> Iterator[bytes]:
    """Give the bytes from ``start`` to ``end`` of a stream."""
    offset = 0
    for block in blocks:
        last = None if end is None else max(0, end - offset)
        if body := block[max(0, start - offset) : last]:
            yield body
        offset += len(block)
        if end is not None and offset >= end:
            return
