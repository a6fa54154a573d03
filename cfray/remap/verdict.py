"""What the gate found, as facts for the report and as lines for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Basis = Literal["titles", "sentences", "documents"]

#: Decimals of a share in reports: finer than any gate can tell.
DECIMALS = 4


@dataclass(frozen=True, slots=True)
class CandidatePool:
    """Shares found among so many held-out documents.

    Attributes:
        size: documents.
        top1_in_10: queries whose nearest document, by the new model, is among the ten nearest
            mapped ones.
        overlap: mean share of the new model's ten nearest that is among the ten nearest mapped
            ones.
        neighbours_remapped, neighbours_old: ``top1_in_10`` with each document as query for others,
            in the mapped space and in the old space as it is; needs no query, so the two can always
            be compared.
        new, remapped, old: hit@10, queries that find their own document: with the new model's
            vectors, with mapped ones, and with the old model for queries and documents.  None where
            there are no queries, or none of the old model.
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
    """The judgement of one map.

    Attributes:
        quality: at the size of the corpus, estimated on the cautious side: with titles the share of
            hit@10 that is left (remapped / new), else ``top1_in_10``.
        lower, upper: its 95 % interval.
        rows: documents of the corpus.
        candidate: the way that made the map.
        basis: what was asked: titles (or logged queries), sentences of the documents, or documents.
        queries: how many were asked.
        pools: what was measured, smallest pool first.
        nearest: ``top1_in_10`` at the size of the corpus, and its interval: with titles, the
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
        """Give the old model's hit@10 in the largest pool, end to end."""
        return self.pools[-1].old

    def passed(self, min_quality: float) -> bool:
        """Tell whether even the lower bound reaches what is asked for."""
        return self.lower >= min_quality

    def as_json(self) -> dict[str, Any]:
        """Give all of it as parsed JSON, shares rounded."""
        body = asdict(self) | {
            "nearest": [round(share, DECIMALS) for share in self.nearest],
            "new": self.new,
            "remapped": self.remapped,
            "old": self.old,
            "pools": [_rounded(asdict(pool)) for pool in self.pools],
        }
        return _rounded(body)

    def lines(self) -> list[str]:
        """Say it to people, in 4 or 5 lines."""
        pool = self.pools[-1]
        asked = {
            "titles": "titles",
            "sentences": "sentences of the documents",
            "documents": "documents, each for its nearest other",
        }[self.basis]
        lines = [
            f"map: {self.candidate}, judged by {self.queries:,} {asked} among {pool.size:,} documents it never saw"
        ]
        if pool.new is not None and pool.remapped is not None:
            old = (
                "not measured: no query vectors of the old model"
                if pool.old is None
                else f"{pool.old:.3f}"
            )
            lines.append(
                f"own document among the ten nearest: new model {pool.new:.3f}, remapped {pool.remapped:.3f}, old model end to end {old}"
            )
        lines.append(
            f"a document's nearest other, by the new model, among the ten nearest: remapped {pool.neighbours_remapped:.3f}, old space {pool.neighbours_old:.3f}"
        )
        lines.append(
            f"new model's nearest among the remapped ten nearest: {' '.join(f'{one.top1_in_10:.3f} of {one.size:,};' for one in self.pools)[:-1]}"
        )
        what = (
            "of the new model's own hits are left"
            if self.basis == "titles"
            else "of its nearest are among the remapped ten nearest"
        )
        lines.append(
            f"at {self.rows:,} documents {self.quality:.3f} {what}, between {self.lower:.3f} and {self.upper:.3f}; the lower bound decides"
        )
        return lines


def _rounded(body: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, DECIMALS) if isinstance(value, float) else value
        for name, value in body.items()
    }
