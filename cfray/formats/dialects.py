"""Rank the dialects in which a delimited text may be written: the one in which its records agree.

``inspect`` gives the first bytes of a file.  Each dialect cuts them into records by the code that
reads them later; a record agrees that has as many fields as most have and in which no text follows
a closing quote.  Only what the bytes show is proposed, and the result depends on nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cfray.formats import preamble, text_encoding
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_header import find_separator_line
from cfray.formats.dialect_trials import (
    DELIMITERS,
    Trial,
    begins_with_row,
    delimiter_of_header,
    try_dialects,
)
from cfray.formats.header_guess import has_header, holds_known_name
from cfray.formats.json_layouts import rank_layouts
from cfray.formats.lines import BOM
from cfray.runtime.plurals import counted

_NULL = r"\N"
#: Bytes of a file that tell its dialect; more tell no more.
HEAD_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to read a text.

    Attributes:
        source: the keys of the job file's section ``source`` that it needs, beside ``uri``; keys at
            their default are left out.
        why: what speaks for it, as a sentence without its first capital and its full stop.
        agreeing: records of the head that agree.
        records: whole records of the head.
        width: fields of a record.
        encoding_why: what is to be said of an encoding that was guessed; empty for a sure one.
    """

    source: dict[str, object]
    why: str
    agreeing: int
    records: int
    width: int = 0
    encoding_why: str = ""


def rank_dialects(head: bytes) -> list[Dialect]:
    r"""Rank the dialects of a delimited text, the best first.

    Tried are the delimiters comma, tab, semicolon, bar, ``\x01`` and space; quotes ``"``, ``'``
    and none; a backslash as escape or none; UTF-8, UTF-16 and UTF-32 by mark or by zero bytes, and
    a guess where the bytes are no UTF-8; a header or none.

    Args:
        head: the first ``HEAD_BYTES`` of a file, decompressed; a shorter head is a whole file.

    Returns:
        the dialects in which at least one record agrees; none for a text without a record.
    """
    text, encoding = _decode(head)
    is_whole = len(head) < HEAD_BYTES
    trials = try_dialects(text, is_whole=is_whole)
    skipped = 0
    if not begins_with_row(trials):
        for end, lines in preamble.list_ends(text, DELIMITERS):
            later_trials = try_dialects(text[end:], is_whole=is_whole)
            if begins_with_row(later_trials) and has_header(later_trials[0].agreeing_rows):
                trials, text, skipped = later_trials, text[end:], lines
                break
    is_sure = bool(trials) and not trials[0].order[0]
    if not is_sure and (delimiter := delimiter_of_header(text)):
        # its records disagree; and yet a whole line is no field
        trials = [trial for trial in trials if trial.width > 1]
        trials.sort(key=lambda trial: trial.dialect.delimiter != delimiter)
    default_trials = {
        trial.dialect.delimiter: trial
        for trial in trials
        if trial.dialect == CsvDialect(trial.dialect.delimiter)
    }
    ranked = [
        _describe(trial, default_trials.get(trial.dialect.delimiter, trial), encoding, text)
        for trial in trials
        if trial.agreeing
    ]
    return [_behind(skipped, dialect) for dialect in ranked] if skipped else ranked


def _behind(lines: int, dialect: Dialect) -> Dialect:
    """Give a dialect for a table that begins behind some lines."""
    total = lines + int(str(dialect.source.get("skip_lines", 0)))
    why = f"{dialect.why}; no record stands in the {counted(lines, 'line')} before"
    return replace(
        dialect, source={"skip_lines": 0} | dialect.source | {"skip_lines": total}, why=why
    )


def _decode(head: bytes) -> tuple[bytes, str]:
    """Give the head as UTF-8 without a mark, and the encoding that the job file must name."""
    if marked := text_encoding.marked_encoding(head):
        return head.decode(marked, "ignore").encode(), ""
    if (encoding := text_encoding.json_encoding(head)) != "utf-8":
        return head.decode(encoding, "ignore").encode(), encoding
    text = head.removeprefix(BOM)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(head) >= HEAD_BYTES:
            return text[: error.start], ""
    else:
        return text, ""
    if text_encoding.is_mostly_utf_8(text):
        return text.decode(errors="replace").encode(), ""  # a row of another encoding is a reject
    encoding = text_encoding.guess_encoding(text)
    return text.decode(encoding, "ignore").encode(), encoding


