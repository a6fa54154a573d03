"""Carry a share measured in pools of a few sizes to a corpus of any size, on the cautious side.

No law says how retrieval falls with the size of the corpus.  A straight line in log10(pool)
is too high, for the fall grows: at four times the largest pool it was 0.03 to 0.05 too high,
on three pairs of models with titles as queries.  A line in log10(pool) through the normal
quantiles of the shares (probit) was up to 0.04 too low there.  So both lines are drawn:
the estimate and the lower bound are read on the lower line, the upper bound on the higher
line.  (Measured with tests/testbeds/models.py: maps fitted on 5,000 and 8,000 documents,
pools of 180 to 2,197, truth at 5,791 and 8,791; documents as queries fall less.)

No line shows a fall that has not begun: on made-up vectors, shares of 1.000, 1.000, 1.000
and 0.999 in pools of up to 2,000 documents read 0.998 [0.992, 1.000] at 16,000, and the
truth was 0.977.  The real models above miss 2 % and more in the smallest pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

#: Resamples of the queries: the 2.5 % point rests on 10 of them.
RESAMPLES = 400
#: Percentiles of the interval.
BOUNDS = (2.5, 97.5)
#: Queries that are added as missed before the lower bound is read: if none of q queries was missed,
#: up to 3 / q may be (the rule of three, 95 %).
UNSEEN_MISSES = 3


def extrapolate(
    hits: npt.NDArray[np.bool_],
    sizes: Sequence[int],
    rows: int,
    *,
    seed: int,
    possible: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, float, float]:
    """Estimate a share at the size of the corpus.

    The interval holds chance in the queries (bootstrap, the same queries at each size) and the
    doubt between the two lines, but not what other pools or another law would give.

    Args:
        hits: ``(q, k)`` whether each query found its document at each pool size.
        sizes: the k pool sizes, ascending.
        rows: documents of the corpus.
        seed: of the resampling.
        possible: ``(q, k)`` whether the document could be found: the share is of these, at most 1.

    Returns:
        Estimate, lower and upper bound, from 0 to 1.  Within the measured sizes they are
        interpolated; below the smallest size its share counts.
    """
    queries = len(hits)
    bases = np.ones_like(hits) if possible is None else possible
    measured = _shares(hits.sum(axis=0, dtype=np.float64)[None], bases.sum(axis=0)[None])
    estimates, _ = _read_lines(measured, sizes, rows, queries)
    draw = np.random.default_rng(seed)
    picks = [draw.integers(0, queries, queries) for _ in range(RESAMPLES)]
    hit_sums, base_sums = (
        np.stack([flags[pick].sum(axis=0, dtype=np.float64) for pick in picks])
        for flags in (hits, bases)
    )
    cautious = _shares(hit_sums, base_sums + UNSEEN_MISSES)
    lower_readings, _ = _read_lines(cautious, sizes, rows, queries)
    _, upper_readings = _read_lines(_shares(hit_sums, base_sums), sizes, rows, queries)
    estimate = float(estimates[0])
    lower = min(estimate, float(np.percentile(lower_readings, BOUNDS[0])))
    upper = max(estimate, float(np.percentile(upper_readings, BOUNDS[1])))
    return estimate, lower, upper


def _shares(hits: Matrix, bases: Matrix) -> Matrix:
    """Divide; the share of no documents is 0.

    A map that finds more than could be found is no better than a perfect map.
    """
    return np.minimum(hits / np.maximum(bases, 1), 1)


def _read_lines(
    shares: Matrix, sizes: Sequence[int], rows: int, queries: int
) -> tuple[Matrix, Matrix]:
    """Read ``(n, k)`` shares at so many rows, on the lower and on the higher of the two lines.

    A reading is never above the share of the largest pool.
    """
    logs = np.log10(np.asarray(sizes, np.float64))
    log_rows = np.log10(max(rows, 1))
    if log_rows <= logs[-1]:
        interpolated = np.array([np.interp(log_rows, logs, row) for row in shares])
        return interpolated, interpolated
    straight = _read_line(shares, logs, log_rows)
    normal = NormalDist()
    # 0 and 1 have no quantile: half a query is the least difference that can be measured.
    inner = np.clip(shares, 0.5 / queries, 1 - 0.5 / queries)
    quantiles = np.vectorize(normal.inv_cdf, otypes=[np.float64])(inner)
    curved_quantiles = _read_line(quantiles, logs, log_rows)
    curved = np.vectorize(normal.cdf, otypes=[np.float64])(curved_quantiles)
    both = np.clip(np.minimum(np.stack([straight, curved]), shares[:, -1]), 0, 1)
    return both.min(axis=0), both.max(axis=0)


def _read_line(values: Matrix, logs: Matrix, position: float) -> Matrix:
    """Read the least-squares line of each row at a position."""
    centred = logs - logs.mean()
    weights = 1 / len(logs) + (position - logs.mean()) * centred / (centred @ centred)
    readings: Matrix = values @ weights
    return readings
