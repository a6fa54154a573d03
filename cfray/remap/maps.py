"""A fitted map from the old model's vectors to the new one's, as a value.

Kept beside the dataset, applied by any worker.

Applying needs NumPy alone, so that a worker that maps loads no torch.  It is
stored as safetensors, which holds numbers and nothing that runs; the SHA-256
of those bytes is its name, so that every vector can say which map made it.
How a map is found is ``fitting.py``'s matter, whether it is good ``gate.py``'s.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal, Self, cast, get_args

import numpy as np
import numpy.typing as npt

from cfray.errors import ConfigError, LedgerMismatch
from cfray.records.vectors import Floats

Kind = Literal["affine", "procrustes", "clustered", "mlp"]

#: Rows mapped at a time: the widest intermediate, the 1,024 hidden numbers of an MLP, is 16 MB
#: then.
BLOCK = 4096


def unit(vectors: npt.NDArray[np.floating]) -> Floats:
    """Bring ``(n, d)`` rows to length 1 as float32; a row that is zero or not finite becomes zero.

    Lengths are taken in float64: squares of large or tiny float32 numbers leave its range.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[
        :, None
    ]  # NaN and infinity carry over
    rows: Floats = np.zeros(vectors.shape, np.float32)
    np.divide(
        vectors, lengths, out=rows, where=np.isfinite(lengths) & (lengths > 0), casting="same_kind"
    )
    return rows


def gelu(values: Floats) -> Floats:
    """Apply GELU in its tanh form.

    (Hendrycks and Gimpel, arXiv 1606.08415), torch's ``approximate="tanh"``: NumPy has no erf.
    """
    inner = np.float32(np.sqrt(2 / np.pi)) * (
        values + np.float32(0.044715) * values * values * values
    )
    bent: Floats = np.float32(0.5) * values * (1 + np.tanh(inner))
    return bent


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A function of unit vectors, ``(s,)`` to ``(t,)``.

    Attributes:
        kind: ``affine`` and ``procrustes`` are ``x @ matrix + offset``; ``clustered`` adds to that
            an affine correction of the cluster whose centre has the largest dot product with x,
            ``mlp`` a network with one hidden layer.
        arrays: float32; of all ``matrix`` ``(s, t)`` and ``offset`` ``(t,)``; of ``clustered``
            ``centres`` ``(k, s)``, ``local_matrices`` ``(k, s, t)`` and ``local_offsets`` ``(k,
            t)``; of ``mlp`` ``hidden`` ``(s, h)``, ``hidden_offset`` ``(h,)``, ``outer`` ``(h, t)``
            and ``outer_offset`` ``(t,)``.
    """

    kind: Kind
    arrays: dict[str, Floats] = field(repr=False)

    @property
    def source_dimension(self) -> int:
        """Give the width of old vectors."""
        return int(self.arrays["matrix"].shape[0])

    @property
    def dimension(self) -> int:
        """Give the width of new vectors."""
        return int(self.arrays["matrix"].shape[1])

    @property
    def id(self) -> str:
        """Give the SHA-256 of the bytes (hex): what ``Recipe.map`` records."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def apply(self, old: Floats) -> Floats:
        """Map old vectors into the new model's space.

        Their length does not matter: stores differ in whether they keep it.

        Args:
            old: ``(n, s)`` float32.

        Returns:
            ``(n, t)`` float32, unit length; zero where the old vector is zero or not finite, for
            there is nothing to map.

        Raises:
            ConfigError: the vectors have another width.
        """
        if old.ndim != 2 or old.shape[1] != self.source_dimension:
            raise ConfigError(
                f"vectors of shape {old.shape} do not fit a map from {self.source_dimension} to {self.dimension} numbers",
                "learn the map from this collection, or set embedding.policy: regenerate",
            )
        new = np.empty((len(old), self.dimension), np.float32)
        for start in range(0, len(old), BLOCK):
            rows = unit(old[start : start + BLOCK])
            mapped = self._mapped(rows)
            mapped[~rows.any(axis=1)] = 0
            new[start : start + BLOCK] = unit(mapped)
        return new

    def _mapped(self, rows: Floats) -> Floats:
        own = self.arrays
        mapped: Floats = rows @ own["matrix"] + own["offset"]
        if self.kind == "clustered":
            nearest = (rows @ own["centres"].T).argmax(axis=1)
            for cluster in np.unique(nearest):
                here = nearest == cluster
                mapped[here] += (
                    rows[here] @ own["local_matrices"][cluster] + own["local_offsets"][cluster]
                )
        elif self.kind == "mlp":
            mapped += (
                gelu(rows @ own["hidden"] + own["hidden_offset"]) @ own["outer"]
                + own["outer_offset"]
            )
        return mapped

    def to_bytes(self) -> bytes:
        """Write the map as safetensors; the same map gives the same bytes."""
        return packed(self.kind, self.arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a map.

        Raises:
            LedgerMismatch: the bytes are no map, or one of a later cfray.
        """
        kind, arrays = unpacked(data)
        if kind not in get_args(Kind):
            raise LedgerMismatch(
                f"{kind!r} is no kind of map this cfray knows: {', '.join(get_args(Kind))}",
                "use the version that wrote it",
            )
        return cls(cast("Kind", kind), arrays)


def packed(kind: str, arrays: dict[str, Floats]) -> bytes:
    """Write named arrays with their kind as safetensors.

    One entry of metadata only: the library keeps several in no fixed order.
    """
    from safetensors.numpy import save

    written: bytes = save(
        {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()},
        metadata={"kind": kind},
    )
    return written


def unpacked(data: bytes) -> tuple[str, dict[str, Floats]]:
    """Read what ``packed`` wrote.

    Raises:
        LedgerMismatch: it did not write these bytes, or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        # The library gives metadata of files only: 8 bytes little-endian length, then that much
        # JSON (safetensors' README, "Format").
        kind = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["kind"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise LedgerMismatch(
            f"these {len(data):,} bytes are no map of cfray ({error})",
            "restore the file from a copy, or migrate anew",
        ) from error
    return kind, arrays
