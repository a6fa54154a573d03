"""The encoding of a text, and a stream of any encoding turned into UTF-8."""

from __future__ import annotations

import codecs
import re
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
#: Encodings of the letters of Western Europe and of one more region, between which a few letters
#: decide: of these the most frequent one is taken.
_LATIN = ("cp1252", "cp1250", "cp1254")
#: Encodings that texts of other letters have: Cyrillic, Greek, Hebrew, Arabic, Japanese, Chinese,
#: Korean.
_OTHERS = (
    *("cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
#: Bytes from which on a guess may be of other letters than Latin ones.
_FEW = 16
#: Names in which an encoding is better known than in Python's.
_KNOWN_AS = {"cp932": "shift_jis", "cp949": "euc_kr", "koi8_r": "koi8-r"}
_MULTI_BYTE_UTF_8 = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


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


def decode_blocks(
    blocks: Iterable[bytes],
    encoding: str,
    name: str,
    remedy: str = "correct source.encoding or the file",
) -> Iterator[bytes]:
    """Turn a stream of an encoding whose bytes cannot be cut into UTF-8.

    Raises:
        SourceError: the stream is not in the encoding; names the byte, and has the remedy.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    decoded_bytes = pending_bytes = 0
    try:
        for block in blocks:
            pending_bytes = len(decoder.getstate()[0])
            if text := decoder.decode(block).encode():
                yield text
            decoded_bytes += len(block)
        pending_bytes = len(decoder.getstate()[0])
        if text := decoder.decode(b"", final=True).encode():
            yield text
    except UnicodeError as error:
        # a decoder counts from the first byte that it kept back
        start = error.start - pending_bytes if isinstance(error, UnicodeDecodeError) else 0
        raise SourceError(
            f"{name} is not {encoding} at byte {decoded_bytes + start}: {error}", remedy
        ) from error


def is_mostly_utf_8(text: bytes) -> bool:
    """Tell whether a text that is no UTF-8 as a whole is UTF-8 but for a few bytes.

    Letters of another encoding are hardly ever valid sequences of several bytes.
    """
    letters = len(_MULTI_BYTE_UTF_8.findall(text))
    others = len(re.findall(rb"[\x80-\xff]", _MULTI_BYTE_UTF_8.sub(b"", text)))
    return letters > others


def _has_runs(text: bytes) -> bool:
    """Tell whether bytes beyond ASCII stand together, as in texts of other letters than Latin."""
    together = sum(map(len, re.findall(rb"[\x80-\xff]{2,}", text)))
    return together >= _FEW and 2 * together > len(re.findall(rb"[\x80-\xff]", text))


def guess_encoding(text: bytes) -> str:
    """Guess the encoding of a text that is no UTF-8, for a draft that says so; latin-1 at last.

    Args:
        text: the head of a file; its last line may be cut.
    """
    from charset_normalizer import from_bytes

    whole_lines = text[: text.rfind(b"\n") + 1] or text
    found = from_bytes(whole_lines, cp_isolation=[*_LATIN, *(_OTHERS if _has_runs(text) else ())])
    # encodings that read the text alike are one match
    matches = [name for match in found for name in match.could_be_from_charset]
    latin = [name for name in _LATIN if name in matches]
    likely = latin if matches[:1] and matches[0] in _LATIN else [*matches[:1], *latin]
    for name in (*likely, "cp1252", "latin-1"):
        known_name = _KNOWN_AS.get(name, name)
        try:
            whole_lines.decode(known_name)
        except UnicodeDecodeError:
            continue
        return known_name
    raise AssertionError("latin-1 decodes every byte")
