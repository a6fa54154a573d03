"""What a document holds outside of its records: counted, so that nothing is lost in silence.

Counted are the outermost elements that hold no record, the elements below them that have a
record's name, and texts around the records.  Comments and processing instructions are no content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cfray.formats.xml_paths import RecordPath
from cfray.runtime.plurals import counted

#: The name of an element's text.
TEXT = "$text"
#: Paths that are counted one by one; further ones are counted together, by their parent.
_MAX_PATHS = 200


def count_of(path: str, count: int) -> str:
    """Write how many elements, or texts, stand at a path."""
    parent, _, name = path.rpartition("/")
    if name == TEXT:
        return f"{counted(count, 'text')} in {parent}"
    return f"{counted(count, 'element')} {path}"


@dataclass(slots=True)
class _Open:
    """An element outside of records that is open.

    Attributes:
        leads_to_records: whether records stand below it, or may.
        pending: name -> number of its children and texts that are no records; they count once it
            is known that records stand beside them.
    """

    leads_to_records: bool
    pending: dict[str, int] = field(default_factory=dict)

    def add(self, name: str) -> None:
        self.pending[name] = self.pending.get(name, 0) + 1


class Outside:
    """Counts what stands outside of records.

    Attributes:
        counts: path -> number of elements, or of texts (``r/$text``), that are not read.
        saw_parent: whether there is an element in which records should be.
    """

    def __init__(self, path: RecordPath) -> None:
        """Start at the start of a document."""
        self.counts: dict[str, int] = {}
        self.saw_parent = path.at_any_depth or len(path.names) == 1
        self._path = path
        self._open: list[_Open] = []
        self._in_text = False

    def begin(self, names: Sequence[str]) -> None:
        """Enter an element that is no record, by the names from the root to it."""
        self._in_text = False
        leads = self._path.leads_to_records(names)
        if leads and len(names) == len(self._path.names) - 1:
            self.saw_parent = True
        is_outermost = not self._open or self._open[-1].leads_to_records
        is_counted = is_outermost or names[-1] == self._path.name
        # of any depth, it is known at the element's end whether records stand below it
        if is_counted and not leads and not self._path.at_any_depth:
            self._count(names, 1)
        self._open.append(_Open(leads))

    def end(self, names: Sequence[str]) -> None:
        """Leave the element."""
        self._in_text = False
        element = self._open.pop()
        if element.leads_to_records:
            self._count_pending(element, names)
            self.add_record()
        elif self._open and self._path.at_any_depth:
            self._open[-1].add(names[-1])

    def add_record(self) -> None:
        """Take note of a record in the open element."""
        self._in_text = False
        if self._open:
            self._open[-1].leads_to_records = True

    def add_text(self, text: str) -> None:
        """Take note of a text in the open element; several in a row count once."""
        if not self._in_text and self._open and text.strip():
            self._in_text = True
            self._open[-1].add(TEXT)

    def close(self, names: Sequence[str]) -> None:
        """Count what stands in the elements that are open where a head of a document ends."""
        for depth, element in enumerate(self._open, start=1):
            if element.leads_to_records:
                self._count_pending(element, names[:depth])

    def _count_pending(self, element: _Open, names: Sequence[str]) -> None:
        for name, count in element.pending.items():
            self._count([*names, name], count)

    def _count(self, names: Sequence[str], count: int) -> None:
        path = "/".join(names)
        if path not in self.counts and len(self.counts) >= _MAX_PATHS:
            path = "/".join([*names[:-1], "*"])
        self.counts[path] = self.counts.get(path, 0) + count
