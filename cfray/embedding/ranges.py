"""Take the rows of an item range by range, so that a row which kills its actor costs no other row.

Ray repeats an item whose process died, without end.  So each range is marked durably before it
starts; a repeat that finds a range begun and unfinished halves it, down to the row that kills.
That row is given up after three starts, if the model embeds another text before and after the
last of them; otherwise the run stops.  Marks and files belong to the item: a resume goes on from
them, and a finished range is never done again.  Usually the whole item is one range: one mark,
one file.  This module knows no model, no Ray and no Lance.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import xxhash

from cfray.errors import TargetError
from cfray.runtime.filesystems import Folder

#: Why a row is given up, as its quarantine file says it.
DEADLY_TEXT = (
    "the embedding actor died three times over this text (out of memory, or a crash in native code)"
)

#: How often a row alone is started, and how often another text is tried, before cfray gives up.
_MAX_STARTS = _MAX_TRIALS = 3

#: First row, rows, nonce and kind.  ``begun``: the range was started.  ``trial-<epoch>``: another
#: text than the row's was tried in the run of that epoch.  ``arrow``: the range is finished, and
#: the hash of the file's content stands in the nonce's place.
_NAME = re.compile(r"(\d+)-(\d+)\.[0-9a-f]{16}\.(begun|trial-\d+|arrow)")


class RangeWork(Protocol):
    """What is done with the rows of an item."""

    def compute(self, first: int, rows: int) -> bytes:
        """Compute some rows and give the content of their file; may kill the process.

        Raises:
            CfrayError: the rows could not be computed; the item ends with this error.
        """

    def refuse(self, row: int, reason: str) -> bytes:
        """Give the content of the file of a row that is given up, without the model."""

    def embed_another(self, row: int) -> None:
        """Embed a harmless text that is not the row's; kills the process if the model is dead.

        Raises:
            CfrayError: the model or its server refused; the item ends with this error.
        """


@dataclass(frozen=True, slots=True)
class RangeFile:
    """The file of a finished range.

    Attributes:
        first: the range's first row in the item.
        rows: how many rows the range has.
        name: of the file, in the item's folder.
    """

    first: int
    rows: int
    name: str

    def is_content(self, data: bytes) -> bool:
        """Tell whether these bytes are what was published: the name holds their hash."""
        return self.name == _file_name(_Range(self.first, self.rows), data)


class RangedItem:
    """An item whose rows are finished range by range, by however many attempts it takes."""

    def __init__(self, folder: Folder, name: str, rows: int, *, epoch: int) -> None:
        """Name the item.

        Args:
            folder: of the line; the item's marks and files lie in its child ``name``.
            name: of the item; an item of other rows or other work has another name.
            rows: how many rows the item has.
            epoch: of the run.  That the model dies over every text is said of a run, not of the
                item: before the next run the operator may have given the actors more memory.
        """
        self._folder, self._name, self._rows = folder.child(name), name, rows
        self._epoch = epoch

    def run(self, work: RangeWork) -> list[RangeFile]:
        """Finish all rows, and give the files that hold them.

        The caller has loaded the model: a death while it loads must count for no row.

        Ranges come from halving only, so any two are nested or apart, and a finished range wins
        over everything inside it: the files hold each row once.  An attempt that Ray took for dead
        may still be at work.  Its files have other names or the same content, and none is ever
        removed, so what either attempt gives is whole.  Of two files of one range, the first by
        name is taken.

        Returns:
            The files in the order of their rows; together they hold each of the item's rows once.

        Raises:
            CfrayError: the work raised it; the range counts as not begun.
            TargetError: the model dies over another text, too, so no row is to blame.
        """
        if not self._rows:
            return []
        leftovers = _Leftovers(self._folder.list_names())
        attempt = _Attempt(self._folder, self._name, self._epoch, leftovers, work)
        return list(attempt.finish(_Range(0, self._rows)))


@dataclass(frozen=True, slots=True)
class _Range:
    first: int
    rows: int

    def halves(self) -> tuple[_Range, _Range]:
        half = self.rows // 2
        return _Range(self.first, half), _Range(self.first + half, self.rows - half)

    def holds(self, other: _Range) -> bool:
        end, other_end = self.first + self.rows, other.first + other.rows
        return self.first <= other.first and other_end <= end


class _Leftovers:
    """The marks and files that earlier attempts left; a name of any other form is ignored."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names: dict[tuple[str, _Range], list[str]] = {}
        for name in names:
            if match := _NAME.fullmatch(name):
                first, rows, kind = match.groups()
                key = kind, _Range(int(first), int(rows))
                self._names.setdefault(key, []).append(name)

    def of(self, kind: str, span: _Range) -> list[str]:
        """Name the files of a kind that a range has, sorted."""
        return self._names.get((kind, span), [])

    def are_in(self, span: _Range) -> bool:
        """Tell whether a range, or any range inside it, was ever begun."""
        is_begun = ("begun", span) in self._names
        return is_begun or any(span.holds(other) for _, other in self._names)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One process's attempt at an item.

    Each mark has a nonce, so that no two starts ever count as one.  The mark of a start or of a
    trial stays only if the process dies before it is over, or if the start left a file.
    """

    folder: Folder
    item: str
    epoch: int
    leftovers: _Leftovers
    work: RangeWork

    def finish(self, span: _Range) -> Iterator[RangeFile]:
        """Finish a range; yield the files that hold its rows, in order."""
        if files := self.leftovers.of("arrow", span):
            yield RangeFile(span.first, span.rows, files[0])
        elif span.rows == 1:
            yield self._finish_row(span)
        elif self.leftovers.are_in(span):  # never whole again
            for half in span.halves():
                yield from self.finish(half)
        else:
            yield self._compute(span)

    def _finish_row(self, span: _Range) -> RangeFile:
        """Compute a row alone, or give it up.

        The last start comes right after another text, in the same process: the deaths before may
        be those of a model that died over every text, until the operator gave it more memory.
        """
        starts = len(self.leftovers.of("begun", span))
        if starts >= _MAX_STARTS - 1:
            self._try_another(span)
        if starts < _MAX_STARTS:
            return self._compute(span)
        return self._publish(span, self.work.refuse(span.first, DEADLY_TEXT))

    def _compute(self, span: _Range) -> RangeFile:
        mark = self._mark("begun", span)
        try:
            return self._publish(span, self.work.compute(span.first, span.rows))
        except BaseException:
            self._remove_quietly([mark])  # the process lives: no death is to be counted
            raise

    def _try_another(self, span: _Range) -> None:
        """Embed another text than the row's.

        Raises:
            TargetError: three processes died over it.
        """
        trial = f"trial-{self.epoch}"
        if len(self.leftovers.of(trial, span)) >= _MAX_TRIALS:
            # no row is to blame for these deaths: the next run starts the row anew
            self._remove_quietly(self.leftovers.of("begun", span))
            raise TargetError(
                f"the embedding actors die over every text: over row {span.first} of {self.item}, "
                f"and {_MAX_TRIALS} times over another text (out of memory, or a crash in native "
                "code); the row was not quarantined",
                "give the actors more memory, or set fewer embedding.actors, another "
                "embedding.engine or embedding.dtype; then run the same command again",
            )
        mark = self._mark(trial, span)
        try:
            self.work.embed_another(span.first)
        finally:
            self._remove_quietly([mark])

    def _mark(self, kind: str, span: _Range) -> str:
        name = _new_name(kind, span)
        self.folder.publish(name, b"")
        return name

    def _publish(self, span: _Range, content: bytes) -> RangeFile:
        name = _file_name(span, content)
        self.folder.publish(name, content)
        return RangeFile(span.first, span.rows, name)

    def _remove_quietly(self, marks: Sequence[str]) -> None:
        """Remove marks; a mark that stays makes the range smaller, and an error is to be told."""
        for mark in marks:
            with contextlib.suppress(OSError):
                self.folder.remove(mark)


def _new_name(kind: str, span: _Range) -> str:
    """Name a mark as no other attempt does: with 64 random bits as hex."""
    return f"{span.first}-{span.rows}.{uuid.uuid4().hex[:16]}.{kind}"


def _file_name(span: _Range, content: bytes) -> str:
    """Name a file by its content, so that a flipped bit shows: XXH3, 64 bits as hex."""
    return f"{span.first}-{span.rows}.{xxhash.xxh3_64_hexdigest(content)}.arrow"
