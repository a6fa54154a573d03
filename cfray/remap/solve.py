"""Ways to find a map from pairs of vectors, the simplest first.

None of them wins everywhere (embeddings.md, part 4), so all are tried and
``learning.py`` chooses by held-out retrieval.  Cosine would choose wrongly: a
contrastive loss lowers it and yet finds more.  The same pairs and seed give
the same map on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfray.records.vectors import Floats
from cfray.remap.maps import Map, unit
from cfray.remap.networks import Training, trained
from cfray.remap.pairs import Pairs

Doubles = npt.NDArray[np.float64]

#: Ridge penalties tried, as shares of the mean eigenvalue of the old vectors' covariance: from none
#: that matters to all that does.
PENALTIES = tuple(np.logspace(-5, 0, 11))
#: Share of the fit part that chooses the penalty.
HELD = 0.1
#: Clusters that get a correction of their own (embeddings.md, part 4: "local 16 ridge").
CLUSTERS = 16
#: Rounds of k-means; on 12,000 vectors the centres hardly move after them.
ROUNDS = 8
#: Ridge penalties tried for the corrections, the same share as above: a cluster has a sixteenth of
#: the rows and corrects only a residual.
LOCAL_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
#: Rows from which on networks are tried; with fewer they lost to ridge in every measurement
#: (embeddings.md, part 4).
NETWORK_ROWS = 4000


@dataclass(frozen=True, slots=True)
class _Line:
    """Least squares of centred data, in float64, ready to be solved for any penalty."""

    old_mean: Doubles
    new_mean: Doubles
    eigenvalues: Doubles
    axes: Doubles
    products: Doubles  # axes^T X^T Y

    @classmethod
    def of(cls, old: Floats, new: Floats) -> _Line:
        x, y = old.astype(np.float64), new.astype(np.float64)
        old_mean, new_mean = x.mean(axis=0), y.mean(axis=0)
        x, y = x - old_mean, y - new_mean
        eigenvalues, axes = np.linalg.eigh(x.T @ x)
        return cls(old_mean, new_mean, eigenvalues, axes, axes.T @ (x.T @ y))

    def solved(self, penalty: float) -> dict[str, Floats]:
        """Give ``matrix`` and ``offset`` for a penalty, a share of the mean eigenvalue."""
        damped = np.maximum(self.eigenvalues, 0) + max(
            penalty * self.eigenvalues.mean(), np.finfo(np.float64).tiny
        )
        return _affine(self.axes @ (self.products / damped[:, None]), self.old_mean, self.new_mean)


def candidates(pairs: Pairs, seed: int) -> Iterator[tuple[str, Map]]:
    """Fit every way that the number of pairs allows.

    A simpler one comes before one that is less so.

    Args:
        pairs: the part to fit on, at length 1.
        seed: of everything random.

    Yields:
        What the way is called, and its map.
    """
    yield "procrustes", procrustes(pairs.old, pairs.new)
    base = ridge(pairs.old, pairs.new, seed=seed)
    yield "affine", base
    yield "clustered", clustered(pairs.old, pairs.new, base, seed=seed)
    if len(pairs) >= NETWORK_ROWS:
        yield "mlp", trained(pairs, base, Training(seed=seed))
        if pairs.queries is not None:
            yield (
                "mlp with queries",
                trained(
                    pairs,
                    base,
                    Training(seed=seed, hidden=1024, epochs=20, dropout=0.2, queries=1.0),
                ),
            )


def procrustes(old: Floats, new: Floats) -> Map:
    """Find the rotation (widths may differ.

    A matrix with orthonormal rows or columns) that turns centred old vectors onto new ones.

    Source: Schoenemann, "A generalized solution of the orthogonal Procrustes problem",
    Psychometrika 31 (1966).
    """
    x, y = old.astype(np.float64), new.astype(np.float64)
    old_mean, new_mean = x.mean(axis=0), y.mean(axis=0)
    left, _, right = np.linalg.svd((x - old_mean).T @ (y - new_mean), full_matrices=False)
    return Map("procrustes", _affine(left @ right, old_mean, new_mean))


def ridge(old: Floats, new: Floats, *, seed: int) -> Map:
    """Find the affine map of least squared error.

    Under the penalty that gives the best mean cosine on a tenth that it did not see.

    Args:
        old: ``(n, s)`` float32, unit length.
        new: ``(n, t)`` float32, unit length.
        seed: chooses the tenth.
    """
    order = np.random.default_rng(seed).permutation(len(old))
    held, rest = np.split(order, [max(1, round(HELD * len(old)))])
    part = _Line.of(old[rest], new[rest])
    cosines = [
        float((Map("affine", part.solved(penalty)).apply(old[held]) * new[held]).sum(axis=1).mean())
        for penalty in PENALTIES
    ]
    return Map("affine", _Line.of(old, new).solved(PENALTIES[int(np.argmax(cosines))]))


def clustered(old: Floats, new: Floats, base: Map, *, seed: int) -> Map:
    """Correct an affine map within each of 16 clusters of old vectors by what it leaves over there; the penalty is chosen as in ``ridge``."""
    draw = np.random.default_rng(seed)
    held, rest = np.split(draw.permutation(len(old)), [max(1, round(HELD * len(old)))])
    centres = _centres(old[rest], draw)
    parts = _corrections(old[rest], new[rest], base, centres)
    cosines = [
        float(
            (_joined(base, centres, parts, penalty).apply(old[held]) * new[held]).sum(axis=1).mean()
        )
        for penalty in LOCAL_PENALTIES
    ]
    return _joined(
        base,
        centres,
        _corrections(old, new, base, centres),
        LOCAL_PENALTIES[int(np.argmax(cosines))],
    )


def _centres(old: Floats, draw: np.random.Generator) -> Floats:
    """Find centres of clusters by k-means of directions."""
    centres = old[draw.choice(len(old), min(CLUSTERS, len(old)), replace=False)]
    for _ in range(ROUNDS):
        nearest = (old @ centres.T).argmax(axis=1)
        moved = unit(
            np.stack([old[nearest == cluster].sum(axis=0) for cluster in range(len(centres))])
        )
        centres = np.where(
            moved.any(axis=1, keepdims=True), moved, centres
        )  # an empty cluster stays where it is
    return centres


def _corrections(old: Floats, new: Floats, base: Map, centres: Floats) -> list[_Line | None]:
    """Prepare each cluster's least squares of what the base leaves over.

    None where a cluster has not two rows.
    """
    nearest = (old @ centres.T).argmax(axis=1)
    left = new - (old @ base.arrays["matrix"] + base.arrays["offset"])
    members = [np.flatnonzero(nearest == cluster) for cluster in range(len(centres))]
    return [_Line.of(old[here], left[here]) if len(here) > 1 else None for here in members]


def _joined(base: Map, centres: Floats, parts: list[_Line | None], penalty: float) -> Map:
    source, target = base.arrays["matrix"].shape
    nothing = {
        "matrix": np.zeros((source, target), np.float32),
        "offset": np.zeros(target, np.float32),
    }
    solved = [nothing if part is None else part.solved(penalty) for part in parts]
    local = {
        "local_matrices": np.stack([one["matrix"] for one in solved]),
        "local_offsets": np.stack([one["offset"] for one in solved]),
    }
    return Map("clustered", base.arrays | {"centres": centres} | local)


def _affine(matrix: Doubles, old_mean: Doubles, new_mean: Doubles) -> dict[str, Floats]:
    """Fold the means into one offset: ``(x - old_mean) @ matrix + new_mean``."""
    return {
        "matrix": matrix.astype(np.float32),
        "offset": (new_mean - old_mean @ matrix).astype(np.float32),
    }
