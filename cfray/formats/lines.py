"""Cut bytes into whole records: what JSON Lines, JSON arrays and CSV share.

A format says where records end; this module aligns byte ranges to line breaks when a
file is planned, and gathers whole records while a range is read.  A record beyond the
limit is never loaded: only its head is kept, and its bytes are counted.  Nothing here
knows what is inside a record.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cfray.records.record import Reject
from cfray.runtime.models import MIB

#: Bytes of one read: large enough that a request's latency does not count.
BLOCK = 4 * MIB
#: Bytes kept of a record that is over the limit.
HEAD = 64 * 1024
BOM = b"\xef\xbb\xbf"
#: Bytes read at a time while looking for a line break.
_PROBE = 64 * 1024
_NEWLINE = 0x0A

#: Gives the offsets, in a block, just behind each record that ends in the block.  It is called
#: with consecutive blocks and remembers between them what it must.
FindEnds = Callable[[bytes], list[int]]


class Stream(Protocol):
    """What this module needs of a pyarrow file."""

    def read(self, nbytes: int) -> bytes:
        """Read up to ``nbytes`` bytes; no byte at the end."""

    def seek(self, position: int) -> int:
        """Go to a byte."""


@dataclass(frozen=True, slots=True)
class RecordRun:
    """Consecutive whole records.

    Attributes:
        offset: of the first byte in the stream.
        data: the records' bytes.
        ends: where each record ends in ``data``; the last end is ``len(data)``.
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
class OversizedRecord:
    """A record that was skipped because it is over the limit.

    Attributes:
        offset: of its first byte in the stream.
        head: its first 64 KiB.
        size: its bytes.
        last: its last byte.
        closed: false where the stream ended before the record did.
    """

    offset: int
    head: bytes
    size: int
    last: bytes
    closed: bool = True

    def reject(self, name: str, noun: str) -> Reject:
        """Make the Reject of a record, which its format calls ``noun``, in the file ``name``."""
        reason = (
            f"{noun} of {self.size} bytes is over limits.max_document; "
            f"only its first {len(self.head)} bytes are kept here"
        )
        return Reject(reason, f"{name}:byte {self.offset}", self.head)


def record_limit(max_record: int) -> int:
    """Give the bytes of text above which a record cannot be within ``limits.max_document``.

    Twice, because an escape doubles a character; a MiB more, because small limits have keys and
    vectors beside the document.
    """
    return 2 * max_record + MIB


def line_ends(block: bytes) -> list[int]:
    """Give the offsets behind the line feeds of a block: each ends a record."""
    ends: list[int] = (np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE) + 1).tolist()
    return ends


def split_at_newlines(stream: Stream, start: int, size: int, step: int) -> list[tuple[int, int]]:
    """Cut the bytes ``[start, size)`` into ranges that begin behind a line break.

    A range has about ``step`` bytes; a line longer than that makes a longer range.  Reads only
    some bytes near each cut.
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
        if (newline := block.find(b"\n")) >= 0:
            return position + newline + 1
        position += len(block)
        probe = BLOCK
    return size


def read_blocks(
    stream: Stream, size: int | None = None, block_bytes: int = BLOCK
) -> Iterator[bytes]:
    """Read a stream block by block, to its end or for ``size`` bytes."""
    remaining = size
    while remaining is None or remaining > 0:
        block = stream.read(block_bytes if remaining is None else min(block_bytes, remaining))
        if not block:
            return
        if remaining is not None:
            remaining -= len(block)
        yield block


@dataclass(slots=True)
class _Pending:
    """A record whose end was not seen yet: its blocks so far, or its head if it is oversized."""

    limit: int
    blocks: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, block: bytes) -> None:
        self.size += len(block)
        self.blocks.append(block)
        if self.is_oversized:
            self.blocks = [b"".join(self.blocks)[:HEAD]]

    @property
    def is_oversized(self) -> bool:
        return self.size > self.limit

    def take(self) -> bytes:
        data = b"".join(self.blocks)
        self.blocks, self.size = [], 0
        return data


def gather_records(
    blocks: Iterator[bytes], find_ends: FindEnds, limit: int, offset: int = 0
) -> Iterator[RecordRun | OversizedRecord]:
    """Gather whole records from blocks.

    Args:
        blocks: consecutive blocks of the stream.
        find_ends: tells where records end in the next block.
        limit: bytes above which a record is skipped.
        offset: of the first block in the stream.
    """
    pending = _Pending(limit)
    for block in blocks:
        ends = find_ends(block)
        if not ends:
            pending.add(block)
            continue
        unfinished = block[ends[-1] :]
        if pending.is_oversized:
            pending.add(block[: ends[0]])
            size = pending.size
            yield OversizedRecord(offset, pending.take(), size, block[ends[0] - 1 : ends[0]])
            offset += size
            data, ends = block[ends[0] : ends[-1]], [end - ends[0] for end in ends[1:]]
        else:
            pending_bytes = pending.size
            data = pending.take() + block[: ends[-1]]
            ends = [end + pending_bytes for end in ends]
        yield from _take_out_oversized(RecordRun(offset, data, ends), limit)
        offset += len(data)
        pending.add(unfinished)
    if pending.is_oversized:
        size = pending.size
        yield OversizedRecord(offset, pending.take(), size, b"", closed=False)
    elif pending.size:
        data = pending.take()
        yield RecordRun(offset, data, [len(data)], closed=False)


def _take_out_oversized(run: RecordRun, limit: int) -> Iterator[RecordRun | OversizedRecord]:
    """Take the records over the limit out of a run.

    They are judged here again, so that the outcome does not depend on where blocks end.
    """
    if len(run.data) <= limit:
        if run.ends:
            yield run
        return
    start = run_start = 0
    run_ends: list[int] = []
    for end in run.ends:
        if end - start > limit:
            yield from _slice_run(run, run_start, run_ends)
            yield OversizedRecord(
                run.offset + start,
                run.data[start : min(end, start + HEAD)],
                end - start,
                run.data[end - 1 : end],
            )
            run_start, run_ends = end, []
        else:
            run_ends.append(end)
        start = end
    yield from _slice_run(run, run_start, run_ends)


def _slice_run(run: RecordRun, start: int, ends: list[int]) -> Iterator[RecordRun]:
    if ends:
        yield RecordRun(
            run.offset + start, run.data[start : ends[-1]], [end - start for end in ends]
        )
