"""One command at work on one target, and what it knows about both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cfray.engine import interrupts
from cfray.job.spec import JobSpec
from cfray.report.counts import fill_counts
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.target.commit import Target
from cfray.target.state import Plan, State

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """A command, its target, and what it knows about both."""

    job: JobSpec
    state: State
    target: Target
    plan: Plan
    report: Report
    progress: Progress

    def count(self) -> None:
        """Count what is committed."""
        fill_counts(self.report, self.target.ledger(), self.state, self.plan)

    def remember_job(self) -> None:
        """Save what this job agrees on beside the jobs the target has accepted before."""
        known = self.state.jobs()
        if self.job.fingerprint not in {one["fingerprint"] for one in known}:
            self.state.save_jobs(
                [*known, {"fingerprint": self.job.fingerprint, "agreed": self.job.agreed}]
            )

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """Do one step of the driver and note how long it took."""
        interrupts.check()
        self.progress.say(f"{name} ...")
        begin = time.perf_counter()
        result = work()
        self.report.stage(name).seconds += time.perf_counter() - begin
        return result
