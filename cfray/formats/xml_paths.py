"""Paths of elements: where the records of a document stand, and what a job leaves there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def __str__(self) -> str:
        """Write the path as the job file has it."""
        return f"{'//' if self.at_any_depth else ''}{'/'.join(self.names)}"

    @property
    def name(self) -> str:
        """Give the name of a record's element; empty where it may have any."""
        return "" if self.names[-1] == _ANY else self.names[-1]

    def matches(self, path: Sequence[str]) -> bool:
        """Tell whether an element is a record."""
        if self.at_any_depth:
            return self.names[0] in (path[-1], _ANY)
        return len(path) == len(self.names) and self._agrees(path)

    def leads_to_records(self, path: Sequence[str]) -> bool:
        """Tell whether records may stand below an element; of any depth, below the root."""
        if self.at_any_depth:
            return len(path) == 1
        return len(path) < len(self.names) and self._agrees(path)

    def holds(self, path: Sequence[str]) -> bool:
        """Tell whether an element is at the path, or below one that is."""
        return len(path) >= len(self.names) and self._agrees(path)

    def _agrees(self, path: Sequence[str]) -> bool:
        return all(name in (step, _ANY) for name, step in zip(self.names, path, strict=False))


def is_ignored(path: str, ignored: Sequence[str]) -> bool:
    """Tell whether a job leaves what stands at a path, by the paths that it ignores."""
    return any(RecordPath.parse(text).holds(path.split("/")) for text in ignored)
