"""Find records that share an identity, and references that point nowhere; remove duplicates.

The first record by (shard id, ordinal) stays.  The later records leave the target in one
commit after the last shard and go to quarantine, so there are never two rows with one
uuid and never a silent choice.  ``identities`` searches the uuids, on the workers where
they are many.
"""

from __future__ import annotations

from dataclasses import dataclass

from cfray.conversion.rejects import COMMIT_STAGE
from cfray.copying.identities import SearchLimits, search_target
from cfray.copying.removal import remove_documents
from cfray.copying.write import new_nonce, publish
from cfray.errors import LimitReached
from cfray.runtime.plurals import counted
from cfray.target.commit import Target, commit, without_rows
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.origins import RowOrigins
from cfray.target.quarantine_counts import SAME_IDENTITY
from cfray.target.receipts import DuplicatesReceipt
from cfray.target.state import Plan, State


@dataclass(frozen=True, slots=True)
class Identities:
    """What a look at every uuid found.

    Attributes:
        duplicates: row id of every record that is not the first of its identity -> the reason.
        dangling: references to a uuid that no row has.
    """

    duplicates: dict[int, str]
    dangling: int


def find_duplicates(
    target: Target, plan: Plan, *, references: bool, limits: SearchLimits | None = None
) -> Identities:
    """Look at every uuid of the target.

    Args:
        target: the dataset.
        plan: its shards.
        references: count references that point nowhere, too.
        limits: of the processes that search.
    """
    found = search_target(target, limits or SearchLimits(), references=references)
    origins = RowOrigins(plan, target.ledger())
    duplicates: dict[int, str] = {}
    for row_ids in found.groups():
        first_row, *later_rows = sorted(row_ids, key=origins.order)
        reason = f"same identity as the record at {origins.position(first_row)}"
        duplicates |= dict.fromkeys(later_rows, reason)
    return Identities(dict(sorted(duplicates.items())), found.dangling)


def remove_duplicates(
    target: Target, state: State, plan: Plan, identities: Identities, allowed: float
) -> DuplicatesReceipt:
    """Remove duplicates and their chunks in one commit and put the records in quarantine.

    Raises:
        LimitReached: they are more than ``limits.max_quarantined`` still allows; nothing was
            removed.
    """
    duplicates = identities.duplicates
    if len(duplicates) > allowed:
        raise LimitReached(
            f"{counted(len(duplicates), 'record shares its', 'records share their')} identity with "
            f"another record ({next(iter(duplicates.values()))}, ...), more than "
            "limits.max_quarantined allows",
            "choose another mapping.id for a new target, or raise limits.max_quarantined and run "
            "the same command again",
        )
    ledger = target.ledger()
    removal = remove_documents(target.open(), RowOrigins(plan, ledger), duplicates, COMMIT_STAGE)
    quarantined = len(removal.rejected)
    receipt = DuplicatesReceipt(
        name=_next_name(ledger),
        nonce=new_nonce(),
        quarantined=quarantined,
        centroids=removal.tally.centroids(),
        counts={SAME_IDENTITY: quarantined},
        removed=removal.left,
    )
    publish(state, receipt, removal.rejected)

    def change(ledger: Ledger) -> Ledger | None:
        if receipt.name in ledger.entries:
            return None
        return ledger.with_entry(EntryKind.DUPLICATES, receipt.name, 0, receipt.nonce)

    commit(target, change, rewrite=lambda latest: without_rows(latest, removal.row_ids))
    return receipt


def _next_name(ledger: Ledger) -> str:
    """Name the entry of a removal: after the first one, which has the kind's name, with a number.

    A plan that was extended brings records whose identity an earlier one has.
    """
    first = EntryKind.DUPLICATES.value
    return first if first not in ledger.entries else ledger.next_name(EntryKind.DUPLICATES)
