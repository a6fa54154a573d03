"""Put staged shards into the target: data and ledger in ONE Lance commit.

The operation is a Merge that lists every fragment and carries the ledger in
the schema metadata.  It is a compare-and-swap (refused after any foreign
Merge, Append, Rewrite or Delete), refuses to be replayed, and keeps stable row
ids, deletion files and index coverage (``engine.md`` 2.1; feature-tested in
``tests/target/test_commit.py``).  Nothing else may commit rows.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from lance import LanceDataset, LanceOperation
from lance.dataset import Transaction
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from cfray.embedders.recipe import Recipe
from cfray.errors import LeaseHeld, LedgerMismatch, TargetError, TargetUnavailable
from cfray.runtime import filesystems
from cfray.runtime.filesystems import Folder, storage_options
from cfray.target.ledger import LEDGER_KEY, Ledger
from cfray.target.receipts import Receipt

# a conflict costs one foreign commit each; 12 were needed with two racing drivers and an appender
# (engine.md 2.1)
_ATTEMPTS = 60


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """What a commit changes of the schema.

    Attributes:
        metadata: keys to set.
        fields: top-level columns whose type changes, or that are new; their files are the business
            of ``rewrite``.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    fields: tuple[pa.Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The target dataset, and the epoch under which this run may commit.

    Attributes:
        uri: where it is.
        epoch: of the lease; 0 for a reader.
    """

    uri: str
    epoch: int = 0

    def open(self, version: int | None = None) -> LanceDataset:
        """Open the dataset."""
        return lance.dataset(self.uri, version=version, storage_options=storage_options(self.uri))

    def recipe(self) -> Recipe:
        """Read how the vectors of the latest version came to be."""
        dataset = self.open()
        return Recipe.from_metadata(
            dataset.schema.metadata, dataset.schema.field("vector").type.list_size
        )

    def ledger(self) -> Ledger:
        """Read the ledger of the latest version.

        Raises:
            LedgerMismatch: not a dataset of cfray's.
        """
        return Ledger.from_metadata(self.open().schema.metadata, self.uri)

    def check_held(self, ledger: Ledger) -> None:
        """Refuse to go on once another run has taken the target.

        Raises:
            LeaseHeld: the epoch rose.
        """
        if ledger.epoch != self.epoch:
            raise LeaseHeld(
                f"another run took {self.uri} over (epoch {ledger.epoch}, ours is {self.epoch}); this one adds nothing more",
                "let the other run finish",
            )


def find(uri: str) -> Ledger | None:
    """Read a target's ledger; None if there is no target yet.

    Raises:
        LedgerMismatch: something else is there; it stays untouched.
    """
    folder = Folder(uri)
    if not folder.exists():
        return None
    try:
        dataset = Target(uri).open()
    except (ValueError, OSError) as error:
        system, path = filesystems.filesystem(uri)
        info: pafs.FileInfo = system.get_file_info(path)
        if info.type == pafs.FileType.Directory and _is_unborn(system, path):
            return None
        raise LedgerMismatch(
            f"{uri} exists and is no Lance dataset ({str(error).splitlines()[0][:120]})",
            "give another target.uri; nothing was changed",
        ) from error
    return Ledger.from_metadata(dataset.schema.metadata, uri)


def _is_unborn(system: pafs.FileSystem, path: str) -> bool:
    """Tell an empty folder, or one in which a killed run had only begun to create its target.

    Lance writes the manifest last.
    """
    names = [
        info.path[len(path) + 1 :]
        for info in system.get_file_info(pafs.FileSelector(path, recursive=True))
    ]
    return all(
        name.split("/")[0] in ("_transactions", "_versions") and not name.endswith(".manifest")
        for name in names
    )


def create(uri: str, schema: pa.Schema, described: dict[str, str], fingerprint: str) -> Target:
    """Create the empty target with its first ledger.

    Args:
        uri: where.
        schema: of its rows.
        described: further schema metadata: the types of its fields, the recipe of its vectors.
        fingerprint: of the job.

    Raises:
        LeaseHeld: another run created it at the same moment.
        TargetError: the storage refused.
    """
    ledger = Ledger(epoch=1, version=1, next_row=0, fingerprints=(fingerprint,))
    metadata = {LEDGER_KEY: ledger.to_json(), **described}
    empty = schema.with_metadata(metadata).empty_table()
    try:
        lance.write_dataset(
            empty,
            uri,
            mode="create",
            enable_stable_row_ids=True,
            data_storage_version="2.2",
            storage_options=storage_options(uri),
        )
    except OSError as error:
        if "already exists" in str(error) or "onflict" in str(error):
            raise LeaseHeld(
                f"another run created {uri} at the same moment",
                "run the same command again when it has ended",
            ) from error
        raise filesystems.storage_error(error, f"could not create {uri}") from error
    return Target(uri, 1)


def take_over(uri: str) -> Target:
    """Raise the epoch with an empty commit: from here on an older holder's commits are refused.

    Raises:
        LeaseHeld: another run did so at the same moment.
    """
    dataset = Target(uri).open()
    ledger = Ledger.from_metadata(dataset.schema.metadata, uri)
    raised = replace(ledger, epoch=ledger.epoch + 1)
    if not _merged(dataset, raised, [], None):
        raise LeaseHeld(
            f"another run took {uri} at the same moment",
            "run the same command again when it has ended",
        )
    return Target(uri, raised.epoch)


def commit_receipts(target: Target, receipts: Sequence[Receipt]) -> list[str]:
    """Commit staged shards that the ledger does not have yet, all in one version.

    Returns:
        the names that were committed now.

    Raises:
        LeaseHeld: this run lost the target.
        TargetError: a staged file is missing or has another size.
    """
    committed: list[str] = []

    def change(ledger: Ledger) -> Ledger | None:
        committed.clear()
        for receipt in receipts:
            if receipt.name not in ledger.entries:
                committed.append(receipt.name)
                ledger = ledger.with_entry(receipt.name, receipt.frames, receipt.nonce)
        return ledger if committed else None

    by_name = {receipt.name: receipt for receipt in receipts}
    _check_files(target.uri, receipts)
    commit(
        target,
        change,
        lambda: [fragment for name in committed for fragment in by_name[name].fragments],
    )
    return committed


def commit(
    target: Target,
    change: Callable[[Ledger], Ledger | None],
    new: Callable[[], Sequence[dict[str, object]]] = list,
    rewrite: Callable[[LanceDataset], list[FragmentMetadata]] | None = None,
    describe: SchemaChange | None = None,
) -> LanceDataset:
    """Commit a change of the ledger together with new and changed fragments.

    Whatever others commit meanwhile.

    Args:
        target: the dataset and our epoch.
        change: old ledger -> new ledger; None if there is nothing left to do.
        new: fragments to add (asked after ``change``).
        rewrite: all present fragments as they shall be, e.g. with rows deleted; default: as they
            are.
        describe: changes of the schema that belong to the same commit.

    Raises:
        LeaseHeld: the epoch rose: another run took the target.
        TargetUnavailable: conflicts without end.
    """
    for attempt in range(_ATTEMPTS):
        dataset = target.open()
        ledger = Ledger.from_metadata(dataset.schema.metadata, target.uri)
        target.check_held(ledger)
        if dataset.version != ledger.version:  # somebody else committed: its rows took row ids, too
            ledger = replace(ledger, next_row=max(ledger.next_row, _next_row(dataset)))
        changed = change(ledger)
        if changed is None:
            return dataset
        fragments = [FragmentMetadata.from_json(json.dumps(item)) for item in new()]
        if _merged(dataset, changed, fragments, rewrite, describe):
            return target.open()
        time.sleep(random.random() * min(0.05 * 2**attempt, 2.0))
    raise TargetUnavailable(
        f"{_ATTEMPTS} commits to {target.uri} in a row met another writer's commit",
        "stop the other writer, then run the same command again",
    )


def _merged(
    dataset: LanceDataset,
    ledger: Ledger,
    fragments: list[FragmentMetadata],
    rewrite: Callable[[LanceDataset], list[FragmentMetadata]] | None,
    describe: SchemaChange | None = None,
) -> bool:
    """Try one Merge; False after a conflict."""
    present = (
        [fragment.metadata for fragment in dataset.get_fragments()]
        if rewrite is None
        else rewrite(dataset)
    )
    written = replace(ledger, version=dataset.version + 1)
    describe = describe or SchemaChange()
    old = {key.decode(): value.decode() for key, value in (dataset.schema.metadata or {}).items()}
    metadata = {**old, **describe.metadata, LEDGER_KEY: written.to_json()}
    columns = dataset.schema
    for changed in describe.fields:
        place = columns.get_field_index(changed.name)
        columns = columns.append(changed) if place < 0 else columns.set(place, changed)
    schema = LanceSchema.from_pyarrow(columns.with_metadata(metadata))
    operation = LanceOperation.Merge([*present, *fragments], schema, preserves_nullability=True)
    try:
        LanceDataset.commit(dataset, Transaction(dataset.version, operation), max_retries=0)
    except OSError as error:
        if is_conflict(error):
            return False
        raise filesystems.storage_error(error, f"could not commit to {dataset.uri}") from error
    return True


def is_conflict(error: OSError) -> bool:
    """Tell a lost compare-and-swap from other errors, by Lance's words for it."""
    return any(
        words in str(error) for words in ("ommit conflict", "preempted", "ncompatible transaction")
    )


@contextmanager
def commits(target: Target) -> Iterator[None]:
    """Name what a commit of Lance's own (a compaction, an index) runs into.

    Another run, or the storage.

    Raises:
        LeaseHeld: another run took the target meanwhile.
        TargetUnavailable: another writer's commit was first, or the storage did not answer.
    """
    try:
        yield
    except OSError as error:
        target.check_held(target.ledger())
        if is_conflict(error):
            raise TargetUnavailable(
                f"another writer committed to {target.uri} at the same moment",
                "stop it, then run the same command again",
            ) from error
        raise filesystems.storage_error(error, f"could not commit to {target.uri}") from error


def _next_row(dataset: LanceDataset) -> int:
    """Give the row id after the highest one in the dataset."""
    highest = -1
    for batch in dataset.scanner(columns=[], with_row_id=True).to_batches():
        highest = max(highest, pc.max(batch.column("_rowid")).as_py() or -1)
    return highest + 1


def _check_files(uri: str, receipts: Sequence[Receipt]) -> None:
    """Refuse to commit a fragment whose file is gone or cut.

    Lance would accept it and fail at the first read (engine.md, R8).
    """
    system, path = filesystems.filesystem(uri)
    files = [file for receipt in receipts for file in receipt.files]
    infos: list[pafs.FileInfo] = system.get_file_info([f"{path}/{file.path}" for file in files])
    for file, info in zip(files, infos, strict=True):
        if info.type != pafs.FileType.File or info.size != file.size:
            raise TargetError(
                f"staged file {uri}/{file.path} is missing or has not its {file.size} bytes",
                f"delete its receipt in {uri}.cfray/staged, then run the same command again: the shard is read anew",
            )


def without_rows(dataset: LanceDataset, row_ids: list[int]) -> list[FragmentMetadata]:
    """Give the fragments of a dataset as they are once some rows are deleted."""
    by_fragment: dict[int, list[int]] = {}
    condition = f"_rowid IN ({','.join(map(str, row_ids))})"
    for batch in dataset.scanner(
        columns=[], filter=condition, with_row_id=True, with_row_address=True
    ).to_batches():
        for row, address in zip(
            batch.column("_rowid").to_pylist(), batch.column("_rowaddr").to_pylist(), strict=True
        ):
            by_fragment.setdefault(address >> 32, []).append(row)
    kept: list[FragmentMetadata] = []
    for fragment in dataset.get_fragments():
        rows = by_fragment.get(fragment.fragment_id)
        changed = (
            fragment.delete(f"_rowid IN ({','.join(map(str, rows))})")
            if rows
            else fragment.metadata
        )
        if changed is not None:  # Lance answers None where no row is left
            kept.append(changed)
    return kept