def _describe(trial: Trial, default: Trial, encoding: str, text: bytes) -> Dialect:
    """Name the keys that a dialect needs, and why.

    Args:
        trial: of the dialect.
        default: of the same delimiter with the default quotes.
        encoding: that the job file must name; empty for none.
        text: the head.
    """
    rows = trial.agreeing_rows
    source = _keys(trial.dialect, rows, encoding, text)
    why = (
        f"{trial.agreeing} of {trial.count} records of its head have {trial.width} "
        f"field{'s' if trial.width > 1 else ''}"
    )
    if default.agreeing * trial.count < trial.agreeing * default.count:
        why += f"; with double quotes and no escape, {default.agreeing} of {default.count}"
    elif source.get("null") == _NULL and trial.dialect.escape:
        why += f"; {_NULL} is the null of programs that escape and do not quote"
    elif source.get("null") == "":
        why += '; "" stands beside fields that are empty'
    if not has_header(rows):
        numbered = [f"column_{number}" for number in range(1, trial.width + 1)]
        if names := _names_of_narrow_header(trial):
            source |= {"columns": names, "skip_lines": 1}
            why += "; the first line has a name less than the others have fields"
        else:
            source["columns"] = numbered
            why += "; the first line is a row, no header"
    encoding_why = _encoding_note(encoding, text) if encoding else ""
    return Dialect(source, why, trial.agreeing, trial.count, trial.width, encoding_why)


def _names_of_narrow_header(trial: Trial) -> list[str]:
    """Give the names of columns of which the header leaves one out; none for any other first line.

    R leaves out the name of the rows, which come first; a delimiter at the end of each row makes a
    last column, of empty fields.
    """
    first, rows = trial.rows[0], trial.agreeing_rows
    names = [name.strip() for name in first]
    if len(first) != trial.width - 1 or not holds_known_name(names) or len(set(names)) < len(names):
        return []
    if any("\n" in name for name in first):
        return []  # skip_lines counts lines
    if any(row[-1] for row in rows):
        return ["row_name", *names]
    return [*names, f"column_{trial.width}"]


def _encoding_note(encoding: str, text: bytes) -> str:
    """Say that an encoding was guessed, with a word as it reads there; empty for UTF-16 and 32."""
    word = re.search(r"\w*[^\W\x00-\x7f]\w*", text.decode())
    if encoding.startswith("utf") or word is None:
        return ""
    return (
        f"A GUESS, for the bytes are no UTF-8: {encoding} reads {word[0][:40]!r}; where that is no "
        "word of the texts, name their encoding"
    )


def _keys(
    dialect: CsvDialect, rows: list[list[str]], encoding: str, text: bytes
) -> dict[str, object]:
    """Give the keys of a dialect that are not at their default."""
    source: dict[str, object] = {}
    if dialect.delimiter != "," and not find_separator_line(text):
        source["delimiter"] = dialect.delimiter
    if dialect.quote != '"':
        source["quote"] = dialect.quote or "none"
    if dialect.escape:
        source["escape"] = dialect.escape
    if any(_NULL in row for row in rows):
        source["null"] = _NULL
    elif dialect.quote and _tells_empty_from_null(text, dialect):
        source["null"] = ""
    if encoding:
        source["encoding"] = encoding
    return source


def _tells_empty_from_null(text: bytes, dialect: CsvDialect) -> bool:
    """Tell whether some empty fields are quoted and others are not."""
    assert dialect.quote is not None
    delimiter, quote = re.escape(dialect.delimiter.encode()), re.escape(dialect.quote.encode())
    names = {b"d": delimiter, b"q": quote}
    quoted = re.compile(rb"(?:^|%(d)s)%(q)s%(q)s(?:%(d)s|\r?$)" % names, re.MULTILINE)
    plain = re.compile(rb"(?:^%(d)s|%(d)s%(d)s|%(d)s\r?$)" % names, re.MULTILINE)
    body = text.partition(b"\n")[2]
    return bool(quoted.search(body) and plain.search(body))


def rank_json(head: bytes) -> list[Dialect]:
    """Rank the ways to read a JSON text, the best first; none for a text that is no JSON.

    ``source`` of each holds ``kind`` (json or jsonl) and, where the records do not stand in a
    top-level array or one after the other, ``records`` and ``orient``.

    Args:
        head: the first ``HEAD_BYTES`` of a file, decompressed.
    """
    return [
        Dialect(layout.source, layout.why, layout.agreeing, layout.records)
        for layout in rank_layouts(head)
    ]
