"""Remove exactly the files that no retained version references.

Two kinds of waste: old versions, which only ``--keep-versions`` retires, and
orphans: files of workers that were killed, or of shards that two runs wrote.
A staged shard that is not committed yet is neither: the next run adopts it.
Runs under the lease, so no live writer's file can look like an orphan.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

import pyarrow.fs as pafs

from cfray.runtime import filesystems
from cfray.target.commit import Target
from cfray.target.state import State

#: Folders of a Lance dataset whose files a manifest must name.
_FOLDERS = ("data", "_deletions", "_indices", "_transactions")


@dataclass(slots=True)
class Removed:
    """What was removed."""

    files: int = 0
    bytes: int = 0
    receipts: int = 0
    versions: int = 0


def clean_up(target: Target, state: State, keep_versions: int | None) -> Removed:
    """Retire old versions if asked, then remove orphans and stale receipts."""
    removed = Removed()
    dataset = target.open()
    if keep_versions is not None:
        stats = dataset.cleanup_old_versions(
            older_than=timedelta(0),
            retain_versions=keep_versions,
            error_if_tagged_old_versions=False,
        )
        removed.versions, removed.bytes = int(stats.old_versions), int(stats.bytes_removed)
    _remove_receipts(target, state, removed)
    kept = {
        file.path
        for name, nonces in state.staged_names().items()
        for nonce in nonces
        for file in state.receipt(name, nonce).files
        if not name.startswith("compaction-")
    }
    tracked = target.open().tracked_files()
    paths = set(tracked.read_all()["path"].to_pylist()) | kept
    folders = {_owner(path) for path in paths if path.startswith("data/")}
    system, root = filesystems.filesystem(target.uri)
    for folder in _FOLDERS:
        selector = pafs.FileSelector(f"{root}/{folder}", allow_not_found=True, recursive=True)
        for info in system.get_file_info(selector):
            path = info.path[len(root) + 1 :]
            if (
                info.type == pafs.FileType.File
                and path not in paths
                and not (folder == "data" and _owner(path) in folders)
            ):
                system.delete_file(info.path)
                removed.files += 1
                removed.bytes += int(info.size or 0)
    return removed


def _owner(path: str) -> str:
    """Give the data file a path below the dataset belongs to.

    Blob side files stand in a folder of its name.
    """
    return PurePosixPath(path).parts[1].removesuffix(".lance")


def _remove_receipts(target: Target, state: State, removed: Removed) -> None:
    """Remove receipts (and quarantine files) of shards that were committed under another nonce.

    The counts of starts.
    """
    ledger = target.ledger()
    for name, nonces in state.staged_names().items():
        for nonce in nonces:
            if name in ledger.entries and ledger.entries[name].nonce != nonce:
                state.staged.remove(f"{name}.{nonce}.json")
                state.quarantine.remove(f"{name}.{nonce}.jsonl")
                removed.receipts += 1
    system, path = filesystems.filesystem(state.scratch.uri)
    for info in system.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if info.type == pafs.FileType.Directory and info.base_name.startswith("starts-"):
            system.delete_dir(info.path)
