"""Numbers with their nouns, as people write them: ``1 shard``, ``2,000 shards``.

A sentence for the operator never says "1 shards".
"""

from __future__ import annotations

#: Plural nouns in the names of a report's counts.
_PLURALS = frozenset(
    {
        *("chunks", "files", "fragments", "frames", "hits", "pieces", "records", "references"),
        *("rows", "shards", "texts", "tokens", "vectors", "versions"),
    }
)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun.

    Args:
        number: of the things.
        noun: of one thing.
        plural: of several things, where it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def counted_name(number: int, name: str) -> str:
    """Write a number with the name of a count: ``shards_planned`` of 1 is ``1 shard planned``."""
    words = name.split("_")
    if number == 1:
        words = [word[:-1] if word in _PLURALS else word for word in words]
    return f"{number:,} {' '.join(words)}"
