"""A guess: one line of a drafted job file, and what speaks for it.

A guess rests on a name and on every sampled value, and says which.  A guess that the values do
not support becomes a comment in the draft, or is left out: a field without a guess stays whole in
custom_metadata, while a wrong id is hard to repair.
"""

from __future__ import annotations

from dataclasses import dataclass

from cfray.job.mapping import Path, as_path, dotted
from cfray.sources.base import Json

#: Keys of the mapping in the order of a draft.
_ORDER = [
    *("id", "keep_uuid", "text_content", "title", "author", "status", "vector", "vectors"),
    *("tags", "contributors", "created_at", "updated_at", "collection", "relationships"),
    *("source_file", "raw_data", "raw_data_type", "cases"),
]


@dataclass(frozen=True, slots=True)
class Guess:
    """One line of the draft.

    Attributes:
        key: of the job file, dotted.
        value: as the job file writes it.
        why: what speaks for it.
        sure: false for a line that the draft only offers, as a comment.
        name: the key's free name, where the key holds a mapping of names (``mapping.vectors``,
            ``source.types``).
        paths: the source fields it uses.
        warns: whether the reason is one that ``inspect`` says itself, beside the draft.
    """

    key: str
    value: Json
    why: str
    sure: bool = True
    name: str = ""
    paths: tuple[Path, ...] = ()
    warns: bool = False

    def as_json(self) -> dict[str, Json]:
        """Write it for ``--json``."""
        return {
            "key": f"{self.key}.{self.name}" if self.name else self.key,
            "value": self.value,
            "why": self.why,
        }

    @property
    def position(self) -> int:
        """Give the place of a line of the mapping in the draft."""
        return _ORDER.index(self.key.removeprefix("mapping."))


def rule(path: Path) -> Json:
    """Write a path as a rule: dotted, or one item a level where a name holds a dot."""
    return {"path": list(path)} if as_path(dotted(path)) != path else dotted(path)


def count_of(part: int, total: int) -> str:
    """Write a share of the sampled records as a reason gives it."""
    if part == total:
        return "every sampled record"
    return f"{part:,} of {total:,} sampled records"
