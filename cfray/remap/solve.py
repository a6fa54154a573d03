"""Methods that find a map from pairs of vectors, the simplest first.

No method is the best for every pair of models: with 20,000 pairs a network found most of
the new model's hits on three pairs of models, with 5,000 pairs a ridge found more than it
on three of five (0.84 against 0.70 of them from all-MiniLM-L6-v2 to multilingual-e5-small).
So all are tried, and ``learn.py`` chooses by retrieval among held-out documents.  Cosine
would choose wrongly: a contrastive loss lowers it and yet more documents are found.  The
same pairs and the same seed give the same map on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cfray.records.vectors import Floats
from cfray.remap.maps import Map, unit_rows
from cfray.remap.networks import Training, train_network
from cfray.remap.pairs import Pairs

Doubles = npt.NDArray[np.float64]

#: Ridge penalties that are tried, as shares of the mean eigenvalue of the old vectors' covariance:
#: from no effect to a strong one.
PENALTIES = tuple(np.logspace(-5, 0, 11))
#: Share of the fit part that chooses the penalty.
HELD_OUT_SHARE = 0.1
#: Clusters that get a correction each.  With 20,000 pairs, 16 corrections found 0.02 to 0.05 more
#: of the new model's hits than a ridge alone (three pairs of models on Debian's package
#: descriptions).
CLUSTERS = 16
#: Rounds of k-means; on 12,000 vectors the centres hardly move after them.
ROUNDS = 8
#: Ridge penalties that are tried for the corrections, as the same share: a cluster has about a
#: sixteenth of the rows, and corrects only what the base map leaves.
LOCAL_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
#: Rows from which on networks are tried.  With 1,000 pairs they found less than a ridge on all five
#: pairs of models that were measured, with 5,000 less on three and as much or more on two.
NETWORK_ROWS = 4000


@dataclass(frozen=True, slots=True)
class _LeastSquares:
    """Least squares of centred data, in float64, ready to be solved for any penalty.

    Attributes:
        old_mean, new_mean: of the rows.
        eigenvalues, axes: of X^T X.
        products: axes^T X^T Y.
    """

    old_mean: Doubles
    new_mean: Doubles
    eigenvalues: Doubles
    axes: Doubles
    products: Doubles

    @classmethod
    def prepare(cls, old: Floats, new: Floats) -> _LeastSquares:
        x, y = old.astype(np.float64), new.astype(np.float64)
        old_mean, new_mean = x.mean(axis=0), y.mean(axis=0)
        x, y = x - old_mean, y - new_mean
        eigenvalues, axes = np.linalg.eigh(x.T @ x)
        return cls(old_mean, new_mean, eigenvalues, axes, axes.T @ (x.T @ y))

    def solve(self, penalty: float) -> dict[str, Floats]:
        """Give ``matrix`` and ``offset`` for a penalty, a share of the mean eigenvalue."""
        damping = max(penalty * self.eigenvalues.mean(), np.finfo(np.float64).tiny)
        damped = np.maximum(self.eigenvalues, 0) + damping
        matrix = self.axes @ (self.products / damped[:, None])
        return _affine_arrays(matrix, self.old_mean, self.new_mean)


def fit_candidates(pairs: Pairs, seed: int) -> Iterator[tuple[str, Map]]:
    """Fit a map with every method that the number of pairs allows, the simplest first.

    Args:
        pairs: the part to fit on, at length 1.
        seed: of everything random.

    Yields:
        The name of the method and its map.
    """
    yield "procrustes", fit_procrustes(pairs.old, pairs.new)
    base = fit_ridge(pairs.old, pairs.new, seed=seed)
    yield "affine", base
    yield "clustered", fit_clustered(pairs.old, pairs.new, base, seed=seed)
    if len(pairs) >= NETWORK_ROWS:
        yield "mlp", train_network(pairs, base, Training(seed=seed))
        if pairs.queries is not None:
            training = Training(seed=seed, hidden=1024, epochs=20, dropout=0.2, queries=1.0)
            yield "mlp with queries", train_network(pairs, base, training)


def fit_procrustes(old: Floats, new: Floats) -> Map:
    """Find the rotation that turns centred old vectors onto new vectors.

    Where the widths differ, it is a matrix with orthonormal rows or columns.

    Source: Schoenemann, "A generalized solution of the orthogonal Procrustes problem",
    Psychometrika 31 (1966).
    """
    x, y = old.astype(np.float64), new.astype(np.float64)
    old_mean, new_mean = x.mean(axis=0), y.mean(axis=0)
    left_vectors, _, right_vectors = np.linalg.svd(
        (x - old_mean).T @ (y - new_mean), full_matrices=False
    )
    return Map("procrustes", _affine_arrays(left_vectors @ right_vectors, old_mean, new_mean))


def fit_ridge(old: Floats, new: Floats, *, seed: int) -> Map:
    """Find the affine map of least squared error under a penalty.

    The penalty is the one with the best mean cosine on a tenth of the rows that is held out.

    Args:
        old: ``(n, s)`` float32, unit length.
        new: ``(n, t)`` float32, unit length.
        seed: chooses the tenth.
    """
    held, fitted = _hold_out(len(old), np.random.default_rng(seed))
    least_squares = _LeastSquares.prepare(old[fitted], new[fitted])
    cosines = [
        _mean_cosine(Map("affine", least_squares.solve(penalty)), old[held], new[held])
        for penalty in PENALTIES
    ]
    best_penalty = PENALTIES[int(np.argmax(cosines))]
    return Map("affine", _LeastSquares.prepare(old, new).solve(best_penalty))


def fit_clustered(old: Floats, new: Floats, base: Map, *, seed: int) -> Map:
    """Correct an affine map within each of 16 clusters of old vectors.

    The correction of a cluster is a ridge of what the affine map leaves of the new vectors; the
    penalty is chosen as ``fit_ridge`` chooses it.
    """
    draw = np.random.default_rng(seed)
    held, fitted = _hold_out(len(old), draw)
    centres = _find_centres(old[fitted], draw)
    corrections = _prepare_corrections(old[fitted], new[fitted], base, centres)
    cosines = [
        _mean_cosine(_with_corrections(base, centres, corrections, penalty), old[held], new[held])
        for penalty in LOCAL_PENALTIES
    ]
    best_penalty = LOCAL_PENALTIES[int(np.argmax(cosines))]
    corrections = _prepare_corrections(old, new, base, centres)
    return _with_corrections(base, centres, corrections, best_penalty)


def _hold_out(
    count: int, draw: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Divide row numbers at random into the held-out tenth and the others."""
    held, fitted = np.split(draw.permutation(count), [max(1, round(HELD_OUT_SHARE * count))])
    return held, fitted


