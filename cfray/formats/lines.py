"""Cut bytes into whole records: what JSON Lines, JSON arrays and CSV share.

A format says where records end; this module aligns byte ranges to line breaks
when a file is planned, and gathers whole records while a part is read.  A
record beyond the limit is never loaded: only its head is kept, its bytes are
counted.  Nothing here knows what is inside a record.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cfray.errors import SourceError, SourceUnavailable
from cfray.records.record import Reject

MIB = 1024 * 1024
BLOCK = 4 * MIB  # bytes of one read: large enough that a request's latency does not count
HEAD = 64 * 1024  # bytes kept of a record that is over the limit
BOM = b"\xef\xbb\xbf"
_PROBE = 64 * 1024  # bytes read at a time while looking for a line break
_NEWLINE = 0x0A

#: Offsets, in a block, just behind each record that ends in it; remembers between blocks what it
#: must.
Ends = Callable[[bytes], list[int]]


class Stream(Protocol):
    """What we need of a pyarrow file."""

    def read(self, nbytes: int) -> bytes:
        """Read up to ``nbytes`` bytes; none at the end."""

    def seek(self, position: int) -> int:
        """Go to a byte."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive whole records.

    Attributes:
        offset: of the first byte in the stream.
        data: the records' bytes.
        ends: where each record ends in ``data``; the last one is ``len(data)``.
        closed: false where the stream ended before the last record did.
    """

    offset: int
    data: bytes
    ends: list[int]
    closed: bool = True

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Give each record's offset in the stream and its bytes."""
        start = 0
        for end in self.ends:
            yield self.offset + start, self.data[start:end]
            start = end


@dataclass(frozen=True, slots=True)
class Oversized:
    """A record that was skipped: where it stands, how it begins.

    (64 KiB), its size in bytes, its last byte.
    """

    offset: int
    head: bytes
    size: int
    last: bytes
    closed: bool = True

    def reject(self, name: str, noun: str) -> Reject:
        """Make the Reject of a record, which its format calls ``noun``, in the file ``name``."""
        reason = f"{noun} of {self.size} bytes is over limits.max_document; only its first {len(self.head)} bytes are kept here"
        return Reject(reason, f"{name}:byte {self.offset}", self.head)


def limit_of(max_record: int) -> int:
    """Give the bytes of source text above which a record cannot be within ``limits.max_document``.

    Twice, because an escape doubles a character; a MiB more, because small limits have keys and
    vectors beside the document.
    """
    return 2 * max_record + MIB


def newlines(block: bytes) -> list[int]:
    """End a record behind every line feed."""
    ends: list[int] = (np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE) + 1).tolist()
    return ends


def aligned(stream: Stream, start: int, size: int, step: int) -> list[tuple[int, int]]:
    """Cut the bytes ``[start, size)`` into ranges of about ``step`` bytes that begin behind a line break.

    A line longer than a range makes a longer range.  Reads little: a piece of the file near each cut.
    """
    cuts = [start]
    while (target := max(cuts[-1] + 1, (cuts[-1] // step + 1) * step)) < size:
        cuts.append(_behind_newline(stream, target - 1, size))
    if cuts[-1] != size or len(cuts) == 1:
        cuts.append(size)
    return list(itertools.pairwise(cuts))


def _behind_newline(stream: Stream, position: int, size: int) -> int:
    stream.seek(position)
    probe = _PROBE
    while block := stream.read(min(probe, size - position)):
        if (found := block.find(b"\n")) >= 0:
            return position + found + 1
        position += len(block)
        probe = BLOCK
    return size


def blocks(
    stream: Stream, name: str, size: int | None = None, block: int = BLOCK
) -> Iterator[bytes]:
    """Read a stream block by block, to its end or for ``size`` bytes.

    Raises:
        SourceError: the compressed stream is cut or corrupt.
        SourceUnavailable: the filesystem did not answer.
    """
    left = size
    while left is None or left > 0:
        try:
            data = stream.read(block if left is None else min(block, left))
        except OSError as error:
            raise _unreadable(name, error) from error
        if not data:
            return
        if left is not None:
            left -= len(data)
        yield data


def _unreadable(name: str, error: OSError) -> SourceError:
    if any(
        word in str(error) for word in ("compressed stream", "inflate", "decompress")
    ):  # pyarrow's words for gzip and zstd
        return SourceError(
            f"{name} cannot be decompressed: {error}",
            "export or copy the file again, then start anew with another target",
        )
    if error.errno in {1, 2, 13}:
        return SourceError(
            f"cannot read {name}: {os.strerror(error.errno)}",
            "restore the file and this user's access to it, then run the same command again",
        )
    return SourceUnavailable(
        f"cannot read {name}: {error}",
        "check that the filesystem answers, then run the same command again",
    )


@dataclass(slots=True)
class _Pending:
    """A record whose end was not seen yet."""

    limit: int
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self.pieces.append(piece)
        if self.over:
            self.pieces = [b"".join(self.pieces)[:HEAD]]

    @property
    def over(self) -> bool:
        return self.size > self.limit

    def take(self) -> bytes:
        data = b"".join(self.pieces)
        self.pieces, self.size = [], 0
        return data


def whole_records(
    source: Iterator[bytes], ends: Ends, limit: int, offset: int = 0
) -> Iterator[Run | Oversized]:
    """Gather whole records from blocks.

    Args:
        source: blocks of the stream.
        ends: tells where records end in the next block.
        limit: bytes above which a record is skipped.
        offset: of the first block in the stream.
    """
    pending = _Pending(limit)
    for block in source:
        found = ends(block)
        if not found:
            pending.add(block)
            continue
        rest = block[found[-1] :]
        if pending.over:
            pending.add(block[: found[0]])
            size = pending.size
            yield Oversized(offset, pending.take(), size, block[found[0] - 1 : found[0]])
            offset += size
            data, found = block[found[0] : found[-1]], [end - found[0] for end in found[1:]]
        else:
            held = pending.size
            data, found = pending.take() + block[: found[-1]], [end + held for end in found]
        yield from _within(Run(offset, data, found), limit)
        offset += len(data)
        pending.add(rest)
    if pending.over:
        size = pending.size
        yield Oversized(offset, pending.take(), size, b"", closed=False)
    elif pending.size:
        data = pending.take()
        yield Run(offset, data, [len(data)], closed=False)


def _within(run: Run, limit: int) -> Iterator[Run | Oversized]:
    """Take the records over the limit out of a run.

    That the outcome does not depend on where blocks end.
    """
    start, kept = 0, 0
    cuts: list[int] = []
    if len(run.data) > limit:
        for end in run.ends:
            if end - start > limit:
                yield from _between(run, kept, cuts)
                yield Oversized(
                    run.offset + start,
                    run.data[start : min(end, start + HEAD)],
                    end - start,
                    run.data[end - 1 : end],
                )
                kept, cuts = end, []
            else:
                cuts.append(end)
            start = end
        yield from _between(run, kept, cuts)
    elif run.ends:
        yield run


def _between(run: Run, start: int, ends: list[int]) -> Iterator[Run]:
    if ends:
        yield Run(run.offset + start, run.data[start : ends[-1]], [end - start for end in ends])
