"""What a map is learnt from and judged on.

Documents with their old and their new vector, cut into parts that never meet.

Two records of one text have one new vector.  Only the first is kept: with a
twin on the other side of a cut, or beside it as its own nearest document, any
map looks better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from cfray.errors import ConfigError
from cfray.records.vectors import Floats
from cfray.remap.maps import unit

#: Shares of the pairs to fit on and to choose on; the rest, 27.5 %, judges.  Of 20,000: 12,000,
#: 2,500 and 5,500.
FIT, SELECT = 0.6, 0.125
#: Pairs below which nothing can be judged: the smallest pool, an eighth of the gate's part, is 34
#: documents then.
FEWEST = 1000
#: Queries below which documents are asked instead: 275 reach the gate, a standard error of 0.02 at
#: a quality of 0.9.
FEWEST_QUERIES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A sample of records, embedded by both models; row i of every array is the same document.

    Attributes:
        old: ``(n, s)`` float32, as stored.
        new: ``(n, t)`` float32 of the new model; each distinct text embedded once, for twins are
            known by identical bytes.
        queries: ``(n, t)`` float32, the new model's query vector of a title or first sentence of
            the same document; a zero row where it has none.  None: documents are asked for their
            neighbours instead.
        old_queries: ``(n, s)`` float32, the old model's of the same texts, where that model can
            still be run.
        labelled: the queries are titles or logged queries, not sentences taken from the document.
    """

    old: Floats = field(repr=False)
    new: Floats = field(repr=False)
    queries: Floats | None = field(default=None, repr=False)
    old_queries: Floats | None = field(default=None, repr=False)
    labelled: bool = False

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths: row i would not be one document.

        Raises:
            ConfigError: some have another number of rows.
        """
        lengths = {
            len(array)
            for array in (self.old, self.new, self.queries, self.old_queries)
            if array is not None
        }
        if len(lengths) > 1:
            raise ConfigError(
                f"pairs with {sorted(lengths)} rows: row i of each array must be one document",
                "leave a document out of all of them or of none",
            )

    def __len__(self) -> int:
        """Count the documents."""
        return len(self.old)

    def usable(self) -> Self:
        """Keep each distinct document that has both vectors, at length 1.

        Too few queries count as none.

        Raises:
            ConfigError: fewer than ``FEWEST`` are left.
        """
        found = self.kept(_firsts(self.new))
        normal = type(found)(
            unit(found.old),
            unit(found.new),
            None if found.queries is None else unit(found.queries),
            None if found.old_queries is None else unit(found.old_queries),
            found.labelled,
        )
        normal = normal.kept(np.flatnonzero(normal.old.any(axis=1) & normal.new.any(axis=1)))
        if len(normal) < FEWEST:
            raise ConfigError(
                f"{len(normal):,} distinct documents with an old and a new vector are too few to learn a map and to judge it; {FEWEST:,} are the least",
                "set embedding.policy: regenerate, which costs little for so few",
            )
        if normal.queries is not None and normal.queries.any(axis=1).sum() < FEWEST_QUERIES:
            return type(normal)(normal.old, normal.new)
        return normal

    def split(self, seed: int) -> tuple[Self, Self, Self]:
        """Cut at random, the same way for the same seed, into a part to fit on.

        One to choose on and one to judge on.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        first, second = round(FIT * len(self)), round((FIT + SELECT) * len(self))
        return self.kept(order[:first]), self.kept(order[first:second]), self.kept(order[second:])

    def kept(self, rows: npt.NDArray[np.intp]) -> Self:
        """Give the documents of some row numbers, in their order."""
        queries = None if self.queries is None else self.queries[rows]
        old_queries = None if self.old_queries is None else self.old_queries[rows]
        return type(self)(self.old[rows], self.new[rows], queries, old_queries, self.labelled)


def _firsts(vectors: Floats) -> npt.NDArray[np.intp]:
    """Give the row numbers of the first of each run of identical rows, ascending."""
    rows = np.ascontiguousarray(vectors, np.float32)
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    return np.sort(np.unique(whole, return_index=True)[1])
