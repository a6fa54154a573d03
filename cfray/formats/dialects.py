"""Rank the dialects in which a delimited text may be written: the one in which its records agree.

``inspect`` gives the first bytes of a file.  Each dialect cuts them into records by the code that
reads them later; a record agrees that has as many fields as most have and in which no text follows
a closing quote.  Only what the bytes show is proposed, and the result depends on nothing else.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product

from cfray.errors import SourceError
from cfray.formats import preamble, text_encoding
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_header import find_separator_line, split_fields
from cfray.formats.csv_records import RecordEnds
from cfray.formats.header_guess import has_header
from cfray.formats.json_layouts import rank_layouts
from cfray.formats.lines import BOM
from cfray.runtime.plurals import counted

_DELIMITERS = (",", "\t", ";", "|", "\x01", " ")
#: Share of the records that must agree on more than one field for a delimiter to be one.
_ENOUGH = 0.8
#: Share of the quotes that begin a field of which text may follow the second one.
_FEW = 0.1
#: Quotes written as in a quoted field that show that the head ends in a long field.
_PAIRS = 4
#: Records of a head that are looked at.
_RECORDS = 1000
_NULL = r"\N"
#: Where MySQL, PostgreSQL and Hive write their null, they escape and do not quote.
_NULL_FIELD = re.compile(rb"(?:^|[\t\x01\n])\\N(?:[\t\x01\r\n]|\Z)")
_QUOTED_FIELD = re.compile(rb'(?:^|[\t\x01\n])"')
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
    """

    source: dict[str, object]
    why: str
    agreeing: int
    records: int
    width: int = 0


@dataclass
class _Trial:
    """A dialect, and what the head is in it.

    Attributes:
        dialect: the dialect.
        rank: its place where everything else is equal.
        rows: fields of the records that are whole and not torn.
        count: records, torn ones too.
        is_closed: whether no quote is open at the end of the head, unless its field is a long one.
    """

    dialect: CsvDialect
    rank: int
    rows: list[list[str]] = field(default_factory=list)
    count: int = 0
    is_closed: bool = True

    @cached_property
    def width(self) -> int:
        """Give the number of fields that most rows have."""
        widths = Counter(map(len, self.rows))
        return max(widths, key=lambda width: (widths[width], width), default=0)

    @cached_property
    def agreeing(self) -> int:
        """Count the rows that have so many."""
        return list(map(len, self.rows)).count(self.width)

    @property
    def agreeing_rows(self) -> list[list[str]]:
        """Give those rows."""
        return [row for row in self.rows if len(row) == self.width]

    @property
    def order(self) -> tuple[bool, float, bool, bool, int, int]:
        """Give the key by which the best dialect sorts first."""
        share = self.agreeing / self.count if self.count else 0.0
        return (
            not (self.width > 1 and share >= _ENOUGH),
            -share,
            bool(self.rows) and len(self.rows[0]) != self.width,
            self.dialect.delimiter == " ",
            -self.width,
            self.rank,
        )


def rank_dialects(head: bytes) -> list[Dialect]:
    r"""Rank the dialects of a delimited text, the best first.

    Tried are the delimiters comma, tab, semicolon, bar, ``\x01`` and space; quotes ``"``, ``'``
    and none; a backslash as escape or none; UTF-8, UTF-16 and UTF-32 by mark or by zero bytes, and
    cp1252 or latin-1 where the bytes are no UTF-8; a header or none.

    Args:
        head: the first ``HEAD_BYTES`` of a file, decompressed; a shorter head is a whole file.

    Returns:
        the dialects in which at least one record agrees; none for a text without a record.
    """
    text, encoding = _decode(head)
    is_whole = len(head) < HEAD_BYTES
    trials = _trials(text, is_whole=is_whole)
    skipped = 0
    if not _begins_with_row(trials):
        for end, lines in preamble.list_ends(text, _DELIMITERS):
            others = _trials(text[end:], is_whole=is_whole)
            if _begins_with_row(others) and has_header(others[0].agreeing_rows):
                trials, text, skipped = others, text[end:], lines
                break
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
    if not skipped:
        return ranked
    why = f"; no record stands in the {counted(skipped, 'line')} before"
    return [
        replace(dialect, source={"skip_lines": skipped} | dialect.source, why=dialect.why + why)
        for dialect in ranked
    ]


