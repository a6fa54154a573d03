"""Ask the source again how many records it holds, when all of them were read.

A read that lost rows adds up in itself: only the source can tell.  A store that was
written to meanwhile has no single number to compare with; the check states that and does
not pass.
"""

from __future__ import annotations

from cfray.engine import throttle
from cfray.errors import SourceError
from cfray.job.spec import JobSpec
from cfray.report.facts import Report, Status
from cfray.sources.base import Context, Json
from cfray.target.state import Plan

#: Name of the check in the report.
NAME = "source count"


def count_source_again(job: JobSpec, plan: Plan, report: Report, session: Json) -> None:
    """Compare the records read with the source's count, before and after the read."""
    if not job.source.is_remote:
        return
    try:
        after = job.source.count(
            Context(session=session, throttle=throttle.local_budget(job.source))
        )
    except SourceError as error:
        report.check(NAME, "not_run", f"the source did not count: {error.what}")
        return
    before = plan.rows if plan.exact else None
    report.check(NAME, *_compare(report.counts["read"], before, after))


def _compare(read: int, before: int | None, after: int | None) -> tuple[Status, str]:
    """Give the result of the check and its sentence; None is a count that is unknown."""
    if after is None:
        return "not_run", f"this source cannot count its records; {read:,} were read"
    if read == after:
        return "pass", f"{read:,} records read, and the source counts as many"
    if before == after:
        return (
            "fail",
            f"{read:,} records read, but the source counts {after:,}, before the run and after it",
        )
    shown_before = "unknown" if before is None else f"{before:,}"
    detail = (
        f"the source was written to while it was read: {shown_before} records before, "
        f"{after:,} after, {read:,} read"
    )
    return "not_run", detail
