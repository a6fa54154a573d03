"""The text of a file: in which encoding it is, how that is known, and whether it is text at all.

In this order: a byte order mark, UTF-8 that decodes without an error, an encoding that the file
itself names near its beginning, and last the one that the job file gives for all others.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

#: Byte order marks; that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: How HTML, XML, Python, Emacs, gettext and mail name their encoding.
_NAMED = re.compile(
    rb"(?:charset|encoding|coding)\s*[=:]\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE
)
#: Bytes at the beginning in which the name is looked for (HTML: the first 1024).
_NAMED_WITHIN = 1024
#: Encodings of a byte or more a character; Python knows others, which are no encodings of files.
_CHARACTER_SETS = re.compile(
    r"iso8859|iso2022|cp\d|koi8|shift|euc|gb|big5|hz$|johab|mac|tis|ptcp|hp-roman|kz1048"
)
#: Control characters of no text.  Texts hold tab, line breaks, form feed, backspace and escape.
_CONTROL = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
#: Those of no text in UTF-8, which is hardly met by chance.  Texts hold also the bell, the end mark
#: of DOS and separators, as manuals in the format Info do.
_CONTROL_IN_UTF8 = re.compile(r"[\x00-\x06\x0e-\x19]")


@dataclass(frozen=True, slots=True)
class DecodedText:
    """The text of a file.

    Attributes:
        text: without a byte order mark; line breaks as they are.
        encoding: Python's name of the encoding.
        is_guessed: whether nothing in the file shows the encoding.
    """

    text: str
    encoding: str
    is_guessed: bool = False


def decode(data: bytes, fallback: str) -> DecodedText | None:
    """Decode a file; None where it is no text.

    Args:
        data: the whole file.
        fallback: the encoding of files that show none.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding)
    if b"\x00" in data:
        return None
    text = _decoded(data, "utf-8")
    if text is not None:
        return text
    named = _NAMED.search(data[:_NAMED_WITHIN])
    encoding = file_encoding(named[1].decode()) if named else ""
    text = _decoded(data, encoding) if encoding else None
    if text is not None:
        return text
    return _decoded(data, file_encoding(fallback), is_guessed=True)


def file_encoding(name: str) -> str:
    """Give the name of an encoding of files, as Python writes it; empty where it is none.

    What calls itself ISO 8859-1 is read as Windows-1252, as browsers do: it holds the same
    characters, and those that Windows programs write into such files.
    Source: WHATWG, Encoding Standard, "Names and labels".
    """
    try:
        python_name = codecs.lookup(name).name
    except LookupError:
        return ""
    if python_name in ("iso8859-1", "ascii"):
        return "windows-1252"
    is_known = _CHARACTER_SETS.match(python_name) or python_name.startswith("utf-")
    name = re.sub(r"^cp(125\d)$", r"windows-\1", python_name)
    return name if is_known and python_name != "utf-7" else ""


def _decoded(data: bytes, encoding: str, *, is_guessed: bool = False) -> DecodedText | None:
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError):
        return None
    control = _CONTROL_IN_UTF8 if encoding == "utf-8" else _CONTROL
    if control.search(text):
        return None
    try:
        text.encode()
    except UnicodeEncodeError:  # halves of surrogate pairs in UTF-16 or UTF-32
        return None
    return DecodedText(text, encoding, is_guessed)
