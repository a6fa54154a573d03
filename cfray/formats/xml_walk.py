"""Walk through a document with expat: which elements are records, and what stands beside them.

A document that declares an entity is refused before a single one is expanded, and a reference to
an entity that nobody declared is refused, too, for its text would be missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.parsers import expat

from cfray.errors import SourceError
from cfray.formats.xml_encoding import decode_document
from cfray.formats.xml_outside import Outside
from cfray.formats.xml_paths import RecordPath


class Walk:
    """Walks through a document block by block; a subclass takes what stands in the records.

    Attributes:
        records: that began.
        outside: what stands beside them.
        is_whole: whether the document was walked through to its end.
    """

    def __init__(self, path: RecordPath, name: str, encoding: str | None) -> None:
        """Start at the start of a document.

        Args:
            path: of the records.
            name: of the file, for errors.
            encoding: that the parser takes instead of the declared one.
        """
        self.records = 0
        self.is_whole = False
        self.outside = Outside(path)
        self._path, self._file = path, name
        #: Names of the elements that are open, and how many of them are a record or in one.
        self._names: list[str] = []
        self._depth = 0
        self.parser = parser = expat.ParserCreate(encoding)
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse_entity
        parser.SkippedEntityHandler = self._refuse_reference
        parser.ExternalEntityRefHandler = self._refuse_external

    def parse(self, block: bytes, *, is_last: bool = False) -> None:
        """Walk through the next block.

        Raises:
            SourceError: the document is not well-formed, or declares entities.
        """
        try:
            self.parser.Parse(block, is_last)
        except _EntityError as error:
            raise SourceError(
                f"{self._file} is refused: {error}",
                "write the document without entities of its own (xmllint --noent --dropdtd "
                "expands them; do that for documents you trust)",
            ) from None
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise SourceError(
                f"{self._file} is no well-formed XML: {error}",
                "export or download the file again, or correct source.kind",
            ) from None

    def finish(self) -> None:
        """Reach the end of the document; raises as ``parse``."""
        self.parse(b"", is_last=True)
        self.is_whole = True

    def stop(self) -> None:
        """Leave the document before its end."""
        self.outside.close(self._names)

    def begin_inside(self, name: str, attributes: dict[str, str]) -> None:
        """Enter a record, or an element in one."""

    def end_inside(self, name: str) -> None:
        """Leave a record, or an element in one."""

    def add_text(self, text: str) -> None:
        """Take a text in a record; a long one comes in several pieces."""

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._names.append(name)
        if not self._depth:
            if not self._path.matches(self._names):
                self.outside.begin(self._names)
                return
            self.records += 1
        self._depth += 1
        self.begin_inside(name, attributes)

    def _end(self, name: str) -> None:
        if not self._depth:
            self.outside.end(self._names)
        else:
            self._depth -= 1
            self.end_inside(name)
            if not self._depth:
                self.outside.add_record()
        self._names.pop()

    def _text(self, text: str) -> None:
        if self._depth:
            self.add_text(text)
        else:
            self.outside.add_text(text)

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise _EntityError(f"it declares the entity {name[:60]}")

    def _refuse_reference(self, name: str, *_: object) -> None:
        raise _EntityError(f"it refers to the entity {name[:60]}, which it does not declare")

    def _refuse_external(self, *_: object) -> int:
        raise _EntityError("it refers to an entity outside")


class _EntityError(Exception):
    """An entity that is not expanded."""


def walk_head(blocks: Iterable[bytes], name: str, path: RecordPath, limit: int) -> Walk:
    """Walk through the first bytes of a document; its values are not made.

    Args:
        blocks: of the document, in its own encoding.
        name: of the file.
        path: of the records.
        limit: bytes after which no further block is walked through.

    Raises:
        SourceError: as ``Walk.parse``, or the document is not in the encoding that it declares.
    """
    text, encoding = decode_document(blocks, name)
    walk = Walk(path, name, encoding)
    size = 0
    for block in text:
        if size >= limit:
            walk.stop()
            return walk
        walk.parse(block)
        size += len(block)
    if size:
        walk.finish()
    return walk
