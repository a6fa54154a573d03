"""The keys of custom_metadata: each field's own, whatever dots its names hold.

A field is named by its dotted path.  Where a rule leads into ``author``, the field ``author.name``
and the field ``name`` in ``author`` would have one key; so would a field that is called like a key
that cfray writes.  The deepest of such fields keeps the dotted path, and the others' keys begin
with ``source.``.  Which key a field has depends on its path and the rules alone, for a worker
sees the fields of one batch only.

No two fields share a key: those whose path ends alike, but for any ``source.`` that it begins with,
are counted through, and the key of each begins with as many ``source.`` as its number says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from cfray.frames.schema import ORIGINAL_ID, TYPES_KEY
from cfray.job.mapping import Path, dotted

_RESERVED = (ORIGINAL_ID, TYPES_KEY)
_PREFIX = "source."


def entered_paths(paths: Iterable[Path]) -> frozenset[Path]:
    """List the paths of the fields that rules lead into: what stands before a last name."""
    return frozenset(path[:depth] for path in paths for depth in range(1, len(path)))


def metadata_key(path: Path, entered: AbstractSet[Path]) -> str:
    """Name a field in custom_metadata.

    Args:
        path: of the field.
        entered: of the fields that rules lead into, as ``entered_paths`` lists them.
    """
    name = dotted(path)
    if "." not in name:
        return f"{_PREFIX}{name}" if name in _RESERVED else name
    root, depth = name, 0
    while root.startswith(_PREFIX):
        root, depth = root[len(_PREFIX) :], depth + 1
    number = 0
    for level in range(depth + 1):
        level_name = _PREFIX * level + root
        is_reserved = level_name.rpartition(_PREFIX)[2] in _RESERVED
        number = max(number, level + is_reserved)
        fields = _fields_of_name(level_name, entered)
        if level == depth:
            return _PREFIX * (number + fields.index(path)) + root
        number += len(fields)
    raise AssertionError(path)  # the last level returns


def _fields_of_name(name: str, entered: AbstractSet[Path]) -> list[Path]:
    """List the paths that a field of this dotted name may have, the deepest first.

    Next is the column that is called so, then the others by their depth.
    """
    deepest, *shallower = sorted(_splits((), name, entered), key=lambda path: (-len(path), path))
    return [deepest, *sorted(shallower, key=lambda path: (len(path) > 1, -len(path), path))]


def _splits(parent: Path, remainder: str, entered: AbstractSet[Path]) -> Iterator[Path]:
    """Split a dotted name into paths that may exist: each parent is one that a rule leads into."""
    yield (*parent, remainder)
    for child in {path[-1] for path in entered if path[:-1] == parent}:
        if remainder.startswith(f"{child}."):
            yield from _splits((*parent, child), remainder[len(child) + 1 :], entered)


def field_of(key: str, entered: AbstractSet[Path]) -> Path:
    """Give the path of the field that a key stands for: the inverse of ``metadata_key``.

    Raises:
        ValueError: no field has this key.
    """
    root = key
    while root.startswith(_PREFIX):
        root = root[len(_PREFIX) :]
    names = [_PREFIX * level + root for level in range(key.count(_PREFIX) + 1)]
    paths = (path for name in names for path in _splits((), name, entered))
    for path in paths:
        if metadata_key(path, entered) == key:
            return path
    raise ValueError(f"no field has the key {key!r}")
