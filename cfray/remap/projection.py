"""A projection that makes vectors narrower.

Learnt once from a sample, applied to every document and to every query.

Not centred: the eigenvectors of X^T X keep as much of every dot product as that
many numbers can, whereas taking a mean away would change which document is
nearest (overlap of the ten nearest 0.965 from 384 to 256 numbers: embeddings.md, part 4).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from cfray.errors import ConfigError, LedgerMismatch
from cfray.records.vectors import Floats
from cfray.remap.maps import BLOCK, packed, unit, unpacked

#: How far from 1 a length may be and still count as 1: vectors computed in bf16 have lengths of
#: 0.9987 to 1.0025 (embeddings.md, part 3).
TOLERANCE = 0.005
#: Share of a sample's rows of length 1 from which its model is taken to give unit vectors; the rest
#: are a store's odd rows.
MOST = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Multiply by a matrix with orthonormal columns.

    Attributes:
        matrix: ``(s, t)`` float32.
        normalise: whether results get length 1 again, decided once from the sample: where lengths
            were 1 they are 1 after it, where they meant something a projected length is what keeps
            dot products.
    """

    matrix: Floats = field(repr=False)
    normalise: bool

    @property
    def source_dimension(self) -> int:
        """Give the width of what goes in."""
        return int(self.matrix.shape[0])

    @property
    def dimension(self) -> int:
        """Give the width of what comes out."""
        return int(self.matrix.shape[1])

    @property
    def id(self) -> str:
        """Give the SHA-256 of the bytes (hex): what ``Recipe.reduction`` records."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def apply(self, vectors: Floats) -> Floats:
        """Make vectors narrower.

        Args:
            vectors: ``(n, s)`` float32, documents or queries.

        Returns:
            ``(n, t)`` float32; zero where the vector is zero or not finite.

        Raises:
            ConfigError: the vectors have another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.source_dimension:
            raise ConfigError(
                f"vectors of shape {vectors.shape} do not fit a projection from {self.source_dimension} to {self.dimension} numbers",
                "project vectors of the model that the projection was learnt from",
            )
        narrow = np.empty((len(vectors), self.dimension), np.float32)
        for start in range(0, len(vectors), BLOCK):
            rows = vectors[start : start + BLOCK]
            rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.float32(0))
            narrow[start : start + BLOCK] = (
                unit(rows @ self.matrix) if self.normalise else rows @ self.matrix
            )
        return narrow

    def to_bytes(self) -> bytes:
        """Write the projection as safetensors; the same projection gives the same bytes."""
        return packed("pca unit" if self.normalise else "pca", {"matrix": self.matrix})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a projection.

        Raises:
            LedgerMismatch: the bytes are no projection.
        """
        kind, arrays = unpacked(data)
        if kind not in ("pca", "pca unit"):
            raise LedgerMismatch(
                f"{kind!r} is no kind of projection this cfray knows: pca, pca unit",
                "use the version that wrote it",
            )
        return cls(arrays["matrix"], kind == "pca unit")


def pca(vectors: Floats, dimension: int) -> Projection:
    """Learn the projection that keeps most of a sample's dot products.

    Args:
        vectors: ``(n, s)`` float32, a sample of documents; rows that are zero or not finite do not
            count.
        dimension: t, at most s.

    Returns:
        The first t eigenvectors of X^T X (float64), each with the sign that makes its largest
        number positive.

    Raises:
        ConfigError: t is larger than s, or than the number of rows.
    """
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    rows = vectors[usable].astype(np.float64)
    if dimension > min(rows.shape):
        raise ConfigError(
            f"{len(rows):,} vectors of {rows.shape[1]} numbers give no projection to {dimension}",
            "set embedding.reduce.dimension to fewer numbers than the vectors have, and learn from more documents",
        )
    _, axes = np.linalg.eigh(rows.T @ rows)  # ascending
    leading = axes[:, ::-1][:, :dimension]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(dimension)])
    lengths = np.linalg.norm(rows, axis=1)
    normalise = bool(np.mean(np.abs(lengths - 1) < TOLERANCE) >= MOST)
    return Projection(np.ascontiguousarray(leading * signs, np.float32), normalise)
