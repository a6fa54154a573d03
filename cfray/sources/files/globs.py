"""Globs over the names of an export, folder by folder, as a shell reads them.

``*``, ``?`` and ``[...]`` stay inside a name, ``**`` stands for any number of folders.  Names of
files may hold these characters, too: what exists under its name wins over its reading as a glob.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

_WILDCARDS = "*?["


def is_glob(text: str) -> bool:
    """Tell whether a text could be read as a glob."""
    return any(wildcard in text for wildcard in _WILDCARDS)


def split_path(path: str, is_folder: Callable[[str], bool]) -> tuple[str, str]:
    """Split a path that is a glob into its root and the pattern below.

    Args:
        path: a path that is neither a file nor a folder.
        is_folder: tells whether a path is a folder; asked only for names that look like globs.

    Returns:
        The longest folder in front that is no glob, or exists under this very name; the pattern
        below it, which is empty where nothing in the path is a glob.
    """
    names = path.split("/")
    count = 0
    while count < len(names) and (
        not is_glob(names[count]) or is_folder("/".join(names[: count + 1]))
    ):
        count += 1
    if count == len(names):
        return path, ""
    return "/".join(names[:count]) or "/", "/".join(names[count:])


@dataclass(frozen=True)
class Glob:
    """A pattern for paths below a root.

    Attributes:
        pattern: as it is written.
        literal_brackets: whether ``[`` stands for itself.
    """

    pattern: str
    literal_brackets: bool = False

    @cached_property
    def _steps(self) -> list[re.Pattern[str] | None]:
        """Compile the pattern, name by name; None stands for ``**``."""
        steps: list[re.Pattern[str] | None] = []
        for step in self.pattern.split("/"):
            text = step.replace("[", "[[]") if self.literal_brackets else step
            steps.append(None if step == "**" else re.compile(fnmatch.translate(text)))
        return steps

    def matches(self, path: str) -> bool:
        """Tell whether a file's path below the root matches."""
        return len(self._steps) in self._positions(path.split("/"))

    def leads_into(self, folder: str) -> bool:
        """Tell whether a folder may hold a file that matches."""
        return any(position < len(self._steps) for position in self._positions(folder.split("/")))

    def spells(self, name: str) -> bool:
        """Tell whether the pattern names this file or folder by more than wildcards.

        That is where it begins with the name's first character, or ends with its suffix.
        """
        suffix = name[1:].rpartition(".")[2] if "." in name[1:] else ""
        return any(
            step is not None
            and step.match(name) is not None
            and (text[0] == name[0] or (suffix != "" and text.endswith(f".{suffix}")))
            for text, step in zip(self.pattern.split("/"), self._steps, strict=True)
        )

    def _positions(self, names: Sequence[str]) -> set[int]:
        """Give how many steps of the pattern these names may have used up."""
        positions = self._skip_folders({0})
        for name in names:
            reached: set[int] = set()
            for position in positions:
                if position == len(self._steps):
                    continue
                step = self._steps[position]
                if step is None:
                    reached.add(position)
                elif step.match(name):
                    reached.add(position + 1)
            positions = self._skip_folders(reached)
        return positions

    def _skip_folders(self, positions: set[int]) -> set[int]:
        """Add the positions behind a ``**``, which may stand for no folder at all."""
        for position in sorted(positions):
            end = position
            while end < len(self._steps) and self._steps[end] is None:
                end += 1
                positions = {*positions, end}
        return positions
