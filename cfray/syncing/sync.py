"""Bring a target up to date with its source: what changed comes in, what is gone leaves.

The difference is found and its rows are written first; then one commit takes rows out, brings rows
in, and replaces the headers.  A sync that is killed before that commit has changed nothing, and one
that is run again finds no difference.  Afterwards the target is what a migration of the source, as
it was read, would have made.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cfray.copying.driver import allowed_quarantine
from cfray.copying.write import new_nonce
from cfray.engine import failpoint
from cfray.errors import ConfigError, LimitReached, TargetError
from cfray.frames.digests import MODULUS
from cfray.job.mapping import FRAME_KINDS
from cfray.joining.headers import prepare_headers
from cfray.joining.quarantine import quarantined_rows
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.syncing.difference import Difference, find_difference, remember
from cfray.syncing.files import ComparisonDamaged
from cfray.syncing.folder import ComparisonFolder, RowIds
from cfray.syncing.leaving import Leaving, sum_leaving
from cfray.syncing.write import Written, mark_deleted, write_documents
from cfray.target.books import Books, read_books
from cfray.target.commit import commit, without_rows
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.quarantine_counts import SAME_IDENTITY, count_name
from cfray.target.receipts import SyncReceipt

#: Share of the target's documents that may leave in a sync (a choice): a folder that is not
#: mounted, or a wrong address, takes more away than people mostly do between two syncs.
_MOST_GONE = 0.5
#: What becomes of a document that the source has no more: it leaves the target, it stays with the
#: status ``deleted``, or it stays as it is.
Deletes = Literal["apply", "mark", "ignore"]


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """What a sync is asked for.

    Attributes:
        deletes: what becomes of documents that the source has no more.
        allow_empty: believe a source, or a source collection, that answers with no record at all,
            or that lacks more than half of the target's documents.
        reads_all: read shards, too, that are as the last sync has read them.
    """

    deletes: Deletes = "apply"
    allow_empty: bool = False
    reads_all: bool = False


def sync(run: Run, settings: SyncSettings) -> Difference:
    """Bring what changed at the source into the target, in one commit.

    Args:
        run: a command that holds a complete target.
        settings: what is asked for.

    Returns:
        The difference as it was found.

    Raises:
        ConfigError: the source answers with nothing, or the job file is not the target's last.
        LimitReached: too many records do not fit; nothing was committed.
        CfrayError: the source, the model or the storage failed; nothing was committed.
    """
    ledger = run.target.ledger()
    check_job_is_last(run, ledger)
    name = ledger.next_name(EntryKind.SYNC)
    files = ComparisonFolder(run.state.scratch.child(f"{name}-difference"))
    _check_can_mark(run, settings)
    try:
        difference = run.timed(
            "difference",
            lambda: find_difference(run, files, stages=True, remembers=not settings.reads_all),
        )
        books = read_books(run.state, ledger)
        # records that fit no longer are no reason to believe that they are gone
        check_limits(run, difference)
        check_not_empty(run, books, difference, settings)
        failpoint.reach("found")
        work = _Sync(run, settings, difference, books, name)
        if run.timed("sync", work.commit):
            failpoint.reach("synced")
        remember(run, difference)
    except ComparisonDamaged:
        files.remove()
        raise
    files.remove()
    run.report.notes.append(f"sync: {difference.sentence()}")
    run.report.counts |= {
        "shards_read": len(difference.shards) - difference.unread,
        "shards_unread": difference.unread,
        **work.counts(),
    }
    return difference


def _check_can_mark(run: Run, settings: SyncSettings) -> None:
    """Refuse to mark where the status is the source's own.

    Raises:
        ConfigError: nobody could tell cfray's mark from the source's.
    """
    if settings.deletes != "mark":
        return
    if run.job.source.kind in FRAME_KINDS:
        raise ConfigError(
            "the frames of this source have a status of their own, and --deletes mark would write "
            "into it",
            "use --deletes apply or ignore; where the source is a target, its own sync can mark",
        )
    if any(shape.status is not None for shape in run.job.mapping.shapes):
        raise ConfigError(
            "mapping.status fills the column status from the source, and --deletes mark would "
            "write into it",
            "use --deletes apply or ignore, or leave status out of the mapping of a new target",
        )


def check_job_is_last(run: Run, ledger: Ledger) -> None:
    """Refuse a job file with an earlier mapping: rows that a replay brought in would leave.

    Raises:
        ConfigError: says which job file to use.
    """
    if run.job.fingerprint != ledger.fingerprints[-1]:
        raise ConfigError(
            f"a later command gave {run.job.target.uri} another mapping or other vectors than this "
            "job file asks for",
            "use the job file of the last cfray quarantine replay or cfray embed",
        )


def check_not_empty(run: Run, books: Books, difference: Difference, settings: SyncSettings) -> None:
    """Refuse to take a source, or a source collection, that answers with nothing for an empty one.

    Raises:
        ConfigError: nothing was changed.
    """
    if settings.allow_empty:
        return
    now = records_by_collection(difference)
    before: Counter[str] = Counter()
    if books.synced is not None:
        before.update(books.synced.collections)
    else:
        for receipt in books.shards:
            before[run.plan.shards[int(receipt.name)].collection] += receipt.read
    empty = sorted(name for name, records in before.items() if records and not now[name])
    if not empty:
        _check_not_halved(difference, settings)
        return
    names = ", ".join(filter(None, empty))
    what = f"the source collection {names} has" if names else "the source has"
    held = counted(sum(before[name] for name in empty), "record")
    raise ConfigError(
        f"{what} no record at all, and the target was made of {held} of it; nothing was changed",
        "see whether the source is whole; if it is really empty, add --allow-empty",
    )


def _check_not_halved(difference: Difference, settings: SyncSettings) -> None:
    """Refuse to let more than half of the documents leave.

    Raises:
        ConfigError: nothing was changed.
    """
    leaving = {
        "apply": len(difference.gone_rows),
        "mark": len(difference.unmarked_rows),
        "ignore": 0,
    }[settings.deletes]
    if leaving > difference.documents * _MOST_GONE:
        raise ConfigError(
            f"{leaving:,} of the target's {counted(difference.documents, 'document')} are gone "
            f"from the source{_unreadable_words(difference)}; nothing was changed",
            "see whether the source is whole; if they are really gone, add --allow-empty",
        )


def _unreadable_words(difference: Difference) -> str:
    """Say how many records were read and do not fit: of some of them nobody can read the id."""
    if not difference.quarantined:
        return ""
    does = "does" if difference.quarantined == 1 else "do"
    return f", in which {counted(difference.quarantined, 'record')} {does} not fit"


def records_by_collection(difference: Difference) -> Counter[str]:
    """Count the records that were read, by source collection."""
    records: Counter[str] = Counter()
    for outcome in difference.outcomes:
        records[difference.shards[outcome.number].collection] += outcome.read
    return records


def check_limits(run: Run, difference: Difference, refused: int = 0) -> None:
    """Refuse to go on where too many records do not fit.

    Raises:
        LimitReached: nothing was committed.
    """
    repeated = difference.counts[SAME_IDENTITY]
    if repeated and run.job.mapping.on_duplicate == "error":
        raise LimitReached(
            f"{counted(repeated, 'record repeats', 'records repeat')} the identity of an earlier "
            "record, and mapping.on_duplicate is error",
            "remove them from the source; nothing was committed",
        )
    bad = difference.quarantined + refused
    if bad > allowed_quarantine(run.job, difference.read):
        raise LimitReached(
            f"{bad:,} of {counted(difference.read, 'record')} do not fit, more than "
            f"limits.max_quarantined ({run.job.limits.max_quarantined}) allows",
            "raise limits.max_quarantined, or correct the source; nothing was committed",
        )


def _changes_nothing(run: Run, books: Books, receipt: SyncReceipt) -> bool:
    """Tell whether a commit would leave the target, its quarantine and its marks as they are."""
    synced = books.synced
    if receipt.frames or receipt.left:
        return False
    if (books.read, books.quarantined) != (receipt.read, receipt.quarantined):
        return False
    if receipt.marks != (run.plan.marks if synced is None else synced.marks):
        return False
    if synced is not None:
        return synced.rejects == receipt.rejects
    rows = quarantined_rows(run.state, run.target.ledger())
    return sum(row.content.digest for row in rows) % MODULUS == receipt.rejects


@dataclass(frozen=True, slots=True)
class _Sync:
    """One sync whose difference is found.

    Attributes:
        books: before the sync; its receipt is added.
        name: of the ledger's entry.
    """

    run: Run
    settings: SyncSettings
    difference: Difference
    books: Books
    name: str

    def counts(self) -> dict[str, int]:
        """Count for the report what the sync did."""
        difference = self.difference
        rows = {"apply": difference.gone_rows, "mark": difference.unmarked_rows}
        return {
            "records_new": difference.new,
            "records_changed": difference.changed,
            "records_gone": len(rows.get(self.settings.deletes, ())),
            "records_unfit": len(difference.unfit_rows),
            "records_same": difference.same,
        }

    def commit(self) -> bool:
        """Write, and commit everything at once; give whether there was anything to commit."""
        run, difference = self.run, self.difference
        written = write_documents(run, difference)
        check_limits(run, difference, len(written.rejected))
        documents = written.documents + len(written.rejected)
        if documents != difference.new + difference.changed:
            raise TargetError(
                f"{difference.new + difference.changed:,} documents differ, and {documents:,} were "
                "written",
                "this is a fault of cfray's; nothing was committed",
            )
        if self.settings.deletes == "mark":
            written.add(mark_deleted(run, difference, difference.unmarked_rows))
        row_ids = self._leaving_rows()
        leaving = sum_leaving(run, difference.files.folder, row_ids)
        receipt = replace(
            self._receipt(written, leaving), emptied=self._emptied(written, leaving, row_ids)
        )
        if _changes_nothing(run, self.books, receipt):
            return False
        lines = b"".join(difference.files.rejected_by(outcome) for outcome in difference.outcomes)
        lines += b"".join(row.to_line() for row in written.rejected)
        if lines:
            run.state.quarantine.publish(receipt.quarantine_file, lines)
        run.state.publish_receipt(receipt)
        self.books.add(receipt)
        headers = prepare_headers(run, self.books)
        failpoint.reach("written")

        def change(ledger: Ledger) -> Ledger | None:
            if receipt.name in ledger.entries:
                return None
            joined = ledger.with_entry(EntryKind.SYNC, self.name, receipt.frames, receipt.nonce)
            return headers.with_entry(joined)

        stale = [*row_ids.tolist(), *headers.stale_rows]
        commit(
            run.target,
            change,
            lambda: [*receipt.fragments, *headers.fragments],
            rewrite=lambda dataset: without_rows(dataset, stale),
        )
        return True

    def _leaving_rows(self) -> RowIds:
        """Give the row ids of all rows that leave, sorted."""
        difference = self.difference
        leaves = (difference.kinds != 0) & ~difference.kept
        stays = {
            "apply": np.empty(0, np.uint64),
            "mark": np.setdiff1d(difference.gone_rows, difference.unmarked_rows),
            "ignore": difference.gone_rows,
        }[self.settings.deletes]
        leaves[difference.with_chunks(stays).astype(np.int64)] = False
        return np.flatnonzero(leaves).astype(np.uint64)

    def _emptied(self, written: Written, leaving: Leaving, row_ids: RowIds) -> list[str]:
        """Name the collections whose last document leaves."""
        emptied: list[str] = []
        for name in leaving.tally.collections.keys() - written.tally.collections.keys():
            text = name.replace("'", "''")
            members = self.run.target.open().to_table(
                columns=[],
                filter=f"collection = '{text}' AND record_type = 'document'",
                with_row_id=True,
            )
            if np.isin(members["_rowid"].to_numpy(), row_ids).all():
                emptied.append(name)
        return sorted(emptied)

    def _receipt(self, written: Written, leaving: Leaving) -> SyncReceipt:
        difference = self.difference
        tally = copy.deepcopy(written.tally)
        tally.merge(leaving.tally.collections)
        vector_counts: Counter[str] = Counter()
        if difference.compared.texts:
            vector_counts.update(written.counts)
            vector_counts.subtract(leaving.counts)
        counts = difference.counts
        counts.update(count_name(row.reason, row.stage) for row in written.rejected)
        refused = len(written.rejected)
        before, after = difference.counted
        return SyncReceipt(
            name=self.name,
            nonce=new_nonce(),
            read=difference.read,
            staged=difference.read - difference.quarantined - refused,
            quarantined=difference.quarantined + refused,
            added=difference.new,
            changed=difference.changed,
            gone=self.counts()["records_gone"],
            unfit=len(difference.unfit_rows),
            remaining=0 if self.settings.deletes == "apply" else len(difference.gone_rows),
            remaining_digest=0 if self.settings.deletes == "apply" else difference.gone_digest,
            frames=tally.frames,
            fragments=written.fragments,
            files=written.files,
            sums=tally.sums,
            centroids=tally.centroids(),
            left=leaving.left,
            counts={name: count for name, count in counts.items() if count},
            vector_counts={name: count for name, count in vector_counts.items() if count},
            size=tally.size,
            rejects=(difference.rejects + sum(row.digest for row in written.rejected)) % MODULUS,
            collections=dict(records_by_collection(difference)),
            sessions=dict(Counter(outcome.session for outcome in difference.outcomes)),
            marks=difference.marks,
            counted_before=before,
            counted_after=after,
            shards=len(difference.shards),
        )
