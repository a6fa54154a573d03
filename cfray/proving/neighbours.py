"""The true neighbours of some vectors: every vector of the dataset compared, in one pass, on Ray.

What an index finds is judged by this.  The distances are NumPy's, not Lance's, so that an
error of the engine cannot hide itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.engine.tasks import run_tasks
from cfray.proving.read_target import Fragments, task_groups
from cfray.records.vectors import has_number, matrix
from cfray.target.origins import RowOrigins

Metric = Literal["cosine", "l2", "dot"]
Floats32: TypeAlias = npt.NDArray[np.float32]
Floats64: TypeAlias = npt.NDArray[np.float64]
#: Columns of text, each with the text that a row must have in it.
Conditions: TypeAlias = tuple[tuple[str, str], ...]

#: Candidates kept beyond the neighbours asked for: the product of matrices orders them roughly.
_SPARE = 8


@dataclass(frozen=True, slots=True)
class Queries:
    """Vectors of the dataset that are searched for.

    Attributes:
        row_ids: ``(n,)``; a query's own row is none of its neighbours.
        vectors: ``(n, d)`` float32.
        metric: of the index.
        conditions: for each query, columns of text and what a neighbour must have in them.  Empty:
            any row is a neighbour.
    """

    row_ids: npt.NDArray[np.int64]
    vectors: Floats32
    metric: Metric
    conditions: tuple[Conditions, ...] = ()

    def part(self, start: int, end: int) -> Queries:
        """Give some of them."""
        return Queries(
            *(self.row_ids[start:end], self.vectors[start:end], self.metric),
            self.conditions[start:end],
        )

    @property
    def columns(self) -> list[str]:
        """Name the columns that tell which rows are neighbours."""
        named = {column for conditions in self.conditions for column, _ in conditions}
        return ["vector", *sorted(named)]


def distances(query: Floats32, vectors: Floats64, metric: Metric) -> Floats64:
    """Compute distances from ``(d,)`` to ``(n, d)``, in float64, as exact where they are tiny.

    ``l2`` is squared, ``cosine`` the squared distance of the vectors at length 1, and ``dot``
    the negative product: only their order means anything.
    """
    exact = query.astype(np.float64)
    if metric == "dot":
        products: Floats64 = vectors @ exact
        return -products
    if metric == "cosine":
        exact = exact / np.linalg.norm(exact)
        vectors = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    squares: Floats64 = np.square(vectors - exact).sum(axis=1)
    return squares


def farthest_neighbours(queries: Queries, fragments: Fragments, k: int) -> Floats64:
    """Give the distance of the k-th neighbour of each query: a nearer row is a true neighbour.

    Rows of equal distance are equally good, so no id is compared.

    Returns:
        ``(n,)`` float64; infinity where the dataset has fewer than k other rows with a vector.
    """
    groups = [
        Fragments(fragments.uri, fragments.version, group, fragments.origins)
        for group in task_groups(fragments.ids)
    ]
    nearest = np.full((len(queries.vectors), k), np.inf)
    for part in run_tasks(partial(nearest_in, queries, k), groups):
        nearest = np.sort(np.concatenate([nearest, part], axis=1), axis=1)[:, :k]
    return nearest[:, -1]


def nearest_in(queries: Queries, k: int, fragments: Fragments) -> Floats64:
    """Give the distances of the k nearest rows of some fragments, ``(n, k)``.

    Body of a Ray task.
    """
    nearest = np.full((len(queries.vectors), k), np.inf)
    for number in fragments.ids:
        for batch in fragments.batches(number, queries.columns):
            nearest = np.sort(
                np.concatenate([nearest, _nearest_of(queries, k, batch)], axis=1), axis=1
            )[:, :k]
    return nearest


def _nearest_of(queries: Queries, k: int, batch: pa.RecordBatch) -> Floats64:
    column = batch.column("vector")
    numbers = matrix(column)
    chosen = has_number(numbers) & column.is_valid().to_numpy(zero_copy_only=False)
    vectors, row_ids = numbers[chosen].astype(np.float64), batch.column("_rowid").to_numpy()[chosen]
    nearest = np.full((len(queries.vectors), k), np.inf)
    if not len(vectors):
        return nearest
    fitting = {
        conditions: _fits(conditions, batch)[chosen] for conditions in set(queries.conditions)
    }
    for row, rough in enumerate(_rough_distances(queries, vectors)):
        rough[row_ids == queries.row_ids[row]] = np.inf
        if queries.conditions:
            rough[~fitting[queries.conditions[row]]] = np.inf
        count = min(len(rough), k + _SPARE)
        candidates = np.argpartition(rough, count - 1)[:count]
        candidates = candidates[np.isfinite(rough[candidates])]
        exact = distances(queries.vectors[row], vectors[candidates], queries.metric)
        found = np.sort(exact)[:k]
        nearest[row, : len(found)] = found
    return nearest


def _fits(conditions: Conditions, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Tell which rows have the texts that some conditions name."""
    fits = np.ones(batch.num_rows, np.bool_)
    for column, text in conditions:
        is_equal = pc.fill_null(pc.equal(batch.column(column), text), pa.scalar(value=False))
        fits &= is_equal.to_numpy(zero_copy_only=False)
    return fits


def _rough_distances(queries: Queries, vectors: Floats64) -> Floats64:
    """Order the rows for each query, ``(n, rows)``, by one product of matrices in float64.

    In float32 the order of vectors that lie close together, far from the origin, would be lost.
    """
    rough: Floats64 = queries.vectors.astype(np.float64) @ -vectors.T
    if queries.metric == "cosine":
        rough /= np.linalg.norm(vectors, axis=1)
    elif queries.metric == "l2":
        rough *= 2
        rough += np.einsum("ij,ij->i", vectors, vectors)
    return rough


def draw_row_ids(origins: RowOrigins, count: int, seed: int) -> list[int]:
    """Draw rows among those that the ledger's entries brought; some of them may have left."""
    rows = origins.ends - origins.starts
    total = int(rows.sum())
    numbers = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    ends = np.cumsum(rows)
    entries = np.searchsorted(ends, numbers, "right")
    chosen = origins.starts[entries] + numbers - (ends - rows)[entries]
    return [int(row_id) for row_id in chosen]
