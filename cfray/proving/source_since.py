"""Whether the source has gone on since it was planned: what a finished target does not hold.

A target is proven against what was read.  Whoever switches a source off must also know
whether something was written to it since: files are listed again and compared with their
pins, a store is counted again, and where it keeps a mark of its writes, that is compared.
What was changed in place at a store that keeps no such mark is not seen here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cfray.engine import throttle
from cfray.errors import SourceError
from cfray.report.names import SOURCE_SINCE
from cfray.report.run import Run, earlier_reports
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Source
from cfray.target.books import read_books
from cfray.target.ledger import EntryKind
from cfray.target.receipts import Status

#: Findings that a report names in full.
_NAMED = 5
#: What can be done about files that appeared, and about all of it.
_EXTEND = "cfray migrate JOB --extend brings in the files that have appeared"
_SYNC = "cfray sync JOB brings the target up to date"


def look_again(run: Run) -> None:
    """Compare the source with what was planned and read, and note what came of it.

    To be called where every shard is committed and counted, and this run read none of a store.
    A source that cannot be reached, or is gone, fails nothing: the report says so.
    """
    try:
        status, detail, remedy = _compare(run)
    except SourceError as error:
        status, detail, remedy = "not_run", f"the source did not answer: {error.what}", ""
    run.report.check(SOURCE_SINCE, status, detail)
    if remedy:
        run.report.notes.append(f"remedy: do not switch the source off; {remedy}")


def leave_out(run: Run) -> None:
    """Say that a command did not look at the source, and what is known of it."""
    known = (
        "this command read the source itself"
        if run.report.counts.get("shards_read")
        else f"this command did not look at the source; {recall_last_look(run)}"
    )
    run.report.check(SOURCE_SINCE, "not_run", f"{known}. cfray migrate, run again, looks")


def recall_last_look(run: Run) -> str:
    """Say what the last command found that looked at the source; this one did not."""
    for report in earlier_reports(run):
        for check in report.checks:
            if check.name == SOURCE_SINCE and check.status != "not_run":
                return f"cfray {report.command} at {report.ended} found: {check.detail}"
        if report.command == "sync" and report.ledger_digest:
            return f"cfray sync read it at {report.started}"
    return "no command has looked at it since it was read"


def _compare(run: Run) -> tuple[Status, str, str]:
    """Compare; give the status, the sentence of the check, and what can be done."""
    source = run.job.source
    appeared: list[str] = []
    with run.source_session as session:
        context = Context(session=session.state, throttle=throttle.local_budget(source))
        marks = source.marks(context)
        count = source.count(context) if source.is_remote else None
        findings = [*_count_findings(run, count)]
        planned = _planned_marks(run)
        if marks is not None and planned is not None:
            appeared = list(_appeared(source, planned, marks, context))
            findings += [*appeared, *_changed(planned, marks)]
    if findings:
        further = len(findings) - _NAMED
        more = [f"and {further:,} more"] if further > 0 else []
        can_extend = source.grows_by_files and not run.target.ledger().names(EntryKind.SYNC)
        comes_in = appeared if can_extend else []
        remedy = [_EXTEND] * bool(comes_in) + [_SYNC] * (len(findings) > len(comes_in))
        return "fail", "; ".join([*findings[:_NAMED], *more]), "; ".join(remedy)
    if source.is_remote:
        return *_quiet_store(count, has_marks=marks is not None and planned is not None), ""
    if marks is None or planned is None:
        return "not_run", "this kind of source does not say whether it was written to since", ""
    files = counted(len(planned), "file is", "files are")
    return "pass", f"{files} as planned, and none appeared", ""


def _planned_marks(run: Run) -> Mapping[str, str] | None:
    """Give the marks of the last sync, or of the plan; plans of earlier versions had none."""
    synced = read_books(run.state, run.target.ledger()).synced
    return (run.plan.marks if synced is None else synced.marks) or None


def _quiet_store(count: int | None, *, has_marks: bool) -> tuple[Status, str]:
    if count is None and not has_marks:
        return "not_run", "this source neither counts its records nor marks its writes"
    counts = "" if count is None else f"it counts as many records as were read ({count:,})"
    if has_marks:
        return "pass", "; ".join(filter(None, [counts, "nothing was written to it since the plan"]))
    return "pass", f"{counts}; whether some were changed in place it does not say"


def _count_findings(run: Run, count: int | None) -> Iterator[str]:
    read = run.report.counts["read"]
    if count is not None and count != read:
        difference = counted(abs(count - read), "record")
        side = "more" if count > read else "fewer"
        yield f"the source counts {difference} {side} than the {read:,} that were read"


def _appeared(
    source: Source, planned: Mapping[str, str], marks: Mapping[str, str], context: Context
) -> Iterator[str]:
    appeared = sorted(marks.keys() - planned.keys())
    rows = source.count_in(appeared, context) if appeared else {}
    for name in appeared:
        count = rows.get(name)
        if count is None:
            yield f"{name} has appeared and is not in the target"
        elif count:
            has = counted(count, "record has", "records have")
            yield f"{has} appeared in {name} and {'is' if count == 1 else 'are'} not in the target"


def _changed(planned: Mapping[str, str], marks: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(planned.keys() - marks.keys()):
        yield f"{name} is gone"
    for name in sorted(planned.keys() & marks.keys()):
        if planned[name] != marks[name]:
            yield f"{name} has changed ({planned[name]} when it was planned, {marks[name]} now)"
