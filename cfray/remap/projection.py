"""A projection that makes vectors narrower: learned once, applied to documents and queries.

The sample is not centred: the eigenvectors of X^T X keep as much of every dot product as
that many numbers can, whereas subtracting a mean would change which document is nearest.
From 384 to 256 numbers, 0.965 of the ten nearest documents remained the nearest
(all-MiniLM-L6-v2, 20,000 of Debian's package descriptions).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from cfray.errors import ConfigError, LedgerMismatch
from cfray.records.vectors import Floats
from cfray.remap.maps import BLOCK, pack_arrays, unit_rows, unpack_arrays

#: How far from 1 a length may be and still count as 1: vectors computed in bf16 had lengths of
#: 0.9987 to 1.0025 (all-MiniLM-L6-v2).
LENGTH_TOLERANCE = 0.005
#: Share of a sample's rows of length 1 from which on the model counts as giving unit vectors; the
#: other rows are a store's exceptions.
LEAST_UNIT_SHARE = 0.99
#: What the file says of a projection whose results have length 1, and of another projection.
_UNIT_KIND, _PLAIN_KIND = "pca unit", "pca"


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A multiplication by a matrix with orthonormal columns.

    Attributes:
        matrix: ``(s, t)`` float32.
        normalise: whether results get length 1 again, decided once from the sample: where the
            lengths were 1 they are 1 again; where they carried a meaning, the projected length is
            what keeps dot products.
    """

    matrix: Floats = field(repr=False)
    normalise: bool

    @property
    def source_dimension(self) -> int:
        """Give the width of the vectors that are projected."""
        return int(self.matrix.shape[0])

    @property
    def dimension(self) -> int:
        """Give the width of the results."""
        return int(self.matrix.shape[1])

    @property
    def id(self) -> str:
        """Give the SHA-256 of the bytes (hex), which ``Recipe.reduction`` records."""
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
                f"vectors of shape {vectors.shape} do not fit a projection from "
                f"{self.source_dimension} to {self.dimension} numbers",
                "project vectors of the model that the projection was learned from",
            )
        narrow = np.empty((len(vectors), self.dimension), np.float32)
        for start in range(0, len(vectors), BLOCK):
            rows = vectors[start : start + BLOCK]
            rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.float32(0))
            projected = rows @ self.matrix
            narrow[start : start + BLOCK] = unit_rows(projected) if self.normalise else projected
        return narrow

    def to_bytes(self) -> bytes:
        """Write the projection as safetensors; the same projection gives the same bytes."""
        kind = _UNIT_KIND if self.normalise else _PLAIN_KIND
        return pack_arrays(kind, {"matrix": self.matrix})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a projection.

        Raises:
            LedgerMismatch: the bytes are no projection, or a later version of cfray wrote them.
        """
        kind, arrays = unpack_arrays(data)
        if kind not in (_PLAIN_KIND, _UNIT_KIND):
            raise LedgerMismatch(
                f"this version of cfray knows no projection of the kind {kind!r}, only "
                f"{_PLAIN_KIND}, {_UNIT_KIND}",
                "use the version that wrote it",
            )
        return cls(arrays["matrix"], kind == _UNIT_KIND)


def fit_pca(vectors: Floats, dimension: int) -> Projection:
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
    is_usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    rows = vectors[is_usable].astype(np.float64)
    if dimension > min(rows.shape):
        raise ConfigError(
            f"{len(rows):,} vectors of {rows.shape[1]} numbers give no projection to {dimension}",
            "set embedding.reduce.dimension to fewer numbers than the vectors have, and learn from "
            "more documents",
        )
    # eigh gives the eigenvectors in the ascending order of their eigenvalues.
    _, axes = np.linalg.eigh(rows.T @ rows)
    leading = axes[:, ::-1][:, :dimension]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(dimension)])
    has_unit_length = np.abs(np.linalg.norm(rows, axis=1) - 1) < LENGTH_TOLERANCE
    normalise = bool(has_unit_length.mean() >= LEAST_UNIT_SHARE)
    return Projection(np.ascontiguousarray(leading * signs, np.float32), normalise)
