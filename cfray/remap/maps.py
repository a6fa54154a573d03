"""A fitted map from the old model's vectors to the new model's, kept beside the dataset.

Applying a map needs NumPy alone, so a worker that maps vectors loads no torch.  A map is
stored as safetensors, which holds numbers and no code; the SHA-256 of those bytes is its
name, so that every vector can say which map made it.  ``solve.py`` finds maps, ``gate.py``
judges them.
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

#: Rows that are mapped at a time: the widest intermediate matrix, of the 1,024 hidden numbers of a
#: network, is then 16 MB.
BLOCK = 4096


def unit_rows(vectors: npt.NDArray[np.floating]) -> Floats:
    """Bring ``(n, d)`` rows to length 1 as float32; a row that is zero or not finite becomes zero.

    Lengths are computed in float64, for the squares of large or tiny float32 numbers leave the
    range of float32.
    """
    # NaN and infinity carry over to the length of their row.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    lengths = np.sqrt(squares)[:, None]
    rows: Floats = np.zeros(vectors.shape, np.float32)
    has_direction = np.isfinite(lengths) & (lengths > 0)
    np.divide(vectors, lengths, out=rows, where=has_direction, casting="same_kind")
    return rows


def gelu(values: Floats) -> Floats:
    """Apply GELU in its tanh form, which needs no erf: NumPy has none.

    The form is torch's ``approximate="tanh"`` (Hendrycks and Gimpel, arXiv 1606.08415).
    """
    cubic = values + np.float32(0.044715) * values * values * values
    activated: Floats = (
        np.float32(0.5) * values * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * cubic))
    )
    return activated


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A function of unit vectors, ``(s,)`` to ``(t,)``.

    Attributes:
        kind: ``affine`` and ``procrustes`` are ``x @ matrix + offset``; ``clustered`` adds to that
            an affine correction of the cluster whose centre has the largest dot product with x,
            ``mlp`` a network with a hidden layer.
        arrays: float32; of every kind ``matrix`` ``(s, t)`` and ``offset`` ``(t,)``; of
            ``clustered`` ``centres`` ``(k, s)``, ``local_matrices`` ``(k, s, t)`` and
            ``local_offsets`` ``(k, t)``; of ``mlp`` ``hidden`` ``(s, h)``, ``hidden_offset``
            ``(h,)``, ``outer`` ``(h, t)`` and ``outer_offset`` ``(t,)``.
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
        """Give the SHA-256 of the bytes (hex), which ``Recipe.map`` records."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def apply(self, old: Floats) -> Floats:
        """Map old vectors into the new model's space.

        The length of the old vectors does not matter, for stores differ in whether they keep it.

        Args:
            old: ``(n, s)`` float32.

        Returns:
            ``(n, t)`` float32, unit length; zero where the old vector is zero or not finite, for
            such a vector has no direction to map.

        Raises:
            ConfigError: the vectors have another width.
        """
        if old.ndim != 2 or old.shape[1] != self.source_dimension:
            raise ConfigError(
                f"vectors of shape {old.shape} do not fit a map from {self.source_dimension} to "
                f"{self.dimension} numbers",
                "learn the map from this collection, or set embedding.policy: regenerate",
            )
        new = np.empty((len(old), self.dimension), np.float32)
        for start in range(0, len(old), BLOCK):
            rows = unit_rows(old[start : start + BLOCK])
            mapped = self._map_unit_rows(rows)
            mapped[~rows.any(axis=1)] = 0
            new[start : start + BLOCK] = unit_rows(mapped)
        return new

    def _map_unit_rows(self, rows: Floats) -> Floats:
        arrays = self.arrays
        mapped: Floats = rows @ arrays["matrix"] + arrays["offset"]
        if self.kind == "clustered":
            nearest = (rows @ arrays["centres"].T).argmax(axis=1)
            for cluster in np.unique(nearest):
                members = nearest == cluster
                local_matrix = arrays["local_matrices"][cluster]
                mapped[members] += rows[members] @ local_matrix + arrays["local_offsets"][cluster]
        elif self.kind == "mlp":
            hidden = gelu(rows @ arrays["hidden"] + arrays["hidden_offset"])
            mapped += hidden @ arrays["outer"] + arrays["outer_offset"]
        return mapped

    def to_bytes(self) -> bytes:
        """Write the map as safetensors; the same map gives the same bytes."""
        return pack_arrays(self.kind, self.arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a map.

        Raises:
            LedgerMismatch: the bytes are no map, or a later version of cfray wrote them.
        """
        kind, arrays = unpack_arrays(data)
        if kind not in get_args(Kind):
            raise LedgerMismatch(
                f"this version of cfray knows no map of the kind {kind!r}, only "
                f"{', '.join(get_args(Kind))}",
                "use the version that wrote it",
            )
        return cls(cast("Kind", kind), arrays)


def pack_arrays(kind: str, arrays: dict[str, Floats]) -> bytes:
    """Write named arrays and their kind as safetensors.

    The metadata has a single entry, for the library writes several in no fixed order.
    """
    from safetensors.numpy import save

    data: bytes = save(
        {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()},
        metadata={"kind": kind},
    )
    return data


def unpack_arrays(data: bytes) -> tuple[str, dict[str, Floats]]:
    """Read what ``pack_arrays`` wrote: the kind and the arrays.

    Raises:
        LedgerMismatch: the bytes are damaged, or ``pack_arrays`` did not write them.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        # The library gives the metadata of files only.  The format is 8 bytes of length, little
        # endian, then as many bytes of JSON (safetensors' README, "Format").
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        kind = header["__metadata__"]["kind"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise LedgerMismatch(
            f"these {len(data):,} bytes are no map of cfray ({error})",
            "restore the file from a copy, or migrate anew",
        ) from error
    return kind, arrays
