"""How much of the true neighbours the vector index finds, and how it must be searched for that.

Vectors of the dataset itself are searched for.  A first half of them chooses the cheapest
settings that reach the recall that the job asks for; the second half, which had no part in the
choice, gives the figure of the report.  A search by such a vector is easier than one by a text's
own vector: the figure judges the index, not the model.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from lance import LanceDataset

from cfray.finishing import index
from cfray.proving.neighbours import (
    Floats64,
    Metric,
    Queries,
    distances,
    draw_row_ids,
    farthest_neighbours,
)
from cfray.proving.read_target import Fragments
from cfray.records.vectors import has_number, matrix
from cfray.report.facts import Check
from cfray.report.names import INDEX_RECALL
from cfray.report.run import Run
from cfray.runtime.error_text import describe_error
from cfray.target.commit import SchemaChange, commit
from cfray.target.origins import RowOrigins
from cfray.target.search_settings import SEARCH_KEY, SearchSettings

#: Neighbours of a query.
K = 10
#: Queries that choose the settings, and as many that judge them.
_QUERIES = 100
#: Queries of a half below which nothing is said.
_FEWEST = 20
#: Partitions searched, from cheap to dear; Lance searches all of an index that has fewer.  It makes
#: a partition of 8,192 rows: the last number is all of an index of 160 million.
_PROBES = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 20_000)
#: Candidates ranked again by their exact vectors.
_REFINE = (10, 50)
#: Candidates that a graph keeps, for each that is ranked again.
_EF_SHARE = 2
#: By which share of itself a distance may differ, for the rounding of float64.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class _Search:
    """Searches through the index.

    Attributes:
        dataset: a version whose index is built.
        farthest: distance of the k-th true neighbour of each query.
    """

    dataset: LanceDataset
    queries: Queries
    farthest: Floats64

    def recall(self, settings: SearchSettings) -> float:
        """Give the share of the true neighbours that is found."""
        found = sum(
            self._found(row, settings.as_nearest()) for row in range(len(self.queries.vectors))
        )
        return found / (K * len(self.queries.vectors))

    def _found(self, row: int, options: dict[str, object]) -> int:
        query, own = self.queries.vectors[row], self.queries.row_ids[row]
        # one more, for the query's own row is the nearest
        nearest = {"column": "vector", "q": query, "k": K + 1, **options}
        table = self.dataset.to_table(
            columns=["vector", "_distance"], nearest=nearest, with_row_id=True
        )
        row_ids = table.column("_rowid").to_numpy()
        vectors = matrix(table.column("vector").combine_chunks())[row_ids != own][:K]
        exact = distances(query, vectors.astype(np.float64), self.queries.metric)
        bound = self.farthest[row]
        return int(np.count_nonzero(exact <= bound + _TOLERANCE * abs(bound)))


def measure_recall(run: Run) -> Check:
    """Measure the recall of the vector index; give what came of it as a check.

    A command that holds the target writes the settings that reach the recall into the dataset.
    """
    dataset = run.target.open()
    described = index.vector_index(dataset)
    if described is None:
        detail = "there is no vector index: a search compares every vector"
        return Check(INDEX_RECALL, "not_run", detail)
    metric = cast("Metric", index.metric_of(described) or "l2")  # l2 is Lance's default
    try:
        searches = _searches(run, dataset, metric)
        if searches is None:
            detail = f"fewer than {2 * _FEWEST} rows of a sample have a vector"
            return Check(INDEX_RECALL, "not_run", detail)
        choosing, judging = searches
        wanted = run.job.index.vector.recall
        plain = judging.recall(SearchSettings())
        settings, recall = _choose(choosing, judging, _ladder(described.index_type), wanted)
    except (OSError, ValueError, pa.ArrowException) as error:
        # the check of the content says what is damaged
        detail = f"the vectors cannot be read: {describe_error(error)[:200]}"
        return Check(INDEX_RECALL, "not_run", detail)
    run.report.search = {
        "index": described.index_type,
        "metric": metric,
        "k": K,
        "queries": len(judging.farthest),
        "recall_by_default": round(plain, 4),
        "recall": round(recall, 4),
        "wanted": wanted,
        **settings.as_nearest(),
    }
    if run.holds_target and SearchSettings.from_metadata(dataset.schema.metadata) != settings:
        metadata = SchemaChange(metadata={SEARCH_KEY: settings.to_json()})
        commit(run.target, lambda ledger: ledger, schema_change=metadata)
    return _as_check(run, settings, recall, plain)


def _searches(run: Run, dataset: LanceDataset, metric: Metric) -> tuple[_Search, _Search] | None:
    """Give the searches that choose the settings and those that judge them; None: too few."""
    queries, fragments = _draw(run, dataset, metric)
    half = len(queries.vectors) // 2
    if half < _FEWEST:
        return None
    farthest = farthest_neighbours(queries, fragments, K)
    return (
        _Search(dataset, queries.part(0, half), farthest[:half]),
        _Search(dataset, queries.part(half, 2 * half), farthest[half : 2 * half]),
    )


def _draw(run: Run, dataset: LanceDataset, metric: Metric) -> tuple[Queries, Fragments]:
    """Draw the queries; the same rows of a target give the same queries."""
    ledger = run.target.ledger()
    origins = RowOrigins(run.plan, ledger)
    row_ids = draw_row_ids(origins, 4 * _QUERIES, zlib.crc32(ledger.digest.encode()))
    condition = f"_rowid IN ({','.join(map(str, row_ids))})"
    table = dataset.to_table(columns=["vector"], filter=condition, with_row_id=True)
    column = table.column("vector").combine_chunks()
    vectors = matrix(column)
    chosen = np.flatnonzero(has_number(vectors) & column.is_valid().to_numpy(zero_copy_only=False))
    chosen = np.random.default_rng(0).permutation(chosen)[: 2 * _QUERIES]
    queries = Queries(
        table.column("_rowid").to_numpy()[chosen].astype(np.int64), vectors[chosen], metric
    )
    ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    return queries, Fragments(run.target.uri, dataset.version, ids, origins)


def _ladder(kind: str) -> Iterator[SearchSettings]:
    """Give settings for a kind of index, from cheap to dear."""
    refine_factors = (None,) if kind == "IVF_FLAT" else (None, *_REFINE)
    for nprobes in _PROBES:
        for refine_factor in refine_factors:
            ef = _EF_SHARE * (K + 1) * (refine_factor or 1) if "HNSW" in kind else None
            yield SearchSettings(nprobes, refine_factor, ef)


def _choose(
    choosing: _Search, judging: _Search, ladder: Iterator[SearchSettings], wanted: float
) -> tuple[SearchSettings, float]:
    """Choose the first settings that reach the recall on both halves; else the best of all."""
    best, best_choice = SearchSettings(), choosing.recall(SearchSettings())
    for settings in ladder:
        choice = choosing.recall(settings)
        if choice >= wanted:
            recall = judging.recall(settings)
            if recall >= wanted:
                return settings, recall
        if choice > best_choice:
            best, best_choice = settings, choice
    return best, judging.recall(best)


def _as_check(run: Run, settings: SearchSettings, recall: float, plain: float) -> Check:
    """Say what came of it, and how an application searches."""
    wanted = run.job.index.vector.recall
    by_default = f"{plain:.3f} with Lance's defaults"
    options = settings.as_nearest()
    named = ", ".join(f"{name} {value}" for name, value in options.items())
    if recall < wanted:
        detail = (
            f"no search reaches {wanted} of the {K} nearest: {recall:.3f} at best "
            f"({named or 'no settings'}), {by_default}; name another index.vector.type, lower "
            "index.vector.recall, or use type none, which compares every vector"
        )
        return Check(INDEX_RECALL, "fail", detail)
    keys = "".join(f', "{name}": {value}' for name, value in options.items())
    run.report.notes.append(
        f'search with nearest={{"column": "vector", "q": vector, "k": {K}{keys}}}; the key '
        f"{SEARCH_KEY} of the dataset's metadata holds these values"
    )
    detail = f"{recall:.3f} of the {K} nearest with {named}; {by_default}"
    return Check(INDEX_RECALL, "pass", detail)
