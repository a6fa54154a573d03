"""Whether anything is left to do on a target: asked without the lease, and answered in seconds.

A target is up to date if its last verification saw the version of the dataset that is
there now, found no damage, and neither compaction nor an index of the job file is due.
Then ``migrate`` repeats that report and adds no version.  Whatever is not sure counts as
something to do.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from cfray.embedding.pending import vectors_are_pending
from cfray.errors import TargetError
from cfray.finishing import compact, index
from cfray.joining import headers
from cfray.report.facts import Check, Report
from cfray.report.names import SOURCE_SINCE
from cfray.report.run import Run
from cfray.target import lease
from cfray.target.books import read_books
from cfray.target.ledger import EntryKind

#: Checks whose result stands in the ledger or in the plan: to verify again does not change it.
_LASTING = frozenset({"source count", "gate of the map", "vectors by the expected model"})
#: Checks that say nothing of the target's own state.
_NO_DAMAGE = _LASTING | {SOURCE_SINCE}


def last_verification(run: Run) -> Report | None:
    """Give the report that verified the target as it is now; None where something is to do.

    Args:
        run: a command that only looks at the target.

    Raises:
        CfrayError: the target cannot be read, or an index of the job file cannot be built.
    """
    if lease.read(run.state.folder) is not None:
        return None  # a run is at work, or was killed at work
    report = _report_of_this_version(run)
    if report is None or _has_damage(report) or _is_unfinished(run):
        return None
    dataset = run.target.open()
    count = index.count_vectors(read_books(run.state, run.target.ledger()))
    if index.unfinished(dataset, run.job.index, run.plan.metric, count) or compact.is_due(dataset):
        return None
    return report


def repeat(run: Run, verification: Report) -> None:
    """Report a target on which nothing is to be done, as it was verified last.

    Args:
        run: a command that only looks at the target; it has counted.
        verification: the report of the verification.
    """
    report = run.report
    known_names = {check.name for check in report.checks}
    report.checks += [
        _as_made_then(check, verification.ended)
        for check in verification.checks
        if check.name not in known_names
    ]
    report.gate, report.search = verification.gate, verification.search
    report.vectors, report.parity = verification.vectors, verification.parity
    committed = report.counts["shards"]
    report.counts |= {"shards_resumed": committed, "shards_adopted": 0, "shards_read": 0}
    if "dangling_references" in verification.counts:
        report.counts["dangling_references"] = verification.counts["dangling_references"]
    report.notes.append(
        f"nothing was to be done: cfray {verification.command} verified this version of the "
        f"dataset ({verification.dataset_version}) at {verification.ended}"
    )
    report.name_missing_checks(f"the verification of {verification.ended} did not make this check")
    report.give_verdict()
    if report.exit_code == 0:
        (source,) = [check.detail for check in report.checks if check.name == SOURCE_SINCE]
        looked = f"nothing to do: verified at {verification.ended}, not looked at again"
        report.verdict = f"{looked}; the source: {source}"


def _as_made_then(check: Check, ended: str) -> Check:
    """Say of a check when it was made: this command did not make it.

    The result of a lasting check holds whenever it is read.
    """
    if check.status == "not_run" or check.name in _LASTING:
        return check
    return replace(check, detail=f"{check.detail} (checked at {ended}, not now)")


def _report_of_this_version(run: Run) -> Report | None:
    ledger, version = run.target.ledger(), run.target.open().version
    with suppress(TargetError):  # a damaged report is no report: the target is verified again
        report = Report.last_verification(run.state, ledger)
        if report is not None and report.dataset_version == version:
            return report
    return None


def _has_damage(report: Report) -> bool:
    return any(check.status == "fail" and check.name not in _NO_DAMAGE for check in report.checks)


def _is_unfinished(run: Run) -> bool:
    """Tell whether a shard, the vectors or the headers are missing."""
    ledger = run.target.ledger()
    if len(ledger.names(EntryKind.SHARD)) < len(run.plan.shards):
        return True
    if vectors_are_pending(run.job, run.plan, run.target, ledger):
        return True
    return not headers.are_current(read_books(run.state, ledger))
