"""Remove exactly the files that no retained version references.

Two kinds of waste: old versions, which only ``--keep-versions`` retires, and orphans, the
files of workers that were killed or of shards that two runs wrote.  A staged shard that
is not committed yet is neither: the next run adopts it.  Cleanup runs under the lease, so
no file of a live writer can look like an orphan.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import pyarrow.fs as pafs
from lance import LanceDataset

from cfray.runtime import filesystems
from cfray.target.commit import Target
from cfray.target.history import named_by_old_versions
from cfray.target.receipts import CompactionReceipt, data_file_of
from cfray.target.state import State

#: Folders of a Lance dataset whose files a manifest must name.
_FOLDERS = ("data", "_deletions", "_indices", "_transactions")
#: Beginnings of the names of folders in ``scratch/`` that killed runs leave: starts of shards and
#: of models, uuids that a search for duplicates has scattered, and comparisons with a source.
_LEFTOVERS = ("starts-", "identities-", "compare-")
#: Begin of the names in ``scratch/`` that an entry of the ledger has whose vectors were made there.
_ENTRY = re.compile(r"((?:embed|replay|sync)-\d+)-")


@dataclass(slots=True)
class Removed:
    """What was removed.

    Attributes:
        files: of the dataset: data, deletions, indexes, transactions, manifests.
        bytes: their size together.
        receipts: of shards that were committed under another nonce, and that no version names.
        versions: of the dataset.
    """

    files: int = 0
    bytes: int = 0
    receipts: int = 0
    versions: int = 0


def clean_up(target: Target, state: State, keep_versions: int | None) -> Removed:
    """Retire old versions if asked, then remove stale receipts and orphans.

    Args:
        target: the dataset; the caller holds its lease.
        state: the folder beside it.
        keep_versions: versions to keep; None keeps all.
    """
    removed = Removed()
    if keep_versions is not None:
        _retire_versions(target.open(), keep_versions, removed)
    _remove_stale_receipts(target, state, removed)
    _remove_orphans(target, state, removed)
    return removed


def _retire_versions(dataset: LanceDataset, keep_versions: int, removed: Removed) -> None:
    stats = dataset.cleanup_old_versions(
        older_than=timedelta(0), retain_versions=keep_versions, error_if_tagged_old_versions=False
    )
    removed.versions += stats.old_versions
    removed.bytes += stats.bytes_removed
    # a version has one manifest
    removed.files += (
        stats.old_versions
        + stats.data_files_removed
        + stats.deletion_files_removed
        + stats.index_files_removed
        + stats.transaction_files_removed
    )


def _remove_orphans(target: Target, state: State, removed: Removed) -> None:
    # a compaction that was not committed is not adopted: the next compaction plans anew
    adoptable = {
        file.path
        for receipt in state.published_receipts()
        if not isinstance(receipt, CompactionReceipt)
        for file in receipt.files
    }
    tracked = target.open().tracked_files().read_all()["path"].to_pylist()
    needed_paths = adoptable.union(tracked)
    needed_data_files = {data_file_of(path) for path in needed_paths if path.startswith("data/")}
    system, root = filesystems.open_filesystem(target.uri)
    for folder in _FOLDERS:
        selector = pafs.FileSelector(f"{root}/{folder}", allow_not_found=True, recursive=True)
        for info in system.get_file_info(selector):
            path = info.path[len(root) + 1 :]
            is_needed = path in needed_paths or (
                folder == "data" and data_file_of(path) in needed_data_files
            )
            if info.type == pafs.FileType.File and not is_needed:
                system.delete_file(info.path)
                removed.files += 1
                removed.bytes += int(info.size or 0)


def _remove_stale_receipts(target: Target, state: State, removed: Removed) -> None:
    """Remove receipts of shards that were committed under another nonce, and scratch folders.

    The quarantine file of a stale receipt goes with it.  What the ledger of an old version names
    stays, for there is a way back to it.
    """
    ledger = target.ledger()
    named = set(named_by_old_versions(target))
    for name, nonces in state.staged_nonces().items():
        for nonce in nonces:
            if name in ledger.entries and (name, nonce) not in named:
                state.staged.remove(f"{name}.{nonce}.json")
                state.quarantine.remove(f"{name}.{nonce}.jsonl")
                removed.receipts += 1
    system, path = filesystems.open_filesystem(state.scratch.uri)
    for info in system.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        entry = _ENTRY.match(info.base_name)
        is_committed = entry is not None and entry[1] in ledger.entries
        if not (is_committed or info.base_name.startswith(_LEFTOVERS)):
            continue
        if info.type == pafs.FileType.Directory:
            system.delete_dir(info.path)
        elif is_committed:
            system.delete_file(info.path)
