"""Where CSV records end: a line break ends a record unless it stands in a quoted field.

A quote opens a quoted field only at the start of a field; inside, two quotes stand for a
quote.  So a line break is inside quotes exactly if an odd number of quotes precedes it, as
long as no quote stands in the middle of an unquoted field.  Numpy counts block by block; a
block with such a quote takes the exact state machine.  These are the rules of pyarrow's
parser and of Python's csv module; but text behind a closing quote, which both take for a part
of the field, makes a torn record here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cfray.formats.csv_dialect import CsvDialect

_LF, _CR = 0x0A, 0x0D
#: Stands for a quote that is an ordinary character.
_OTHER = 0

Offsets = npt.NDArray[np.int64]


class RecordEnds:
    """Finds the ends of records in consecutive blocks, and quotes that text follows.

    Attributes:
        quoted: whether a quoted field is open at the end of the last block.
    """

    def __init__(self, dialect: CsvDialect, start: int = 0, *, quoting: bool = True) -> None:
        """Start at a record whose offset is ``start``.

        Without ``quoting`` every line break that is not escaped ends a record.
        """
        self.quoted = False
        self._dialect = dialect
        self._quote = ord(dialect.quote) if dialect.quote and quoting else -1
        self._around_a_field = np.array([ord(dialect.delimiter), _LF, _CR, self._quote])
        self._last = _LF
        self._position = start
        self._torn: list[int] = []
        self._ends_with_closing_quote = False

    def __call__(self, block: bytes) -> list[int]:
        """Give the offsets behind each record that ends in the block.

        No block may end between a carriage return and a line feed, or behind an escape, unless the
        stream does: ``CsvDialect.keep_pairs_together`` takes care of that.
        """
        ends: list[int] = self.find(block).tolist()
        return ends

    def find(self, block: bytes) -> Offsets:
        """Give the same offsets as an array."""
        if not block:
            return np.array([], np.int64)
        block = self._dialect.mask_escapes(block)
        data = np.frombuffer(block, np.uint8)
        breaks = (data == _LF) | (data == _CR)
        if self._quote < 0:
            ends = np.flatnonzero(breaks)
        else:
            ends = self._find_unquoted(block, data, np.flatnonzero(breaks | (data == self._quote)))
        self._position += len(block)
        next_bytes = data[np.minimum(ends + 1, len(data) - 1)]
        # Of a pair of CR and LF the line feed ends the record.
        is_torn_pair = (data[ends] == _CR) & (next_bytes == _LF)
        record_ends: Offsets = ends[~is_torn_pair] + 1
        return record_ends

    def take_torn(self, end: int) -> list[int]:
        """Give the offsets, below ``end``, of closing quotes that text follows; forget them."""
        torn = [offset for offset in self._torn if offset < end]
        self._torn = self._torn[len(torn) :]
        return torn

    def _find_unquoted(self, block: bytes, data: npt.NDArray[np.uint8], events: Offsets) -> Offsets:
        """Give the line breaks outside quotes.

        Args:
            block: with masked escapes.
            data: the same as an array.
            events: offsets of its quotes and line breaks.
        """
        if self._ends_with_closing_quote and data[0] not in self._around_a_field:
            self._torn.append(self._position - 1)
        kinds = data[events]
        before = data[events - 1]
        if len(events) and events[0] == 0:
            before[0] = self._last
        is_quote = kinds == self._quote
        inside = ((np.cumsum(is_quote) - is_quote + self.quoted) & 1).astype(bool)
        if np.isin(before[is_quote & ~inside], self._around_a_field).all():
            self.quoted = bool((int(is_quote.sum()) + self.quoted) & 1)
            self._last = block[-1]
            closing: Offsets = events[is_quote & inside]
            ends: Offsets = events[~is_quote & ~inside]
        else:
            closing, ends = self._find_exactly(block, events)
        self._ends_with_closing_quote = len(closing) > 0 and int(closing[-1]) == len(block) - 1
        behind = data[np.minimum(closing + 1, len(data) - 1)]
        is_torn = ~np.isin(behind, self._around_a_field)
        if is_torn.any():
            self._torn += (closing[is_torn] + self._position).tolist()
        return ends

    def _find_exactly(self, block: bytes, events: Offsets) -> tuple[Offsets, Offsets]:
        """Give the closing quotes and the line breaks outside quotes, quote by quote."""
        closing: list[int] = []
        ends: list[int] = []
        last_closing_quote = -1 if self._last == self._quote else -2
        last_literal_quote = -1
        before_a_field = set(self._around_a_field[:3].tolist())
        for offset in events.tolist():
            byte_before = block[offset - 1] if offset else self._last
            if block[offset] != self._quote:
                if not self.quoted:
                    ends.append(offset)
            elif self.quoted:
                self.quoted, last_closing_quote = False, offset
                closing.append(offset)
            elif last_closing_quote == offset - 1 or byte_before in before_a_field:
                self.quoted = True
            else:
                last_literal_quote = offset
        self._last = _OTHER if last_literal_quote == len(block) - 1 else block[-1]
        return np.array(closing, np.int64), np.array(ends, np.int64)


def is_bytewise(encoding: str, marks: str) -> bool:
    """Tell whether line breaks and ``marks`` are single bytes in an encoding.

    They must also be no part of another character, so that the bytes can be searched undecoded.
    """
    try:
        plain = all(bytes([code]).decode(encoding) == chr(code) for code in range(128))
    except UnicodeDecodeError:
        return False
    pairs = (bytes([lead]) + mark.encode() for lead in range(128, 256) for mark in f"\r\n{marks}")
    return plain and all(pair.decode(encoding, "replace").endswith(chr(pair[1])) for pair in pairs)


def find_content(data: bytes, starts: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    """Tell records from blank lines: true for each line that is not blank."""
    sizes = ends - starts
    view = np.frombuffer(data, np.uint8)
    first = view[np.maximum(starts, 0)]
    last = view[ends - 1]
    is_blank = ((sizes == 1) & ((last == _LF) | (last == _CR))) | (
        (sizes == 2) & (first == _CR) & (last == _LF)
    )
    is_content: npt.NDArray[np.bool_] = ~is_blank
    return is_content


def split_at_records(
    blocks: Iterable[bytes], find_ends: RecordEnds, start: int, step: int
) -> list[tuple[int, int, int]]:
    """Cut a stream into ranges of about ``step`` bytes that begin behind a record.

    Args:
        blocks: the stream's blocks from ``start`` on, no pair torn; all of them are read.
        find_ends: at the start of a record.
        start: offset of the first record.
        step: bytes.

    Returns:
        For each range the offset of its start, the offset behind it and its number of records.
    """
    ranges: list[tuple[int, int, int]] = []
    range_start, last_end, offset, rows = start, start, start, 0
    for block in blocks:
        ends = find_ends.find(block)
        starts = np.concatenate(([last_end - offset], ends[:-1]))[: len(ends)]
        counts = np.cumsum(find_content(block, starts, ends))
        counted = 0
        while True:
            target = (range_start // step + 1) * step - offset
            index = int(np.searchsorted(ends, target))
            if index == len(ends):
                break
            end, count = offset + int(ends[index]), int(counts[index])
            ranges.append((range_start, end, rows + count - counted))
            range_start, rows, counted = end, 0, count
        if len(ends):
            rows += int(counts[-1]) - counted
            last_end = offset + int(ends[-1])
        offset += len(block)
    if offset > range_start or not ranges:
        ranges.append((range_start, offset, rows + (offset > last_end)))
    return ranges
