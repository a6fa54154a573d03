"""Put damaged rows of a target right: copy them anew from the source, in one commit.

A shard is repaired only where the source still gives what the copy was given.  Then the rows
that stay and the rows that come in must add up to what was written, group by group: where they do
not, nothing is committed.  Rows that cfray did not write leave; headers are written anew.

What cannot be had from the source is not repaired: a shard whose records have changed since, and
rows that a replay brought in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias, TypeVar

import pyarrow as pa

from cfray.conversion.chunk_frames import document_rows
from cfray.copying.driver import context_of
from cfray.copying.shard import PlannedShard
from cfray.copying.write import Tally, new_nonce, publish, write_frames
from cfray.embedding.joining_frames import make_joining_vectors
from cfray.embedding.vectors import schema_of_target
from cfray.errors import ProofFailed
from cfray.frames.digests import group_columns
from cfray.frames.schema import TYPES_KEY
from cfray.joining.headers import NewHeaders, prepare_headers
from cfray.proving.compared import entries_of_shard, left_for_quarantine, made_columns
from cfray.proving.differences import cancel, compared_columns, concatenate, hash_rows
from cfray.proving.read_source import SourceReader, steps_of_copy
from cfray.proving.read_target import FOREIGN, EntryName, Fragments
from cfray.proving.verify import TargetFindings
from cfray.records.record import canonical
from cfray.report.run import Run
from cfray.runtime.plurals import counted
from cfray.target.books import Books, Content, read_books
from cfray.target.commit import SchemaChange, commit, without_rows
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.origins import RowOrigins, entry_label
from cfray.target.receipts import LeftRows, RepairReceipt

T = TypeVar("T")

#: A document with its chunks, or a row of a job without chunks: it leaves and comes in whole.
Unit: TypeAlias = pa.RecordBatch


def repair(run: Run, found: TargetFindings, unlike: Mapping[str, str]) -> bool:
    """Copy the damaged rows of a target anew; note what was done, or why nothing was.

    Args:
        run: a command that holds the target.
        found: by the checks at the ledger level.
        unlike: name of a shard's entry -> how the source is unlike what was copied from it.

    Returns:
        whether something was committed.

    Raises:
        ProofFailed: rows do not add up to what was written; nothing was committed.
        CfrayError: the source or the model failed; nothing was committed.
    """
    ledger = run.target.ledger()
    books = read_books(run.state, ledger)
    shards, blocked = _shards_to_repair(run, found, ledger, books, unlike)
    if blocked:
        run.report.notes.append(f"nothing was repaired: {'; '.join(blocked)}")
        return False
    work = _Repair(run, found, ledger, books)
    with run.source_session as session:
        reader = SourceReader(steps_of_copy(run), context_of(run, session))
        for shard in shards:
            work.restore(shard, reader)
    work.leave_out_foreign_rows()
    work.commit()
    restored = counted(sum(receipt.frames for receipt in work.receipts), "row")
    run.report.notes.append(
        f"repaired: {restored} of {counted(len(shards), 'shard')} copied anew from the source, "
        f"{counted(len(work.leaving), 'row')} taken out"
    )
    return True


def _shards_to_repair(
    run: Run, found: TargetFindings, ledger: Ledger, books: Books, unlike: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Name the shards of damaged rows, and say what cannot be repaired."""
    broken = set(found.damaged)
    for name, fragments in found.content.fragments.items():
        if name != FOREIGN and fragments & found.untrusted:
            broken.add(name)
    if found.missing_columns:
        return [], [f"the column {name} is gone" for name in found.missing_columns]
    shard_of = {name: shard for shard, names in books.repairs.items() for name in names}
    shards: set[str] = set()
    blocked: list[str] = []
    for name in sorted(broken):
        kind = ledger.entries[name].kind
        if kind is EntryKind.HEADERS:
            continue
        shard = shard_of.get(name, name)
        label = entry_label(run.plan, name, kind)
        if kind not in (EntryKind.SHARD, EntryKind.REPAIR):
            blocked.append(
                f"{label} is damaged, and its rows are not the source's (restore a backup)"
            )
        elif shard in unlike:
            blocked.append(f"{run.plan.shards[int(shard)].id} {unlike[shard]}")
        else:
            shards.add(shard)
    return sorted(shards, key=int), blocked


