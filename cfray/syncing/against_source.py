"""The whole corpus against its source, for a target that ``cfray sync`` has brought up to date.

The shards of the plan are of the source as it was then, so the source is divided anew and its
records are looked up in the target, as a sync does.  A difference is damage where the source has
certainly not been written to since the sync; else it may have gone on, and the check is left
undecided.
"""

from __future__ import annotations

from collections.abc import Iterator

from cfray.conversion.rejects import EMBED_STAGE
from cfray.copying.uuid_search import uuid_keys
from cfray.errors import ConfigError, SourceError
from cfray.frames.digests import MODULUS
from cfray.joining.quarantine import QuarantinedRow, quarantined_rows
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
        with compared_once(run, remembers=False) as difference:
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
    quarantined = list(quarantined_rows(run.state, run.target.ledger()))
    refused = [row for row in quarantined if row.content.stage == EMBED_STAGE]
    new = difference.new - _refused_again(difference, refused)
    if new:
        yield f"{counted(new, 'record is', 'records are')} only in the source"
    if difference.changed:
        yield f"{counted(difference.changed, 'record differs', 'records differ')}"
    assert books.synced is not None
    if len(difference.unfit_rows):
        number = len(difference.unfit_rows)
        yield f"{counted(number, 'record fits', 'records fit')} no longer"
    gone, synced = len(difference.gone_rows), books.synced
    if gone != synced.remaining or (gone and difference.gone_digest != synced.remaining_digest):
        kept = f" ({synced.remaining:,} were kept on purpose)" if synced.remaining else ""
        yield f"{counted(gone, 'record is', 'records are')} only in the target{kept}"
    unfit = [row.content.digest for row in quarantined if row.content.stage != EMBED_STAGE]
    if (difference.quarantined, difference.rejects) != (len(unfit), sum(unfit) % MODULUS):
        yield (
            f"{counted(difference.quarantined, 'record')} of the source do not fit, and other ones "
            f"({len(unfit):,}) are in quarantine"
        )


def _refused_again(difference: Difference, refused: list[QuarantinedRow]) -> int:
    """Count the new records that the model has refused as they are: it would refuse them again.

    ``refused``: rows of the quarantine, each a frame.
    """
    again = {
        (bytes(key), int(value))
        for row in refused
        for key, value in zip(
            uuid_keys(row.record.column("uuid")),
            difference.compared.hashes(row.record)[0],
            strict=True,
        )
    }
    new = (difference.files.seen_by(outcome).new for outcome in difference.outcomes)
    return sum((bytes(row["key"]), int(row["hash"])) in again for part in new for row in part)
