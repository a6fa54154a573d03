"""How many rows a piece of the embedding has: about half a minute of work, whatever the job asks.

The plan counts pieces with this, and the embedding divides a target by it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding

#: Rows of a piece: some 7 s of a small model's work on one core, half a minute of a large one's.
#: The environment may set another number, so that a test has many pieces of few rows.
_MODEL_ROWS, _ROWS_SETTING = 1_024, "CFRAY_PIECE_ROWS"
#: Rows of a piece on a GPU, which embeds some ten times as fast (a choice, not measured).
_GPU_ROWS = 65_536
#: Requests to a server that a piece costs.
_REQUESTS = 16
#: Bytes of vectors that a piece holds where no model, or hardly any, is needed for it.
_MAPPED_BYTES = 64 * 1024 * 1024
#: A small target has this many pieces, each at least a quarter as large as a piece of a large one:
#: one piece would leave all actors but one idle.
_LEAST_PIECES, _LEAST_SHARE = 16, 4


@dataclass(frozen=True, slots=True)
class RowsToEmbed:
    """What decides how a target is divided: nothing of it depends on the size of the cluster.

    Attributes:
        embedding: the job's section.
        recipe: of the new vectors.
        old_dimension: width of the present vectors.
        rows: of the target.
    """

    embedding: Embedding
    recipe: Recipe
    old_dimension: int
    rows: int

    def in_a_piece(self, device: str) -> int:
        """Give the most rows of a piece.

        Args:
            device: that the model runs on, ``cpu`` or ``cuda``.
        """
        setting = os.environ.get(_ROWS_SETTING)
        if setting:
            return int(setting)
        most = self._most(device)
        return min(most, max(most // _LEAST_SHARE, -(-self.rows // _LEAST_PIECES)))

    def _most(self, device: str) -> int:
        if self.recipe.policy != "regenerate":
            width = max(self.old_dimension, self.recipe.dimension)
            return max(_MODEL_ROWS, _MAPPED_BYTES // (4 * width))
        if self.embedding.endpoint is not None:
            return _REQUESTS * self.embedding.endpoint.batch
        return _GPU_ROWS if device == "cuda" else _MODEL_ROWS
