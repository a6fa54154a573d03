"""The arrays that stand in an object of a JSON text of any size, and how much each holds.

A file may hold several exports: ``{"users": [...], "posts": [...]}``.  Who reads one of them must
know of the others, so they are counted in one pass, block by block; nothing is parsed here.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cfray.formats.json_structure import Events, Structure

_BRACE, _COMMA = 0x7B, 0x2C
#: Keys of a path: GraphQL writes ``data.repository.issues.nodes``.
MAX_KEYS = 4
#: Bytes before a bracket that may hold its key.
_KEY_BYTES = 4096

Path = tuple[str, ...]


@dataclass(slots=True)
class ArrayContent:
    """What the arrays at one path hold.

    Attributes:
        elements: of any kind; an array without a comma counts as one element.
        objects: elements that are objects.
    """

    elements: int = 0
    objects: int = 0


@dataclass(slots=True)
class _OpenArray:
    """An array whose end has not come yet: its content so far, and the depth inside it."""

    content: ArrayContent
    depth: int


class _Walk:
    """Follows the objects near the top of a text from block to block, and passes over arrays."""

    def __init__(self) -> None:
        self.arrays: dict[Path, ArrayContent] = {}
        self._structure = Structure()
        #: Keys of the open objects; the top-level object's is empty.
        self._keys: list[str] = []
        self._array: _OpenArray | None = None
        #: The end of the last block, behind its last event.
        self._tail = b""

    def add(self, block: bytes) -> None:
        """Take the next block."""
        events = self._structure.find(block)
        first = 0
        near_top = np.flatnonzero(
            (events.opens & (events.depth <= MAX_KEYS + 1))
            | (events.closes & (events.depth <= MAX_KEYS))
        ).tolist()
        counts = _Counts(events)
        while first < len(events.offsets):
            if self._array is not None:
                first = self._pass_array(self._array, counts, first)
                continue
            position = bisect_right(near_top, first - 1)
            if position == len(near_top):
                break
            index = near_top[position]
            self._take(events, index, block)
            first = index + 1
        start = int(events.offsets[-1]) + 1 if len(events.offsets) else 0
        kept = block[start:] if len(events.offsets) else self._tail + block
        self._tail = kept[-_KEY_BYTES:]

    def _pass_array(self, array: _OpenArray, counts: _Counts, first: int) -> int:
        """Count what an array holds from an event on; give the number of the next event."""
        end = counts.end_of(array.depth, first)
        commas, objects = counts.between(array.depth, first, end)
        array.content.elements += commas
        array.content.objects += objects
        if end < counts.length:
            self._array = None
        return end + 1

    def _take(self, events: Events, index: int, block: bytes) -> None:
        if events.closes[index]:
            if self._keys:
                self._keys.pop()
            return
        key = self._key_before(events, index, block) if self._keys else ""
        if events.kinds[index] == _BRACE:
            self._keys.append(key)
            return
        path = (*self._keys[1:], key)
        # a top-level array, and one whose key is cut off, is skipped and not named
        content = self.arrays.setdefault(path, ArrayContent()) if key else ArrayContent()
        content.elements += 1
        self._array = _OpenArray(content, int(events.depth[index]))

    def _key_before(self, events: Events, index: int, block: bytes) -> str:
        """Read the key that stands before an opening bracket."""
        end = int(events.offsets[index])
        start = int(events.offsets[index - 1]) + 1 if index else 0
        text = block[start:end] if index else self._tail + block[:end]
        decoded = text[:_KEY_BYTES].decode(errors="replace").lstrip()
        try:
            key, _ = json.JSONDecoder().raw_decode(decoded)
        except json.JSONDecodeError:
            return ""
        return key if isinstance(key, str) else ""


class _Counts:
    """The commas and objects of a block by depth, so that a whole array is counted at once."""

    def __init__(self, events: Events) -> None:
        self.length = len(events.offsets)
        self._events = events
        self._ends: dict[int, list[int]] = {}
        self._sums: dict[int, tuple[list[int], list[int]]] = {}

    def end_of(self, depth: int, first: int) -> int:
        """Give the event that closes the array of this depth; the length where none does."""
        if depth not in self._ends:
            self._ends[depth] = np.flatnonzero(self._events.depth < depth).tolist()
        ends = self._ends[depth]
        position = bisect_right(ends, first - 1)
        return ends[position] if position < len(ends) else self.length

    def between(self, depth: int, first: int, end: int) -> tuple[int, int]:
        """Count the commas between elements, and the elements that are objects."""
        if depth not in self._sums:
            events = self._events
            is_comma = (events.kinds == _COMMA) & (events.depth == depth)
            is_object = (events.kinds == _BRACE) & events.opens & (events.depth == depth + 1)
            self._sums[depth] = (
                [0, *np.cumsum(is_comma).tolist()],
                [0, *np.cumsum(is_object).tolist()],
            )
        commas, objects = self._sums[depth]
        return commas[end] - commas[first], objects[end] - objects[first]


def find_arrays(blocks: Iterable[bytes]) -> dict[Path, ArrayContent]:
    """Count what the arrays hold that stand in the top-level objects, down to ``MAX_KEYS`` keys.

    Arrays inside arrays are elements, and no arrays of the result.

    Args:
        blocks: consecutive blocks of a JSON text in UTF-8; the text may be cut.
    """
    walk = _Walk()
    for block in blocks:
        walk.add(block)
    return walk.arrays


def record_arrays(arrays: dict[Path, ArrayContent]) -> Iterator[tuple[Path, int]]:
    """Give the arrays that hold objects, in their order, and how many objects each holds."""
    for path, content in arrays.items():
        if content.objects:
            yield path, content.objects
