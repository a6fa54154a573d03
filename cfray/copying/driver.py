"""Shards streaming in from their tasks, and the driver's end of it.

Workers send back one receipt a shard; the driver commits shards while later
ones are still being read, so a crash costs the work in flight and nothing
that was done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from cfray.conversion.embed import Embed
from cfray.copying.shard import CopyTask, PlannedShard, copy_shard
from cfray.engine import failpoint, throttle
from cfray.engine.tasks import TaskOptions, each
from cfray.errors import LimitReached
from cfray.job.spec import JobSpec
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.sources.base import Context, Json
from cfray.target import commit
from cfray.target.commit import Target
from cfray.target.ledger import Ledger
from cfray.target.receipts import Receipt
from cfray.target.state import Plan, State

logger = logging.getLogger("cfray")

#: A commit waits until its cost is at most a twentieth of the time since the last one: 5 % of the
#: driver's time.
_COMMIT_SHARE = 20


class Copying:
    """Brings every shard into the target.

    Committed ones are left alone, staged ones adopted, the rest read.
    """

    def __init__(
        self, job: JobSpec, plan: Plan, target: Target, report: Report, progress: Progress
    ) -> None:
        """Look at what an earlier run left."""
        self.job, self.plan, self.target, self.report = job, plan, target, report
        self.state, self.ledger = State(target.uri), target.ledger()
        done = [
            self.state.receipt(name, entry.nonce)
            for name, entry in self.ledger.entries.items()
            if name.isdigit()
        ]
        progress.start(
            plan.rows,
            exact=plan.exact,
            shards=len(plan.shards),
            done_shards=len(done),
            done_rows=sum(one.read for one in done),
        )
        self.committer = Committer(job, plan, target, report, progress)
        self.committer.quarantined, self.committer.read = (
            sum(one.quarantined for one in done),
            sum(one.read for one in done),
        )
        report.counts.update({"shards_resumed": len(done), "shards_adopted": 0, "shards_read": 0})

    @property
    def left(self) -> list[int]:
        """Number the shards that are still to be read."""
        known = self.ledger.entries.keys() | self.committer.names
        return [number for number in range(len(self.plan.shards)) if str(number) not in known]

    def adopt(self) -> None:
        """Commit what an earlier run staged.

        Raises:
            LimitReached: too many records are in quarantine.
        """
        with self._flushed():
            for receipt in _staged(self.state, self.ledger):
                self.report.counts["shards_adopted"] += 1
                self.committer.add(receipt)
        if not self.left:
            self.committer.check_limit(final=True)

    def context(self, session: Json) -> Context:
        """Give what a source is handed when its shards are read."""
        job = self.job
        return Context(
            session=session,
            scratch=self.state.scratch.uri,
            max_record=job.limits.max_document,
            throttle=throttle.shared_budget(job.source),
        )

    def read(self, context: Context, embed: Embed) -> None:
        """Copy the shards that are left, in tasks, one a shard, and commit them as they come.

        Raises:
            LimitReached: too many records are in quarantine.
            CfrayError: a shard could not be copied; what is committed stays.
        """
        job, limits = self.job, self.job.limits
        work = partial(copy_shard, CopyTask(job, embed, context, self.target.epoch))
        memory = None if limits.memory == "auto" else limits.memory
        most = None if limits.workers == "auto" else limits.workers
        pool = TaskOptions(memory, most, restarts=-1)  # copy_shard itself counts its starts
        if embed.pool is not None:
            pool = pool.beside_actors()
        with self._flushed():
            for receipt in each(
                work, [PlannedShard(number, self.plan.shards[number]) for number in self.left], pool
            ):
                self.report.counts["shards_read"] += 1
                self.committer.add(receipt)
        self.committer.check_limit(final=True)

    @contextmanager
    def _flushed(self) -> Iterator[None]:
        """Commit what waits at every end."""
        try:
            yield
        finally:
            self.committer.flush()


def _staged(state: State, ledger: Ledger) -> Iterator[Receipt]:
    """Yield one receipt of each shard that an earlier run staged and did not commit."""
    for name, nonces in state.staged_names().items():
        if name.isdigit() and name not in ledger.entries:
            yield state.receipt(name, nonces[0])


class Committer:
    """Commits receipts in groups, often enough to be visible and seldom enough to be cheap."""

    def __init__(
        self, job: JobSpec, plan: Plan, target: Target, report: Report, progress: Progress
    ) -> None:
        """Start with nothing to commit."""
        self.job, self.plan, self.target, self.report, self.progress = (
            job,
            plan,
            target,
            report,
            progress,
        )
        self.names: set[str] = set()
        self.waiting: list[Receipt] = []
        self.quarantined = self.read = 0
        self.cost = self.last = 0.0

    def add(self, receipt: Receipt) -> None:
        """Take one staged shard; commit it now or with the next ones.

        Raises:
            LimitReached: too many records are in quarantine.
        """
        if receipt.name in self.names:
            return  # Ray repeated a task after it had published: the first receipt counts
        failpoint.reached("stage")
        self.names.add(receipt.name)
        self.waiting.append(receipt)
        self.progress.add(receipt)
        self.report.clock.setdefault("first_receipt", time.time())
        self.quarantined += receipt.quarantined
        self.read += receipt.read
        if time.perf_counter() - self.last >= self.cost * _COMMIT_SHARE:
            self.flush()
        self.check_limit(final=False)

    def flush(self) -> None:
        """Commit what waits."""
        if not self.waiting:
            return
        begin = time.perf_counter()
        group, self.waiting = self.waiting, []
        commit.commit_receipts(self.target, group)
        failpoint.reached("commit")
        self.last = time.perf_counter()
        self.cost = self.last - begin
        figures = self.report.stage("commit")
        figures.seconds += self.cost
        figures.rows += sum(receipt.frames for receipt in group)
        self.progress.commit(self.cost)
        for receipt in group:
            logger.info(
                "committed shard=%s rows=%d seconds=%.3f", receipt.shard, receipt.frames, self.cost
            )

    def check_limit(self, *, final: bool) -> None:
        """Stop a run that quarantines too much.

        A share is judged against the records the plan expects, at the end against those read.

        Raises:
            LimitReached: what is committed stays.
        """
        expected = self.read if final else max(self.read, self.plan.rows or 0)
        limit = self.job.limits.max_quarantined
        if self.quarantined > allowed(self.job, expected):
            raise LimitReached(
                f"{self.quarantined:,} of {self.read:,} records read so far are in quarantine, more than limits.max_quarantined ({limit}) allows",
                "see why with `cfray quarantine list`; raise limits.max_quarantined and run the same command again to go on, or correct the mapping and start with a new target",
            )


def allowed(job: JobSpec, records: int) -> float:
    """Give the number of records that may be quarantined."""
    limit = job.limits.max_quarantined
    return limit * records if isinstance(limit, float) else limit
