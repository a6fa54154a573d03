"""The elements of a JSON text of any size: of its arrays, or the objects that stand in it.

The text is cut between elements and each element is parsed by itself, exactly as a line of
JSON Lines is: bounded memory, exact numbers, and the original bytes of what is rejected.  (yajl,
the usual streaming parser, writes "?" for a lone surrogate without a word and gives no bytes.)
Every byte outside elements is checked, so a file that reads without error is JSON.  Several
top-level values, as programs that append write them, are read one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.json_rows import Orient, RowShape
from cfray.formats.jsonl import BatchBuilder
from cfray.formats.jsontext import InexactJson, InvalidJson, between_values
from cfray.formats.lines import OversizedRecord, RecordRun
from cfray.records.record import Reject

_SPACE = b" \t\r\n"
#: Opening brackets and the closing ones.
_BRACKETS = {b"[": b"]", b"{": b"}"}
#: Bytes of a text that an error shows.
_SHOWN_BYTES = 20


@dataclass(frozen=True, slots=True)
class Elements:
    """How the elements of a text become rows.

    Attributes:
        name: of the file, for positions.
        batch_bytes: bytes of text that a batch aims at.
        orient: how the elements hold records.
        columns: names of an element's values, where the elements are arrays and the names stand
            elsewhere.
        has_offsets: whether positions are offsets in the file; they are numbers of elements where
            the text is a whole file.
        keeps_going: whether an element that is no JSON is a reject; else it ends the file.
    """

    name: str
    batch_bytes: int
    orient: Orient = "records"
    columns: tuple[str, ...] = ()
    has_offsets: bool = False
    keeps_going: bool = False

    def position(self, index: int, offset: int) -> str:
        """Say where an element stands."""
        return f"{self.name}:byte {offset}" if self.has_offsets else f"{self.name}:element {index}"


#: An element, or the text between two elements, and its offset in the file.
_Section = tuple[int, bytes | OversizedRecord]


def decode(
    runs: Iterable[RecordRun | OversizedRecord], elements: Elements
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn the elements of a text into batches and rejects.

    Args:
        runs: the text, cut by ``json_structure.ElementEnds``.
        elements: what the text's elements are.

    Raises:
        SourceError: the text is no JSON array and no object.
    """
    batches = BatchBuilder(elements.batch_bytes)
    shape = RowShape(elements.orient, elements.columns)
    for index, offset, element in _elements(runs, elements):
        position = elements.position(index, offset)
        if isinstance(element, OversizedRecord):
            yield from batches.flush()
            yield Reject(element.reject(elements.name, "element").reason, position, element.head)
            continue
        try:
            row = shape.row(element)
        except InvalidJson as error:
            if not elements.keeps_going:
                raise _not_json(
                    elements.name, f"element {index} at byte {offset}: {error}"
                ) from error
            row = f"element: {error}"
        except InexactJson as error:
            row = f"element: {error}"
        if isinstance(row, dict):
            yield from batches.add(row, len(element))
        elif row is not None:
            yield from batches.flush()
            yield Reject(row, position, element)
    yield from batches.flush()


def _elements(
    runs: Iterable[RecordRun | OversizedRecord], elements: Elements
) -> Iterator[tuple[int, int, bytes | OversizedRecord]]:
    """Check brackets and commas; give each element's index, offset and text."""
    sections = _sections(runs)
    index = 0
    is_begun = False
    for offset, section in sections:
        text = between_values(_text(section))
        if text in _BRACKETS:
            for element in _cut_elements(sections, _BRACKETS[text], index, elements.name):
                yield element
                index = element[0] + 1
        elif text.startswith(b"{"):
            if isinstance(section, OversizedRecord) and not section.closed:
                raise _not_json(elements.name, "it ends before its object does")
            yield index, offset, section if isinstance(section, OversizedRecord) else text
            index += 1
        elif text:
            where = f"goes on at byte {offset}, behind its end," if is_begun else "begins"
            shown = text[:_SHOWN_BYTES].decode(errors="replace")
            raise _not_json(
                elements.name, f"it {where} neither with an array nor with an object: {shown!r}"
            )
        is_begun |= bool(text)
    if not is_begun:
        raise _not_json(
            elements.name, "it begins neither with an array nor with an object: it is empty"
        )


def _cut_elements(
    sections: Iterator[_Section], closing: bytes, index: int, name: str
) -> Iterator[tuple[int, int, bytes | OversizedRecord]]:
    """Take elements up to the closing bracket; ``index`` is the first one's."""
    first_index = index
    for offset, section in sections:
        text = _text(section)
        element = text[:-1].strip(_SPACE)
        last = section.last if isinstance(section, OversizedRecord) else text[-1:]
        if last not in {b",", closing}:
            raise _not_json(
                name,
                f"element {index} at byte {offset} is followed by no comma or bracket; "
                "the file is cut or corrupt",
            )
        if not element and (index > first_index or last == b","):
            raise _not_json(name, f"element {index} at byte {offset} is empty")
        if element:
            yield index, offset, section if isinstance(section, OversizedRecord) else element
        if last == closing:
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
        "the fault can be trusted, so none of it is read; one object a line is kind: jsonl, which "
        "sends a bad line to quarantine",
    )
