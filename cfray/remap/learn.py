"""Learn a map from a sample and judge it.

Every way is fitted on one part, the best is chosen on a second, judged on a third.

The third part decides nothing but the verdict.  A figure taken where the
choice was made would be the luckiest of several.
"""

from __future__ import annotations

from cfray.remap.gate import decisive, judge
from cfray.remap.maps import Map
from cfray.remap.pairs import Pairs
from cfray.remap.solve import candidates
from cfray.remap.verdict import Verdict


def learn(pairs: Pairs, rows: int, *, seed: int = 0) -> tuple[Map, Verdict]:
    """Find the best map and say how good it is at the size of the corpus.

    Args:
        pairs: a uniform sample of the corpus with vectors of both models; 5,000 are a floor,
            quality still rises at 20,000 (embeddings.md, part 4).
        rows: documents that will be searched together, the sample among them.
        seed: of everything random; the same seed gives the same map and the same verdict.

    Returns:
        The map and its verdict.  Whether the verdict is good enough is the caller's decision.

    Raises:
        ConfigError: too few usable pairs.
    """
    fit, select, gate = pairs.usable().split(seed)
    best: tuple[float, str, Map] | None = None
    for name, found in candidates(fit, seed):
        share = decisive(select, found.apply(select.old))
        if best is None or share > best[0]:  # of equal ones the first, which is the simpler
            best = (share, name, found)
    assert best is not None  # procrustes and affine are always tried
    _, name, chosen = best
    return chosen, judge(gate, chosen.apply(gate.old), name, rows, seed=seed)
