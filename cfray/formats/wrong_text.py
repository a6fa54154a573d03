"""Text that is no export: what a file's first bytes say that another format, or a mishap, wrote.

A page with an error message saved as data, XML, an export of another kind: each is known by its
beginning, and what to do differs for each.  Nothing here reads records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cfray.errors import SourceError
from cfray.formats.jsontext import between_values

#: Bytes of a file that are looked at.
HEAD_BYTES = 64 * 1024
_MISHAPS = (
    (
        re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE),
        "an HTML page, perhaps the error message of a download",
        "download the file again",
    ),
    (
        re.compile(rb"<\?xml[\s?]|<!DOCTYPE\s|<[A-Za-z][\w:.-]*(\s[^<>]*)?/?>\s*<"),
        "XML",
        "write source.kind: xml, or convert it to JSON Lines, CSV or Parquet",
    ),
)
_JSON_LINE = re.compile(rb'\{\s*("|\})')
_JSON_ARRAY = re.compile(rb"\[\s*(\{|\[|\])")


@dataclass(frozen=True, slots=True)
class _Guess:
    """A kind that may read a file."""

    kind: str
    what: str


def refuse_wrong_text(head: bytes, kind: str, name: str) -> None:
    """Refuse a file that its beginning shows to be no file of ``kind``.

    Args:
        head: its first bytes, in UTF-8 or an encoding that holds ASCII.
        kind: csv, json or jsonl.
        name: of the file.

    Raises:
        SourceError: says what the file is, and what to do.
    """
    text = between_values(head)
    for beginning, what, remedy in _MISHAPS:
        if beginning.match(text):
            raise SourceError(f"{name} is {what}", f"{remedy}, or leave the file out of source.uri")
    guess = _guess(text)
    if kind == "csv" and guess is not None:
        raise SourceError(
            f"{name} is no file for kind: csv: it holds {guess.what}",
            f"write source.kind: {guess.kind} in the job file, or correct source.uri",
        )
    if kind != "csv" and guess is None and _looks_like_csv(text):
        raise SourceError(
            f"{name} is no file for kind: {kind}: it holds no JSON, but lines that look like CSV",
            "write source.kind: csv in the job file, or correct source.uri",
        )


def refuse_zero_bytes(head: bytes, name: str) -> None:
    """Refuse a text whose first line holds zero bytes: it is UTF-16 or UTF-32 without its mark.

    Raises:
        SourceError: names the encodings.
    """
    if b"\0" in re.split(rb"[\r\n]", head, maxsplit=1)[0]:
        raise SourceError(
            f"the first line of {name} holds zero bytes: it is in another encoding, or no text",
            "set source.encoding, for example utf-16-le or utf-16-be",
        )


def _guess(text: bytes) -> _Guess | None:
    if _JSON_ARRAY.match(text):
        return _Guess("json", "a JSON array")
    if _JSON_LINE.match(text):
        return _Guess("jsonl", "JSON objects")
    return None


def _looks_like_csv(text: bytes) -> bool:
    """Tell whether the first two lines have a delimiter equally often, and no line is JSON."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    if len(lines) < 2 or any(line.lstrip()[:1] in (b"{", b"[", b"}", b"]") for line in lines):
        return False
    return any(
        0 < lines[0].count(delimiter) == lines[1].count(delimiter)
        for delimiter in (b",", b"\t", b";", b"|")
    )
