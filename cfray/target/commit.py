"""Put staged shards into the target: data and ledger in ONE Lance commit.

The operation is a Merge that lists every fragment and carries the ledger in the schema
metadata.  It is a compare-and-swap (refused after another writer's Merge, Append, Rewrite
or Delete), refuses to be replayed, and keeps stable row ids, deletion files and index
coverage; ``tests/target/test_commit.py`` tests each of these on the installed pylance.
No other module may commit rows.
"""

from __future__ import annotations

import bisect
import io
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from lance import LanceDataset, LanceOperation
from lance.dataset import Transaction
from lance.fragment import FragmentMetadata
from lance.schema import LanceSchema

from cfray.embedders.recipe import Recipe
from cfray.errors import LeaseHeld, TargetError, TargetUnavailable
from cfray.runtime import filesystems, storage_errors
from cfray.runtime.filesystems import storage_options
from cfray.target.ledger import LEDGER_KEY, EntryKind, Ledger
from cfray.target.receipts import Receipt, ShardReceipt

#: Commits tried in a row: each conflict is a commit of another writer.  Two racing drivers and an
#: appending writer needed 12 (measured with pylance 14.0.2).
_ATTEMPTS = 60
#: Seconds of the longest pause between two attempts, and of the first.
_LONGEST_PAUSE, _FIRST_PAUSE = 2.0, 0.05
#: Words of Lance's errors for a commit that another writer's commit has overtaken.
_CONFLICT_WORDS = ("commit conflict", "preempted", "incompatible transaction")


#: Words of Lance's errors for a Merge whose fields are numbered unlike the dataset's.
_OTHER_COLUMNS = "Merge operation"


