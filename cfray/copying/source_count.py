"""Recount: ask the source how many records it holds, now that all of them were read.

A read that lost rows adds up in itself: only the source can say otherwise.  A
store that was written to meanwhile has no one number to compare with; the
check says so instead of passing.
"""

from __future__ import annotations

from cfray.engine import throttle
from cfray.errors import SourceError
from cfray.job.spec import JobSpec
from cfray.report.facts import Report
from cfray.sources.base import Context, Json
from cfray.target.state import Plan

NAME = "source count"


def count_source_again(job: JobSpec, plan: Plan, report: Report, session: Json) -> None:
    """Compare the records read with the source's own count, before and after."""
    if not job.source.is_remote:
        return
    try:
        now = job.source.count(Context(session=session, throttle=throttle.local_budget(job.source)))
    except SourceError as error:
        report.check(NAME, "not_run", f"the source did not count: {error.what}")
        return
    read = report.counts["read"]
    before = plan.rows if plan.exact else None
    if now is None:
        report.check(NAME, "not_run", f"this source cannot count its records; {read:,} were read")
    elif read == now:
        report.check(NAME, "pass", f"{read:,} records read, and the source counts as many")
    elif before is not None and before == now:
        report.check(
            NAME,
            "fail",
            f"{read:,} records read, but the source counts {now:,}, before the run and after it",
        )
    else:
        was = "unknown" if before is None else f"{before:,}"
        report.check(
            NAME,
            "not_run",
            f"the source was written to while it was read: {was} records before, {now:,} after, {read:,} read",
        )
