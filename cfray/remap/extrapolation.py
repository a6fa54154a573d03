"""Carry a share measured in pools of a few sizes to a corpus of any size, on the cautious side.

No law says how retrieval falls with the corpus.  A straight line in
log10(pool) is too high, for the fall grows: 0.03 to 0.05 too high at four
times the largest pool, on three pairs of models with titles as queries.  A
line in log10(pool) through the shares' normal quantiles (probit) was right to
0.04 too low there.  So both are drawn: the estimate and the lower bound are
the lower one's, the upper bound is the higher one's.
(Measured with tests/testbeds/models.py: maps fitted on 5,000 and 8,000 documents,
pools of 180 to 2,197, truth at 5,791 and 8,791; documents as queries fall less.)

No line sees a fall that has not begun: on made-up vectors 1.000, 1.000, 1.000
and 0.999 of up to 2,000 documents read 0.998 [0.992, 1.000] at 16,000, and the
truth was 0.977.  The real models here miss 2 % and more in the smallest pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

#: Resamples of the queries: the 2.5 % point stands on 10 of them.
RESAMPLES = 400
#: Percentiles of the interval.
BOUNDS = (2.5, 97.5)
#: Queries added as missed before the lower bound is read: of q none of which was missed, up to 3 /
#: q may be (the rule of three, 95 %).
UNSEEN = 3


def extrapolated(
    flags: npt.NDArray[np.bool_],
    sizes: Sequence[int],
    rows: int,
    *,
    seed: int,
    among: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, float, float]:
    """Estimate a share at the size of the corpus.

    The interval holds chance in the queries (bootstrap, the same queries at each size) and the
    doubt between the two lines; not what other pools, other queries or another law would give.

    Args:
        flags: ``(q, k)`` what was found, for each query at each pool size.
        sizes: the k pool sizes, ascending.
        rows: documents of the corpus.
        seed: of the resampling.
        among: ``(q, k)`` what could be found; the share is of these then, and at most 1.  None: of
            all queries.

    Returns:
        Estimate, lower and upper bound, from 0 to 1.  Within the measured sizes they are
        interpolated; below the smallest its share counts.
    """
    draw = np.random.default_rng(seed)
    values = flags.astype(np.float32)
    base = np.ones_like(values) if among is None else among.astype(np.float32)
    picks = [draw.integers(0, len(values), len(values)) for _ in range(RESAMPLES)]
    hits, bases = (
        np.stack([array[pick].sum(axis=0, dtype=np.float64) for pick in picks])
        for array in (values, base)
    )
    low, _ = _readings(
        _shares(
            values.sum(axis=0, dtype=np.float64)[None], base.sum(axis=0, dtype=np.float64)[None]
        ),
        sizes,
        rows,
        len(values),
    )
    lows, _ = _readings(_shares(hits, bases + UNSEEN), sizes, rows, len(values))
    _, highs = _readings(_shares(hits, bases), sizes, rows, len(values))
    lower, upper = np.percentile(lows, BOUNDS[0]), np.percentile(highs, BOUNDS[1])
    return float(low[0]), float(min(lower, low[0])), float(max(upper, low[0]))


def _shares(hits: Matrix, bases: Matrix) -> Matrix:
    """Divide; nothing of nothing is nothing.

    A map that finds more than there was to find is not better than perfect.
    """
    return np.minimum(hits / np.maximum(bases, 1), 1)


def _readings(
    shares: Matrix, sizes: Sequence[int], rows: int, queries: int
) -> tuple[Matrix, Matrix]:
    """Read ``(n, k)`` shares at so many rows, on the lower and on the higher of the two lines.

    Never above the largest pool's share.
    """
    logs = np.log10(np.asarray(sizes, np.float64))
    at = np.log10(max(rows, 1))
    if at <= logs[-1]:
        between = np.array([np.interp(at, logs, row) for row in shares])
        return between, between
    straight = _on_line(shares, logs, at)
    normal = NormalDist()
    inner = np.clip(
        shares, 0.5 / queries, 1 - 0.5 / queries
    )  # 0 and 1 have no quantile: half a query is the least that can be told apart
    quantiles = np.vectorize(normal.inv_cdf, otypes=[np.float64])(inner)
    curved = np.vectorize(normal.cdf, otypes=[np.float64])(_on_line(quantiles, logs, at))
    both = np.clip(np.minimum(np.stack([straight, curved]), shares[:, -1]), 0, 1)
    return both.min(axis=0), both.max(axis=0)


def _on_line(values: Matrix, logs: Matrix, at: float) -> Matrix:
    """Read each row's least-squares line at one place."""
    centred = logs - logs.mean()
    weights = 1 / len(logs) + (at - logs.mean()) * centred / (centred @ centred)
    read: Matrix = values @ weights
    return read
