"""XML: each element at a path is a record; streamed, and without entities of its own.

Attributes become ``@name``, children become fields by their names as they are written, with their
prefix.  Text among children keeps its place: such an element is a list of its pieces under
``$mixed``.  What stands outside of the records is named: by the plan, or else by a reject.

Source: W3C, "Extensible Markup Language (XML) 1.0", 4.4 and 5.1; W3C, "XML Schema Part 1", 2.6.2;
Python, "XML vulnerabilities".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.jsonl import BatchBuilder
from cfray.formats.lines import record_limit
from cfray.formats.xml_encoding import decode_document
from cfray.formats.xml_outside import TEXT, count_of
from cfray.formats.xml_paths import RecordPath, is_ignored
from cfray.formats.xml_walk import Walk
from cfray.records.record import Reject

#: Name of the field of an element that has text among its children: its pieces in their order.
MIXED = "$mixed"
#: What stands before the name of an attribute.
_ATTRIBUTE = "@"
#: Levels of elements in a record; deeper, a JSON text of it could not be read back.
_MAX_DEPTH = 200
#: How an attribute says that an element is null.
_NIL, _TRUE = "xsi:nil", ("true", "1")
#: Paths that an error names.
_LISTED_PATHS = 10


@dataclass(frozen=True, slots=True)
class RecordRules:
    """Which elements are records, and what is known of the others.

    Attributes:
        path: of the records.
        content: paths below a record of elements whose whole text is their value.
        ignored: paths outside of records that the job leaves.
        planned: paths outside of records that the plan has named.
    """

    path: RecordPath
    content: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()
    planned: frozenset[str] = frozenset()

    def check(self, walk: Walk, name: str) -> None:
        """Refuse a document that has no record, though it has other elements or texts.

        Args:
            walk: through the document, to its end.
            name: of the file.

        Raises:
            SourceError: names what the document holds instead.
        """
        counts = walk.outside.counts
        unread = {path: n for path, n in counts.items() if not is_ignored(path, self.ignored)}
        if walk.records or not (unread or (not counts and not walk.outside.saw_parent)):
            return
        what = f"{name} has no record at {self.path}"
        if not walk.outside.saw_parent:
            parent = "/".join(self.path.names[:-1])
            what = f"{name} has no element {parent}, in which records should be"
        remedy = "correct source.record: the names of the elements from the root to a record"
        if unread:
            paths = list(unread)[:_LISTED_PATHS]
            what += f"; it holds {', '.join(count_of(path, unread[path]) for path in paths)}"
            remedy += f"; or source.ignore: [{', '.join(paths)}], where this job needs none"
        raise SourceError(what, remedy)


@dataclass(slots=True)
class _Element:
    """An element that is open.

    Attributes:
        name: as it is written.
        attributes: as they are written.
        pieces: texts and children (name and value), in their order.
        is_content: whether its whole text is its value.
    """

    name: str
    attributes: dict[str, str]
    pieces: list[str | tuple[str, object]] = field(default_factory=list)
    is_content: bool = False

    def value(self) -> object:
        """Give what the element becomes."""
        fields: dict[str, object] = {
            f"{_ATTRIBUTE}{name}": text for name, text in self.attributes.items()
        }
        children = [piece for piece in self.pieces if isinstance(piece, tuple)]
        texts = [piece for piece in self.pieces if isinstance(piece, str)]
        if not children:
            text = "".join(texts)
            if not text and self._is_nil():
                return None
            if not fields:
                return text
            return {**fields, TEXT: text} if text else fields
        if any(text.strip() for text in texts):
            return {**fields, MIXED: self._mixed_pieces()}
        values: dict[str, list[object]] = {}
        for name, value in children:
            values.setdefault(name, []).append(value)
        return fields | {
            name: items if len(items) > 1 else items[0] for name, items in values.items()
        }

    def _is_nil(self) -> bool:
        """Tell whether the element says that it is null, and nothing else."""
        attributes = {
            name: text
            for name, text in self.attributes.items()
            if name != "xmlns" and not name.startswith("xmlns:")
        }
        return list(attributes) == [_NIL] and attributes[_NIL].strip() in _TRUE

    def _mixed_pieces(self) -> list[str | dict[str, object]]:
        """Give texts and children in their order; a text is whole, however the parser cut it."""
        pieces: list[str | dict[str, object]] = []
        for is_text, run in groupby(self.pieces, key=lambda piece: isinstance(piece, str)):
            if is_text:
                pieces.append("".join(piece for piece in run if isinstance(piece, str)))
            else:
                pieces += [{piece[0]: piece[1]} for piece in run if isinstance(piece, tuple)]
        return pieces


@dataclass(frozen=True, slots=True)
class _Found:
    """A record that ended.

    Attributes:
        value: the record; None where it was refused.
        offset: of its first byte.
        size: its bytes.
        fault: why it was refused.
    """

    value: dict[str, object] | None
    offset: int
    size: int
    fault: str = ""


class _Reader(Walk):
    """Makes values of records; those that ended lie in ``found`` after each block."""

    def __init__(self, rules: RecordRules, name: str, encoding: str | None, limit: int) -> None:
        super().__init__(rules.path, name, encoding)
        self.found: list[_Found] = []
        self._content, self._limit = rules.content, limit
        self._open: list[_Element] = []
        self._fault = ""
        self._start = 0

    def begin_inside(self, name: str, attributes: dict[str, str]) -> None:
        if not self._open:
            self._start, self._fault = self.parser.CurrentByteIndex, ""
            self._open.append(_Element(name, attributes))
            return
        below = "/".join(self._names[len(self._names) - len(self._open) :])
        is_content = self._open[-1].is_content or below in self._content
        self._open.append(_Element(name, attributes, is_content=is_content))
        if len(self._open) > _MAX_DEPTH:
            self._fault = f"record has elements below more than {_MAX_DEPTH} others"
        self._check_size()

    def end_inside(self, name: str) -> None:
        element = self._open.pop()
        if self._open:
            parent = self._open[-1]
            if parent.is_content:
                parent.pieces.append("".join(map(str, element.pieces)))
            elif not self._fault:
                parent.pieces.append((name, element.value()))
            return
        size = self.parser.CurrentByteIndex - self._start
        value = None if self._fault else element.value()
        if not self._fault and not isinstance(value, dict):
            value = {TEXT: value}
        assert value is None or isinstance(value, dict)
        self.found.append(_Found(value, self._start, size, self._fault))

    def add_text(self, text: str) -> None:
        if not self._fault:
            self._open[-1].pieces.append(text)
            self._check_size()

    def _check_size(self) -> None:
        if self.parser.CurrentByteIndex - self._start > self._limit and not self._fault:
            self._fault = "record is over limits.max_document; its content is not kept here"
            for element in self._open:
                element.pieces.clear()


def decode(
    blocks: Iterable[bytes],
    name: str,
    batch_bytes: int,
    *,
    rules: RecordRules,
    max_record: int,
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn the elements at a path into batches and rejects.

    What stands outside of the records, and was neither planned nor ignored, is a reject for each
    path, with its number: a plan looks only at the head of a file.

    Args:
        blocks: of the document, in its own encoding.
        name: of the file, for positions.
        batch_bytes: bytes of text that a batch aims at.
        rules: which elements are records.
        max_record: ``limits.max_document``.

    Raises:
        SourceError: the document is not well-formed, declares entities, is not in the encoding
            that it declares, or has no record though it has other elements.
    """
    text, encoding = decode_document(blocks, name)
    reader = _Reader(rules, name, encoding, record_limit(max_record))
    batches = BatchBuilder(batch_bytes)
    size = 0
    for block in text:
        size += len(block)
        reader.parse(block)
        yield from _drain(reader, name, batches)
    if not size:
        return
    reader.finish()
    yield from _drain(reader, name, batches)
    yield from batches.flush()
    rules.check(reader, name)
    for path, count in reader.outside.counts.items():
        if path not in rules.planned and not is_ignored(path, rules.ignored):
            yield Reject(
                f"not read: {count_of(path, count)}, beside the records at {rules.path}; "
                f"source.ignore: [{path}] says that this job needs none",
                f"{name}:{path}",
                b"",
            )


def _drain(reader: _Reader, name: str, batches: BatchBuilder) -> Iterator[pa.RecordBatch | Reject]:
    for record in reader.found:
        if record.value is None:
            yield from batches.flush()
            yield Reject(record.fault, f"{name}:byte {record.offset}", b"")
        else:
            yield from batches.add(record.value, max(1, record.size))
    reader.found.clear()
