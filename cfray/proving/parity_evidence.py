"""What a comparison of searches shows: figures for the report, and causes of a poor agreement."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from cfray.proving.agreement import Answers, interval, recall
from cfray.proving.neighbours import Floats64, Metric, distances
from cfray.proving.source_search import Search, quantiles
from cfray.runtime.plurals import counted

#: Points of the report's chart.
_POINTS = 200
#: A difference of recalls that is worth a word.
_NOTABLE = 0.02


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of both sides, and what the target holds of them.

    Attributes:
        searches: questions and the source's answers.
        source, target: for each question, the uuids that the side found.
        seconds: that each answer of the target took.
        vectors: uuid -> vector, of what the target holds.
        k: hits that were asked for.
    """

    searches: list[Search]
    source: list[list[str]]
    target: list[list[str]]
    seconds: list[float]
    vectors: dict[str, npt.NDArray[np.float64]]
    k: int

    def distances_of(self, uuids: list[str], row: int, metric: Metric) -> Floats64:
        """Give the distances of the records that the target holds from a question."""
        present = [self.vectors[uuid] for uuid in uuids if uuid in self.vectors]
        if not present:
            return np.zeros(0)
        query = np.asarray(self.searches[row].vector, np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            return distances(query, np.stack(present), metric)

    def answers(self, row: int, metric: Metric) -> Answers:
        """Give what both sides found for a question."""
        source, target = self.source[row], self.target[row]
        known = [uuid for uuid in dict.fromkeys([*source, *target]) if uuid in self.vectors]
        found = self.distances_of(known, row, metric)
        square = 1.0 if metric == "cosine" else float(np.square(self.searches[row].vector).sum())
        return Answers(source, target, dict(zip(known, found.tolist(), strict=True)), square)

    def recalls(self, farthest: Floats64, metric: Metric) -> tuple[float, float]:
        """Give the shares of the true neighbours that source and target found."""
        rows = range(len(self.searches))
        source, target = (
            recall([self.distances_of(side[row], row, metric) for row in rows], farthest, self.k)
            for side in (self.source, self.target)
        )
        return source, target


def measure(
    comparison: Comparison,
    metric: Metric,
    source_metric: Metric,
    find_farthest: Callable[[Metric], Floats64],
) -> dict[str, Any]:
    """Work out the figures of the report."""
    rows = range(len(comparison.searches))
    answers = [comparison.answers(row, source_metric) for row in rows]
    shares = [answer.agreement for answer in answers]
    low, high = interval(shares)
    by_origin = {
        str(origin): [
            share
            for share, search in zip(shares, comparison.searches, strict=True)
            if search.origin == origin
        ]
        for origin in sorted({search.origin for search in comparison.searches})
    }
    source_recall, target_recall = comparison.recalls(find_farthest(metric), metric)
    k = comparison.k
    counts = [count for count in (1, 3, 5) if count < k] + [k]
    return {
        "searches": len(answers),
        "origins": {
            origin: {"searches": len(own), "agreement": round(float(np.mean(own)), 4)}
            for origin, own in by_origin.items()
        },
        "k": k,
        "agreement": round(float(np.mean(shares)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "same_at": {
            str(count): round(float(np.mean([one.shared_among(count) for one in answers])), 4)
            for count in counts
        },
        "not_in_target": sum(
            uuid not in comparison.vectors for found in comparison.source for uuid in found
        ),
        "metric": metric,
        "source_metric": source_metric,
        "source_recall": _figure(source_recall),
        "target_recall": _figure(target_recall),
        "source_seconds": quantiles([search.seconds for search in comparison.searches]),
        "target_seconds": quantiles(comparison.seconds),
        "target_searches_a_second": round(len(answers) / sum(comparison.seconds), 1),
        "farthest_hits": [
            pair for answer in answers[:_POINTS] if all(map(math.isfinite, pair := _ends(answer)))
        ],
    }


def _figure(share: float) -> float | None:
    return None if math.isnan(share) else round(share, 4)


def _ends(answer: Answers) -> tuple[float, float]:
    """Give the distances of the farthest hit of the source and of the target, for a chart."""
    source, target = (
        max((answer.distances.get(uuid, 0.0) for uuid in side), default=0.0)
        for side in (answer.source, answer.target)
    )
    return round(source, 6), round(target, 6)


def find_causes(
    comparison: Comparison,
    facts: dict[str, Any],
    wanted: float,
    find_farthest: Callable[[Metric], Floats64],
) -> list[str]:
    """Name what explains an agreement below the one that was asked for.

    Args:
        comparison: of the answers of both sides.
        facts: that ``measure`` found.
        wanted: agreement that was asked for.
        find_farthest: gives the distances of the k-th true neighbours by a metric.
    """
    if facts["low"] >= wanted:
        return []
    causes = []
    if facts["not_in_target"]:
        hits = counted(facts["not_in_target"], "hit")
        causes.append(f"{hits} of the source are not in the target: in quarantine, or newer")
    k = comparison.k
    short = sum(len(found) < k for found in comparison.source)
    if short > sum(len(found) < k for found in comparison.target):
        causes.append(f"the source gave fewer than {k} hits to {counted(short, 'question')}")
    metric: Metric = facts["metric"]
    by_metric = {
        other: comparison.recalls(find_farthest(other), other)[0]
        for other in get_args(Metric)
        if other != metric
    }
    own = facts["source_recall"] or 0.0
    best = max(by_metric, key=lambda name: np.nan_to_num(by_metric[name]))
    if by_metric[best] > own + _NOTABLE:
        causes.append(
            f"the source ranks by {best} ({by_metric[best]:.3f} of its hits are neighbours by it, "
            f"{own:.3f} by {metric}); the target ranks by {metric}: set index.vector.metric to "
            f"{best}, then run cfray optimize"
        )
    elif own < 1 - _NOTABLE and not facts["not_in_target"]:
        causes.append(f"the source's own search finds {own:.3f} of the true neighbours")
    target_recall = facts["target_recall"]
    if target_recall is not None and target_recall < 1 - _NOTABLE:
        causes.append(
            f"the target's index finds {target_recall:.3f} of the true neighbours: raise "
            "index.vector.recall, or name another index.vector.type, then run cfray optimize"
        )
    agreements = {name: part["agreement"] for name, part in facts["origins"].items()}
    filtered = agreements.pop("filtered", None)
    if filtered is not None and filtered < min(agreements.values()) - _NOTABLE:
        causes.append(
            f"searches with a filter agree least ({filtered:.3f}): source and target compare the "
            "field in another way, or the source's index is poor under a filter"
        )
    zeros = sum(
        not comparison.vectors[uuid].any()
        for found in comparison.target
        for uuid in found
        if uuid in comparison.vectors
    )
    if zeros:
        causes.append(
            f"{counted(zeros, 'hit')} of the target are records without a vector, which stand as "
            "zeros: embedding.missing_vector null leaves them out"
        )
    return causes or ["no cause was found in the evidence"]
