"""An index as its server describes it: mapping, settings and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """An index as the server describes it.

    Attributes:
        name: of the index.
        mapping: parsed JSON.
        settings: name with dots -> value, as text.
        aliases: sorted.
    """

    name: str
    mapping: Mapping[str, Any]
    settings: Mapping[str, str]
    aliases: tuple[str, ...]

    @property
    def lucene_shards(self) -> int:
        """Count the shards that the index is divided into."""
        return int(self.settings.get("index.number_of_shards", "1"))

    @property
    def source_mode(self) -> str:
        """Tell how the server keeps documents: stored, synthetic or disabled."""
        declared = (self.mapping.get("_source") or {}).get("mode")
        return str(declared or self.settings.get("index.mapping.source.mode") or "stored")

    def limit(self, name: str, default: int) -> int:
        """Give a limit that the index may set."""
        return int(self.settings.get(name, default))

    @property
    def max_slices(self) -> int:
        """Give how many slices the index allows, 1024 where it does not say."""
        names = ("index.max_slices_per_scroll", "index.max_slices_per_pit")
        return min(self.limit(name, 1024) for name in names)
