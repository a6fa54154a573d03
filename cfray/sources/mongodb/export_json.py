"""JSON files of mongoexport and Compass: one document a line, or one array of documents.

Each document becomes BSON first and a record then, so that an export and the live store
give the same records.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats import lines
from cfray.formats.json_structure import ElementEnds
from cfray.formats.jsontext import InexactJson, InvalidJson, parse_json
from cfray.formats.lines import OversizedRecord, RecordRun
from cfray.records.record import Reject
from cfray.runtime.models import MIB
from cfray.sources.base import Context
from cfray.sources.files.compression import HEAD_BYTES
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.mongodb.export_bson import FileRange
from cfray.sources.mongodb.extended_json import BareNumberError, Encoder, ExtendedJsonError
from cfray.sources.mongodb.records import Page, to_records
from cfray.sources.mongodb.settings import MongoSettings

_SPACE = b" \t\r\n\xef\xbb\xbf"
#: Bytes of text that become a batch.
_PAGE_BYTES = 4 * MIB
#: Documents that show what a file holds.
_SHOWN_ROWS = 100


def cut_file(file: PinnedFile, settings: MongoSettings) -> Iterator[FileRange]:
    """Cut a file at line breaks; a compressed file or an array is one shard.

    Raises:
        SourceError: it is relaxed JSON and the job does not accept it, or no JSON of documents.
    """
    if not file.size:
        return
    if is_relaxed(file) and not settings.relaxed_json:
        raise _relaxed(file)
    if file.codec or _is_array(file):
        yield FileRange(0, None, None, file.size)
        return
    with open_file(file) as stream:
        ranges = lines.split_at_newlines(stream, 0, file.size, settings.shard_bytes)
    for start, end in ranges:
        yield FileRange(start, end, None, end - start)


def is_relaxed(file: PinnedFile) -> bool:
    """Tell whether the first documents hold numbers without their type."""
    try:
        for _, document in _head_documents(file):
            Encoder(takes_bare_numbers=False).encode_document(document)
    except BareNumberError:
        return True
    except ExtendedJsonError:
        return False
    return False


def read_head(file: PinnedFile) -> tuple[bytes, list[tuple[int, int]]]:
    """Read the first documents of a file, as BSON."""
    encoder = Encoder(takes_bare_numbers=True)
    data, spans = b"", []
    for _, document in _head_documents(file):
        try:
            encoded = encoder.encode_document(document)
        except ExtendedJsonError:
            continue
        spans.append((len(data), len(data) + len(encoded)))
        data += encoded
    return data, spans


def _head_documents(file: PinnedFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse the first documents; a document that is no JSON is left to the read.

    Raises:
        SourceError: the first one is no JSON.
    """
    shown = 0
    with _open_texts(file, 0, None, _PAGE_BYTES) as texts:
        for offset, text in texts:
            if shown == _SHOWN_ROWS or isinstance(text, OversizedRecord):
                return
            try:
                value = parse_json(text)
            except InexactJson as error:
                if not shown:
                    raise SourceError(
                        f"{file.uri} is no JSON of one document a line, and no array: {error}",
                        "export it again without --pretty, or correct source.uri",
                    ) from None
                return
            if isinstance(value, dict):
                shown += 1
                yield offset, value


