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
#: Share of the true neighbours below which no hit of the source counts as outdone: an index that
#: finds so few is broken, or the vectors stand at other records.
_PLAUSIBLE = 0.7


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of both sides, and what the target holds of them.

    Attributes:
        searches: questions and the source's answers.
        source, target: for each question, the uuids that the side found.
        drawn: for each question, the uuid of the record whose vector it has; empty without one.
        seconds: that each answer of the target took.
        vectors: uuid -> vector, of what the target holds.
        k: hits that were asked for.
    """

    searches: list[Search]
    source: list[list[str]]
    target: list[list[str]]
    drawn: list[str]
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
        from_question = self.distances_of(known, row, metric)
        length = float(np.linalg.norm(np.asarray(self.searches[row].vector)))
        distance_of = dict(zip(known, from_question.tolist(), strict=True))
        return Answers(source, target, distance_of, metric, length)

    @property
    def moved_records(self) -> list[str]:
        """Name the drawn records that have another vector in the target than the question."""
        return [
            uuid
            for uuid, search in zip(self.drawn, self.searches, strict=True)
            if uuid in self.vectors
            and self.vectors[uuid].astype(np.float32).tobytes()
            != np.asarray(search.vector, np.float32).tobytes()
        ]

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
    """Work out the figures of the report; questions that found nothing at all are left out."""
    k = comparison.k
    asked = [
        (answer, search)
        for row, search in enumerate(comparison.searches)
        if not (answer := comparison.answers(row, source_metric)).is_empty
    ]
    answers = [answer for answer, _ in asked]
    own_recall, _ = comparison.recalls(find_farthest(source_metric), source_metric)
    is_plausible = not own_recall < _PLAUSIBLE
    shares = [answer.agreement if is_plausible else answer.shared_among(k) for answer in answers]
    low, high = interval(shares)
    by_origin = {
        str(origin): [
            share
            for share, (_, search) in zip(shares, asked, strict=True)
            if search.origin == origin
        ]
        for origin in sorted({search.origin for _, search in asked})
    }
    source_recall, target_recall = comparison.recalls(find_farthest(metric), metric)
    counts = [count for count in (1, 3, 5) if count < k] + [k]
    return {
        "searches": len(answers),
        "found_nothing": len(comparison.searches) - len(answers),
        "origins": {
            origin: {"searches": len(part), "agreement": _mean(part)}
            for origin, part in by_origin.items()
        },
        "k": k,
        "agreement": _mean(shares),
        "low": round(low, 4),
        "high": round(high, 4),
        "same_at": {
            str(count): _mean([answer.shared_among(count) for answer in answers])
            for count in counts
        },
        "other_vectors": len(comparison.moved_records),
        "is_plausible": is_plausible,
        "not_in_target": sum(
            uuid not in comparison.vectors for hits in comparison.source for uuid in hits
        ),
        "metric": metric,
        "source_metric": source_metric,
        "source_recall": _figure(source_recall),
        "target_recall": _figure(target_recall),
        "source_seconds": quantiles([search.seconds for search in comparison.searches]),
        "target_seconds": quantiles(comparison.seconds),
        "target_searches_a_second": round(
            len(comparison.seconds) / max(sum(comparison.seconds), 1e-9), 1
        ),
        "farthest_hits": [
            pair for answer in answers[:_POINTS] if all(map(math.isfinite, pair := _ends(answer)))
        ],
    }


def _mean(shares: list[float]) -> float:
    return round(float(np.mean(shares)), 4) if shares else 0.0


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
    threshold: float,
    find_farthest: Callable[[Metric], Floats64],
) -> list[str]:
    """Name what explains an agreement below the one that was asked for.

    Args:
        comparison: of the answers of both sides.
        facts: that ``measure`` found.
        threshold: agreement that was asked for.
        find_farthest: gives the distances of the k-th true neighbours by a metric.
    """
    if facts["agreement"] >= threshold and not facts["other_vectors"]:
        return []
    causes = []
    if facts["other_vectors"]:
        records = counted(facts["other_vectors"], "record")
        causes.append(
            f"{records} whose vectors were searched for have other vectors in the target: the "
            "vectors stand at other records, or the source was written to in between"
        )
    if facts["not_in_target"]:
        hits = counted(facts["not_in_target"], "hit")
        causes.append(f"{hits} of the source are not in the target: in quarantine, or newer")
    source_hits, target_hits = (
        sum(map(len, side)) for side in (comparison.source, comparison.target)
    )
    if source_hits != target_hits:
        causes.append(
            f"the source gave {counted(source_hits, 'hit')}, the target {target_hits:,} to the "
            "same questions"
        )
    causes += _causes_in_rankings(comparison, facts, find_farthest)
    zeros = sum(
        not comparison.vectors[uuid].any()
        for hits in comparison.target
        for uuid in hits
        if uuid in comparison.vectors
    )
    if zeros:
        causes.append(
            f"the vectors of {counted(zeros, 'hit')} of the target are zeros; where they stand for "
            "no vector, embedding.missing_vector null leaves them out"
        )
    agreements = {name: part["agreement"] for name, part in facts["origins"].items()}
    filtered = agreements.pop("filtered", None)
    if not causes and filtered is not None and filtered < min(agreements.values()) - _NOTABLE:
        causes.append(
            f"searches with a filter agree least ({filtered:.3f}): source and target compare the "
            "field in another way"
        )
    return causes or ["no cause was found in the evidence"]


def _causes_in_rankings(
    comparison: Comparison,
    facts: dict[str, Any],
    find_farthest: Callable[[Metric], Floats64],
) -> list[str]:
    """Say whether both sides rank by different distances, and whose index finds too little."""
    metric: Metric = facts["metric"]
    source_recall, target_recall = facts["source_recall"], facts["target_recall"]
    causes = []
    if target_recall is not None and target_recall < 1 - _NOTABLE:
        causes.append(
            f"the target's index finds {target_recall:.3f} of the true neighbours: raise "
            "index.vector.recall, or name another index.vector.type, then run cfray optimize"
        )
    if source_recall is None:
        return causes
    by_metric = {
        other: comparison.recalls(find_farthest(other), other)[0]
        for other in get_args(Metric)
        if other != metric
    }
    best = max(by_metric, key=lambda name: np.nan_to_num(by_metric[name]))
    if by_metric[best] > source_recall + _NOTABLE:
        remedy = f"set index.vector.metric to {best}, then run cfray optimize"
        if len({search.collection for search in comparison.searches}) > 1:
            remedy = "an index has one distance, and the source collections may have several"
        causes.append(
            f"the source ranks by {best} ({by_metric[best]:.3f} of its hits are neighbours by it, "
            f"{source_recall:.3f} by {metric}); the target ranks by {metric}: {remedy}"
        )
    elif source_recall < 1 - _NOTABLE and not facts["not_in_target"]:
        causes.append(f"the source's own search finds {source_recall:.3f} of the true neighbours")
    return causes
