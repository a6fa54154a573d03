"""Which files of a tree are read: the globs of ``include`` and ``exclude``.

A pattern without a slash is for names at any depth, one with a slash for paths below the root, as
in ``.gitignore``; ``./`` in front is the root, too.  A slash at the end stands for everything in
the folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cfray.sources.files.globs import Glob


@dataclass(frozen=True, slots=True)
class Patterns:
    """Globs of which one must match.

    Attributes:
        globs: compiled.
        texts: the same, as the job file has them.
    """

    globs: tuple[Glob, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Patterns:
        """Compile the patterns of a job file."""
        return cls(tuple(map(_compiled, texts)), tuple(texts))

    def match_file(self, path: str) -> set[Glob]:
        """Give the globs that match a file's path below the root."""
        return {glob for glob in self.globs if glob.matches(path)}

    def leads_into(self, path: str) -> bool:
        """Tell whether a folder may hold a file that matches."""
        return any(glob.leads_into(path) for glob in self.globs)

    def match_folder(self, path: str) -> set[Glob]:
        """Give the globs that match all that is in a folder; its path has no slash at the end."""
        return {glob for glob in self.globs if glob.matches(path) or glob.matches(f"{path}/")}

    def list_unused(self, matching: set[Glob]) -> list[str]:
        """List the patterns of the job file that are not among those that match."""
        return [
            text for text, glob in zip(self.texts, self.globs, strict=True) if glob not in matching
        ]


def _compiled(text: str) -> Glob:
    text = re.sub(r"^\./", "/", text)
    pattern = f"{text}**" if text.endswith("/") else text
    if "/" not in text.rstrip("/"):
        pattern = f"**/{pattern}"
    return Glob(pattern.removeprefix("/"))
