"""Whether searches in the target find what searches in the source find.

The same questions go to both.  The source's answers are those of the baseline, where one was
recorded, else it is asked now.  The true neighbours are worked out beside them, so that a poor
agreement has a named cause.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance import LanceDataset

from cfray.errors import ConfigError, SourceError
from cfray.finishing import index
from cfray.frames.schema import record_uuids, uuid_namespace
from cfray.job.spec import JobSpec
from cfray.proving.agreement import Answers, interval, recall
from cfray.proving.baseline import Baseline, ask_now
from cfray.proving.neighbours import Floats64, Metric, Queries, distances, farthest_neighbours
from cfray.proving.read_target import Fragments
from cfray.proving.source_search import Search, quantiles
from cfray.records.vectors import matrix
from cfray.report.names import PARITY
from cfray.report.run import Run, earlier_reports
from cfray.runtime.error_text import describe_error
from cfray.runtime.plurals import counted
from cfray.target.origins import RowOrigins
from cfray.target.search_settings import SearchSettings

#: Uuids that one condition names.
_NAMED_UUIDS = 1_000
#: Points of the report's chart.
_POINTS = 200
#: A difference of recalls that is worth a word.
_NOTABLE = 0.02


@dataclass(frozen=True, slots=True)
class _Comparison:
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


def compare_searches(run: Run) -> None:
    """Ask source and target the same questions; note how far they agree, and why they do not."""
    report = run.report
    try:
        collection_of = _searchable(run)
        baseline = Baseline.load(run.state)
        is_recorded = baseline is not None
        baseline = baseline or ask_now(run)
    except (SourceError, ConfigError) as error:
        report.leave_undecided(PARITY, f"{error.what} ({error.remedy})")
        return
    if baseline.no_searches:
        report.leave_undecided(PARITY, baseline.no_searches)
        return
    unknown = {search.collection for search in baseline.searches} - collection_of.keys()
    if unknown:
        report.leave_undecided(
            PARITY,
            f"the baseline of {baseline.taken} searched {min(unknown)}, which was not copied",
        )
        return
    dataset = run.target.open()
    metric, options = _how_to_search(run, dataset)
    try:
        comparison = _ask_target(run, dataset, options, collection_of, baseline)
        columns = [collection_of[search.collection] for search in baseline.searches]

        @cache
        def find(by: Metric) -> Floats64:
            return _farthest(run, dataset, comparison, columns, by)

        facts = _measure(comparison, metric, _metric_of_source(run, comparison, metric, find), find)
        causes = _causes(run, comparison, facts, find)
    except (OSError, ValueError, pa.ArrowException) as error:
        # the check of the content says what is damaged
        report.leave_undecided(PARITY, f"the target was not read: {describe_error(error)[:200]}")
        return
    wanted = run.job.parity.agreement
    taken = {"source_asked": baseline.taken, "baseline": is_recorded, "wanted": wanted}
    report.parity = {**facts, **taken, "causes": causes}
    _judge(run, facts, causes, baseline, is_recorded=is_recorded)


def leave_out_parity(run: Run) -> None:
    """Say that a command did not compare searches, and what the last one found that did.

    A failure stays one for as long as nothing has changed in the dataset, its indexes included.
    """
    for report in earlier_reports(run):
        for check in report.checks:
            if check.name != PARITY or check.status == "not_run":
                continue
            past = f"cfray {report.command} at {report.ended} found: {check.detail}"
            if check.status == "fail" and report.dataset_version == run.report.dataset_version:
                run.report.check(PARITY, "fail", past)
            else:
                result = f"{check.status} at that time; {past}"
                run.report.check(PARITY, "not_run", f"not made now; {result}")
            return
    detail = "cfray verify --parity asks source and target the same questions"
    run.report.check(PARITY, "not_run", detail)


def _searchable(run: Run) -> dict[str, str | None]:
    """Give, for each source collection, the value of ``collection`` that its documents have.

    None: no condition is needed, for there is a single source collection.

    Raises:
        ConfigError: the target cannot be searched as the source can.
    """
    mapping = run.job.mapping
    if run.target.recipe().policy != "keep":
        raise ConfigError(
            "the vectors were made anew, and have other neighbours than the source's",
            "cfray query shows what they find",
        )
    if mapping.keep_uuid or any(shape.id != "id" for shape in mapping.shapes):
        raise ConfigError(
            "the records have other ids than those by which the store's search names them",
            "compare a target whose mapping leaves id and keep_uuid at their defaults",
        )
    names = sorted({shard.collection for shard in run.plan.shards})
    if len(names) == 1:
        return {names[0]: None}
    if any(shape.collection is not None for shape in mapping.shapes):
        raise ConfigError(
            "mapping.collection tells the documents of the source collections not apart",
            "compare a target of a single source collection",
        )
    return {name: name for name in names}


def _how_to_search(run: Run, dataset: LanceDataset) -> tuple[Metric, dict[str, Any]]:
    """Give the metric of the target, and how an application should search it."""
    described = index.vector_index(dataset)
    if described is None:
        metric, _ = index.choose_metric(run.job.index, run.plan.metric)
        return cast("Metric", metric), {"metric": metric}
    settings = SearchSettings.from_metadata(dataset.schema.metadata) or SearchSettings()
    return cast("Metric", index.metric_of(described) or "l2"), settings.as_nearest()


def _metric_of_source(
    run: Run,
    comparison: _Comparison,
    metric: Metric,
    find_farthest: Callable[[Metric], Floats64],
) -> Metric:
    """Give the distance by which the source ranks.

    Where it says none, it is the one by which most of its hits are true neighbours; of equally good
    ones the target's.
    """
    known = run.plan.metric
    if known in get_args(Metric):
        return cast("Metric", known)
    metrics: list[Metric] = [metric, *(other for other in get_args(Metric) if other != metric)]
    return max(metrics, key=lambda by: np.nan_to_num(comparison.recalls(find_farthest(by), by)[0]))


def _condition(collection: str | None) -> str:
    documents = "record_type = 'document'"
    if collection is None:
        return documents
    text = collection.replace("'", "''")
    return f"{documents} AND collection = '{text}'"


def _ask_target(
    run: Run,
    dataset: LanceDataset,
    options: dict[str, Any],
    collection_of: dict[str, str | None],
    baseline: Baseline,
) -> _Comparison:
    target: list[list[str]] = []
    seconds: list[float] = []
    for search in baseline.searches:
        vector = np.asarray(search.vector, np.float32)
        begin = time.perf_counter()
        table = dataset.to_table(
            columns=["uuid", "_distance"],
            nearest={"column": "vector", "q": vector, "k": baseline.k, **options},
            filter=_condition(collection_of[search.collection]),
            prefilter=True,
        )
        seconds.append(time.perf_counter() - begin)
        target.append(table.column("uuid").to_pylist())
    source = [_uuids(run.job, search) for search in baseline.searches]
    uuids = sorted({uuid for found in (*source, *target) for uuid in found})
    vectors = _vectors_of(dataset, uuids)
    return _Comparison(baseline.searches, source, target, seconds, vectors, baseline.k)


def _uuids(job: JobSpec, search: Search) -> list[str]:
    """Compute the uuids of the records that a source found."""
    space = uuid_namespace(job.name, search.collection)
    uuids: list[str] = record_uuids(space, pa.array(search.ids, pa.string())).to_pylist()
    return uuids


def _vectors_of(dataset: LanceDataset, uuids: list[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Read the vectors of some rows of the target."""
    vectors: dict[str, npt.NDArray[np.float64]] = {}
    for start in range(0, len(uuids), _NAMED_UUIDS):
        names = ", ".join(f"'{uuid}'" for uuid in uuids[start : start + _NAMED_UUIDS])
        table = dataset.to_table(columns=["uuid", "vector"], filter=f"uuid IN ({names})")
        for batch in table.to_batches():
            numbers = matrix(batch.column("vector")).astype(np.float64)
            vectors.update(zip(batch.column("uuid").to_pylist(), numbers, strict=True))
    return vectors