def _mean_cosine(candidate: Map, old: Floats, new: Floats) -> float:
    return float((candidate.apply(old) * new).sum(axis=1).mean())


def _find_centres(old: Floats, draw: np.random.Generator) -> Floats:
    """Find centres of clusters by k-means of directions."""
    centres = old[draw.choice(len(old), min(CLUSTERS, len(old)), replace=False)]
    for _ in range(ROUNDS):
        nearest = (old @ centres.T).argmax(axis=1)
        sums = [old[nearest == cluster].sum(axis=0) for cluster in range(len(centres))]
        moved = unit_rows(np.stack(sums))
        # The centre of an empty cluster does not move.
        centres = np.where(moved.any(axis=1, keepdims=True), moved, centres)
    return centres


def _prepare_corrections(
    old: Floats, new: Floats, base: Map, centres: Floats
) -> list[_LeastSquares | None]:
    """Prepare each cluster's least squares of what the base map leaves.

    None where a cluster has fewer than two rows.
    """
    nearest = (old @ centres.T).argmax(axis=1)
    residuals = new - (old @ base.arrays["matrix"] + base.arrays["offset"])
    members = [np.flatnonzero(nearest == cluster) for cluster in range(len(centres))]
    return [
        _LeastSquares.prepare(old[rows], residuals[rows]) if len(rows) > 1 else None
        for rows in members
    ]


def _with_corrections(
    base: Map, centres: Floats, corrections: list[_LeastSquares | None], penalty: float
) -> Map:
    """Add the corrections, solved for a penalty, to the base map."""
    source, target = base.arrays["matrix"].shape
    no_correction = {
        "matrix": np.zeros((source, target), np.float32),
        "offset": np.zeros(target, np.float32),
    }
    solved = [no_correction if item is None else item.solve(penalty) for item in corrections]
    local_arrays = {
        "local_matrices": np.stack([arrays["matrix"] for arrays in solved]),
        "local_offsets": np.stack([arrays["offset"] for arrays in solved]),
    }
    return Map("clustered", base.arrays | {"centres": centres} | local_arrays)


def _affine_arrays(matrix: Doubles, old_mean: Doubles, new_mean: Doubles) -> dict[str, Floats]:
    """Fold the means into one offset: ``(x - old_mean) @ matrix + new_mean``."""
    return {
        "matrix": matrix.astype(np.float32),
        "offset": (new_mean - old_mean @ matrix).astype(np.float32),
    }
