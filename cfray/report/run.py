"""One command at work on one target: the value that every step of the pipeline is handed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cfray.engine import interrupts
from cfray.errors import TargetError
from cfray.job.spec import JobSpec
from cfray.report.counts import fill_counts
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.sources.session import SourceSession
from cfray.target.commit import Target
from cfray.target.state import Plan, State

T = TypeVar("T")


def earlier_reports(run: Run) -> Iterator[Report]:
    """Read the kept reports of a target, the newest first, but those that are damaged.

    What earlier commands found helps this one; a report that somebody damaged must not stop it.
    """
    for name in Report.names_newest_first(run.state):
        try:
            yield Report.named(run.state, name)
        except TargetError as error:
            note = f"an earlier report was not read: {error.what}"
            if note not in run.report.notes:
                run.report.notes.append(note)


def said_by(report: Report, detail: str) -> str:
    """Say which command found something; a detail that says so already stays as it is."""
    if re.match(r"cfray [\w ]+ at \S+ found: ", detail):
        return detail
    return f"cfray {report.command} at {report.ended} found: {detail}"


@dataclass(slots=True)
class Run:
    """A command, its target, and what it knows about both.

    Attributes:
        source_session: in which the command reads the source; open only while it is needed.
        holds_target: whether this command has the lease; a command without it only looks.
    """

    job: JobSpec
    state: State
    target: Target
    plan: Plan
    report: Report
    progress: Progress
    source_session: SourceSession
    holds_target: bool

    def count(self) -> None:
        """Count what is committed."""
        fill_counts(self.report, self.target.ledger(), self.state, self.plan)

    def timed(self, step: str, work: Callable[[], T]) -> T:
        """Do one step of the driver and note how long it took."""
        interrupts.check()
        with self.progress.step(step):
            begin = time.perf_counter()
            result = work()
        self.report.stage(step).seconds += time.perf_counter() - begin
        return result
