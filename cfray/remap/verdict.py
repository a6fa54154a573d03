"""The gate's verdict on a map, as facts for the report and as lines for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Basis = Literal["titles", "sentences", "documents"]

#: Decimals of a share in reports: finer than any gate can measure.
DECIMALS = 4


@dataclass(frozen=True, slots=True)
class CandidatePool:
    """Shares measured among the held-out documents of one pool.

    Attributes:
        size: documents of the pool.
        top1_in_10: queries whose nearest document, by the new model, is among the ten nearest
            mapped documents.
        overlap: mean share of the new model's ten nearest documents that is among the ten nearest
            mapped documents.
        neighbours_remapped: ``top1_in_10`` with each document as the query for the others, among
            mapped vectors; needs no query.
        neighbours_old: the same among the old vectors as they are, so that the two can always be
            compared.
        new, remapped, old: hit@10, queries that find their own document: with the new model's
            vectors, with mapped vectors, and with the old model for queries and documents.  None
            where there are no queries, or none of the old model.
    """

    size: int
    top1_in_10: float
    overlap: float
    neighbours_remapped: float
    neighbours_old: float
    new: float | None = None
    remapped: float | None = None
    old: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a map.

    Attributes:
        quality: at the size of the corpus, estimated on the cautious side: with titles the share of
            hit@10 that remains (remapped / new), else ``top1_in_10``.
        lower, upper: the 95 % interval of ``quality``.
        rows: documents of the corpus.
        candidate: the method that made the map.
        basis: what asked: titles (or logged queries), sentences of the documents, or documents.
        queries: how many asked.
        pools: what was measured, smallest pool first.
        nearest: ``top1_in_10`` at the size of the corpus, and its interval; with titles this is the
            stricter figure beside ``quality``.
    """

    quality: float
    lower: float
    upper: float
    rows: int
    candidate: str
    basis: Basis
    queries: int
    pools: tuple[CandidatePool, ...]
    nearest: tuple[float, float, float]

    @property
    def new(self) -> float | None:
        """Give the new model's hit@10 in the largest pool."""
        return self.pools[-1].new

    @property
    def remapped(self) -> float | None:
        """Give the map's hit@10 in the largest pool."""
        return self.pools[-1].remapped

    @property
    def old(self) -> float | None:
        """Give the old model's hit@10, end to end, in the largest pool."""
        return self.pools[-1].old

    def passes(self, min_quality: float) -> bool:
        """Tell whether even the lower bound reaches the quality that is asked for."""
        return self.lower >= min_quality

    def as_json(self) -> dict[str, Any]:
        """Give the verdict as parsed JSON, with rounded shares."""
        body = asdict(self) | {
            "nearest": [round(share, DECIMALS) for share in self.nearest],
            "new": self.new,
            "remapped": self.remapped,
            "old": self.old,
            "pools": [_rounded(asdict(pool)) for pool in self.pools],
        }
        return _rounded(body)

    def lines(self) -> list[str]:
        """Describe the verdict to people, in 4 or 5 lines."""
        pool = self.pools[-1]
        asked = {
            "titles": "titles",
            "sentences": "sentences of the documents",
            "documents": "documents, each for its nearest other document",
        }[self.basis]
        shares = "; ".join(f"{pool.top1_in_10:.3f} of {pool.size:,}" for pool in self.pools)
        unit = (
            "of the new model's own hits remain"
            if self.basis == "titles"
            else "of its nearest are among the remapped ten nearest"
        )
        return [
            (
                f"map: {self.candidate}, judged by {self.queries:,} {asked} among {pool.size:,} "
                "documents that it was not learned from"
            ),
            *self._hit_lines(pool),
            (
                "a document's nearest other document, by the new model, among the ten nearest: "
                f"remapped {pool.neighbours_remapped:.3f}, old space {pool.neighbours_old:.3f}"
            ),
            f"new model's nearest among the remapped ten nearest: {shares}",
            (
                f"at {self.rows:,} documents {self.quality:.3f} {unit}, between {self.lower:.3f} "
                f"and {self.upper:.3f}; the lower bound decides"
            ),
        ]

    def _hit_lines(self, pool: CandidatePool) -> list[str]:
        if pool.new is None or pool.remapped is None:
            return []
        old = "not measured: no query vectors of the old model"
        if pool.old is not None:
            old = f"{pool.old:.3f}"
        line = (
            f"own document among the ten nearest: new model {pool.new:.3f}, remapped "
            f"{pool.remapped:.3f}, old model end to end {old}"
        )
        return [line]


def _rounded(body: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, DECIMALS) if isinstance(value, float) else value
        for name, value in body.items()
    }
