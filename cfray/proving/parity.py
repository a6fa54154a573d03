"""Whether searches in the target find what searches in the source find.

The same questions go to both.  The source's answers are those of the baseline, where one was
recorded, else it is asked now.  The true neighbours are worked out beside them, so that a poor
agreement has a named cause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance import LanceDataset

from cfray.errors import ConfigError, SourceError, TargetError
from cfray.finishing import index
from cfray.frames.schema import record_uuids, uuid_namespace
from cfray.job.spec import JobSpec
from cfray.proving.baseline import Baseline, ask_now, baseline_terms
from cfray.proving.neighbours import (
    Conditions,
    Floats64,
    Metric,
    Queries,
    farthest_neighbours,
)
from cfray.proving.parity_evidence import Comparison, find_causes, measure
from cfray.proving.read_target import Fragments
from cfray.proving.source_search import Search
from cfray.proving.word_search import WordHits, compare_words, sentence_about
from cfray.records.vectors import matrix
from cfray.report.names import PARITY
from cfray.report.run import Run, earlier_reports, said_by
from cfray.runtime.error_text import describe_error
from cfray.runtime.plurals import counted
from cfray.target.origins import RowOrigins
from cfray.target.receipts import Status
from cfray.target.search import Question, search_target
from cfray.target.search_settings import SearchSettings

#: Uuids that one condition names.
_NAMED_UUIDS = 1_000


def compare_searches(run: Run) -> None:
    """Ask source and target the same questions; note how far they agree, and why they do not."""
    try:
        collection_of = _searchable(run)
        baseline = Baseline.load(run.state)
        if baseline is not None:
            _check_baseline(run, baseline, collection_of)
        answered = baseline or ask_now(run)
        facts, causes = _compare(run, answered, collection_of)
        words = _compare_words(run, answered, collection_of)
    except (SourceError, ConfigError, TargetError) as error:
        _leave_open(run, f"{error.what} ({error.remedy})")
        return
    run.report.parity = {
        **facts,
        "words": words,
        "source_asked": answered.taken,
        "baseline": baseline is not None,
        "threshold": run.job.parity.agreement,
        "no_filters": answered.no_filters,
        "causes": causes,
    }
    _judge(run, facts, causes, answered, words, is_recorded=baseline is not None)


def _compare_words(
    run: Run, answered: Baseline, collection_of: dict[str, str | None]
) -> dict[str, Any]:
    """Search the target by the words that the source was asked for; give the figures."""
    searches = answered.word_searches
    if not searches:
        why = answered.no_words or "the baseline of an earlier version has none"
        return {"none": why}
    try:
        hits = list(_search_by_words(run, answered, collection_of))
    except ConfigError as error:
        return {"none": error.what}
    return compare_words(run.target.open(), searches, hits, answered.k)


def _search_by_words(
    run: Run, answered: Baseline, collection_of: dict[str, str | None]
) -> Iterator[WordHits]:
    """Search the target as ``cfray query --mode text`` does.

    Raises:
        ConfigError: the target cannot be searched by words.
    """
    for search in answered.word_searches:
        collection = collection_of[search.collection]
        where = None if collection is None else f"collection = {_quoted(collection)}"
        begin = time.perf_counter()
        answer = search_target(
            run.target.uri, Question(search.words, answered.k, mode="text", where=where)
        )
        seconds = time.perf_counter() - begin
        (record,) = _uuids(run.job, search.collection, [search.record])
        found = [str(hit["uuid"]) for hit in answer.hits]
        yield WordHits(_uuids(run.job, search.collection, search.ids), found, record, seconds)


def _compare(
    run: Run, answered: Baseline, collection_of: dict[str, str | None]
) -> tuple[dict[str, Any], list[str]]:
    """Ask the target, too; give the figures, and the causes of a poor agreement.

    Raises:
        TargetError: the target cannot be searched.
    """
    dataset = run.target.open()
    metric, options = _how_to_search(run, dataset)
    conditions = [
        _conditions(collection_of[search.collection], search) for search in answered.searches
    ]
    try:
        comparison = _ask_target(run, dataset, options, conditions, answered)

        @cache
        def find(by: Metric) -> Floats64:
            return _farthest(run, dataset, comparison, conditions, by)

        facts = measure(comparison, metric, _metric_of_source(run, comparison, metric, find), find)
        return facts, find_causes(comparison, facts, run.job.parity.agreement, find)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TargetError(
            f"the target cannot be searched: {describe_error(error)[:200]}",
            "the other checks say what is damaged",
        ) from error


def leave_out_parity(run: Run) -> None:
    """Say that a command did not compare searches, and what the last one found that did.

    A failure stays one for as long as nothing has changed in the dataset, its indexes included.
    """
    last = _last_comparison(run)
    if last is None:
        detail = "cfray verify --parity asks source and target the same questions"
        run.report.check(PARITY, "not_run", detail)
    elif last.status == "fail" and last.is_current:
        run.report.check(PARITY, "fail", last.detail)
    else:
        detail = f"not made now; {last.status} at that time; {last.detail}"
        run.report.check(PARITY, "not_run", detail)


def _leave_open(run: Run, reason: str) -> None:
    """Note that the searches could not be compared; a failure of before stays one."""
    last = _last_comparison(run)
    if last is not None and last.status == "fail" and last.is_current:
        run.report.check(PARITY, "fail", f"{last.detail}; now: {reason}")
    else:
        run.report.leave_undecided(PARITY, reason)


@dataclass(frozen=True, slots=True)
class _Last:
    """What the last command found that compared searches.

    Attributes:
        is_current: whether the dataset is the same since.
    """

    status: Status
    detail: str
    is_current: bool


def _last_comparison(run: Run) -> _Last | None:
    for report in earlier_reports(run):
        for check in report.checks:
            if check.name == PARITY and check.status != "not_run":
                is_current = report.dataset_version == run.report.dataset_version
                return _Last(check.status, said_by(report, check.detail), is_current)
    return None


def _check_baseline(run: Run, baseline: Baseline, collection_of: dict[str, str | None]) -> None:
    """Refuse a baseline that does not answer what the job file asks.

    Raises:
        ConfigError: names the difference.
    """
    if baseline.no_searches:
        raise ConfigError(
            f"the baseline of {baseline.taken} has no searches: {baseline.no_searches}",
            "compare the results of your application by hand",
        )
    remedy = "record another one with cfray baseline, undo the change, or remove baseline.json"
    now = baseline_terms(run.job)
    for key, was in baseline.terms.items():
        if was != now.get(key):
            raise ConfigError(
                f"the baseline of {baseline.taken} is of another {key} ({was}) than the job file's "
                f"({now.get(key)})",
                remedy,
            )
    unknown = {search.collection for search in baseline.searches} - collection_of.keys()
    if unknown:
        raise ConfigError(
            f"the baseline of {baseline.taken} searched {min(unknown)}, which was not copied",
            remedy,
        )
    width = run.plan.shape.dimension
    if any(len(search.vector) != width for search in baseline.searches):
        raise ConfigError(
            f"the baseline of {baseline.taken} has vectors of another width than the target's "
            f"({width})",
            remedy,
        )


def _searchable(run: Run) -> dict[str, str | None]:
    """Give, for each source collection, the value of ``collection`` that its documents have.

    None: no condition is needed, for there is a single source collection.

    Raises:
        ConfigError: the target cannot be searched as the source can.
    """
    mapping = run.job.mapping
    recipe = run.target.recipe()
    if recipe.policy != "keep" or recipe.reduction:
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
    comparison: Comparison,
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


def _conditions(collection: str | None, search: Search) -> Conditions:
    """Say which rows a search in the target may find."""
    return (
        ("record_type", "document"),
        *([] if collection is None else [("collection", collection)]),
        *search.where.items(),
    )


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _ask_target(
    run: Run,
    dataset: LanceDataset,
    options: dict[str, Any],
    conditions: list[Conditions],
    baseline: Baseline,
) -> Comparison:
    target: list[list[str]] = []
    seconds: list[float] = []
    for search, filters in zip(baseline.searches, conditions, strict=True):
        vector = np.asarray(search.vector, np.float32)
        begin = time.perf_counter()
        table = dataset.to_table(
            columns=["uuid", "_distance"],
            nearest={"column": "vector", "q": vector, "k": baseline.k, **options},
            filter=" AND ".join(f"{column} = {_quoted(text)}" for column, text in filters),
            prefilter=True,
        )
        seconds.append(time.perf_counter() - begin)
        target.append(table.column("uuid").to_pylist())
    source = [_uuids(run.job, search.collection, search.ids) for search in baseline.searches]
    drawn = [
        uuid
        for search in baseline.searches
        for uuid in _uuids(run.job, search.collection, [search.record]) or [""]
    ]
    uuids = sorted({uuid for hits in (*source, *target, drawn) for uuid in hits if uuid})
    vectors = _vectors_of(dataset, uuids)
    return Comparison(baseline.searches, source, target, drawn, seconds, vectors, baseline.k)


def _uuids(job: JobSpec, collection: str, ids: list[str]) -> list[str]:
    """Compute the uuids of records that a source named, each once."""
    space = uuid_namespace(job.name, collection)
    distinct = [tagged_id for tagged_id in dict.fromkeys(ids) if tagged_id]
    uuids: list[str] = record_uuids(space, pa.array(distinct, pa.string())).to_pylist()
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
    comparison: Comparison,
    conditions: list[Conditions],
    metric: Metric,
) -> Floats64:
    """Give the distance of the k-th true neighbour of each question, by a metric."""
    queries = Queries(
        np.full(len(comparison.searches), -1, np.int64),  # a question is no row
        np.asarray([search.vector for search in comparison.searches], np.float32),
        metric,
        tuple(conditions),
    )
    ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    origins = RowOrigins(run.plan, run.target.ledger())
    fragments = Fragments(run.target.uri, dataset.version, ids, origins)
    return farthest_neighbours(queries, fragments, comparison.k)


def _judge(
    run: Run,
    facts: dict[str, Any],
    causes: list[str],
    baseline: Baseline,
    words: dict[str, Any],
    *,
    is_recorded: bool,
) -> None:
    """Give the check its status: the intervals must lie on one side of what was asked for."""
    if not facts["searches"]:
        empty = counted(facts["found_nothing"], "search", "searches")
        _leave_open(run, f"{empty} found nothing on either side, and no other was asked")
        return
    threshold = run.job.parity.agreement
    asked = f"of {baseline.taken} (baseline)" if is_recorded else "asked now"
    source, target = facts["source_seconds"], facts["target_seconds"]
    filtered = facts["origins"].get("filtered", {"searches": 0})["searches"]
    filters = (
        f"no filters: {baseline.no_filters}" if baseline.no_filters else f"{filtered:,} filtered"
    )
    detail = (
        f"{facts['agreement']:.3f} of the source's {facts['k']} hits (95 % interval "
        f"{facts['low']:.3f} to {facts['high']:.3f}) are found in the target, or outdone by nearer "
        f"ones, over {counted(facts['searches'], 'search', 'searches')} ({filters}), answers of "
        f"the source {asked}; the same records: {facts['same_at'][str(facts['k'])]:.3f}; "
        f"asked for: {threshold}; seconds at p50 and p99: source {source['p50']:.3f} and "
        f"{source['p99']:.3f}, target {target['p50']:.3f} and {target['p99']:.3f}"
    )
    if facts["found_nothing"]:
        empty = counted(facts["found_nothing"], "further search", "further searches")
        detail += f"; {empty} found nothing on either side"
    detail += f"; {sentence_about(words)}"
    reasons = f"; {'; '.join(causes)}" if causes else ""
    # a record whose vector is another one now: damage, unless the source was asked before the copy
    is_moved = facts["other_vectors"] and is_recorded
    low, high = min(facts["low"], words.get("low", 1.0)), min(facts["high"], words.get("high", 1.0))
    if high < threshold or (facts["other_vectors"] and not is_recorded):
        run.report.check(PARITY, "fail", f"{detail}{reasons}")
    elif low >= threshold and not is_moved:
        run.report.check(PARITY, "pass", detail)
    else:
        more = "" if is_moved else "; ask more questions (parity.searches)"
        _leave_open(run, f"{detail}{more}{reasons}")
