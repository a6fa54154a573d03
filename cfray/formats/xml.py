"""XML: each element at a path is a record; streamed, and without entities of its own.

Attributes become ``@name``, children become fields by their names as they are written, with their
prefix.  Text among children keeps its place: such an element is a list of its pieces under
``$mixed``.  A document that declares an entity is refused before a single one is expanded, and a
reference to an entity that nobody declared is refused, too, for its text would be missing.

Source: W3C, "Extensible Markup Language (XML) 1.0", 4.4 and 5.1; Python, "XML vulnerabilities".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.jsonl import BatchBuilder
from cfray.formats.lines import record_limit
from cfray.records.record import Reject

#: Names of the fields of an element beside its children: its text, and its pieces in their order.
TEXT, MIXED = "$text", "$mixed"
#: What stands before the name of an attribute.
_ATTRIBUTE = "@"
#: Levels of elements in a record; deeper, a JSON text of it could not be read back.
_MAX_DEPTH = 200
_ANY = "*"


@dataclass(frozen=True, slots=True)
class RecordPath:
    """Where records are: names of elements from the root, or one name at any depth.

    Attributes:
        names: of elements; ``*`` is any name.
        at_any_depth: whether a single name is looked for below any element.
    """

    names: tuple[str, ...]
    at_any_depth: bool = False

    @classmethod
    def parse(cls, text: str | None) -> RecordPath:
        """Read a path: ``rss/channel/item`` or ``//item``; without one, the root's children.

        Raises:
            ValueError: it is no path.
        """
        if text is None:
            return cls((_ANY, _ANY))
        names = tuple(text.removeprefix("//").strip("/").split("/"))
        if not all(names) or any(character in text for character in "[]()@ "):
            raise ValueError(f"{text!r} is no path of elements: write a/b/c or //c")
        if text.startswith("//") and len(names) > 1:
            raise ValueError(f"{text!r}: behind // stands one name")
        return cls(names, text.startswith("//"))

    def matches(self, path: list[str]) -> bool:
        """Tell whether an element is a record."""
        if self.at_any_depth:
            return self.names[0] in (path[-1], _ANY)
        return len(path) == len(self.names) and self.begins_with(path)

    def begins_with(self, path: list[str]) -> bool:
        """Tell whether an element is on the way to records."""
        return all(name in (step, _ANY) for name, step in zip(self.names, path, strict=False))


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
            if fields == {"@xsi:nil": "true"} and not text:
                return None
            if not fields:
                return text
            return {**fields, TEXT: text} if text else fields
        if any(text.strip() for text in texts):
            pieces = [
                piece if isinstance(piece, str) else {piece[0]: piece[1]} for piece in self.pieces
            ]
            return {**fields, MIXED: pieces}
        values: dict[str, list[object]] = {}
        for name, value in children:
            values.setdefault(name, []).append(value)
        return fields | {
            name: items if len(items) > 1 else items[0] for name, items in values.items()
        }


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


class _Reader:
    """Reads a document block by block; what it found lies in ``found`` after each block."""

    def __init__(self, path: RecordPath, content: frozenset[str], limit: int) -> None:
        self.found: list[_Found] = []
        self.saw_parent = path.at_any_depth
        self._path, self._content, self._limit = path, content, limit
        self._names: list[str] = []
        self._open: list[_Element] = []
        self._fault = ""
        self._start = 0
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse_entity
        parser.SkippedEntityHandler = self._refuse_reference
        parser.ExternalEntityRefHandler = self._refuse_external

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._names.append(name)
        if not self._open:
            if self._path.matches(self._names):
                self._start, self._fault = self.parser.CurrentByteIndex, ""
                self._open.append(_Element(name, attributes))
            elif len(self._names) == len(self._path.names) - 1:
                self.saw_parent = self.saw_parent or self._path.begins_with(self._names)
            return
        below = "/".join(self._names[len(self._names) - len(self._open) :])
        is_content = self._open[-1].is_content or below in self._content
        self._open.append(_Element(name, attributes, is_content=is_content))
        if len(self._open) > _MAX_DEPTH:
            self._fault = f"record has elements below more than {_MAX_DEPTH} others"
        self._check_size()

    def _end(self, name: str) -> None:
        self._names.pop()
        if not self._open:
            return
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

    def _text(self, text: str) -> None:
        if self._open and not self._fault:
            self._open[-1].pieces.append(text)
            self._check_size()

    def _check_size(self) -> None:
        if self.parser.CurrentByteIndex - self._start > self._limit and not self._fault:
            self._fault = "record is over limits.max_document; its content is not kept here"
            for element in self._open:
                element.pieces.clear()

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise _EntityError(f"it declares the entity {name[:60]}")

    def _refuse_reference(self, name: str, *_: object) -> None:
        raise _EntityError(f"it refers to the entity {name[:60]}, which it does not declare")

    def _refuse_external(self, *_: object) -> int:
        raise _EntityError("it refers to an entity outside")


class _EntityError(Exception):
    """An entity that is not expanded."""


def decode(
    blocks: Iterable[bytes],
    name: str,
    batch_bytes: int,
    *,
    path: RecordPath,
    content: frozenset[str],
    max_record: int,
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn the elements at a path into batches and rejects.

    Args:
        blocks: of the document, in its own encoding.
        name: of the file, for positions.
        batch_bytes: bytes of text that a batch aims at.
        path: of the records.
        content: paths below a record of elements whose whole text is their value.
        max_record: ``limits.max_document``.

    Raises:
        SourceError: the document is not well-formed, declares entities, or has no element where
            records should be.
    """
    reader = _Reader(path, content, record_limit(max_record))
    batches = BatchBuilder(batch_bytes)
    size = 0
    for block in blocks:
        size += len(block)
        _parse(reader, name, block, is_last=False)
        yield from _drain(reader, name, batches)
    if not size:
        return
    _parse(reader, name, b"", is_last=True)
    yield from _drain(reader, name, batches)
    yield from batches.flush()
    if not reader.saw_parent:
        raise SourceError(
            f"{name} has no element {'/'.join(path.names[:-1])}, in which records should be",
            "correct source.record: the names of the elements from the root to a record",
        )


def _drain(reader: _Reader, name: str, batches: BatchBuilder) -> Iterator[pa.RecordBatch | Reject]:
    for record in reader.found:
        if record.value is None:
            yield from batches.flush()
            yield Reject(record.fault, f"{name}:byte {record.offset}", b"")
        else:
            yield from batches.add(record.value, max(1, record.size))
    reader.found.clear()


def _parse(reader: _Reader, name: str, block: bytes, *, is_last: bool) -> None:
    try:
        reader.parser.Parse(block, is_last)
    except _EntityError as error:
        raise SourceError(
            f"{name} is refused: {error}",
            "write the document without entities of its own (xmllint --noent --dropdtd expands "
            "them; do that for documents you trust)",
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise SourceError(
            f"{name} is no well-formed XML: {error}",
            "export or download the file again, or correct source.kind",
        ) from None
