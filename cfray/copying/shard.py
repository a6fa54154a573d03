"""Read, convert and write one shard in one task.

The rows of a shard never pass through Ray's object store.  The body of a Ray task may
run twice, or half and then again: so its only effects are files with names that no other
run of it has and, last, the receipt.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cfray.conversion.rejects import RejectedRow, reject_bytes, reject_record
from cfray.conversion.steps import Steps
from cfray.copying.read import Reading
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.errors import SourceError, TargetError
from cfray.job.spec import JobSpec
from cfray.records.record import Reject
from cfray.runtime import retry
from cfray.sources.base import Context, Shard
from cfray.target.quarantine_counts import count_name
from cfray.target.receipts import ShardReceipt
from cfray.target.state import State

#: How often one run starts a shard whose worker dies without an error (killed for its memory, or
#: crashed in native code).
MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class CopyTask:
    """What travels to a worker for every shard.

    Attributes:
        job: the job file.
        steps: from its records to frames.
        context: what the source is handed.
        session: id of the source's session whose state the context holds.
        epoch: of the run.
    """

    job: JobSpec
    steps: Steps
    context: Context
    session: str
    epoch: int


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard and its number in the plan."""

    number: int
    shard: Shard


def copy_shard(task: CopyTask, planned: PlannedShard) -> ShardReceipt:
    """Copy one shard, reading it anew after a transient error.  Body of a Ray task.

    Raises:
        CfrayError: terminal, or transient after the last attempt.
    """
    state = State(task.job.target.uri)
    _count_start(task, state, planned)
    return retry.run_with_retries(lambda: _copy_once(task, state, planned))


def _count_start(task: CopyTask, state: State, planned: PlannedShard) -> None:
    """Count the starts of a shard durably, and give a shard up that kills its workers.

    Ray restarts a task whose worker died without any limit (``max_retries=-1``): the limit must
    outlive the worker.
    """
    folder = state.scratch.child(f"starts-{task.epoch}/{planned.number}")
    starts = folder.list_names()
    if len(starts) >= MAX_CRASHES:
        raise SourceError(
            f"shard {planned.shard.id}: its worker died {len(starts)} times without an error "
            "(out of memory, or a crash in native code)",
            "give it more memory (limits.memory, fewer limits.workers) or find the record that "
            "does it; then run the same command again",
        )
    folder.publish(str(len(starts)), b"")


def _copy_once(task: CopyTask, state: State, planned: PlannedShard) -> ShardReceipt:
    begin = time.perf_counter()
    shard = planned.shard
    shard_copy = ShardCopy(Reading(task.job.source, shard, task.context), task.steps)
    tally = Tally()
    fragments, files = write_frames(
        *(task.job.target.uri, task.steps.schema, shard_copy.frames(), tally),
        schema_of="first version",
    )
    read, staged = shard_copy.reading.count, tally.frames - shard_copy.counts["derived_frames"]
    quarantined = len(shard_copy.rejected)
    if read != staged + quarantined:
        raise TargetError(
            f"shard {shard.id}: {read} records read, {staged} staged and {quarantined} "
            "quarantined do not add up",
            "this is a fault of cfray's; nothing of the shard was committed",
        )
    receipt = ShardReceipt(
        name=str(planned.number),
        shard=shard.id,
        session=task.session,
        epoch=task.epoch,
        nonce=new_nonce(),
        read=read,
        staged=staged,
        quarantined=quarantined,
        frames=tally.frames,
        fragments=fragments,
        files=files,
        sums=tally.sums,
        raw_sum=tally.raw_sum,
        centroids=tally.centroids(),
        counts=dict(+shard_copy.counts),
        seconds=shard_copy.stage_seconds(time.perf_counter() - begin),
        size=tally.size,
    )
    return publish(state, receipt, shard_copy.rejected)


class ShardCopy:
    """A shard on its way from records to frames; what does not fit is set aside."""

    def __init__(self, reading: Reading, steps: Steps) -> None:
        """Start before the first record."""
        self.reading, self.steps = reading, steps
        self.rejected: list[RejectedRow] = []
        self.counts: Counter[str] = Counter()
        self.convert_seconds = 0.0

    def frames(self) -> Iterator[pa.RecordBatch]:
        """Yield the frames of the shard, batch by batch."""
        collection = self.reading.shard.collection
        for first_ordinal, item in self.reading:
            if isinstance(item, Reject):
                self._set_aside(reject_bytes(item, collection))
                continue
            begin = time.perf_counter()
            converted = self.steps(item, collection)
            self.convert_seconds += time.perf_counter() - begin
            self.counts.update(converted.counts)
            for fault in converted.faults:
                position = f"{self.reading.shard.id}, record {first_ordinal + fault.row}"
                mapping = self.steps.job.mapping
                self._set_aside(reject_record(item, fault, position, collection, mapping))
            if converted.frames.num_rows:
                yield converted.frames

    def _set_aside(self, row: RejectedRow) -> None:
        self.counts[count_name(row.reason)] += 1
        self.rejected.append(row)

    def stage_seconds(self, total: float) -> dict[str, float]:
        """Divide the seconds that the shard took among the stages of the report."""
        read, convert = self.reading.seconds, self.convert_seconds
        return {"read": read, "convert": convert, "write": total - read - convert}
