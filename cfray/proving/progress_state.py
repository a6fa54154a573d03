"""How far a target is, in a word and a sentence: what ``cfray status`` says first.

The ledger says what is committed, the lease who is at work, and the kept reports what was
verified; only a verification of exactly the present entries makes a target complete.
"""

from __future__ import annotations

from typing import Literal

from cfray.embedding.pending import vectors_are_pending
from cfray.errors import ProofFailed
from cfray.report.facts import Report
from cfray.report.run import Run
from cfray.target import lease
from cfray.target.ledger import EntryKind

#: What is missing before a target is complete.
_MISSING = {
    "copying": "the copy is not complete: run cfray migrate to go on",
    "copied": (
        "every record is copied, vectors or headers are still to be made: run cfray migrate to go "
        "on, without the source"
    ),
}
#: How far a target is: records are missing, vectors are missing, nothing is missing.
Stage = Literal["copying", "copied", "complete"]


def stage_of(run: Run) -> Stage:
    """Tell how far a target is, verified or not."""
    counts, ledger = run.report.counts, run.target.ledger()
    if counts["shards"] < counts["shards_planned"]:
        return "copying"
    if vectors_are_pending(run.job, run.plan, run.target, ledger):
        return "copied"
    return "complete" if EntryKind.HEADERS in ledger.entries else "copied"


def progress_state(run: Run, holder: lease.Holder | None) -> tuple[str, str]:
    """Name the state of a target, and say what that means for the operator."""
    if holder is not None and not holder.has_ended:
        certainty = (
            "is writing to it"
            if holder.is_here
            else "holds it; whether it is alive is not known from here"
        )
        return "running", f"{holder} {certainty}"
    ended = "" if holder is None else f"; {holder} ended without a report"
    stage = stage_of(run)
    if stage != "complete":
        return stage, _MISSING[stage] + ended
    return _verified_state(run, ended)


def _verified_state(run: Run, ended: str) -> tuple[str, str]:
    last_report = Report.last_verification(run.state, run.target.ledger())
    if last_report is None:
        remedy = "run cfray migrate (or cfray verify)"
        return "unverified", f"every shard is committed, but not verified yet: {remedy}{ended}"
    state = "failed" if last_report.exit_code == ProofFailed.exit_code else "complete"
    return state, f"cfray {last_report.command} at {last_report.ended}: {last_report.verdict}"
