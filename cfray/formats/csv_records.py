"""Where CSV records end: a line break ends a record unless it stands in a quoted field.

A quote opens a quoted field only at the start of a field; inside, two quotes stand for a
quote.  So a line break is inside quotes exactly if an odd number of quotes precedes it, as
long as no quote stands in the middle of an unquoted field.  Numpy counts block by block; a
block with such a quote takes the exact state machine.  These are the rules of pyarrow's
parser and of Python's csv module.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfray.errors import SourceError
from cfray.formats.lines import BOM, OversizedRecord, gather_records

_LF, _CR, _QUOTE = 0x0A, 0x0D, 0x22
#: Stands for a quote that is an ordinary character.
_OTHER = 0

Offsets = npt.NDArray[np.int64]


class RecordEnds:
    """Finds the ends of records in consecutive blocks.

    Attributes:
        quoted: whether a quoted field is open at the end of the last block.
    """

    def __init__(self, delimiter: str, *, quoting: bool = True) -> None:
        """Start at the start of a record; without ``quoting`` every line break ends a record."""
        self.quoted = False
        self._delimiter = ord(delimiter)
        self._quoting = quoting
        self._last = _LF

    def __call__(self, block: bytes) -> list[int]:
        """Give the offsets behind each record that ends in the block.

        A carriage return must not be the block's last byte, unless it is the stream's.
        """
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
        next_bytes = data[np.minimum(ends + 1, len(data) - 1)]
        # Of a pair of CR and LF the line feed ends the record.
        is_torn_pair = (data[ends] == _CR) & (next_bytes == _LF)
        record_ends: Offsets = ends[~is_torn_pair] + 1
        return record_ends

    def _exact(self, block: bytes, events: Offsets) -> Offsets:
        ends: list[int] = []
        last_closing_quote = -1 if self._last == _QUOTE else -2
        last_literal_quote = -1
        before_a_field = {self._delimiter, _LF, _CR}
        for offset in events.tolist():
            byte_before = block[offset - 1] if offset else self._last
            if block[offset] != _QUOTE:
                if not self.quoted:
                    ends.append(offset)
            elif self.quoted:
                self.quoted, last_closing_quote = False, offset
            elif last_closing_quote == offset - 1 or byte_before in before_a_field:
                self.quoted = True
            else:
                last_literal_quote = offset
        self._last = _OTHER if last_literal_quote == len(block) - 1 else block[-1]
        return np.array(ends, np.int64)


def keep_crlf_together(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Move a carriage return at the end of a block to the next block.

    So no pair of CR and LF is torn.
    """
    carried = b""
    for block in blocks:
        data = carried + block
        carried = b"\r" if data.endswith(b"\r") else b""
        if body := data[: len(data) - len(carried)]:
            yield body
    if carried:
        yield carried


def is_bytewise(encoding: str, delimiter: str) -> bool:
    """Tell whether quotes, delimiters and line breaks are single bytes in an encoding.

    They must also be no part of another character, so that the bytes can be searched undecoded.
    """
    try:
        plain = all(bytes([code]).decode(encoding) == chr(code) for code in range(128))
    except UnicodeDecodeError:
        return False
    pairs = (
        bytes([lead]) + mark.encode() for lead in range(128, 256) for mark in f'"\r\n{delimiter}'
    )
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
        blocks: the stream's blocks from ``start`` on; all of them are read.
        find_ends: at the start of a record.
        start: offset of the first record.
        step: bytes.

    Returns:
        For each range the offset of its start, the offset behind it and its number of records.
    """
    ranges: list[tuple[int, int, int]] = []
    range_start, last_end, offset, rows = start, start, start, 0
    for block in keep_crlf_together(blocks):
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


@dataclass(frozen=True, slots=True)
class CsvHeader:
    """The header of a file.

    Attributes:
        columns: names in their order.
        end: offset behind the header.
    """

    columns: tuple[str, ...]
    end: int


def read_header(
    blocks: Iterable[bytes], delimiter: str, encoding: str, name: str, limit: int
) -> CsvHeader:
    """Read the column names from the first line that is not blank.

    Args:
        blocks: of the file, from its start.
        delimiter: the character between names.
        encoding: of the blocks.
        name: of the file, for errors.
        limit: bytes above which a line is no header.

    Raises:
        SourceError: no such line, not in the encoding, or names that are empty or not unique.
    """
    remedy = "write a first line with one distinct name for each column"
    for run in gather_records(keep_crlf_together(blocks), RecordEnds(delimiter), limit):
        if isinstance(run, OversizedRecord):
            raise SourceError(
                f"{name} begins with a record of {run.size} bytes, which is no header", remedy
            )
        for offset, record in run.records():
            content = record.removeprefix(BOM) if offset == 0 else record
            if not content.strip(b"\r\n"):
                continue
            try:
                text = io.StringIO(content.decode(encoding), newline="")
                columns = tuple(next(csv.reader(text, delimiter=delimiter)))
            except (UnicodeDecodeError, csv.Error) as error:
                raise SourceError(
                    f"the header of {name} cannot be read: {error}",
                    "correct source.encoding or the file's first line",
                ) from error
            unusable = dict.fromkeys(
                column for column in columns if not column.strip() or columns.count(column) > 1
            )
            if unusable:
                raise SourceError(
                    f"{name} has an empty or repeated column name: "
                    f"{', '.join(map(repr, unusable))}",
                    remedy,
                )
            return CsvHeader(columns, offset + len(record))
    raise SourceError(f"{name} has no header", remedy + ", or remove the empty file")
