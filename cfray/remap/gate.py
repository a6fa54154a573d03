"""Judge a map by retrieval among documents it never saw.

Say what that means at the size of the whole corpus.

With labels (titles of the documents) the figure is what a user would notice: of
the documents that their titles find with the new model's vectors, the share that
they find with mapped ones (hit@10).  Without, it is how often the document that
the new model finds nearest is among the ten nearest mapped ones; it is given in
either case.  Cosines, and documents that find themselves, flatter a map and are not used.

A gate of a few thousand documents overstates a corpus of millions: so the
figure is taken at four pool sizes, and ``extrapolation.py`` carries it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cfray.records.vectors import Floats
from cfray.remap.extrapolation import extrapolated
from cfray.remap.pairs import Pairs
from cfray.remap.verdict import Basis, CandidatePool, Verdict

#: Neighbours that count.
TOP = 10
#: Blocks the pool is cut into.  A query is asked among its own document's block, then among 2, 4
#: and all 8 of them: so every query counts at every size, and the sizes differ in nothing else.
BLOCKS = 8
LEVELS = (1, 2, 4, 8)
#: Most queries asked: the standard error of a share is at most 0.0065 then.
MOST_QUERIES = 6000
#: Queries scored at a time; two matrices of 27,500 columns (the gate's part of 100,000 pairs) are
#: 110 MB then.
CHUNK = 512


@dataclass(frozen=True, slots=True)
class _Question:
    """Find document ``own[i]`` by row i of the queries.

    Attributes:
        own: ``(q,)`` ascending document numbers.
        truth: ``(q, t)`` queries for ``documents``, what the new model would say.
        documents: ``(p, t)`` by the new model.
        asked: ``(q, u)`` queries for ``found``.
        found: ``(p, u)`` the documents of the space that is judged.
        aside: leave a query's own document out: it is the query.
    """

    own: npt.NDArray[np.intp]
    truth: Floats
    documents: Floats
    asked: Floats
    found: Floats
    aside: bool


@dataclass(frozen=True, slots=True)
class _Answers:
    """What was found for each query at each level, ``(q, levels)``.

    Attributes:
        top1: the new model's nearest document is in the top 10.
        overlap: share of the new model's top 10 that is in it.
        new, found: the query's own document is in the top 10 of the new model, and of the space
            that is judged.
    """

    top1: npt.NDArray[np.bool_]
    overlap: npt.NDArray[np.float64]
    new: npt.NDArray[np.bool_]
    found: npt.NDArray[np.bool_]


def top1_in_10(pairs: Pairs, mapped: Floats) -> float:
    """Give how often the new model's nearest document is among the ten nearest mapped ones.

    In the whole pool.

    Args:
        pairs: at length 1; their queries ask, or else each document asks for its neighbours.
        mapped: ``(n, t)`` their old vectors, mapped.
    """
    question = (
        _of_documents(pairs, pairs.new, mapped)
        if pairs.queries is None
        else _of_queries(pairs, pairs.queries, mapped)
    )
    return float(_answered(question, len(pairs), (1,)).top1.mean())


def decisive(pairs: Pairs, mapped: Floats) -> float:
    """Give the figure that ``judge`` will decide on, in the whole pool.

    What candidates are chosen by.

    Args:
        pairs: at length 1.
        mapped: ``(n, t)`` their old vectors, mapped.
    """
    if pairs.queries is None or not pairs.labelled:
        return top1_in_10(pairs, mapped)
    answers = _answered(_of_queries(pairs, pairs.queries, mapped), len(pairs), (1,))
    return float(answers.found.sum() / max(1, answers.new.sum()))


def judge(pairs: Pairs, mapped: Floats, candidate: str, rows: int, *, seed: int) -> Verdict:
    """Judge a map.

    Args:
        pairs: the part that neither fitted nor chose the map, at length 1; up to 7 are left out so
            that eight blocks are equal.
        mapped: ``(n, t)`` their old vectors, mapped.
        candidate: what the way that made the map is called.
        rows: documents of the whole corpus.
        seed: of the resampling.
    """
    size = len(pairs) // BLOCKS
    pairs, mapped = pairs.kept(np.arange(size * BLOCKS)), mapped[: size * BLOCKS]
    neighbours = _answered(_of_documents(pairs, pairs.new, mapped), size, LEVELS)
    neighbours_old = _answered(_of_documents(pairs, pairs.old, pairs.old), size, LEVELS)
    asked, old = neighbours, None
    if pairs.queries is not None:
        asked = _answered(_of_queries(pairs, pairs.queries, mapped), size, LEVELS)
        old = (
            None
            if pairs.old_queries is None
            else _answered(_of_queries(pairs, pairs.old_queries, pairs.old), size, LEVELS)
        )
    labelled = pairs.queries is not None
    pools = tuple(
        CandidatePool(
            size=size * blocks,
            top1_in_10=float(asked.top1[:, level].mean()),
            overlap=float(asked.overlap[:, level].mean()),
            neighbours_remapped=float(neighbours.top1[:, level].mean()),
            neighbours_old=float(neighbours_old.top1[:, level].mean()),
            new=float(asked.new[:, level].mean()) if labelled else None,
            remapped=float(asked.found[:, level].mean()) if labelled else None,
            old=None if old is None else float(old.found[:, level].mean()),
        )
        for level, blocks in enumerate(LEVELS)
    )
    sizes = [pool.size for pool in pools]
    basis: Basis = "documents" if not labelled else "titles" if pairs.labelled else "sentences"
    nearest = extrapolated(asked.top1, sizes, rows, seed=seed)
    quality, lower, upper = (
        extrapolated(asked.found, sizes, rows, seed=seed, among=asked.new)
        if basis == "titles"
        else nearest
    )
    return Verdict(quality, lower, upper, rows, candidate, basis, len(asked.top1), pools, nearest)


def _of_queries(pairs: Pairs, asked: Floats, found: Floats) -> _Question:
    """Ask with the queries that exist in both models, where both were given.

    That every figure is of the same queries.
    """
    assert pairs.queries is not None
    asking = pairs.queries.any(axis=1)
    if pairs.old_queries is not None:
        asking &= pairs.old_queries.any(axis=1)
    own = _thinned(np.flatnonzero(asking))
    return _Question(own, pairs.queries[own], pairs.new, asked[own], found, aside=False)


def _of_documents(pairs: Pairs, asked: Floats, found: Floats) -> _Question:
    own = _thinned(np.arange(len(pairs)))
    return _Question(own, pairs.new[own], pairs.new, asked[own], found, aside=True)


def _thinned(own: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    if len(own) <= MOST_QUERIES:
        return own
    return own[np.linspace(0, len(own) - 1, MOST_QUERIES).astype(np.intp)]


def _answered(question: _Question, size: int, levels: tuple[int, ...]) -> _Answers:
    """Answer a question among so many blocks of ``size`` documents.

    Those that hold the query's own document.
    """
    parts = [
        _answered_block(question, rows, size, levels) for rows in _chunks(question.own // size)
    ]
    return _Answers(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("top1", "overlap", "new", "found")
        )
    )


def _chunks(blocks: npt.NDArray[np.intp]) -> Iterator[slice]:
    """Cut queries into runs of one block each, of at most ``CHUNK``."""
    borders = [0, *(np.flatnonzero(np.diff(blocks)) + 1), len(blocks)]
    for first, last in pairwise(borders):
        for start in range(first, last, CHUNK):
            yield slice(start, min(start + CHUNK, last))


def _answered_block(
    question: _Question, rows: slice, size: int, levels: tuple[int, ...]
) -> _Answers:
    own = question.own[rows]
    truth, found = (
        question.truth[rows] @ question.documents.T,
        question.asked[rows] @ question.found.T,
    )
    if question.aside:
        truth[np.arange(len(own)), own] = found[np.arange(len(own)), own] = -np.inf
    answers = []
    for level in levels:
        width = size * level
        start = int(own[0]) // width * width
        pool = slice(start, start + width)
        answers.append(_compared(truth[:, pool], found[:, pool], own - start))
    return _Answers(*(np.stack(columns, axis=1) for columns in zip(*answers, strict=True)))


def _compared(
    truth: Floats, found: Floats, own: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.generic], ...]:
    """Compare scores ``(q, p)`` of one pool.

    Equal scores rank last, or a map that makes all documents equal would pass.
    """
    nearest = np.take_along_axis(found, truth.argmax(axis=1, keepdims=True), axis=1)
    tops = [np.argpartition(scores, -TOP, axis=1)[:, -TOP:] for scores in (truth, found)]
    shared = (tops[0][:, :, None] == tops[1][:, None, :]).sum(axis=(1, 2)) / TOP
    hits = [
        (scores >= np.take_along_axis(scores, own[:, None], axis=1)).sum(axis=1) <= TOP
        for scores in (truth, found)
    ]
    return (found >= nearest).sum(axis=1) <= TOP, shared, *hits
