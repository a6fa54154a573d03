"""Fill a report's counts from the committed receipts.

Never from what one process happened to see: a run that was killed and resumed reports
the same counts as a run that was not.
"""

from __future__ import annotations

from cfray.report.consistency import consistency_of
from cfray.report.facts import Report
from cfray.target.books import COUNTS_OF_VECTORS, read_books
from cfray.target.ledger import Ledger
from cfray.target.quarantine_counts import PREFIX, reasons_now
from cfray.target.receipts import ShardReceipt
from cfray.target.state import Plan, State

#: Stages whose figures come from the receipts of shards.
_WORKER_STAGES = ("read", "convert", "write")


def fill_counts(report: Report, ledger: Ledger, state: State, plan: Plan) -> None:
    """Fill a report's counts, consistency, worker stages and quarantine reasons.

    Records read = records staged + records quarantined holds at every moment: a duplicate that
    was removed and a row that a replay brought in move from one side to the other.
    """
    books = read_books(state, ledger)
    for stage in _WORKER_STAGES:
        report.stages.pop(stage, None)
    report.collections = {}
    for receipt in books.shards:
        _add_worker_figures(report, receipt)
        _add_to_collection(report, plan.shards[int(receipt.name)].collection, receipt)
    report.counts |= {
        "read": books.read,
        "staged": books.staged,
        "quarantined": books.quarantined,
        "frames": books.frames,
        "shards": len(books.shards),
        "shards_planned": len(plan.shards),
    }
    for name in COUNTS_OF_VECTORS:
        report.counts.pop(name, None)  # as they were counted before an embed began them anew
    report.counts |= {
        name: count for name, count in books.counts.items() if not name.startswith(PREFIX)
    }
    report.consistency = consistency_of(books, state, plan)
    report.quarantine_reasons = reasons_now(books, state)


def _add_to_collection(report: Report, name: str, receipt: ShardReceipt) -> None:
    """Count a shard for its source collection, as it was copied; files have none."""
    if not name:
        return
    names = ("read", "staged", "quarantined", "frames")
    counts = report.collections.setdefault(name, dict.fromkeys(names, 0))
    for key in names:
        counts[key] += getattr(receipt, key)


def _add_worker_figures(report: Report, receipt: ShardReceipt) -> None:
    for stage in _WORKER_STAGES:
        seconds = receipt.seconds.get(stage, 0.0)
        figures = report.stage(stage)
        figures.seconds += seconds
        figures.rows += receipt.read
        figures.bytes += receipt.size