def _trials(text: bytes, *, is_whole: bool) -> list[_Trial]:
    """Try all dialects, the best first; none without quotes where the quotes fit."""
    trials = sorted(
        (
            _try(text, dialect, rank, is_whole=is_whole)
            for rank, dialect in enumerate(_dialects(text))
        ),
        key=lambda trial: trial.order,
    )
    quoting = {
        (trial.dialect.delimiter, trial.dialect.escape) for trial in trials if _quotes(trial, text)
    }
    return [
        trial
        for trial in trials
        if trial.dialect.quote or (trial.dialect.delimiter, trial.dialect.escape) not in quoting
        if not _has_blanks_behind_delimiters(trial)
    ]


def _has_blanks_behind_delimiters(trial: _Trial) -> bool:
    """Tell the blanks of ``1, a, b`` from blanks that are delimiters."""
    if trial.dialect.delimiter != " ":
        return False
    rows = [row for row in trial.agreeing_rows if len(row) > 1]
    firsts = [row[0] for row in rows]
    return bool(rows) and any(
        sum(first.endswith(sign) for first in firsts) > len(rows) / 2 for sign in _DELIMITERS[:4]
    )


def _begins_with_row(trials: list[_Trial]) -> bool:
    """Tell whether the first record agrees with the others in the best dialect."""
    best = trials[0] if trials else None
    return best is not None and not best.order[0] and len(best.rows[0]) == best.width


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
    for encoding in ("cp1252", "latin-1"):
        try:
            return text.decode(encoding).encode(), encoding
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 decodes every byte")


def _dialects(text: bytes) -> Iterator[CsvDialect]:
    """Give the dialects worth a trial, the likelier ones first where records agree equally."""
    line = find_separator_line(text)
    delimiters = (line.delimiter,) if line else _DELIMITERS
    has_backslash = b"\\" in text
    if _NULL_FIELD.search(text) and not _QUOTED_FIELD.search(text):
        yield from (CsvDialect(delimiter, None, "\\") for delimiter in ("\t", "\x01"))
    for quote, escape, delimiter in product(('"', "'", None), (None, "\\"), delimiters):
        if escape and not has_backslash:
            continue
        if quote is not None and quote.encode() not in text and quote != '"':
            continue
        yield CsvDialect(delimiter, quote, escape)


def _try(text: bytes, dialect: CsvDialect, rank: int, *, is_whole: bool) -> _Trial:
    """Cut the head into whole records and split them."""
    line = find_separator_line(text)
    data = text[line.end :] if line else text
    trial = _Trial(dialect, rank)
    find_ends = RecordEnds(dialect)
    ends = find_ends(data)
    if is_whole and not find_ends.quoted and data and (not ends or ends[-1] < len(data)):
        ends.append(len(data))
    torn = {bisect_right(ends, offset) for offset in find_ends.take_torn(len(data))}
    for number, (start, end) in enumerate(pairwise([0, *ends[:_RECORDS]])):
        record = data[start:end]
        if not record.strip(b"\r\n"):
            continue
        trial.count += 1
        if number in torn:
            continue
        with suppress(SourceError):
            trial.rows.append(split_fields(record, dialect, ""))
    last_end = ends[-1] if ends else 0
    is_long_field = not is_whole and not torn and _has_pairs(data[last_end:], dialect)
    trial.is_closed = not find_ends.quoted or is_long_field
    if not trial.is_closed and (is_whole or len(data) - last_end > len(data) / 2):
        trial.count += 1  # a quote that is never closed has swallowed the records behind it
    return trial


def _has_pairs(text: bytes, dialect: CsvDialect) -> bool:
    """Tell whether a text writes the quotes inside a field as the dialect does."""
    if dialect.quote is None:
        return False
    mark = (dialect.escape or dialect.quote) + dialect.quote
    return text.count(mark.encode()) >= _PAIRS


def _quotes(trial: _Trial, text: bytes) -> bool:
    """Tell whether the quotes that begin a field close it, but for a few: they are no characters.

    Where quotes are plain characters, text follows the second one of most fields that begin so.
    """
    dialect = trial.dialect
    if dialect.quote != '"' or not trial.is_closed:
        return False
    openings = len(
        re.findall(rb'(?:^|%s)"' % re.escape(dialect.delimiter.encode()), text, re.MULTILINE)
    )
    unread = trial.count - len(trial.rows)
    return openings > 0 and unread <= _FEW * openings


def _describe(trial: _Trial, default: _Trial, encoding: str, text: bytes) -> Dialect:
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
        source["columns"] = [f"column_{number}" for number in range(1, trial.width + 1)]
        why += "; the first line is a row, no header"
    return Dialect(source, why, trial.agreeing, trial.count, trial.width)


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
