"""Ask the source again how many records it holds, when all of them were read.

A read that lost rows adds up in itself: only the source can tell.  A store that was
written to meanwhile has no single number to compare with; the check states that and does
not pass.

The answer is an entry of the ledger, for the source may be switched off by the next
command.  A source that did not answer leaves no entry: the next ``migrate`` asks again.
Files are not asked; where their footers count their records, these counts are compared.
"""

from __future__ import annotations

from cfray.copying.write import new_nonce, publish
from cfray.engine import failpoint, throttle
from cfray.errors import SourceError
from cfray.report.run import Run
from cfray.runtime.clock import utc_now
from cfray.sources.base import Context, Session
from cfray.target.books import read_books
from cfray.target.commit import commit
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.receipts import SourceCountReceipt, Status

#: Name of the check in the report.
NAME = "source count"


def is_missing(run: Run) -> bool:
    """Tell whether the source of a copied target can be asked and has not answered yet."""
    return run.job.source.is_remote and EntryKind.SOURCE_COUNT not in run.target.ledger().entries


def count_source_again(run: Run, session: Session) -> None:
    """Compare the records read with the source's count; keep the answer in the ledger.

    Args:
        run: a command that holds the target, whose shards are all committed and counted.
        session: of the source.
    """
    if not is_missing(run):
        return
    receipt = ask(run, session)
    if receipt is None:
        return
    publish(run.state, receipt, [])

    def change(ledger: Ledger) -> Ledger | None:
        if receipt.name in ledger.entries:
            return None
        return ledger.with_entry(EntryKind.SOURCE_COUNT, receipt.name, 0, receipt.nonce)

    commit(run.target, change)
    failpoint.reach("counted")


def count_later(run: Run) -> None:
    """Ask a source that an earlier run did not ask, or that did not answer then."""
    if not is_missing(run):
        return
    try:
        with run.source_session as session:
            count_source_again(run, session)
    except SourceError as error:
        _not_counted(run, error)


def answers(run: Run) -> bool:
    """Tell whether the source answers now; where it does not, the report says why."""
    try:
        with run.source_session as session:
            return ask(run, session) is not None
    except SourceError as error:
        _not_counted(run, error)
        return False


def ask(run: Run, session: Session) -> SourceCountReceipt | None:
    """Ask the source for its count; where it does not answer, the report says why."""
    source, plan = run.job.source, run.plan
    try:
        after = source.count(Context(session=session.state, throttle=throttle.local_budget(source)))
    except SourceError as error:
        _not_counted(run, error)
        return None
    before = plan.rows if plan.exact else None
    status, detail = _compare(run.report.counts["read"], before, after)
    return SourceCountReceipt(
        name=EntryKind.SOURCE_COUNT.value,
        nonce=new_nonce(),
        status=status,
        detail=detail,
        asked=utc_now(),
        consistency=run.report.consistency,
    )


def report_source_count(run: Run) -> None:
    """Give the report its line on the source's count, also where nobody asked the source."""
    if any(check.name == NAME for check in run.report.checks):
        return
    run.report.check(NAME, *_result(run))


def _result(run: Run) -> tuple[Status, str]:
    books = read_books(run.state, run.target.ledger())
    synced, answer = books.synced, books.source_count
    if synced is not None:
        return _compare(synced.read, synced.counted_before, synced.counted_after)
    if answer is not None:
        return answer.status, f"{answer.detail} (asked at {answer.asked})"
    return _compare_with_plan(run)


def _compare_with_plan(run: Run) -> tuple[Status, str]:
    """Compare with the count of the plan: the source itself was not asked again."""
    counts = run.report.counts
    if counts["shards"] < counts["shards_planned"]:
        return "not_run", "not every shard is committed yet; cfray migrate goes on"
    if run.job.source.is_remote:
        return "not_run", "the source has not answered yet; cfray migrate asks it again"
    read, planned = counts["read"], run.plan.rows
    is_files = run.plan.consistency == "pinned files"
    if not run.plan.exact or planned is None:
        who = "files of this kind do" if is_files else "this source does"
        return "not_run", f"{who} not say how many records there are; {read:,} read"
    who = "the files say that they hold" if is_files else "the source says that it holds"
    if read != planned:
        return "fail", f"{read:,} records read, but {who} {planned:,}"
    return "pass", f"{read:,} records read, as many as {who}"


def _not_counted(run: Run, error: SourceError) -> None:
    run.report.check(NAME, "not_run", f"the source did not count: {error.what}")


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
