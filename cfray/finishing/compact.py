"""Merge small fragments, and only those; record the digests of what was written.

A shard of 256 MiB needs no compaction; many tiny ones do.  Rows keep their
stable ids and their order, so the ledger's ranges and the content hashes stay
true.  A compaction is planned, executed in tasks and committed; a crash leaves
orphan files and nothing else.
"""

from __future__ import annotations

from typing import Any

import lance
from lance import LanceDataset
from lance.optimize import Compaction, CompactionTask, RewriteResult

from cfray.copying.write import new_nonce, staged_files
from cfray.engine.tasks import each
from cfray.runtime import filesystems
from cfray.target.commit import Target, commits
from cfray.target.receipts import Receipt, StagedFile
from cfray.target.state import State

#: Bytes below which a fragment is small: a quarter of what a shard aims at.
SMALL_FRAGMENT = 64 * 1024 * 1024
_MOST_ROWS = 1024 * 1024


def compact(target: Target, state: State) -> int:
    """Merge runs of small fragments.

    Returns:
        how many fragments were merged away.
    """
    dataset = target.open()
    plan = Compaction.plan(dataset, {"target_rows_per_fragment": _wanted_rows(dataset)})
    if not plan.tasks:
        return 0
    options = filesystems.storage_options(target.uri)
    work = [(target.uri, dataset.version, options, task) for task in plan.tasks]
    results: list[RewriteResult] = []
    files: list[StagedFile] = []
    for result, written in each(_execute, work):
        results.append(result)
        files += written
    name = f"compaction-{dataset.version}"
    state.publish_receipt(Receipt(name, name, new_nonce(), files=files))
    target.check_held(target.ledger())
    with commits(target):
        Compaction.commit(dataset, results)
    return sum(
        int(result.metrics.fragments_removed) - int(result.metrics.fragments_added)
        for result in results
    )


def _wanted_rows(dataset: LanceDataset) -> int:
    """Give the rows of a fragment that is not small, from the dataset's own bytes per row."""
    metadata = [fragment.metadata for fragment in dataset.get_fragments()]
    rows = sum(item.physical_rows for item in metadata)
    size = sum(file.file_size_bytes or 0 for item in metadata for file in item.files)
    wanted: int = max(1, min(_MOST_ROWS, SMALL_FRAGMENT * rows // max(1, size)))
    return wanted


def _execute(
    work: tuple[str, int, dict[str, str], CompactionTask],
) -> tuple[RewriteResult, list[StagedFile]]:
    """Rewrite one run of fragments.  Body of a Ray task."""
    import json

    uri, version, options, task = work
    result: RewriteResult = task.execute(
        lance.dataset(uri, version=version, storage_options=options)
    )
    fragments: list[dict[str, Any]] = json.loads(result.json())["new_fragments"]
    return result, staged_files(uri, fragments)
