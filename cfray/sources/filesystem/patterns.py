"""Which files of a tree are read: the globs of ``include`` and ``exclude``.

A pattern without a slash is for names at any depth, one with a slash for paths below the root, as
in ``.gitignore``.  A slash at the end stands for everything in the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cfray.sources.files.globs import Glob


@dataclass(frozen=True, slots=True)
class Patterns:
    """Globs of which one must match.

    Attributes:
        globs: compiled.
    """

    globs: tuple[Glob, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Patterns:
        """Compile the patterns of a job file."""
        return cls(tuple(map(_compiled, texts)))

    def match_file(self, path: str) -> bool:
        """Tell whether a file's path below the root matches."""
        return any(glob.matches(path) for glob in self.globs)

    def leads_into(self, path: str) -> bool:
        """Tell whether a folder may hold a file that matches."""
        return any(glob.leads_into(path) for glob in self.globs)

    def match_folder(self, path: str) -> bool:
        """Tell whether everything in a folder matches; its path has no slash at the end."""
        return any(glob.matches(path) or glob.matches(f"{path}/") for glob in self.globs)


def _compiled(text: str) -> Glob:
    pattern = f"{text}**" if text.endswith("/") else text
    if "/" not in text.rstrip("/"):
        pattern = f"**/{pattern}"
    return Glob(pattern.removeprefix("/"))