def read_file(
    file: PinnedFile, start: int, end: int | None, settings: MongoSettings, context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Stream the documents of a range.

    Raises:
        SourceError: the file changed or is damaged, or is relaxed JSON and the job does not accept
            it.
    """
    encoder = Encoder(takes_bare_numbers=settings.relaxed_json)
    limit = lines.record_limit(context.max_record)
    encoded: list[bytes] = []
    offsets: list[int] = []
    size = 0

    def flush() -> Iterator[pa.RecordBatch | Reject]:
        nonlocal size
        if encoded:
            page = _page(file, list(encoded), list(offsets))
            encoded.clear()
            offsets.clear()
            size = 0
            yield from to_records(page, context)

    with _open_texts(file, start, end, limit) as texts:
        for offset, text in texts:
            if isinstance(text, OversizedRecord):
                yield from flush()
                yield text.reject(file.name, "document")
                continue
            document = _encode(file, text, offset, encoder)
            if isinstance(document, Reject):
                yield from flush()
                yield document
                continue
            encoded.append(document)
            offsets.append(offset)
            size += len(document)
            if size >= min(_PAGE_BYTES, context.batch_bytes):
                yield from flush()
    yield from flush()


def _encode(file: PinnedFile, text: bytes, offset: int, encoder: Encoder) -> bytes | Reject:
    """Encode a document; one that is no extended JSON is a reject."""
    position = f"{file.name}:byte {offset}"
    try:
        value = parse_json(text)
        if not isinstance(value, dict):
            return Reject("it is no document", position, text)
        return encoder.encode_document(value)
    except BareNumberError:
        raise _relaxed(file) from None
    except (InvalidJson, InexactJson, ExtendedJsonError) as error:
        return Reject(f"it is no extended JSON: {error}", position, text)


def _page(file: PinnedFile, encoded: list[bytes], offsets: list[int]) -> Page:
    spans, end = [], 0
    for document in encoded:
        spans.append((end, end + len(document)))
        end += len(document)
    return Page(b"".join(encoded), spans, lambda row: f"{file.name}:byte {offsets[row]}")


def _is_array(file: PinnedFile) -> bool:
    with open_file(file) as stream:
        return bytes(stream.read(HEAD_BYTES)).lstrip(_SPACE).startswith(b"[")


@contextmanager
def _open_texts(
    file: PinnedFile, start: int, end: int | None, limit: int
) -> Iterator[Iterator[tuple[int, bytes | OversizedRecord]]]:
    """Open a file as the texts of its documents, each with its offset."""
    is_array = start == 0 and end is None and _is_array(file)
    with open_file(file) as stream:
        if start:
            stream.seek(start)
        blocks = lines.read_blocks(stream, None if end is None else end - start)
        find_ends = ElementEnds() if is_array else lines.line_ends
        runs = lines.gather_records(blocks, find_ends, limit, start)
        yield _elements(file, runs) if is_array else _lines(runs)


def _lines(
    runs: Iterator[RecordRun | OversizedRecord],
) -> Iterator[tuple[int, bytes | OversizedRecord]]:
    for run in runs:
        if isinstance(run, OversizedRecord):
            yield run.offset, run
            continue
        for offset, text in run.records():
            if stripped := text.strip(_SPACE):
                yield offset, stripped


def _elements(
    file: PinnedFile, runs: Iterator[RecordRun | OversizedRecord]
) -> Iterator[tuple[int, bytes | OversizedRecord]]:
    """Give the elements of an array.

    Raises:
        SourceError: the array is cut, or something stands behind it.
    """
    is_open, is_closed = False, False
    for offset, text in _lines(runs):
        head = text.head.strip(_SPACE) if isinstance(text, OversizedRecord) else text
        if not is_open and head == b"[":
            is_open = True
            continue
        last = text.last if isinstance(text, OversizedRecord) else head[-1:]
        if is_closed or not is_open or last not in (b",", b"]"):
            raise SourceError(
                f"{file.uri} is no array of documents: it is cut or damaged at byte {offset}",
                "export it again",
            )
        is_closed = last == b"]"
        element = head[:-1].strip(_SPACE)
        if isinstance(text, OversizedRecord) or element:
            yield offset, text if isinstance(text, OversizedRecord) else element
    if not is_closed:
        raise SourceError(f"{file.uri} ends before its array does", "export it again")


def _relaxed(file: PinnedFile) -> SourceError:
    return SourceError(
        f"{file.uri} is relaxed JSON: it no longer says whether a number was an int32, an int64 or "
        "a double, and numbers beyond 2**53 may have been rounded",
        "export with mongoexport --jsonFormat=canonical, or better with mongodump; or accept the "
        "loss with source.relaxed_json: true",
    )
