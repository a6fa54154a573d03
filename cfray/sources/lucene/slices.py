"""A slice of an index: the documents whose ids fall into one of several classes of a hash."""

from __future__ import annotations

from dataclasses import dataclass

from cfray.sources.base import Json


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an index: all documents, or those whose id falls into one of several classes.

    Attributes:
        index: name of the index.
        number: of the slice, from 0.
        total: how many slices there are.
    """

    index: str
    number: int = 0
    total: int = 1

    def condition(self) -> dict[str, Json]:
        """Write the slice into a search: by a hash of the id, the same at every point in time."""
        if self.total == 1:
            return {}
        return {"slice": {"field": "_id", "id": self.number, "max": self.total}}

    def __str__(self) -> str:
        """Name the slice for errors."""
        of = f", slice {self.number} of {self.total}" if self.total > 1 else ""
        return f"index {self.index}{of}"
