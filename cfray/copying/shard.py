"""Read, convert and write one shard in one task: no copy of its rows through Ray's object store.

The body of a Ray task, so it may run twice, or half and then again: its only
effects are files with names nobody else has and, last, the receipt.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.conversion.convert import Conversion, Fault
from cfray.conversion.embed import Embed
from cfray.copying.read import Reading
from cfray.copying.write import Rejected, Tally, new_nonce, publish, write_frames
from cfray.errors import SourceError, TargetError
from cfray.job.spec import JobSpec
from cfray.records import values
from cfray.records.record import Reject, is_variant, variant_texts, variant_types
from cfray.runtime import retry
from cfray.sources.base import Context, Shard
from cfray.target.receipts import Receipt
from cfray.target.state import State

#: How often one run starts a shard whose worker dies without a word (killed for memory, crashed in
#: native code).
MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class CopyTask:
    """What travels to a worker for every shard."""

    job: JobSpec
    embed: Embed
    context: Context
    epoch: int


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """One shard and its number in the plan."""

    number: int
    shard: Shard


def copy_shard(cargo: CopyTask, item: PlannedShard) -> Receipt:
    """Copy one shard, reading it anew after a transient error.  Body of a Ray task.

    Raises:
        CfrayError: terminal, or transient after the last attempt.
    """
    state = State(cargo.job.target.uri)
    _count_start(cargo, state, item)
    return retry.retried(lambda: _copied(cargo, state, item))


def _count_start(cargo: CopyTask, state: State, item: PlannedShard) -> None:
    """Count the starts of a shard durably.

    Ray itself would restart a crashing task without end (``reliability.md`` 3).
    """
    folder = state.scratch.child(f"starts-{cargo.epoch}/{item.number}")
    begun = folder.names()
    if len(begun) >= MAX_CRASHES:
        raise SourceError(
            f"shard {item.shard.id}: its worker died {len(begun)} times without an error (out of memory, or a crash in native code)",
            "give it more memory (limits.memory, fewer limits.workers) or find the record that does it; then run the same command again",
        )
    folder.publish(str(len(begun)), b"")


def _copied(cargo: CopyTask, state: State, item: PlannedShard) -> Receipt:
    begin = time.perf_counter()
    shard = item.shard
    passage = ShardCopy(
        Reading(cargo.job.source, shard, cargo.context),
        Conversion(cargo.job, cargo.embed.layout),
        cargo.embed,
    )
    account = Tally()
    fragments, files = write_frames(
        cargo.job.target.uri, cargo.embed.schema, passage.frames(), account
    )
    read, staged = passage.reading.count, account.frames - passage.counts["derived_frames"]
    if read != staged + len(passage.rejected):
        raise TargetError(
            f"shard {shard.id}: {read} records read, {staged} staged and {len(passage.rejected)} quarantined do not add up",
            "this is a fault of cfray's; nothing of the shard was committed",
        )
    total = time.perf_counter() - begin
    seconds = {
        "read": passage.reading.seconds,
        "convert": passage.seconds,
        "write": total - passage.reading.seconds - passage.seconds,
    }
    if cargo.embed.pool is not None:
        seconds |= {"embed": passage.waited, "write": seconds["write"] - passage.waited}
    receipt = Receipt(
        name=str(item.number),
        shard=shard.id,
        nonce=new_nonce(),
        read=read,
        staged=staged,
        quarantined=len(passage.rejected),
        frames=account.frames,
        fragments=fragments,
        files=files,
        sums=account.sums,
        centroids=account.centroids(),
        counts=dict(passage.counts),
        seconds=seconds,
        size=account.size,
    )
    return publish(state, receipt, passage.rejected)


class ShardCopy:
    """One shard on its way from records to frames; what does not fit is set aside."""

    def __init__(self, reading: Reading, conversion: Conversion, embed: Embed) -> None:
        """Start before the first record."""
        self.reading, self.conversion, self.embed = reading, conversion, embed
        self.rejected: list[Rejected] = []
        self.counts: Counter[str] = Counter()
        #: Spent in convert, and in embed (most of it waiting for the pool).
        self.seconds = self.waited = 0.0

    def frames(self) -> Iterator[pa.RecordBatch]:
        """Yield the frames of the shard, batch by batch."""
        for first, item in self.reading:
            begin = time.perf_counter()
            if isinstance(item, Reject):
                self.rejected.append(rejected_bytes(item, self.reading.shard.collection))
                self.counts[kind_of(item.reason)] += 1
                continue
            converted = self.conversion.convert(item, self.reading.shard.collection)
            self.seconds += time.perf_counter() - begin
            begin = time.perf_counter()
            converted = self.embed(converted, self.reading.shard.collection)
            self.waited += time.perf_counter() - begin
            self.counts.update(converted.counts)
            for fault in converted.faults:
                self.counts[kind_of(fault.reason)] += 1
                self.rejected.append(
                    rejected_row(
                        item,
                        fault,
                        f"{self.reading.shard.id}, record {first + fault.row}",
                        self.reading.shard.collection,
                        self.conversion.job,
                    )
                )
            if converted.frames.num_rows:
                yield converted.frames


def kind_of(reason: str) -> str:
    """Name the kind of a reason for the report's count.

    Without the numbers and values of the one row.
    """
    return (
        "quarantined: " + re.sub(r"[0-9][0-9,.]*", "#", re.split(r"[:(]", reason)[0]).strip()[:80]
    )


def rejected_bytes(reject: Reject, collection: str) -> Rejected:
    """Set aside bytes that never became a Record."""
    try:
        content: object = reject.content.decode()
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(reject.content).decode()}
    return Rejected("read", reject.reason, reject.position, None, content, collection=collection)


def rejected_row(
    batch: pa.RecordBatch, fault: Fault, position: str, collection: str, job: JobSpec
) -> Rejected:
    """Set aside one record: readable for people, and exact for replay."""
    one = batch.slice(fault.row, 1)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, one.schema) as writer:
        writer.write_batch(one)
    content: dict[str, object] = {}
    for field, column in zip(one.schema, one.columns, strict=True):
        if is_variant(field):
            text, kind = variant_texts(column)[0].as_py(), variant_types(column)[0].as_py()
            if text is not None:
                content[field.name] = text if kind == "string" else json.loads(text)
        else:
            text = values.json_texts(column)[0].as_py()
            content[field.name] = None if text is None else json.loads(text)
    rule = job.mapping.id
    own = content.get(rule) if isinstance(rule, str) else None
    record = base64.b64encode(sink.getvalue()).decode()
    return Rejected(
        fault.stage,
        fault.reason,
        position,
        None if own is None else str(own),
        content,
        record,
        collection,
    )
