"""Count what is in a target from its committed receipts.

Never from what one process happened to see.
"""

from __future__ import annotations

from collections import Counter

from cfray.report.facts import Report
from cfray.target.ledger import DUPLICATES, EMBED, Ledger
from cfray.target.receipts import Receipt
from cfray.target.state import Plan, State

_PREFIX = "quarantined: "
#: Counts that are true of the vectors as they are now, not of what was once written.
_OF_VECTORS = (
    "vectors_kept",
    "vectors_regenerated",
    "vectors_remapped",
    "missing_vectors",
    "texts_truncated",
    "texts_pooled",
    "tokens_lost",
)
_RECORDS = ("read", "staged", "quarantined", "frames")


def fill_counts(report: Report, ledger: Ledger, state: State, plan: Plan) -> None:
    """Fill a report's counts, worker stages and quarantine reasons.

    Records read = records staged + records quarantined holds at every moment: a duplicate that was
    taken out and a row that a replay brought in move from one side to the other.
    """
    totals: Counter[str] = Counter(dict.fromkeys(_RECORDS, 0))
    details: Counter[str] = Counter()
    for name in ("read", "convert", "embed", "write"):
        report.stages.pop(name, None)
    for receipt in state.committed(ledger):
        if receipt.name.startswith(EMBED):  # it made every vector anew
            for name in [name for name in details if name in _OF_VECTORS]:
                del details[name]
        details.update(receipt.counts)
        if receipt.name.isdigit():
            totals.update({name: getattr(receipt, name) for name in _RECORDS})
            _add_seconds(report, receipt)
        elif receipt.name == DUPLICATES:
            derived = receipt.counts.get(
                "derived_frames", 0
            )  # chunks of the records that were taken out
            totals.update(
                {
                    "staged": -receipt.quarantined,
                    "frames": derived - receipt.quarantined,
                    "quarantined": receipt.quarantined,
                }
            )
        elif receipt.name in ledger.replays:
            totals.update(
                {"staged": receipt.staged, "frames": receipt.frames, "quarantined": -receipt.staged}
            )
            details["replayed"] += receipt.staged
    report.counts.update(totals)
    report.counts.update(
        {name: count for name, count in details.items() if not name.startswith(_PREFIX)}
    )
    report.quarantine_reasons = {
        name.removeprefix(_PREFIX): count
        for name, count in details.items()
        if name.startswith(_PREFIX)
    }
    report.counts["shards"] = sum(name.isdigit() for name in ledger.entries)
    report.counts["shards_planned"] = len(plan.shards)


def _add_seconds(report: Report, receipt: Receipt) -> None:
    for stage, seconds in receipt.seconds.items():
        figures = report.stage(stage)
        figures.seconds += seconds
        figures.rows += receipt.read
        figures.bytes += receipt.size