def _farthest(
    run: Run,
    dataset: LanceDataset,
    comparison: _Comparison,
    collections: list[str | None],
    metric: Metric,
) -> Floats64:
    """Give the distance of the k-th true neighbour of each question, by a metric."""
    queries = Queries(
        np.full(len(comparison.searches), -1, np.int64),  # a question is no row
        np.asarray([search.vector for search in comparison.searches], np.float32),
        metric,
        tuple(collections),
    )
    ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    origins = RowOrigins(run.plan, run.target.ledger())
    fragments = Fragments(run.target.uri, dataset.version, ids, origins)
    return farthest_neighbours(queries, fragments, comparison.k)


def _measure(
    comparison: _Comparison,
    metric: Metric,
    source_metric: Metric,
    find_farthest: Callable[[Metric], Floats64],
) -> dict[str, Any]:
    """Work out the figures of the report."""
    rows = range(len(comparison.searches))
    answers = [comparison.answers(row, source_metric) for row in rows]
    shares = [answer.agreement for answer in answers]
    low, high = interval(shares)
    source_recall, target_recall = comparison.recalls(find_farthest(metric), metric)
    k = comparison.k
    counts = [count for count in (1, 3, 5) if count < k] + [k]
    return {
        "searches": len(answers),
        "origins": {
            origin: sum(search.origin == origin for search in comparison.searches)
            for origin in sorted({search.origin for search in comparison.searches})
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
        "farthest_hits": [_farthest_hits(answer) for answer in answers[:_POINTS]],
    }


def _figure(share: float) -> float | None:
    return None if math.isnan(share) else round(share, 4)


def _farthest_hits(answer: Answers) -> tuple[float, float]:
    """Give the distances of the farthest hit of the source and of the target, for a chart."""
    source, target = (
        max((answer.distances.get(uuid, 0.0) for uuid in side), default=0.0)
        for side in (answer.source, answer.target)
    )
    return round(source, 6), round(target, 6)


def _causes(
    run: Run,
    comparison: _Comparison,
    facts: dict[str, Any],
    find_farthest: Callable[[Metric], Floats64],
) -> list[str]:
    """Name what explains an agreement below the one that was asked for."""
    if facts["low"] >= run.job.parity.agreement:
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
    elif own < 1 - _NOTABLE:
        causes.append(f"the source's own search finds {own:.3f} of the true neighbours")
    target_recall = facts["target_recall"]
    if target_recall is not None and target_recall < 1 - _NOTABLE:
        causes.append(
            f"the target's index finds {target_recall:.3f} of the true neighbours: raise "
            "index.vector.recall, or name another index.vector.type, then run cfray optimize"
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


def _judge(
    run: Run,
    facts: dict[str, Any],
    causes: list[str],
    baseline: Baseline,
    *,
    is_recorded: bool,
) -> None:
    """Give the check its status: the interval must lie on one side of what was asked for."""
    wanted = run.job.parity.agreement
    asked = f"of {baseline.taken} (baseline)" if is_recorded else "asked now"
    source, target = facts["source_seconds"], facts["target_seconds"]
    detail = (
        f"{facts['agreement']:.3f} of the source's {facts['k']} hits (95 % interval "
        f"{facts['low']:.3f} to {facts['high']:.3f}) are found in the target, or outdone by nearer "
        f"ones, over {counted(facts['searches'], 'search', 'searches')}, answers of the source "
        f"{asked}; the same records: {facts['same_at'][str(facts['k'])]:.3f}; asked for: {wanted}; "
        f"seconds at p50 and p99: source {source['p50']:.3f} and {source['p99']:.3f}, target "
        f"{target['p50']:.3f} and {target['p99']:.3f}"
    )
    reasons = f"; {'; '.join(causes)}" if causes else ""
    if facts["low"] >= wanted:
        run.report.check(PARITY, "pass", detail)
    elif facts["high"] < wanted:
        run.report.check(PARITY, "fail", f"{detail}{reasons}")
    else:
        run.report.leave_undecided(
            PARITY, f"{detail}; ask more questions (parity.searches){reasons}"
        )
