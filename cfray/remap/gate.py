"""Judge a map by retrieval among documents that it was not learned from.

With labels (titles of the documents) the figure is what a user would notice: of the
documents that their titles find with the new model's vectors, the share that they find
with mapped vectors (hit@10).  Without labels it is how often the document that the new
model finds nearest is among the ten nearest mapped documents; this second figure is given
in either case.  Two other figures flatter a map and are not used: cosines, and documents
that find themselves.

A gate of a few thousand documents overstates a corpus of millions.  So the figure is
measured at four pool sizes, and ``extrapolation.py`` carries it to the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cfray.records.vectors import Floats
from cfray.remap.extrapolation import extrapolate
from cfray.remap.pairs import Pairs
from cfray.remap.verdict import Basis, CandidatePool, Verdict

Numbers = npt.NDArray[np.intp]

#: Neighbours that count.
TOP = 10
#: Blocks that the documents are cut into.  A query is asked among its document's block, then among
#: 2, 4 and all 8 blocks: so every query counts at every size, and nothing else differs between the
#: sizes.
BLOCKS = 8
LEVELS = (1, 2, 4, 8)
#: Queries that are asked at most: the standard error of a share is at most 0.0065 then.
MAX_QUERIES = 6000
#: Queries that are scored at a time: two matrices of 27,500 columns (the gate's part of 100,000
#: pairs) are 110 MB then.
QUERIES_AT_A_TIME = 512


@dataclass(frozen=True, slots=True)
class _Question:
    """Find document ``answers[i]`` by row i of the queries.

    Attributes:
        answers: ``(q,)`` numbers of the documents that the queries belong to, ascending.
        new_queries: ``(q, t)`` queries in the new model's space.
        new_documents: ``(p, t)`` documents by the new model.
        judged_queries: ``(q, u)`` queries in the space that is judged.
        judged_documents: ``(p, u)`` documents in the space that is judged.
        by_documents: each query is a document, which then is no answer to itself.
    """

    answers: Numbers
    new_queries: Floats
    new_documents: Floats
    judged_queries: Floats
    judged_documents: Floats
    by_documents: bool


@dataclass(frozen=True, slots=True)
class _Hits:
    """What each query found at each level, ``(q, levels)``.

    Attributes:
        top1: the new model's nearest document is among the ten nearest of the judged space.
        overlap: share of the new model's ten nearest documents that is among them.
        new: the new model finds the query's document among its ten nearest.
        judged: the judged space does.
    """

    top1: npt.NDArray[np.bool_]
    overlap: npt.NDArray[np.float64]
    new: npt.NDArray[np.bool_]
    judged: npt.NDArray[np.bool_]


def top1_in_10(pairs: Pairs, mapped: Floats) -> float:
    """Measure how often the new model's nearest document is among the ten nearest that are mapped.

    Args:
        pairs: at length 1, all of them the pool; their queries ask, or else each document asks for
            its neighbours.
        mapped: ``(n, t)`` their old vectors, mapped.
    """
    question = (
        _documents_ask(pairs, pairs.new, mapped)
        if pairs.queries is None
        else _queries_ask(pairs, pairs.queries, mapped)
    )
    return float(_ask(question, len(pairs), (1,)).top1.mean())


def decisive_share(pairs: Pairs, mapped: Floats) -> float:
    """Measure the figure that ``judge`` decides on; candidates are chosen by it.

    Args:
        pairs: at length 1, all of them the pool.
        mapped: ``(n, t)`` their old vectors, mapped.
    """
    if pairs.queries is None or not pairs.labelled:
        return top1_in_10(pairs, mapped)
    hits = _ask(_queries_ask(pairs, pairs.queries, mapped), len(pairs), (1,))
    return float(hits.judged.sum() / max(1, hits.new.sum()))


def judge(pairs: Pairs, mapped: Floats, candidate: str, rows: int, *, seed: int) -> Verdict:
    """Judge a map.

    Args:
        pairs: that neither fitted nor chose the map, at length 1; up to 7 are dropped, for equal
            blocks.
        mapped: ``(n, t)`` their old vectors, mapped.
        candidate: name of the method that made the map.
        rows: documents of the corpus.
        seed: of the resampling.
    """
    block_size = len(pairs) // BLOCKS
    pairs, mapped = pairs.take(np.arange(block_size * BLOCKS)), mapped[: block_size * BLOCKS]
    neighbours = _ask(_documents_ask(pairs, pairs.new, mapped), block_size, LEVELS)
    neighbours_old = _ask(_documents_ask(pairs, pairs.old, pairs.old), block_size, LEVELS)
    hits, old_hits = neighbours, None
    if pairs.queries is not None:
        hits = _ask(_queries_ask(pairs, pairs.queries, mapped), block_size, LEVELS)
        if pairs.old_queries is not None:
            question = _queries_ask(pairs, pairs.old_queries, pairs.old)
            old_hits = _ask(question, block_size, LEVELS)
    basis = _basis(pairs)
    pools = tuple(
        CandidatePool(
            size=block_size * blocks,
            top1_in_10=float(hits.top1[:, level].mean()),
            overlap=float(hits.overlap[:, level].mean()),
            neighbours_remapped=float(neighbours.top1[:, level].mean()),
            neighbours_old=float(neighbours_old.top1[:, level].mean()),
            new=None if basis == "documents" else float(hits.new[:, level].mean()),
            remapped=None if basis == "documents" else float(hits.judged[:, level].mean()),
            old=None if old_hits is None else float(old_hits.judged[:, level].mean()),
        )
        for level, blocks in enumerate(LEVELS)
    )
    sizes = [pool.size for pool in pools]
    nearest = extrapolate(hits.top1, sizes, rows, seed=seed)
    quality, lower, upper = nearest
    if basis == "titles":
        quality, lower, upper = extrapolate(hits.judged, sizes, rows, seed=seed, possible=hits.new)
    return Verdict(quality, lower, upper, rows, candidate, basis, len(hits.top1), pools, nearest)


def _basis(pairs: Pairs) -> Basis:
    if pairs.queries is None:
        return "documents"
    return "titles" if pairs.labelled else "sentences"


def _queries_ask(pairs: Pairs, queries: Floats, documents: Floats) -> _Question:
    """Ask with queries, in the space of ``queries`` and ``documents``.

    Only queries that every model embedded ask, so that all figures are of the same queries.
    """
    assert pairs.queries is not None
    has_query = pairs.queries.any(axis=1)
    if pairs.old_queries is not None:
        has_query &= pairs.old_queries.any(axis=1)
    answers = _thin_out(np.flatnonzero(has_query))
    return _Question(
        answers, pairs.queries[answers], pairs.new, queries[answers], documents, by_documents=False
    )


def _documents_ask(pairs: Pairs, queries: Floats, documents: Floats) -> _Question:
    """Ask with each document for its nearest neighbours."""
    answers = _thin_out(np.arange(len(pairs)))
    return _Question(
        answers, pairs.new[answers], pairs.new, queries[answers], documents, by_documents=True
    )


def _thin_out(numbers: Numbers) -> Numbers:
    """Keep at most ``MAX_QUERIES`` numbers, evenly spaced."""
    if len(numbers) <= MAX_QUERIES:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, MAX_QUERIES).astype(np.intp)]


def _ask(question: _Question, block_size: int, levels: tuple[int, ...]) -> _Hits:
    """Ask each query among so many blocks of documents, its own document's block among them."""
    batches = [
        _ask_batch(question, rows, block_size, levels)
        for rows in _batches(question.answers // block_size)
    ]
    return _Hits(
        *(
            np.concatenate([getattr(batch, name) for batch in batches])
            for name in ("top1", "overlap", "new", "judged")
        )
    )


def _batches(blocks: Numbers) -> Iterator[slice]:
    """Divide queries into batches; the documents of a batch's queries are in the same block."""
    borders = [0, *(np.flatnonzero(np.diff(blocks)) + 1), len(blocks)]
    for first, last in pairwise(borders):
        for start in range(first, last, QUERIES_AT_A_TIME):
            yield slice(start, min(start + QUERIES_AT_A_TIME, last))


def _ask_batch(question: _Question, rows: slice, block_size: int, levels: tuple[int, ...]) -> _Hits:
    answers = question.answers[rows]
    new_scores = question.new_queries[rows] @ question.new_documents.T
    judged_scores = question.judged_queries[rows] @ question.judged_documents.T
    if question.by_documents:
        queries = np.arange(len(answers))
        new_scores[queries, answers] = judged_scores[queries, answers] = -np.inf
    hits_by_level = []
    for level in levels:
        pool_size = block_size * level
        start = int(answers[0]) // pool_size * pool_size
        pool = slice(start, start + pool_size)
        hits_by_level.append(_compare(new_scores[:, pool], judged_scores[:, pool], answers - start))
    return _Hits(*(np.stack(columns, axis=1) for columns in zip(*hits_by_level, strict=True)))


def _compare(
    new_scores: Floats, judged_scores: Floats, answers: Numbers
) -> tuple[npt.NDArray[np.generic], ...]:
    """Compare the scores ``(q, p)`` of one pool; give the columns of ``_Hits``.

    Equal scores rank last, or a map that makes all documents equal would pass.
    """
    new_nearest = new_scores.argmax(axis=1, keepdims=True)
    score_of_nearest = np.take_along_axis(judged_scores, new_nearest, axis=1)
    top1 = (judged_scores >= score_of_nearest).sum(axis=1) <= TOP
    new_top, judged_top = (
        np.argpartition(scores, -TOP, axis=1)[:, -TOP:] for scores in (new_scores, judged_scores)
    )
    overlap = (new_top[:, :, None] == judged_top[:, None, :]).sum(axis=(1, 2)) / TOP
    return top1, overlap, _finds(new_scores, answers), _finds(judged_scores, answers)


def _finds(scores: Floats, answers: Numbers) -> npt.NDArray[np.bool_]:
    """Tell which queries have their document among the ten nearest."""
    score_of_answer = np.take_along_axis(scores, answers[:, None], axis=1)
    is_hit: npt.NDArray[np.bool_] = (scores >= score_of_answer).sum(axis=1) <= TOP
    return is_hit