#: Gives all fragments of the latest version as they shall be, e.g. with rows deleted.
Rewrite = Callable[[LanceDataset], list[FragmentMetadata]]


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """What a commit changes of the schema.

    Attributes:
        metadata: keys to set.
        fields: top-level columns whose type changes, or that are new; ``rewrite`` names their
            files.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    fields: tuple[pa.Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The target dataset, and the epoch under which this run may commit.

    Attributes:
        uri: path or URI of the dataset.
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

    def ledger_of(self, version: int) -> Ledger:
        """Read the ledger of a version."""
        return Ledger.from_metadata(self.open(version).schema.metadata, self.uri)

    def check_held(self, ledger: Ledger) -> None:
        """Refuse to go on once another run has taken the target.

        Raises:
            LeaseHeld: the epoch rose.
        """
        if ledger.epoch != self.epoch:
            raise LeaseHeld(
                f"another run took {self.uri} over (epoch {ledger.epoch}; this run has epoch "
                f"{self.epoch}): this run adds nothing more",
                "let the other run finish",
            )


def take_over(uri: str) -> Target:
    """Raise the epoch with an empty commit: from here on an older holder's commits are refused.

    Raises:
        LeaseHeld: another run did so at the same moment.
    """
    dataset = Target(uri).open()
    ledger = ledger_now(dataset, uri)
    raised = replace(ledger, epoch=ledger.epoch + 1)
    if not _merge(dataset, raised, [], None):
        raise LeaseHeld(
            f"another run took {uri} at the same moment",
            "run the same command again when it has ended",
        )
    return Target(uri, raised.epoch)


def take_again(target: Target, next_row: int) -> None:
    """Write our epoch into a ledger that has come back with an earlier version.

    Args:
        target: held by this run.
        next_row: row id that Lance assigns next; it counts on from the version that was left.

    Raises:
        LeaseHeld: another run took the target at the same moment.
    """
    dataset = target.open()
    ledger = Ledger.from_metadata(dataset.schema.metadata, target.uri)
    ours = replace(ledger, epoch=target.epoch, next_row=next_row)
    if ledger.epoch > target.epoch or not _merge(dataset, ours, [], None):
        raise LeaseHeld(
            f"another run took {target.uri} at the same moment",
            "run the same command again when it has ended",
        )


def commit_receipts(target: Target, receipts: Sequence[ShardReceipt]) -> list[str]:
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
                ledger = ledger.with_entry(
                    EntryKind.SHARD, receipt.name, receipt.frames, receipt.nonce
                )
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
    new_fragments: Callable[[], Sequence[dict[str, Any]]] = list,
    rewrite: Rewrite | None = None,
    schema_change: SchemaChange | None = None,
) -> LanceDataset:
    """Commit a change of the ledger together with new and changed fragments.

    It is tried again after each commit of another writer, on the version that this writer left.

    Args:
        target: the dataset and our epoch.
        change: makes the new ledger of the present ledger; None if nothing is left to change.
        new_fragments: fragments to add (asked after ``change``).
        rewrite: of all present fragments; default: they stay as they are.
        schema_change: changes of the schema that belong to the same commit.

    Raises:
        LeaseHeld: the epoch rose: another run took the target.
        TargetUnavailable: every attempt met another writer's commit.
    """
    for attempt in range(_ATTEMPTS):
        dataset = target.open()
        ledger = ledger_now(dataset, target.uri)
        target.check_held(ledger)
        changed = change(ledger)
        if changed is None:
            return dataset
        fragments = [FragmentMetadata.from_json(json.dumps(item)) for item in new_fragments()]
        if _merge(dataset, changed, fragments, rewrite, schema_change):
            return target.open()
        time.sleep(random.random() * min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))
    raise TargetUnavailable(
        f"{_ATTEMPTS} commits to {target.uri} in a row met another writer's commit",
        "stop the other writer, then run the same command again",
    )


def _merge(
    dataset: LanceDataset,
    ledger: Ledger,
    fragments: list[FragmentMetadata],
    rewrite: Rewrite | None,
    schema_change: SchemaChange | None = None,
) -> bool:
    """Try a Merge; False after a conflict."""
    present = (
        [fragment.metadata for fragment in dataset.get_fragments()]
        if rewrite is None
        else rewrite(dataset)
    )
    written = replace(ledger, version=dataset.version + 1)
    schema_change = schema_change or SchemaChange()
    old = {key.decode(): value.decode() for key, value in (dataset.schema.metadata or {}).items()}
    metadata = {**old, **schema_change.metadata, LEDGER_KEY: written.to_json()}
    schema = dataset.schema
    for changed_field in schema_change.fields:
        schema = with_field(schema, changed_field)
    lance_schema = LanceSchema.from_pyarrow(schema.with_metadata(metadata))
    operation = LanceOperation.Merge(
        [*present, *fragments], lance_schema, preserves_nullability=True
    )
    try:
        LanceDataset.commit(dataset, Transaction(dataset.version, operation), max_retries=0)
    except OSError as error:
        if is_conflict(error):
            return False
        if _OTHER_COLUMNS in str(error):
            raise TargetError(
                f"the columns of {dataset.uri} were changed by another writer: nothing can be "
                "committed beside that",
                "go back to the version before with Lance's restore, or migrate into a new "
                "target.uri",
            ) from error
        raise storage_errors.classify_write_error(
            error, f"could not commit to {dataset.uri}"
        ) from error
    return True


def with_field(schema: pa.Schema, new_field: pa.Field) -> pa.Schema:
    """Set the field of this name in a schema, or append it."""
    index = schema.get_field_index(new_field.name)
    return schema.append(new_field) if index < 0 else schema.set(index, new_field)


def is_conflict(error: OSError) -> bool:
    """Tell a lost compare-and-swap from other errors: Lance says so in its message alone."""
    return any(words in str(error).lower() for words in _CONFLICT_WORDS)


@contextmanager
def guard_commit(target: Target) -> Iterator[None]:
    """Name what a commit that Lance makes itself (a compaction, an index) runs into.

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
        raise storage_errors.classify_write_error(
            error, f"could not commit to {target.uri}"
        ) from error


def ledger_now(dataset: LanceDataset, uri: str) -> Ledger:
    """Read the ledger of a version, with the row id that Lance assigns next in this version.

    Row ids are assigned by the other writers' commits, too, and the ledger states the range of
    ids of each shard.  So after commits that did not write the ledger (an append by others, but
    also our own compactions and index builds) the row ids themselves are asked; 10 million ids
    take 0.05 s (measured with pylance 14.0.2 on a local disk).  Each version since is asked, for a
    row that was added and then deleted has used its id up.
    """
    ledger = Ledger.from_metadata(dataset.schema.metadata, uri)
    next_row = ledger.next_row
    for version in range(ledger.version + 1, dataset.version):
        try:
            next_row = max(next_row, _next_row(dataset.checkout_version(version)))
        except OSError as error:
            # a version that a cleanup removed can no longer be asked
            if "not found" not in str(error):
                raise storage_errors.classify_write_error(
                    error, f"could not read version {version} of {uri}"
                ) from error
    if ledger.version < dataset.version:
        next_row = max(next_row, _next_row(dataset))
    return replace(ledger, next_row=next_row)


def _next_row(dataset: LanceDataset) -> int:
    """Give the row id after the highest row id in a version."""
    highest = -1
    for batch in dataset.scanner(columns=[], with_row_id=True).to_batches():
        batch_highest = pc.max(batch.column("_rowid")).as_py()
        if batch_highest is not None:
            highest = max(highest, batch_highest)
    return highest + 1


