"""Pairs: documents with their old and their new vector, which a map is learned from and judged on.

The pairs are cut into parts that share no document.  Two records of the same text have the
same new vector, and only the first of them is used: with a twin in another part, or beside
it as its nearest document, any map would look better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from cfray.errors import ConfigError
from cfray.records.vectors import Floats
from cfray.remap.maps import unit_rows

#: Shares of the pairs to fit maps on and to choose a map on; the remaining 27.5 % judge.  Of
#: 20,000 pairs these are 12,000, 2,500 and 5,500.
FIT_SHARE, SELECT_SHARE = 0.6, 0.125
#: Pairs below which nothing can be judged: the smallest pool, an eighth of the part that judges,
#: has 34 documents then.
LEAST_PAIRS = 1000
#: Queries below which documents are asked instead: 275 queries judge then, with a standard error of
#: 0.02 at a quality of 0.9.
LEAST_QUERIES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A sample of records, embedded by both models; row i of every array is the same document.

    Attributes:
        old: ``(n, s)`` float32, as stored.
        new: ``(n, t)`` float32 of the new model.  Each distinct text is embedded once, for twins
            are recognised by identical bytes.
        queries: ``(n, t)`` float32, the new model's query vector of a title or first sentence of
            the same document; a zero row where the document has no query.  None: documents are
            asked for their neighbours instead.
        old_queries: ``(n, s)`` float32, the old model's vectors of the same queries, where that
            model can still be run.
        labelled: the queries are titles or logged queries, not sentences of the documents.
    """

    old: Floats = field(repr=False)
    new: Floats = field(repr=False)
    queries: Floats | None = field(default=None, repr=False)
    old_queries: Floats | None = field(default=None, repr=False)
    labelled: bool = False

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths: row i would not be the same document.

        Raises:
            ConfigError: the arrays differ in their number of rows.
        """
        lengths = {
            len(array)
            for array in (self.old, self.new, self.queries, self.old_queries)
            if array is not None
        }
        if len(lengths) > 1:
            raise ConfigError(
                f"pairs with {sorted(lengths)} rows: row i of each array must be one document",
                "leave a document out of all of the arrays or of none",
            )

    def __len__(self) -> int:
        """Count the documents."""
        return len(self.old)

    def clean(self) -> Self:
        """Give each distinct document that has both vectors, at length 1.

        Fewer queries than ``LEAST_QUERIES`` are dropped.

        Raises:
            ConfigError: fewer than ``LEAST_PAIRS`` documents remain.
        """
        distinct = self.take(_first_of_equal_rows(self.new))
        pairs = replace(
            distinct,
            old=unit_rows(distinct.old),
            new=unit_rows(distinct.new),
            queries=None if distinct.queries is None else unit_rows(distinct.queries),
            old_queries=None if distinct.old_queries is None else unit_rows(distinct.old_queries),
        )
        pairs = pairs.take(np.flatnonzero(pairs.old.any(axis=1) & pairs.new.any(axis=1)))
        if len(pairs) < LEAST_PAIRS:
            raise ConfigError(
                f"{len(pairs):,} distinct documents with an old and a new vector are too few to "
                f"learn a map and to judge it; {LEAST_PAIRS:,} are the least",
                "set embedding.policy: regenerate, which costs little for so few",
            )
        if pairs.queries is not None and pairs.queries.any(axis=1).sum() < LEAST_QUERIES:
            return type(pairs)(pairs.old, pairs.new)
        return pairs

    def split(self, seed: int) -> tuple[Self, Self, Self]:
        """Cut the pairs at random into a part to fit on, a part to choose on, a part to judge on.

        The same seed gives the same parts.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        select_start = round(FIT_SHARE * len(self))
        judge_start = round((FIT_SHARE + SELECT_SHARE) * len(self))
        return (
            self.take(order[:select_start]),
            self.take(order[select_start:judge_start]),
            self.take(order[judge_start:]),
        )

    def take(self, rows: npt.NDArray[np.intp]) -> Self:
        """Give the documents of these rows, in their order."""
        return replace(
            self,
            old=self.old[rows],
            new=self.new[rows],
            queries=None if self.queries is None else self.queries[rows],
            old_queries=None if self.old_queries is None else self.old_queries[rows],
        )


def _first_of_equal_rows(vectors: Floats) -> npt.NDArray[np.intp]:
    """Give the number of the first row of each group of identical rows, ascending."""
    rows = np.ascontiguousarray(vectors, np.float32)
    rows_as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    return np.sort(np.unique(rows_as_bytes, return_index=True)[1])
