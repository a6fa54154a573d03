"""How far two searches agree: the hits of the source's, and those of the target's.

Of the hits that the target does not give, one is *passed over* where the target gives a nearer
record in its place: the source's index then was the poorer one.  The others are *missed*.  So a
target that finds more of the true neighbours than the source did is no worse for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfray.proving.neighbours import Floats64, Metric

#: A store computes in float32: share of a distance, and of what its numbers are rounded by.
_RELATIVE, _ROUNDING = 2e-6, 4e-7
#: Quantile of the normal distribution for an interval of 95 %.
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Answers:
    """What both sides found for one question.

    Attributes:
        source, target: uuids, nearest first, each once.
        distances: uuid -> distance from the question, by the source's metric, of each record that
            the target holds.
        metric: of the source.
        length: of the question.
    """

    source: Sequence[str]
    target: Sequence[str]
    distances: dict[str, float]
    metric: Metric
    length: float

    @property
    def is_empty(self) -> bool:
        """Tell whether neither side found anything: such a question says nothing."""
        return not self.source and not self.target

    @property
    def agreement(self) -> float:
        """Give the share of hits that the target gives, or gives nearer ones in place of.

        Where one side has fewer hits than the other, its missing ones are no agreement.
        """
        most = max(len(self.source), len(self.target))
        return (len(self.source) - self.missed) / most if most else math.nan

    @property
    def missed(self) -> int:
        """Count the source's hits that the target neither gives nor outdoes."""
        shared = set(self.source) & set(self.target)
        lost = [uuid for uuid in self.source if uuid not in shared]
        instead = sorted(self._distance(uuid) for uuid in self.target if uuid not in shared)
        outdone = 0
        # of hits that are not in the target nothing is known, so nothing outdoes them
        for distance in sorted(self._distance(uuid) for uuid in lost if uuid in self.distances):
            if outdone < len(instead) and instead[outdone] <= distance + self._tolerance(distance):
                outdone += 1
        return len(lost) - outdone

    def shared_among(self, count: int) -> float:
        """Give the share of the first hits that both sides have."""
        first = set(self.source[:count])
        most = max(len(first), len(self.target[:count]))
        return len(first.intersection(self.target[:count])) / most if most else math.nan

    def _distance(self, uuid: str) -> float:
        distance = self.distances.get(uuid, math.inf)
        return math.inf if math.isnan(distance) else distance

    def _tolerance(self, distance: float) -> float:
        return 0.0 if math.isinf(distance) else tolerance(distance, self.metric, self.length)


def tolerance(distance: float, metric: Metric, length: float) -> float:
    """Give by how much two distances may differ that are the same for a store.

    The distance ``l2`` is squared: an error of a number by its last bit, which grows with the
    length of the vectors, changes it by twice the difference of the vectors.

    Args:
        distance: of the farther record.
        metric: by which it is measured.
        length: of the question.
    """
    bound = _RELATIVE * abs(distance)
    if metric == "l2":
        return bound + _ROUNDING * length * math.sqrt(distance)
    return bound + (_ROUNDING if metric == "cosine" else 0.0)


def interval(shares: Sequence[float]) -> tuple[float, float]:
    """Give the 95 % interval of the mean of shares.

    Wilson's interval for as many questions, each found or not; shares between 0 and 1 vary less, so
    the interval is on the safe side.

    Source: Wilson, JASA 22 (1927).
    """
    count = len(shares)
    if not count:
        return 0.0, 1.0
    mean, spread = float(np.mean(shares)), _Z**2 / count
    middle = (mean + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(mean * (1 - mean) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def recall(nearest: Sequence[Floats64], farthest: Floats64, k: int) -> float:
    """Give the share of the k true neighbours among hits.

    Args:
        nearest: for each question, the distances of the hits.
        farthest: ``(n,)``, for each question the distance of its k-th true neighbour.
        k: neighbours asked for.
    """
    shares = [
        min(k, int(np.count_nonzero(hits <= bound + _RELATIVE * abs(bound)))) / k
        for hits, bound in zip(nearest, farthest, strict=True)
        if np.isfinite(bound)
    ]
    return float(np.mean(shares)) if shares else math.nan
