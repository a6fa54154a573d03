"""The whole corpus against its source, for a target that ``cfray sync`` has brought up to date.

The shards of the plan are of the source as it was then, so the source is divided anew and its
records are looked up in the target, as a sync does.  A difference is damage where the source has
certainly not been written to since the sync; else it may have gone on, and the check is left
undecided.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cfray.conversion.rejects import EMBED_STAGE
from cfray.copying.uuid_search import Keys, uuid_keys
from cfray.errors import ConfigError, SourceError
from cfray.joining.quarantine import quarantined_rows
from cfray.proving.note_differences import note_differences
from cfray.proving.verify import TargetFindings
from cfray.report.names import AGAINST_SOURCE
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.syncing.difference import Difference, compared_once
from cfray.syncing.rows_that_differ import rows_that_differ
from cfray.target.books import Books, read_books
from cfray.target.origins import entry_label


def compare_with_source(run: Run, found: TargetFindings) -> None:
    """Read the whole source and compare it with the target; note what came of it.

    Args:
        run: a command that looks at a target that was synced.
        found: by the checks at the ledger level.
    """
    if found.missing_columns or found.content.unreadable:
        run.report.leave_undecided(
            AGAINST_SOURCE, "the target lacks columns or fragments to compare"
        )
        return
    try:
        with compared_once(run) as difference:
            _judge(run, found, difference)
    except (SourceError, ConfigError) as error:
        run.report.leave_undecided(AGAINST_SOURCE, f"the source cannot be read: {error.what}")


def _judge(run: Run, found: TargetFindings, difference: Difference) -> None:
    ledger, report = run.target.ledger(), run.report
    books = read_books(run.state, ledger)
    assert books.synced is not None
    sentences = list(_sentences(run, books, difference))
    rows = list(rows_that_differ(run, difference)) if sentences else []
    note_differences(run, rows)
    damage = [
        f"{entry_label(run.plan, entry, ledger.entries[entry].kind)} {words}"
        for entry, words in found.damaged.items()
    ]
    is_quiet = bool(difference.marks) and difference.marks == books.synced.marks
    if damage or (sentences and is_quiet):
        report.check(AGAINST_SOURCE, "fail", "; ".join([*damage, *sentences]))
    elif sentences:
        report.leave_undecided(AGAINST_SOURCE, "; ".join(sentences))
    else:
        read = counted(difference.read, "record")
        shards = counted(len(difference.shards), "shard")
        detail = f"{read} of {shards} read again, converted and looked up in the target by hash"
        if difference.compared.texts:
            detail += "; vectors are the model's: only compared with what cfray made"
        report.check(AGAINST_SOURCE, "pass", detail)


def _sentences(run: Run, books: Books, difference: Difference) -> Iterator[str]:
    """Say how the source and the target differ."""
    new = difference.new - _refused_again(run, difference)
    if new:
        yield f"{counted(new, 'record is', 'records are')} only in the source"
    if difference.changed:
        yield f"{counted(difference.changed, 'record differs', 'records differ')}"
    assert books.synced is not None
    gone = len(difference.gone_rows) - books.synced.remaining
    if gone:
        yield f"{counted(abs(gone), 'record is', 'records are')} only in the target"
    refused = books.quarantined - _refused_by_model(run)
    if difference.quarantined != refused:
        yield (
            f"{counted(difference.quarantined, 'record')} of the source do not fit, {refused:,} "
            "were quarantined"
        )


def _refused_keys(run: Run) -> Iterator[Keys]:
    for row in quarantined_rows(run.state, run.target.ledger()):
        if row.content.stage == EMBED_STAGE:
            yield uuid_keys(row.record.column("uuid"))


def _refused_by_model(run: Run) -> int:
    """Count the records that are in quarantine because their text or the model was refused."""
    return sum(len(keys) for keys in _refused_keys(run))


def _refused_again(run: Run, difference: Difference) -> int:
    """Count the new records that are in quarantine: the model would refuse them again."""
    refused = list(_refused_keys(run))
    if not refused:
        return 0
    keys = np.concatenate(refused)
    new = (difference.files.seen_by(outcome).new for outcome in difference.outcomes)
    return sum(int(np.count_nonzero(np.isin(part, keys))) for part in new)