def _check_files(uri: str, receipts: Sequence[Receipt]) -> None:
    """Refuse to commit a fragment whose file is gone or cut.

    Lance commits such a fragment without an error and fails at the first read.
    """
    system, path = filesystems.open_filesystem(uri)
    files = [(receipt, file) for receipt in receipts for file in receipt.files]
    infos: list[pafs.FileInfo] = system.get_file_info([f"{path}/{file.path}" for _, file in files])
    for (receipt, file), info in zip(files, infos, strict=True):
        if info.type != pafs.FileType.File or info.size != file.size:
            raise TargetError(
                f"staged file {uri}/{file.path} is missing or has not its {file.size} bytes",
                f"remove {uri}.cfray/staged/{receipt.name}.{receipt.nonce}.json, then run the same "
                "command again: the shard is read anew",
            )


def without_rows(
    dataset: LanceDataset, row_ids: list[int], emptied: frozenset[int] = frozenset()
) -> list[FragmentMetadata]:
    """Give the fragments of a dataset as they are when some rows are deleted.

    A fragment of which no row remains stays, until it is merged with others: Lance refuses a Merge
    that leaves fewer fragments than there were.

    Args:
        dataset: the latest version.
        row_ids: of the rows.
        emptied: ids of fragments of which every row is deleted; their files are not read.
    """
    rows_by_fragment: dict[int, list[int]] = {}
    scanner = dataset.scanner(
        columns=[],
        filter=_has_row_id(row_ids),
        fragments=[part for part in dataset.get_fragments() if part.fragment_id not in emptied],
        with_row_id=True,
        with_row_address=True,
    )
    for batch in scanner.to_batches():
        found_ids, addresses = batch.column("_rowid"), batch.column("_rowaddr")
        for row_id, address in zip(found_ids.to_pylist(), addresses.to_pylist(), strict=True):
            # the upper half of a row address is the number of its fragment
            rows_by_fragment.setdefault(address >> 32, []).append(row_id)
    fragments: list[FragmentMetadata] = []
    for fragment in dataset.get_fragments():
        if fragment.fragment_id in emptied:
            fragments.append(_emptied(dataset, fragment.metadata))
            continue
        rows = rows_by_fragment.get(fragment.fragment_id)
        remaining = fragment.delete(_has_row_id(rows)) if rows else fragment.metadata
        # Lance returns None where no row of a fragment is left
        if remaining is None:
            remaining = _emptied(dataset, fragment.metadata)
        fragments.append(remaining)
    return fragments


def _emptied(dataset: LanceDataset, metadata: FragmentMetadata) -> FragmentMetadata:
    """Delete every row of a fragment with a deletion file, which Lance itself does not write then.

    The file is an Arrow file with a column ``row_id`` of the deleted rows' numbers (Lance's table
    format, "Deletion files").
    """
    body, number = metadata.to_json(), random.getrandbits(63)
    numbers = pa.table({"row_id": pa.array(range(body["physical_rows"]), pa.uint32())})
    file = io.BytesIO()
    with pa.ipc.new_file(file, numbers.schema) as writer:
        writer.write_table(numbers)
    name = f"{body['id']}-{dataset.version}-{number}.arrow"
    filesystems.Folder(dataset.uri).child("_deletions").publish(name, file.getvalue())
    body["deletion_file"] = {
        "read_version": dataset.version,
        "id": number,
        "file_type": "array",
        "num_deleted_rows": body["physical_rows"],
        "base_id": None,
    }
    return FragmentMetadata.from_json(json.dumps(body))


def renumbered(
    fragments: Sequence[dict[str, Any]], written: pa.Schema, target: pa.Schema
) -> list[dict[str, Any]]:
    """Give fragments that were written in a schema of their own the field ids of the target.

    Args:
        fragments: Lance's metadata (parsed JSON).
        written: the schema that they were written in.
        target: the dataset's schema as it will be; it has the same columns.
    """
    own, new = _top_fields(written), _top_fields(target)
    names = {field_id: name for name, field_id in own.items()}
    starts = sorted(names)

    def target_id(field_id: int) -> int:
        # the fields inside a field are numbered behind it
        start = starts[bisect.bisect_right(starts, field_id) - 1]
        return field_id - start + new[names[start]]

    return [
        {
            **fragment,
            "files": [
                {**file, "fields": [target_id(field_id) for field_id in file["fields"]]}
                for file in fragment["files"]
            ],
        }
        for fragment in fragments
    ]


def _top_fields(schema: pa.Schema) -> dict[str, int]:
    return {field.name(): field.id() for field in LanceSchema.from_pyarrow(schema).fields()}


def _has_row_id(row_ids: Sequence[int]) -> str:
    """Give the SQL condition that holds for these rows."""
    return f"_rowid IN ({','.join(map(str, row_ids))})"
