"""BSON files of mongodump: documents one after the other.

A file that is cut in the middle of a document is refused when it is planned, or, where it
is compressed, when it is read: its end is never taken for the end of the collection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.mongodb.elements import DamagedBsonError, read_int32, split_documents
from cfray.sources.mongodb.records import Page, to_records
from cfray.sources.mongodb.settings import MongoSettings

#: Bytes of one read.
_BLOCK_BYTES = 4 * MIB
#: Bytes of a document at most: the server's limit is 16 MiB, and a damaged length is larger.
_MAX_DOCUMENT_BYTES = 64 * MIB
#: Documents that show what a file holds.
_SHOWN_ROWS = 100
_LENGTH_BYTES, _SMALLEST_DOCUMENT = 4, 5


@dataclass(frozen=True, slots=True)
class FileRange:
    """A part of a file that becomes a shard.

    Attributes:
        start: first byte.
        end: byte behind the last one; None for the whole of a compressed file.
        rows: documents; None where they were not counted.
        size: bytes.
    """

    start: int
    end: int | None
    rows: int | None
    size: int


def cut_file(file: PinnedFile, settings: MongoSettings) -> Iterator[FileRange]:
    """Cut a file between documents, into ranges of about ``shard_bytes``.

    Raises:
        SourceError: it is damaged or ends in the middle of a document.
    """
    if file.codec:
        yield FileRange(0, None, None, file.size)
        return
    start = rows = 0
    for end in _document_ends(file):
        rows += 1
        if end - start >= settings.shard_bytes:
            yield FileRange(start, end, rows, end - start)
            start, rows = end, 0
    if rows:
        yield FileRange(start, file.size, rows, file.size - start)


def _document_ends(file: PinnedFile) -> Iterator[int]:
    """Walk over the lengths of the documents; give where each ends.

    Raises:
        SourceError: a length is impossible, or the last document is cut short.
    """
    document = block_start = 0
    block = b""
    with open_file(file) as stream:
        while document < file.size:
            at = document - block_start
            if at + _LENGTH_BYTES > len(block):
                stream.seek(document)
                block, block_start, at = bytes(stream.read(_BLOCK_BYTES)), document, 0
                if len(block) < _LENGTH_BYTES:
                    raise _damaged(file, document, "the file ends in its length")
            length = read_int32(block, at)[0]
            if not _SMALLEST_DOCUMENT <= length <= min(_MAX_DOCUMENT_BYTES, file.size - document):
                raise _damaged(file, document, f"it says that it has {length} bytes")
            document += length
            yield document


def read_file(
    file: PinnedFile, start: int, end: int | None, _settings: MongoSettings, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Stream the documents of a range.

    Raises:
        SourceError: the file changed, is damaged, or ends in the middle of a document.
    """
    with open_file(file) as stream:
        if start:
            stream.seek(start)
        position, rest = start, b""
        while block := stream.read(_next_bytes(position + len(rest), end)):
            data = rest + block
            spans = _whole_documents(file, data, position)
            used = spans[-1][1] if spans else 0
            if spans:
                yield from to_records(_page(file, data, spans, position), context)
            rest = data[used:]
            position += used
        if rest:
            raise _damaged(file, position, f"the file ends after {len(rest)} bytes of it")


def _next_bytes(position: int, end: int | None) -> int:
    return _BLOCK_BYTES if end is None else max(0, min(_BLOCK_BYTES, end - position))


def _whole_documents(file: PinnedFile, data: bytes, position: int) -> list[tuple[int, int]]:
    """Find the documents that are complete in a block; the last one may go on in the next."""
    end = 0
    while len(data) - end >= _LENGTH_BYTES:
        length = read_int32(data, end)[0]
        if not _SMALLEST_DOCUMENT <= length <= _MAX_DOCUMENT_BYTES:
            raise _damaged(file, position + end, f"it says that it has {length} bytes")
        if end + length > len(data):
            break
        end += length
    try:
        return list(split_documents(data, 0, end))
    except DamagedBsonError as error:
        raise _damaged(file, position, str(error)) from None


def _page(file: PinnedFile, data: bytes, spans: list[tuple[int, int]], position: int) -> Page:
    return Page(data, spans, lambda row: f"{file.name}:byte {position + spans[row][0]}")


def read_head(file: PinnedFile) -> tuple[bytes, list[tuple[int, int]]]:
    """Read the first documents of a file."""
    with open_file(file) as stream:
        data = bytes(stream.read(_BLOCK_BYTES))
    return data, _whole_documents(file, data, 0)[:_SHOWN_ROWS]


def _damaged(file: PinnedFile, position: int, reason: str) -> SourceError:
    return SourceError(
        f"{file.uri} is damaged: the document at byte {position}: {reason}",
        "fetch the file again, or dump the collection again; nothing behind the fault can be "
        "trusted, so none of it is read",
    )
