"""The fields that no guess has taken: each field goes to the guess that needs it most."""

from __future__ import annotations

from dataclasses import dataclass, field

from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess, rule
from cfray.inspection.samples import Sample
from cfray.job.mapping import Path


@dataclass
class Unclaimed:
    """A sample, and which of its fields are taken.

    Attributes:
        sample: the records.
        used_paths: paths of the fields that a guess uses.
        ids: tagged id of each record, in the order of the sample; empty where no id is guessed.
    """

    sample: Sample
    used_paths: set[Path] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)

    def fields(self, *kinds: str) -> list[FieldSample]:
        """Give the fields of these kinds that hold a value and are not taken, wholly or in part."""
        return [
            field
            for field in self.sample.fields
            if field.present and field.kind in kinds and not self._is_taken(field.path)
        ]

    def _is_taken(self, path: Path) -> bool:
        """Tell a field that is taken, lies in one that is, or holds one that is."""
        return any(
            path[: len(other)] == other or other[: len(path)] == path for other in self.used_paths
        )

    def take(self, key: str, field: FieldSample, why: str, *, name: str = "") -> Guess:
        """Make a guess that uses a field."""
        self.used_paths.add(field.path)
        return Guess(f"mapping.{key}", rule(field.path), why, name=name, paths=(field.path,))
