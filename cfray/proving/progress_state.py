"""How far a target is, in a word and a sentence: what ``cfray status`` says first.

The ledger says what is committed, the lease who is at work, and the kept reports what was
verified; only a verification of exactly the present entries makes a target complete.
"""

from __future__ import annotations

from cfray.errors import ProofFailed
from cfray.report.facts import Report
from cfray.report.run import Run
from cfray.target import lease
from cfray.target.ledger import EntryKind


def progress_state(run: Run, holder: lease.Holder | None) -> tuple[str, str]:
    """Name the state of a target, and say what that means for the operator."""
    counts, ledger = run.report.counts, run.target.ledger()
    if holder is not None and not holder.has_ended:
        certainty = (
            "is writing to it"
            if holder.is_here
            else "holds it; whether it is alive is not known from here"
        )
        return "running", f"{holder} {certainty}"
    ended = "" if holder is None else f"; {holder} ended without a report"
    if counts["shards"] < counts["shards_planned"] or EntryKind.HEADERS not in ledger.entries:
        return "unfinished", f"the copy is not complete: run cfray migrate to go on{ended}"
    last_report = Report.last_verification(run.state, ledger)
    if last_report is None:
        remedy = "run cfray migrate (or cfray verify)"
        return "unverified", f"every shard is committed, but not verified yet: {remedy}{ended}"
    if last_report.exit_code == ProofFailed.exit_code:
        return (
            "failed",
            f"cfray {last_report.command} at {last_report.ended}: {last_report.verdict}",
        )
    return "complete", f"cfray {last_report.command} at {last_report.ended}: {last_report.verdict}"
