"""The driver's end of the copy: hands out shards, commits their receipts as they come.

Workers send back a receipt a shard.  The driver commits shards while later shards are
still being read, so a crash costs the work in flight and nothing that was committed.
No row of the source passes through the driver.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from cfray.conversion.steps import Steps
from cfray.copying.shard import CopyTask, PlannedShard, copy_shard
from cfray.engine import failpoint, throttle
from cfray.engine.lines import LineOptions, TaskLine
from cfray.errors import LimitReached
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Session
from cfray.target import commit
from cfray.target.books import read_books
from cfray.target.commit import Target
from cfray.target.receipts import ShardReceipt

logger = logging.getLogger("cfray")

#: A commit waits until its cost is at most a twentieth of the time since the last commit: 5 % of
#: the driver's time.
_COMMIT_SHARE = 20


def in_order_of_columns(shape: SourceShape, target: Target) -> SourceShape:
    """Give a plan's shape with its vectors in the order of the target's columns.

    The hash of a row depends on the order of its columns, and earlier versions saved a plan whose
    vectors were in the order of their names.
    """
    columns = target.open().schema.names
    vectors = sorted(shape.vectors, key=lambda name: columns.index(f"x_vector_{name}"))
    return replace(shape, vectors={name: shape.vectors[name] for name in vectors})


def context_of(run: Run, session: Session) -> Context:
    """Give what a source is handed when its shards are read."""
    return Context(
        session=session.state,
        scratch=run.state.scratch.uri,
        max_record=run.job.limits.max_document,
        throttle=throttle.shared_budget(run.job.source),
    )


class Copying:
    """Brings every shard of the plan into the target.

    Committed shards are left alone, staged shards adopted, missing shards read.
    """

    def __init__(self, run: Run) -> None:
        """Look at what an earlier run left."""
        self.run = run
        self.ledger = run.target.ledger()
        committed = read_books(run.state, self.ledger).shards
        self.committer = Committer(run, committed)
        run.progress.start(
            run.plan.rows,
            exact=run.plan.exact,
            shards=len(run.plan.shards),
            committed_shards=len(committed),
            committed_rows=self.committer.read,
        )
        run.report.counts.update(
            {"shards_resumed": len(committed), "shards_adopted": 0, "shards_read": 0}
        )

    @property
    def missing_shards(self) -> list[int]:
        """Number the shards that must still be read."""
        names = self.ledger.entries.keys() | self.committer.names
        return [number for number in range(len(self.run.plan.shards)) if str(number) not in names]

    def adopt(self) -> None:
        """Commit what an earlier run staged.

        Raises:
            LimitReached: too many records are in quarantine.
            TargetError: a staged receipt is damaged.
        """
        with self._committing_at_the_end():
            for receipt in self._staged_receipts():
                self.run.report.counts["shards_adopted"] += 1
                self.committer.add(receipt, adopted=True)
        if not self.missing_shards:
            self.committer.check_limit(final=True)

    def read(self, context: Context) -> None:
        """Copy the missing shards, each in one call, and commit their receipts as they come.

        Raises:
            LimitReached: too many records are in quarantine.
            CfrayError: a shard could not be copied, or the source's session is lost; what is
                committed stays.
        """
        run, limits = self.run, self.run.job.limits
        options = LineOptions(
            run.job.name,
            "copy_shard",
            max_items=None if limits.workers == "auto" else limits.workers,
            memory=None if limits.memory == "auto" else limits.memory,
        )
        session = run.source_session.open()
        run.state.save_session(session)
        steps = Steps(run.job, in_order_of_columns(run.plan.shape, run.target), run.plan.tokenizer)
        task = CopyTask(run.job, steps, context, session.id, run.target.epoch)
        line = TaskLine[PlannedShard, ShardReceipt](options, work=partial(copy_shard, task))
        shards = [PlannedShard(number, run.plan.shards[number]) for number in self.missing_shards]
        with (
            self._noting_loss(session),
            self._committing_at_the_end(),
            closing(line.run(shards)) as receipts,
        ):
            for receipt in receipts:
                run.source_session.check()
                run.report.counts["shards_read"] += 1
                self.committer.add(receipt)
        run.report.operators["copy"] = line.operators
        self.committer.check_limit(final=True)

    def _staged_receipts(self) -> Iterator[ShardReceipt]:
        """Yield a receipt of each shard that an earlier run staged and did not commit.

        Receipts of a session that was lost are left out: nobody knows which shards were read
        before that.  So are those of a target that a restart removed: a worker may have slept
        through that, and read a source of that time by a job file of that time.
        """
        state = self.run.state
        nonces = state.staged_nonces()
        for name in map(str, self.missing_shards):
            for nonce in nonces.get(name, ()):
                receipt = state.shard_receipt(
                    name,
                    nonce,
                    remedy="remove this file, then run the same command again: nothing of the "
                    "shard is committed, and it is read anew",
                )
                if not self.run.plan.adopts(name, receipt.epoch):
                    continue
                if not (receipt.session and state.session(receipt.session).lost):
                    yield receipt
                    break

    @contextmanager
    def _noting_loss(self, session: Session) -> Iterator[None]:
        """Save that the session is lost, if it is known at the end of the block."""
        try:
            yield
        finally:
            if self.run.source_session.is_lost:
                self.run.state.save_session(session, lost=True)

    @contextmanager
    def _committing_at_the_end(self) -> Iterator[None]:
        """Commit what waits, however the block ends."""
        try:
            yield
        finally:
            self.committer.flush()


class Committer:
    """Commits receipts in groups, often enough to be visible and seldom enough to be cheap."""

    def __init__(self, run: Run, committed: list[ShardReceipt]) -> None:
        """Start with nothing to commit.

        Args:
            run: the command and its target.
            committed: the shards of earlier runs; their records count for the limit.
        """
        self.run = run
        #: Shards that this run has committed or will commit.
        self.names: set[str] = set()
        self.waiting: list[ShardReceipt] = []
        self.read = sum(receipt.read for receipt in committed)
        self.quarantined = sum(receipt.quarantined for receipt in committed)
        self.commit_seconds = self.committed_at = 0.0

    def add(self, receipt: ShardReceipt, *, adopted: bool = False) -> None:
        """Take a staged shard; commit it now or with the next shards.

        Args:
            receipt: of the shard.
            adopted: an earlier run staged it.

        Raises:
            LimitReached: too many records are in quarantine.
        """
        if receipt.name in self.names:
            # Ray repeated a task after it had published its receipt: the first receipt counts
            return
        failpoint.reach("stage")
        self.names.add(receipt.name)
        self.waiting.append(receipt)
        progress = self.run.progress
        (progress.adopt if adopted else progress.add)(receipt)
        self.run.report.clock.setdefault("first_receipt", time.time())
        self.quarantined += receipt.quarantined
        self.read += receipt.read
        if time.perf_counter() - self.committed_at >= self.commit_seconds * _COMMIT_SHARE:
            self.flush()
        self.check_limit(final=False)

    def flush(self) -> None:
        """Commit what waits."""
        if not self.waiting:
            return
        begin = time.perf_counter()
        group, self.waiting = self.waiting, []
        commit.commit_receipts(self.run.target, group)
        failpoint.reach("commit")
        self.committed_at = time.perf_counter()
        self.commit_seconds = self.committed_at - begin
        figures = self.run.report.stage("commit")
        figures.seconds += self.commit_seconds
        figures.rows += sum(receipt.frames for receipt in group)
        self.run.progress.commit(self.commit_seconds)
        for receipt in group:
            logger.info(
                "committed shard=%s rows=%d seconds=%.3f",
                receipt.shard,
                receipt.frames,
                self.commit_seconds,
            )

    def check_limit(self, *, final: bool) -> None:
        """Stop a run that quarantines too much.

        A share is a share of the records that the plan expects; at the end, of those read.

        Raises:
            LimitReached: what is committed stays.
        """
        expected = self.read if final else max(self.read, self.run.plan.rows or 0)
        if self.quarantined > allowed_quarantine(self.run.job, expected):
            limit = self.run.job.limits.max_quarantined
            raise LimitReached(
                f"{self.quarantined:,} of {counted(self.read, 'record')} read so far went into "
                "quarantine, "
                f"more than limits.max_quarantined ({limit}) allows",
                "see why with `cfray quarantine list`; raise limits.max_quarantined and run the "
                "same command again to go on, or correct the mapping and start with a new target",
            )


def allowed_quarantine(job: JobSpec, records: int) -> float:
    """Give the number of records that may be quarantined."""
    limit = job.limits.max_quarantined
    return limit * records if isinstance(limit, float) else limit
