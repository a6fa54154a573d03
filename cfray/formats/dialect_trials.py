"""Cut the head of a delimited text into records in every dialect that it may have.

A record agrees that has as many fields as most have and in which no text follows a closing quote.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, product

from cfray.errors import SourceError
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_header import find_separator_line, split_fields
from cfray.formats.csv_records import RecordEnds
from cfray.formats.header_guess import holds_known_name, is_name

DELIMITERS = (",", "\t", ";", "|", "\x01", " ")
#: Tried where the first line holds a well-known name between them.
_RARE_DELIMITERS = ("~", "^", ":", "#", "!", "*")

#: Share of the records that must agree on more than one field for a delimiter to be one.
_ENOUGH = 0.8
#: Share of the quotes that begin a field of which text may follow the second one.
_FEW = 0.1
#: Quotes written as in a quoted field that show that the head ends in a long field.
_PAIRS = 4
#: Records of a head that are looked at.
_RECORDS = 1000
#: Where MySQL, PostgreSQL and Hive write their null, they escape and do not quote.
_NULL_FIELD = re.compile(rb"(?:^|[\t\x01\n])\\N(?:[\t\x01\r\n]|\Z)")
_QUOTED_FIELD = re.compile(rb'(?:^|[\t\x01\n])"')


@dataclass
class Trial:
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


def try_dialects(text: bytes, *, is_whole: bool) -> list[Trial]:
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


def delimiter_of_header(text: bytes) -> str:
    """Find the delimiter between the names of a first line that most lines have; else empty.

    Where one is a name that columns have everywhere, lines with fewer fields have it, too.
    """
    first, *lines = text.decode(errors="replace").split("\n")[:_RECORDS]
    lines = [line for line in lines if line.strip()]
    for delimiter in (*DELIMITERS[:4], *_rare_delimiters(text)):
        names = _names_of(first, delimiter)
        least = 1 if holds_known_name(names) else len(names) - 1
        with_delimiters = sum(line.count(delimiter) >= least for line in lines)
        if len(names) > 1 and all(name and is_name(name) for name in names):
            return delimiter if with_delimiters >= _ENOUGH * len(lines) > 0 else ""
    return ""


def _names_of(line: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"') for name in line.split(delimiter)]


def _has_blanks_behind_delimiters(trial: Trial) -> bool:
    """Tell the blanks of ``1, a, b`` from blanks that are delimiters."""
    if trial.dialect.delimiter != " ":
        return False
    rows = [row for row in trial.agreeing_rows if len(row) > 1]
    firsts = [row[0] for row in rows]
    return bool(rows) and any(
        sum(first.endswith(sign) for first in firsts) > len(rows) / 2 for sign in DELIMITERS[:4]
    )


def begins_with_row(trials: list[Trial]) -> bool:
    """Tell whether the first record agrees with the others in the best dialect."""
    best = trials[0] if trials else None
    return best is not None and not best.order[0] and len(best.rows[0]) == best.width


def _dialects(text: bytes) -> Iterator[CsvDialect]:
    """Give the dialects worth a trial, the likelier ones first where records agree equally."""
    line = find_separator_line(text)
    delimiters = (line.delimiter,) if line else (*DELIMITERS, *_rare_delimiters(text))
    has_backslash = b"\\" in text
    if _NULL_FIELD.search(text) and not _QUOTED_FIELD.search(text):
        yield from (CsvDialect(delimiter, None, "\\") for delimiter in ("\t", "\x01"))
    for quote, escape, delimiter in product(('"', "'", None), (None, "\\"), delimiters):
        if escape and not has_backslash:
            continue
        if quote is not None and quote.encode() not in text and quote != '"':
            continue
        yield CsvDialect(delimiter, quote, escape)


def _rare_delimiters(text: bytes) -> Iterator[str]:
    """Give the rare delimiters between names that columns have everywhere."""
    first = text.partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    for delimiter in _RARE_DELIMITERS:
        names = _names_of(first, delimiter)
        if len(names) > 1 and holds_known_name(names):
            yield delimiter


def _try(text: bytes, dialect: CsvDialect, rank: int, *, is_whole: bool) -> Trial:
    """Cut the head into whole records and split them."""
    line = find_separator_line(text)
    data = text[line.end :] if line else text
    trial = Trial(dialect, rank)
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
    rest = data[last_end:]
    is_one_line = not any(sign in rest for sign in b"\r\n")  # it has swallowed no record
    is_long_field = not is_whole and not torn and (is_one_line or _has_pairs(rest, dialect))
    trial.is_closed = not find_ends.quoted or is_long_field
    if not trial.is_closed and (is_whole or len(rest) > len(data) / 2):
        trial.count += 1  # a quote that is never closed has swallowed the records behind it
    return trial


def _has_pairs(text: bytes, dialect: CsvDialect) -> bool:
    """Tell whether a text writes the quotes inside a field as the dialect does."""
    if dialect.quote is None:
        return False
    mark = (dialect.escape or dialect.quote) + dialect.quote
    return text.count(mark.encode()) >= _PAIRS


def _quotes(trial: Trial, text: bytes) -> bool:
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
