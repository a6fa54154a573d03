"""Where CSV records end: a line break ends one unless it stands in a quoted field.

A quote opens a quoted field only at the start of a field; two quotes in one are
a quote.  So a line break is inside quotes exactly if an odd number of quotes
precedes it, as long as no quote stands in the middle of an unquoted field.
Numpy counts block by block; a block with such a quote takes the exact state
machine.  These are the rules of pyarrow's parser and of Python's csv module.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfray.errors import SourceError
from cfray.formats.lines import BOM, Oversized, whole_records

_LF, _CR, _QUOTE = 0x0A, 0x0D, 0x22
_OTHER = 0  # stands for a quote that is an ordinary character

Offsets = npt.NDArray[np.int64]


class RecordEnds:
    """Finds the ends of records in consecutive blocks; remembers whether a quoted field is open."""

    def __init__(self, delimiter: str, *, quoting: bool = True) -> None:
        """Start at the start of a record; without ``quoting`` every line break ends one."""
        self.quoted = False
        self._delimiter = ord(delimiter)
        self._quoting = quoting
        self._last = _LF

    def __call__(self, block: bytes) -> list[int]:
        """Give the offsets behind each record that ends in the block.  A carriage return must not be its last byte, but for the stream's."""
        ends: list[int] = self.find(block).tolist()
        return ends

    def find(self, block: bytes) -> Offsets:
        """Give the same offsets as an array."""
        data = np.frombuffer(block, np.uint8)
        breaks = (data == _LF) | (data == _CR)
        events = (
            np.flatnonzero(breaks | (data == _QUOTE)) if self._quoting else np.flatnonzero(breaks)
        )
        kinds = data[events]
        before = data[events - 1]
        if len(events) and events[0] == 0:
            before[0] = self._last
        is_quote = kinds == _QUOTE
        inside = ((np.cumsum(is_quote) - is_quote + self.quoted) & 1).astype(bool)
        openers = before[is_quote & ~inside]
        if np.isin(openers, [self._delimiter, _LF, _CR, _QUOTE]).all():
            self.quoted = bool((int(is_quote.sum()) + self.quoted) & 1)
            self._last = block[-1]
            ends = events[~is_quote & ~inside]
        else:
            ends = self._exact(block, events)
        behind = data[np.minimum(ends + 1, len(data) - 1)]
        split = (data[ends] == _CR) & (behind == _LF)  # the line feed ends the record
        found: Offsets = ends[~split] + 1
        return found

    def _exact(self, block: bytes, events: Offsets) -> Offsets:
        ends: list[int] = []
        closed = -1 if self._last == _QUOTE else -2  # offset of the last closing quote
        literal = -1
        starts = {self._delimiter, _LF, _CR}
        for at in events.tolist():
            if block[at] != _QUOTE:
                if not self.quoted:
                    ends.append(at)
            elif self.quoted:
                self.quoted, closed = False, at
            elif closed == at - 1 or (block[at - 1] if at else self._last) in starts:
                self.quoted = True
            else:
                literal = at
        self._last = _OTHER if literal == len(block) - 1 else block[-1]
        return np.array(ends, np.int64)


def unsplit(source: Iterable[bytes]) -> Iterator[bytes]:
    """Move a carriage return at the end of a block to the next one.

    That no pair of CR and LF is torn.
    """
    held = b""
    for block in source:
        whole = held + block
        held = b"\r" if whole.endswith(b"\r") else b""
        if body := whole[: len(whole) - len(held)]:
            yield body
    if held:
        yield held


def is_bytewise(encoding: str, delimiter: str) -> bool:
    """Tell whether quotes, delimiters and line breaks are single bytes that mean nothing else in this encoding."""
    try:
        plain = all(bytes([code]).decode(encoding) == chr(code) for code in range(128))
    except UnicodeDecodeError:
        return False
    pairs = (
        bytes([lead]) + mark.encode() for lead in range(128, 256) for mark in f'"\r\n{delimiter}'
    )
    return plain and all(pair.decode(encoding, "replace").endswith(chr(pair[1])) for pair in pairs)


def is_content(data: bytes, starts: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    """Tell records from blank lines."""
    sizes = ends - starts
    shown = np.frombuffer(data, np.uint8)
    first = shown[np.maximum(starts, 0)]
    last = shown[ends - 1]
    blank = ((sizes == 1) & ((last == _LF) | (last == _CR))) | (
        (sizes == 2) & (first == _CR) & (last == _LF)
    )
    content: npt.NDArray[np.bool_] = ~blank
    return content


def ranges(
    source: Iterable[bytes], ends: RecordEnds, start: int, step: int
) -> list[tuple[int, int, int]]:
    """Cut a stream into ranges of about ``step`` bytes that begin behind a record.

    From, to, number of records.

    Args:
        source: the stream's blocks from ``start`` on; all of them are read.
        ends: new.
        start: offset of the first record.
        step: bytes.
    """
    cuts: list[tuple[int, int, int]] = []
    begin, last, offset, rows = start, start, start, 0
    for block in unsplit(source):
        found = ends.find(block)
        starts = np.concatenate(([last - offset], found[:-1]))[: len(found)]
        counts = np.cumsum(is_content(block, starts, found))
        done = 0
        while (at := int(np.searchsorted(found, (begin // step + 1) * step - offset))) < len(found):
            end, total = offset + int(found[at]), int(counts[at])
            cuts.append((begin, end, rows + total - done))
            begin, rows, done = end, 0, total
        if len(found):
            rows += int(counts[-1]) - done
            last = offset + int(found[-1])
        offset += len(block)
    if offset > begin or not cuts:
        cuts.append((begin, offset, rows + (offset > last)))
    return cuts


@dataclass(frozen=True, slots=True)
class Header:
    """Column names, and the offset behind them."""

    columns: tuple[str, ...]
    end: int


def read_header(
    source: Iterable[bytes], delimiter: str, encoding: str, name: str, limit: int
) -> Header:
    """Read the column names from the first line that is not blank.

    Raises:
        SourceError: no such line, not in the encoding, or names that are empty or not unique.
    """
    remedy = "write a first line with one distinct name for each column"
    for run in whole_records(unsplit(source), RecordEnds(delimiter), limit):
        if isinstance(run, Oversized):
            raise SourceError(
                f"{name} begins with a record of {run.size} bytes, which is no header", remedy
            )
        for offset, record in run.records():
            content = record.removeprefix(BOM) if offset == 0 else record
            if not content.strip(b"\r\n"):
                continue
            try:
                columns = tuple(
                    next(
                        csv.reader(
                            io.StringIO(content.decode(encoding), newline=""), delimiter=delimiter
                        )
                    )
                )
            except (UnicodeDecodeError, csv.Error) as error:
                raise SourceError(
                    f"the header of {name} cannot be read: {error}",
                    "correct source.encoding or the file's first line",
                ) from error
            wrong = [
                column for column in columns if not column.strip() or columns.count(column) > 1
            ]
            if wrong:
                raise SourceError(
                    f"{name} has an empty or repeated column name: {', '.join(map(repr, dict.fromkeys(wrong)))}",
                    remedy,
                )
            return Header(columns, offset + len(record))
    raise SourceError(f"{name} has no header", remedy + ", or remove the empty file")
