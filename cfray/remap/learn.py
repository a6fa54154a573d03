"""Learn a map from a sample and judge it: fit on one part, choose on a second, judge on a third.

The third part decides nothing but the verdict: a figure measured on the part that chose
the map would be the luckiest of several.
"""

from __future__ import annotations

from cfray.remap.gate import decisive_share, judge
from cfray.remap.maps import Map
from cfray.remap.pairs import Pairs
from cfray.remap.solve import fit_candidates
from cfray.remap.verdict import Verdict


def learn_best_map(pairs: Pairs, rows: int, *, seed: int = 0) -> tuple[Map, Verdict]:
    """Find the best map and say how good it is at the size of the corpus.

    Args:
        pairs: a uniform sample of the corpus with vectors of both models.  More pairs gave better
            maps up to 20,000, the largest sample that was measured.
        rows: documents that will be searched together, including the sample.
        seed: of everything random; the same seed gives the same map and the same verdict.

    Returns:
        The map and its verdict.  The caller decides whether the verdict is good enough.

    Raises:
        ConfigError: there are too few usable pairs.
    """
    fit, select, gate = pairs.clean().split(seed)
    best: tuple[float, str, Map] | None = None
    for name, candidate in fit_candidates(fit, seed):
        share = decisive_share(select, candidate.apply(select.old))
        # Of equally good maps the first is chosen, which is the simplest.
        if best is None or share > best[0]:
            best = (share, name, candidate)
    # Procrustes and the affine map are always tried.
    assert best is not None
    _, name, chosen = best
    return chosen, judge(gate, chosen.apply(gate.old), name, rows, seed=seed)
