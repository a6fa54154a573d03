"""One JSON array of objects, or one object, in a file of any size.

The text is cut at the commas between elements and each element is parsed by itself, exactly
as a line of JSON Lines is: bounded memory, exact numbers, and the original bytes of what is
rejected.  (yajl, the usual streaming parser, writes "?" for a lone surrogate without a word
and gives no bytes.)  Every byte outside elements is checked, so a file that reads without
error is JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.jsonl import BatchBuilder
from cfray.formats.jsontext import InexactJson, InvalidJson, parse_json
from cfray.formats.lines import BOM, OversizedRecord, RecordRun
from cfray.records.record import Reject

_QUOTE, _COMMA, _BACKSLASH, _BRACKET = 0x22, 0x2C, 0x5C, 0x5B
#: ``[`` and ``]``; ``{`` and ``}`` are the same with bit 0x20 set.
_OPEN, _CLOSE = 0x5B, 0x5D
_FOLD = 0xDF
_SPACE = b" \t\r\n"

Offsets = npt.NDArray[np.int64]


class ElementEnds:
    """Finds the ends of elements in consecutive blocks.

    A record ends behind the opening bracket of the array, behind each comma between elements and
    behind the last bracket.  So brackets, commas and elements together are the file.
    """

    def __init__(self) -> None:
        """Start at the start of the file."""
        self._in_string = False
        self._depth = 0
        self._is_array = False
        #: Backslashes at the end of the last block.
        self._slashes = 0

    def __call__(self, block: bytes) -> list[int]:
        """Give the offsets behind each record that ends in the block."""
        data = np.frombuffer(block, np.uint8)
        folded = data & _FOLD
        events = np.flatnonzero(
            (data == _QUOTE) | (data == _COMMA) | (folded == _OPEN) | (folded == _CLOSE)
        )
        kinds = data[events]
        events = events[~((kinds == _QUOTE) & self._escaped(data, events))]
        kinds = data[events]
        quotes = kinds == _QUOTE
        counts = np.cumsum(quotes)
        outside = ((counts - quotes + self._in_string) & 1 == 0) & ~quotes
        opens = outside & (kinds & _FOLD == _OPEN)
        closes = outside & (kinds & _FOLD == _CLOSE)
        depth = self._depth + np.cumsum(opens.astype(np.int64) - closes)
        first = np.flatnonzero(opens)
        if self._depth == 0 and len(first):
            self._is_array = bool(kinds[first[0]] == _BRACKET)
        ends = closes & (depth == 0)
        if self._is_array:
            ends |= (outside & (kinds == _COMMA) & (depth == 1)) | (
                opens & (depth == 1) & (kinds == _BRACKET)
            )
        if len(events):
            self._in_string = bool((int(counts[-1]) + self._in_string) & 1)
            self._depth = int(depth[-1])
        trailing = len(block) - len(block.rstrip(b"\\"))
        self._slashes = trailing + (self._slashes if trailing == len(block) else 0)
        record_ends: list[int] = (events[ends] + 1).tolist()
        return record_ends

    def _escaped(self, data: npt.NDArray[np.uint8], events: Offsets) -> npt.NDArray[np.bool_]:
        """Tell which events have an odd number of backslashes before them."""
        slashes = np.flatnonzero(data == _BACKSLASH)
        starts = slashes[np.diff(slashes, prepend=-2) != 1]
        before = np.where(data[events - 1] == _BACKSLASH, events, 0)
        run = np.searchsorted(starts, before) - 1
        length = (
            np.where(run >= 0, before - starts[run], 0)
            if len(starts)
            else np.zeros(len(events), np.int64)
        )
        carried = (before == length) & (before > 0) | (events == 0)
        odd: npt.NDArray[np.bool_] = (
            np.where(events == 0, 0, length) + np.where(carried, self._slashes, 0)
        ) & 1 == 1
        return odd


#: An element, or the text between two elements, and its offset in the file.
_Section = tuple[int, bytes | OversizedRecord]


def decode(
    runs: Iterable[RecordRun | OversizedRecord], name: str, batch_bytes: int
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn the elements of one file into batches and rejects.

    Args:
        runs: the file, cut by ``ElementEnds``.
        name: of the file, for positions.
        batch_bytes: bytes of text that a batch aims at.

    Raises:
        SourceError: the file is no JSON array and no object.
    """
    batches = BatchBuilder(batch_bytes)
    for index, offset, element in _elements(runs, name):
        position = f"{name}:element {index}"
        if isinstance(element, OversizedRecord):
            yield from batches.flush()
            yield Reject(element.reject(name, "element").reason, position, element.head)
            continue
        try:
            value = parse_json(element)
        except InvalidJson as error:
            raise _not_json(name, f"element {index} at byte {offset}: {error}") from error
        except InexactJson as error:
            yield from batches.flush()
            yield Reject(f"element: {error}", position, element)
            continue
        if isinstance(value, dict):
            yield from batches.add(value, len(element))
        else:
            yield from batches.flush()
            yield Reject("element is JSON, but no object", position, element)
    yield from batches.flush()


def _elements(
    runs: Iterable[RecordRun | OversizedRecord], name: str
) -> Iterator[tuple[int, int, bytes | OversizedRecord]]:
    """Check brackets and commas; give each element's index, offset and text."""
    sections = _sections(runs)
    offset, first = next(sections, (0, b""))
    text = _text(first).removeprefix(BOM).strip(_SPACE)
    if text == b"[":
        yield from _array_elements(sections, name)
    elif not text.startswith(b"{"):
        raise _not_json(name, "it begins neither with an array nor with an object")
    elif isinstance(first, bytes):
        yield 0, offset, text
    elif first.closed:
        yield 0, offset, first
    else:
        raise _not_json(name, "it ends before its object does")
    for offset_behind, section in sections:
        if _text(section):
            raise _not_json(
                name,
                f"it goes on at byte {offset_behind}, behind its end "
                "(one object a line is kind: jsonl)",
            )


def _array_elements(
    sections: Iterator[_Section], name: str
) -> Iterator[tuple[int, int, bytes | OversizedRecord]]:
    """Take elements up to the array's closing bracket."""
    index = 0
    for offset, section in sections:
        text = _text(section)
        element = text[:-1].strip(_SPACE)
        last = section.last if isinstance(section, OversizedRecord) else text[-1:]
        if last not in {b",", b"]"}:
            raise _not_json(
                name,
                f"element {index} at byte {offset} is followed by no comma or bracket; "
                "the file is cut or corrupt",
            )
        if not element and (index or last == b","):
            raise _not_json(name, f"element {index} at byte {offset} is empty")
        if element:
            yield index, offset, section if isinstance(section, OversizedRecord) else element
        if last == b"]":
            return
        index += 1
    raise _not_json(name, f"it ends before its array does, behind {index} elements")


def _text(section: bytes | OversizedRecord) -> bytes:
    data = section.head if isinstance(section, OversizedRecord) else section
    return data.strip(_SPACE)


def _sections(runs: Iterable[RecordRun | OversizedRecord]) -> Iterator[_Section]:
    for run in runs:
        if isinstance(run, OversizedRecord):
            yield run.offset, run
        else:
            yield from run.records()


def _not_json(name: str, what: str) -> SourceError:
    return SourceError(
        f"{name} is no JSON file of records: {what}",
        "repair the file or export it again, then start anew with another target; nothing behind "
        "the fault can be trusted, so none of it is read",
    )
