"""Names of fields, each its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def unique_names(names: Sequence[str]) -> list[str]:
    """Number the names that stand several times: ``score``, ``score`` are ``score#1``, ``score#2``.

    A number that another column's name already ends in is passed over.
    """
    counts = Counter(names)
    used_names = set(names)
    unique: list[str] = []
    for name in names:
        number = 1
        candidate = name
        while counts[name] > 1 and candidate in used_names:
            candidate = f"{name}#{number}"
            number += 1
        used_names.add(candidate)
        unique.append(candidate)
    return unique
