"""The structure of a JSON text of any size, found block by block: where values begin and end.

Strings, brackets and commas are found by numpy; nothing is parsed here.  ``ElementEnds`` cuts a
file into the elements of its arrays, or its objects; ``find_containers`` finds the arrays or
objects that stand under a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_QUOTE, _COMMA, _BACKSLASH = 0x22, 0x2C, 0x5C
#: ``[`` and ``]``; ``{`` and ``}`` are the same with bit 0x20 set.
_OPEN, _CLOSE = 0x5B, 0x5D
_BRACE = 0x7B
_FOLD = 0xDF
_SEPARATOR = 0x1E
#: Bytes of a member that are kept to name it.
_MEMBER_BYTES = 4096
#: Characters of a value that a note shows.
_SHOWN_CHARACTERS = 40

Offsets = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Events:
    """The brackets and commas of a block that stand outside strings.

    Attributes:
        offsets: in the block.
        kinds: the bytes.
        opens: which of them open an array or object.
        closes: which of them close one.
        depth: how many are open behind each.
    """

    offsets: Offsets
    kinds: npt.NDArray[np.uint8]
    opens: _Flags
    closes: _Flags
    depth: Offsets


class Structure:
    """Finds brackets and commas outside strings in consecutive blocks.

    Attributes:
        depth: arrays and objects that are open at the end of the last block.
    """

    def __init__(self) -> None:
        """Start at the start of a text."""
        self.depth = 0
        self._in_string = False
        #: Backslashes at the end of the last block.
        self._slashes = 0

    def find(self, block: bytes) -> Events:
        """Give the events of the next block."""
        data = np.frombuffer(block, np.uint8)
        folded = data & _FOLD
        offsets = np.flatnonzero(
            (data == _QUOTE) | (data == _COMMA) | (folded == _OPEN) | (folded == _CLOSE)
        )
        kinds = data[offsets]
        offsets = offsets[~((kinds == _QUOTE) & self._escaped(data, offsets))]
        kinds = data[offsets]
        quotes = kinds == _QUOTE
        counts = np.cumsum(quotes)
        outside = ((counts - quotes + self._in_string) & 1 == 0) & ~quotes
        if len(offsets):
            self._in_string = bool((int(counts[-1]) + self._in_string) & 1)
        trailing = len(block) - len(block.rstrip(b"\\"))
        self._slashes = trailing + (self._slashes if trailing == len(block) else 0)
        offsets, kinds = offsets[outside], kinds[outside]
        folds = kinds & _FOLD
        opens, closes = folds == _OPEN, folds == _CLOSE
        depth = self.depth + np.cumsum(opens.astype(np.int64) - closes)
        if len(offsets):
            self.depth = int(depth[-1])
        return Events(offsets, kinds, opens, closes, depth)

    def _escaped(self, data: npt.NDArray[np.uint8], events: Offsets) -> _Flags:
        """Tell which events have an odd number of backslashes before them."""
        slashes = np.flatnonzero(data == _BACKSLASH)
        starts = slashes[np.diff(slashes, prepend=-2) != 1]
        before = np.where(data[events - 1] == _BACKSLASH, events, 0)
        run = np.searchsorted(starts, before) - 1
        length = (
            np.where(run >= 0, before - starts[run], 0)
            if len(starts)
            else np.zeros(len(events), np.int64)
        )
        carried = (before == length) & (before > 0) | (events == 0)
        odd: _Flags = (
            np.where(events == 0, 0, length) + np.where(carried, self._slashes, 0)
        ) & 1 == 1
        return odd


class ElementEnds:
    """Finds the ends of elements in consecutive blocks.

    A record ends behind the opening bracket of a top-level array, behind each comma between its
    elements and behind every last bracket.  So brackets, commas and elements together are the file.
    """

    def __init__(self, *, members: bool = False) -> None:
        """Start at the start of the file; with ``members`` objects are cut like arrays."""
        self._structure = Structure()
        self._members = members
        self._is_cut = False

    def __call__(self, block: bytes) -> list[int]:
        """Give the offsets behind each record that ends in the block."""
        events = self._structure.find(block)
        if not len(events.offsets):
            return []
        top_level = events.opens & (events.depth == 1)
        is_cut = self._inherit(top_level, events.kinds)
        ends = (events.closes & (events.depth == 0)) | (
            is_cut & (events.depth == 1) & (top_level | ~(events.opens | events.closes))
        )
        record_ends: list[int] = (events.offsets[ends] + 1).tolist()
        return record_ends

    def _inherit(self, top_level: _Flags, kinds: npt.NDArray[np.uint8]) -> _Flags:
        """Tell for each event whether the top-level value that it is in is cut into elements."""
        index = np.maximum.accumulate(np.where(top_level, np.arange(len(kinds)), -1))
        cut_there = (kinds[np.maximum(index, 0)] != _BRACE) | self._members
        is_cut: _Flags = np.where(index < 0, self._is_cut, cut_there)
        self._is_cut = bool(is_cut[-1])
        return is_cut


def separator_ends(block: bytes) -> list[int]:
    """Give the offsets of record separators (RFC 7464): each begins a record and ends one."""
    offsets: list[int] = np.flatnonzero(np.frombuffer(block, np.uint8) == _SEPARATOR).tolist()
    return offsets


@dataclass(frozen=True, slots=True)
class Container:
    """An array or object that stands under a key.

    Attributes:
        start: offset of its opening bracket.
        end: offset behind its closing bracket; None where the text ends before.
        is_array: whether it is an array.
    """

    start: int
    end: int | None
    is_array: bool


@dataclass(slots=True)
class Containers:
    """What ``find_containers`` found.

    Attributes:
        under_key: the containers under the key, in their order.
        beside: dotted paths of the other members, with a short value where they have one.
        arrays: dotted paths of the members that are arrays or objects.
        is_object: whether the first top-level value is an object.
        repeats_key: whether an object has the key of the last container twice.
        is_whole: whether every bracket is closed.
    """

    under_key: list[Container] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, None] = field(default_factory=dict)
    is_object: bool = False
    repeats_key: bool = False
    is_whole: bool = True


class _Walk:
    """Follows a path of keys through the brackets near the top of a text."""

    def __init__(self, path: tuple[str, ...]) -> None:
        self.result = Containers()
        self._path = path
        #: For each open container: is it on the path, is it an object, its key.
        self._stack: list[tuple[bool, bool, str]] = []
        self._text = b""
        self._has_target = False

    @property
    def depth(self) -> int:
        """Give the number of open arrays and objects."""
        return len(self._stack)

    def add_text(self, text: bytes) -> None:
        """Take bytes between two events; only the first few are kept."""
        if len(self._text) < _MEMBER_BYTES:
            self._text += text[: _MEMBER_BYTES - len(self._text)]

    def open(self, offset: int, *, is_array: bool) -> None:
        """Enter an array or object."""
        depth = len(self._stack)
        if depth == 0:
            on_path, key = True, ""
            self.result.is_object |= not is_array
        else:
            on_parent, is_object, _ = self._stack[-1]
            key = self._member()[0] if on_parent and is_object else ""
            on_path = on_parent and is_object and depth <= len(self._path)
            if on_path:
                self.result.arrays.setdefault(self._dotted(key))
                on_path = key == self._path[depth - 1]
        if on_path and depth == len(self._path) - 1:
            self._has_target = False
        elif on_path and depth == len(self._path):
            self.result.repeats_key |= self._has_target and depth > 0
            self._has_target = True
            self.result.under_key.append(Container(offset, None, is_array))
        self._stack.append((on_path, not is_array, key))
        self._text = b""

    def close(self, offset: int) -> None:
        """Leave the innermost array or object."""
        self._note_member()
        on_path, _, key = self._stack.pop()
        if on_path and len(self._stack) == len(self._path):
            last = self.result.under_key[-1]
            self.result.under_key[-1] = Container(last.start, offset + 1, last.is_array)
        elif self._stack and not on_path and self._stack[-1][0] and self._stack[-1][1]:
            self.result.beside.setdefault(self._dotted(key), "")
        # what stands between the bracket and the next comma is no member
        self._text = b""

    def comma(self) -> None:
        """Pass a comma between members."""
        self._note_member()
        self._text = b""

    def _note_member(self) -> None:
        """Note a member whose value is no array and no object."""
        on_path, is_object, _ = self._stack[-1]
        if not (on_path and is_object and len(self._stack) <= len(self._path)):
            return
        key, value = self._member()
        if key:
            self.result.beside.setdefault(self._dotted(key), value[:_SHOWN_CHARACTERS])

    def _member(self) -> tuple[str, str]:
        """Split the text since the last event into a key and the value behind it."""
        text = self._text.decode(errors="replace").lstrip()
        try:
            key, end = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            return "", ""
        return (key, text[end:].strip(" \t\r\n:")) if isinstance(key, str) else ("", "")

    def _dotted(self, key: str) -> str:
        return ".".join([*(name for _, _, name in self._stack[1:]), key])


def find_containers(blocks: Iterable[bytes], path: tuple[str, ...]) -> Containers:
    """Find the arrays and objects that stand under a path of keys in each top-level object.

    Args:
        blocks: consecutive blocks of a JSON text; all of them are read.
        path: the keys; an empty path means the top-level values.
    """
    structure, walk = Structure(), _Walk(path)
    offset = 0
    for block in blocks:
        events = structure.find(block)
        shallow = (
            (events.opens & (events.depth <= len(path) + 1))
            | (events.closes & (events.depth <= len(path)))
            | (~events.opens & ~events.closes & (events.depth <= len(path)))
        )
        last = 0
        for at, opens, closes, kind in zip(
            events.offsets[shallow].tolist(),
            events.opens[shallow].tolist(),
            events.closes[shallow].tolist(),
            events.kinds[shallow].tolist(),
            strict=True,
        ):
            walk.add_text(block[last : min(at, last + _MEMBER_BYTES)])
            last = at + 1
            if opens:
                walk.open(offset + at, is_array=kind != _BRACE)
            elif closes and walk.depth:
                walk.close(offset + at)
            elif walk.depth:
                walk.comma()
        walk.add_text(block[last : last + _MEMBER_BYTES])
        offset += len(block)
    walk.result.is_whole = structure.depth == 0
    return walk.result
