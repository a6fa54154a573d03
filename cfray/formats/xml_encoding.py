"""The encoding that a document declares, and a stream that expat can read.

Expat knows UTF-8, UTF-16, ASCII and Latin-1 itself, and encodings of one byte a character by a
table of Python's.  Documents in any other encoding are decoded here; offsets are then those of the
text in UTF-8.

Source: Python, "xml.parsers.expat"; W3C, "Extensible Markup Language (XML) 1.0", 4.3.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from cfray.errors import SourceError
from cfray.formats import text_encoding

#: Bytes in which a declaration ends.
_HEAD_BYTES = 1024
_DECLARATION = re.compile(rb"<\?xml\s[^>]*?\sencoding\s*=\s*[\"']([A-Za-z][\w.:-]*)[\"']")
_KNOWN_TO_EXPAT = {"utf-8", "utf-16", "utf-16be", "utf-16le", "us-ascii", "iso-8859-1"}
#: Names of IANA and of Windows that Python does not have.
_ALIASES = {"windows-31j": "cp932", "x-sjis": "cp932", "windows-936": "gbk", "windows-949": "cp949"}
#: What a decoder writes for a byte that means nothing.
_UNDEFINED = "\N{REPLACEMENT CHARACTER}"


def decode_document(blocks: Iterable[bytes], name: str) -> tuple[Iterator[bytes], str | None]:
    """Give a document as expat can read it.

    Args:
        blocks: of the document, in its own encoding.
        name: of the file.

    Returns:
        The blocks, and the encoding that expat must take instead of the declared one; None where
        it can read the declared one.

    Raises:
        SourceError: nobody knows the encoding.  Reading the blocks raises it, too, where they are
            not in the encoding.
    """
    blocks = iter(blocks)
    head = b""
    for block in blocks:
        head += block
        if len(head) >= _HEAD_BYTES or b"?>" in head:
            break
    blocks = chain([head] if head else [], blocks)
    encoding = _foreign_encoding(head, name)
    if encoding is None:
        return blocks, None
    remedy = "correct the encoding that the document declares, or export it again"
    return text_encoding.decode_blocks(blocks, encoding, name, remedy), "utf-8"


def _foreign_encoding(head: bytes, name: str) -> str | None:
    """Name the encoding of a document that expat cannot read; None where it can."""
    by_bytes = text_encoding.json_encoding(head)
    if by_bytes.startswith("utf-32"):
        return by_bytes
    declaration = _DECLARATION.match(head)
    if declaration is None:
        return None
    declared = declaration[1].decode()
    if declared.lower() in _KNOWN_TO_EXPAT:
        return None
    codec = _ALIASES.get(declared.lower(), declared)
    try:
        characters = bytes(range(256)).decode(codec, "replace")
    except (LookupError, UnicodeError):
        raise SourceError(
            f"{name} declares the encoding {declared[:60]}, which is not known",
            "correct the declaration, or convert the document to UTF-8 (iconv)",
        ) from None
    # of an encoding of one byte a character most bytes mean something
    is_single_byte = len(characters) == 256 and characters.count(_UNDEFINED) < 128
    return None if is_single_byte else codec
