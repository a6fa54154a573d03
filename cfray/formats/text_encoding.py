"""The encoding of a text, and a stream of any encoding turned into UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from cfray.errors import SourceError

#: UTF-32 before UTF-16: the mark of one begins like that of the other (Unicode 15, section 23.8).
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: First bytes needed to tell an encoding.
BYTES_NEEDED = 4


def marked_encoding(head: bytes) -> str | None:
    """Give the encoding that the first bytes of a file are the byte order mark of.

    None for UTF-8 and for a file without a mark.  No UTF-8 text begins like one of these marks.
    """
    return next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), None)


def json_encoding(head: bytes) -> str:
    """Give the encoding of a JSON text by its first four bytes.

    The first two characters of a JSON text are ASCII, so zero bytes among the first four tell which
    encoding a text without a mark has (RFC 4627, section 3).
    """
    if marked := marked_encoding(head):
        return marked
    zeros = tuple(byte == 0 for byte in head[:4])
    patterns: dict[tuple[bool, ...], str] = {
        (True, True, True, False): "utf-32-be",
        (False, True, True, True): "utf-32-le",
        (True, False, True, False): "utf-16-be",
        (False, True, False, True): "utf-16-le",
    }
    return patterns.get(zeros, "utf-8")


def decode_blocks(blocks: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    """Turn a stream of an encoding whose bytes cannot be cut into UTF-8.

    Raises:
        SourceError: the stream is not in the encoding.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    decoded_bytes = 0
    try:
        for block in blocks:
            if text := decoder.decode(block).encode():
                yield text
            decoded_bytes += len(block)
        if text := decoder.decode(b"", final=True).encode():
            yield text
    except UnicodeError as error:
        raise SourceError(
            f"{name} is not {encoding} behind byte {decoded_bytes}: {error}",
            "correct source.encoding or the file",
        ) from error
