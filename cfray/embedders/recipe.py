"""The recipe: how the vectors of a dataset were made, kept in its schema metadata.

Queries, replays and later syncs read it, so that their vectors are made in the same way.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from cfray.embedders.base import Identity
from cfray.errors import LedgerMismatch

#: Key of the schema metadata.
RECIPE_KEY = "cfray.embedding"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the vectors of the dataset's column ``vector`` were made.

    Attributes:
        policy: ``keep``, ``regenerate`` or ``remap``.
        dimension: width of the column.
        model: the new model; None under ``keep``.
        where: the folder, package or address where the model was found; without credentials.
        map: SHA-256 of the fitted map in ``<target>.cfray/maps/``; empty without one.
        reduction: SHA-256 of the projection there, or ``truncate``; empty without one.
        gate: how the gate judged the map (parsed JSON): quality, lower bound, whether the map was
            forced.
    """

    policy: str
    dimension: int
    model: Identity | None = None
    where: str = ""
    map: str = ""
    reduction: str = ""
    gate: dict[str, Any] = field(default_factory=dict)

    @property
    def origins(self) -> dict[str, str]:
        """Give the values of ``x_vector_origin``: how a vector was made -> the value.

        A value holds the first 16 hex digits of the model's key and of the map.
        """
        model = f" model={self.model.key[:16]}" if self.model else ""
        return {
            "kept": "kept",
            "regenerated": f"regenerated{model}",
            "remapped": f"remapped{model} map={self.map[:16]}",
        }

    def to_json(self) -> str:
        """Write the recipe as JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """Read a recipe from parsed JSON."""
        model = data.get("model")
        return cls(**{**data, "model": None if model is None else Identity(**model)})

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, dimension: int) -> Recipe:
        """Read the recipe of a dataset; a dataset without a recipe holds its source's vectors.

        Raises:
            LedgerMismatch: another version of cfray wrote the recipe.
        """
        text = (metadata or {}).get(RECIPE_KEY.encode())
        if text is None:
            return cls("keep", dimension)
        try:
            return cls.from_json(json.loads(text))
        except TypeError as error:
            raise LedgerMismatch(
                f"another version of cfray wrote {RECIPE_KEY} of the dataset ({error})",
                "use that version",
            ) from error