@dataclass(slots=True)
class _Restoration:
    """Rows of a shard: what stays, and what comes in.

    Attributes:
        kept: name of an entry -> its rows that stay.
        leaving: row ids of the others.
        left: what these hold now.
        units: that come in.
    """

    kept: dict[EntryName, Content] = field(default_factory=dict)
    leaving: list[int] = field(default_factory=list)
    left: Content = field(default_factory=Content)
    units: list[Unit] = field(default_factory=list)


@dataclass(slots=True)
class _Repair:
    """One repair: rows are written first, then everything is committed at once."""

    run: Run
    found: TargetFindings
    ledger: Ledger
    books: Books
    receipts: list[RepairReceipt] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)

    def restore(self, shard: str, reader: SourceReader) -> None:
        """Write the rows of a shard that are damaged or lost, as the source has them.

        Raises:
            ProofFailed: with them the shard is not what was written.
        """
        entries = entries_of_shard(self.books, shard)
        expected = {name: self.books.content[name] for name in entries}
        made = made_columns(self.run, self.ledger)
        whole = reader.steps.cutter is not None
        restoration = self._compare(shard, reader, whole=whole)
        if made and not whole and not _are_vectors_intact(expected, restoration):
            # no row says what its vector was: all of them are made anew
            restoration = self._compare(shard, reader, whole=True)
        frames = self._frames(restoration.units, made)
        self._check(shard, expected, restoration, frames, made)
        self.leaving += restoration.leaving
        self.receipts.append(self._write(shard, expected, restoration, frames))
        self.books.add(self.receipts[-1])

    def leave_out_foreign_rows(self) -> None:
        """Take the rows out that cfray did not write."""
        fragments = self._fragments(frozenset([FOREIGN]))
        for _, row_ids, _ in fragments.rows_of(frozenset([FOREIGN]), ["uuid"]):
            self.leaving += row_ids.to_pylist()

    def commit(self) -> None:
        """Commit rows, removals, new headers and the types of the fields at once."""
        headers = prepare_headers(self.run, self.books)
        emptied, leaving = self.found.untrusted, [*self.leaving, *headers.stale_rows]
        types = canonical(self.run.plan.shape.metadata_types)
        commit(
            self.run.target,
            lambda current: self._with_entries(current, headers),
            lambda: [
                *(item for receipt in self.receipts for item in receipt.fragments),
                *headers.fragments,
            ],
            rewrite=lambda dataset: without_rows(dataset, leaving, emptied),
            schema_change=SchemaChange(metadata={TYPES_KEY: types}),
        )

    def _with_entries(self, ledger: Ledger, headers: NewHeaders) -> Ledger | None:
        for receipt in self.receipts:
            if receipt.name in ledger.entries:
                return None
            ledger = ledger.with_entry(
                EntryKind.REPAIR, receipt.name, receipt.frames, receipt.nonce
            )
        return headers.with_entry(ledger)

    def _fragments(self, entries: frozenset[EntryName]) -> Fragments:
        """Give the fragments that hold rows of some entries and are as they were written."""
        content, version = self.found.content, self.found.version
        ids = {number for name in entries for number in content.fragments.get(name, ())}
        trusted = sorted(ids - self.found.untrusted)
        origins = RowOrigins(self.run.plan, self.ledger)
        return Fragments(self.run.target.uri, version, trusted, origins)

    def _compare(self, shard: str, reader: SourceReader, *, whole: bool) -> _Restoration:
        """Find the rows that stay and those that come in.

        ``whole``: none stays.
        """
        planned = PlannedShard(int(shard), self.run.plan.shards[int(shard)])
        entries = entries_of_shard(self.books, shard)
        fragments = self._fragments(entries)
        hashed = group_columns(self.run.target.open().schema)
        names = ["uuid", *(name for group in hashed.values() for name in group)]
        left_out = made_columns(self.run, self.ledger) | {"raw_data"}
        columns = compared_columns(reader, left_out)
        source = concatenate(hash_rows(frames, columns) for frames in reader.frames(planned))
        target = concatenate(
            hash_rows(rows, columns) for _, _, rows in fragments.rows_of(entries, names)
        )
        only_source, only_target = cancel(source, target)
        restoration = _Restoration()
        for name, row_ids, rows in fragments.rows_of(entries, names):
            leaves = [
                whole or _takes(only_target, int(value)) for value in hash_rows(rows, columns)
            ]
            stays = pa.array([not leaving for leaving in leaves])
            kept = Content.of(rows.filter(stays))
            restoration.kept[name] = restoration.kept.get(name, Content()) + kept
            restoration.left += Content.of(rows.filter(pa.array(leaves)))
            restoration.leaving += row_ids.filter(pa.array(leaves)).to_pylist()
        left = left_for_quarantine(self.run, self.ledger, self.books)
        units = [
            unit
            for frames in reader.frames(planned)
            for unit, value in _units(frames, columns)
            if whole or _takes(only_source, value)
        ]
        restoration.units = _without_left(units, left.get(planned.shard.id, Counter()))
        return restoration

    def _frames(self, units: list[Unit], made: frozenset[str]) -> pa.RecordBatch:
        """Put units into the target's schema, with their vectors where a model makes these."""
        run = self.run
        schema = schema_of_target(run.job, run.plan.shape, run.target)
        if not units:
            return pa.RecordBatch.from_pylist([], schema=schema)
        frames = pa.concat_batches(units)
        columns = dict(zip(frames.schema.names, frames.columns, strict=True))
        if made:
            vectors = make_joining_vectors(run, frames)
            if vectors.refused:
                row, why = next(iter(vectors.refused.items()))
                raise ProofFailed(
                    f"the row {frames.column('uuid')[row]} cannot have its vector: {why}",
                    "nothing was committed; use the model that made the target's vectors",
                )
            columns |= vectors.columns
        arrays = [columns[field.name].cast(field.type) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _check(
        self,
        shard: str,
        expected: dict[EntryName, Content],
        restoration: _Restoration,
        frames: pa.RecordBatch,
        made: frozenset[str],
    ) -> None:
        """Compare what stays and what comes in with what was written.

        Raises:
            ProofFailed: they do not add up.
        """
        whole = sum(expected.values(), Content())
        after = sum(restoration.kept.values(), Content.of(frames))
        groups = {group for group in whole.sums if group != "vector" or not made}
        unequal = [group for group in groups if whole.sums[group] != after.sums.get(group)]
        if whole.rows != after.rows or unequal:
            differs = ", ".join(sorted(unequal)) or "the number of rows"
            raise ProofFailed(
                f"{self.run.plan.shards[int(shard)].id} cannot be repaired: with the source's rows "
                f"it would not be what was written ({differs})",
                "nothing was committed; restore the target from a backup, or migrate into a new "
                "target.uri",
            )

    def _write(
        self,
        shard: str,
        expected: dict[EntryName, Content],
        restoration: _Restoration,
        frames: pa.RecordBatch,
    ) -> RepairReceipt:
        """Write the rows that come in, and publish their receipt."""
        tally = Tally()
        fragments, files = write_frames(self.run.target.uri, frames.schema, [frames], tally)
        left = {}
        for name, content in expected.items():
            gone = content - restoration.kept.get(name, Content())
            left[str(name)] = LeftRows(records=gone.rows, sums=gone.sums)
        number = len(self.ledger.names(EntryKind.REPAIR)) + len(self.receipts) + 1
        receipt = RepairReceipt(
            name=f"{EntryKind.REPAIR}-{number:04d}",
            nonce=new_nonce(),
            frames=tally.frames,
            fragments=fragments,
            files=files,
            sums=tally.sums,
            counts={"rows_restored": tally.frames},
            size=tally.size,
            shard=shard,
            left=left,
        )
        return publish(self.run.state, receipt, [])


def _are_vectors_intact(expected: dict[EntryName, Content], restoration: _Restoration) -> bool:
    """Tell whether the vectors of the rows that stay are certainly those that were made."""
    whole = sum(expected.values(), Content())
    now = sum(restoration.kept.values(), restoration.left)
    return whole.rows == now.rows and whole.sums.get("vector") == now.sums.get("vector")


def _takes(wanted: Counter[T], value: T) -> bool:
    """Take one of what is wanted, if there is one."""
    if wanted[value] <= 0:
        return False
    wanted[value] -= 1
    return True


def _units(frames: pa.RecordBatch, columns: list[str]) -> Iterator[tuple[Unit, int]]:
    """Divide frames into documents with their chunks; each with the hash of its document."""
    hashes = hash_rows(frames, columns)
    for start, end in pairwise([*document_rows(frames), frames.num_rows]):
        yield frames.slice(start, end - start), int(hashes[start])


def _without_left(units: list[Unit], left: Counter[str]) -> list[Unit]:
    """Leave out units that are in quarantine: of one uuid the first stayed in the target."""
    remaining = Counter(str(unit.column("uuid")[0]) for unit in units)
    for uuid, count in left.items():
        remaining[uuid] -= count
    return [unit for unit in units if _takes(remaining, str(unit.column("uuid")[0]))]
