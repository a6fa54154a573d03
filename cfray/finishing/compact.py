"""Merge small fragments, and only those; record the digests of what was written.

A shard of 256 MiB needs no compaction; many tiny shards do.  Rows keep their stable ids
and their order, so the ledger's ranges and the content hashes stay true.  A compaction is
planned, executed in tasks and committed; a crash leaves orphan files and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import lance
from lance import LanceDataset
from lance.optimize import Compaction, CompactionPlan, CompactionTask, RewriteResult

from cfray.copying.write import new_nonce, staged_files
from cfray.engine.tasks import run_tasks
from cfray.runtime import filesystems
from cfray.target.commit import Target, guard_commit
from cfray.target.file_sizes import full_fragment_rows
from cfray.target.receipts import CompactionReceipt, StagedFile
from cfray.target.state import State

#: Rows up to which fragments are written anew for a single deleted row: a search pays for the
#: deletions of a dataset with some 0.9 ms, however few they are (60,000 rows, pylance 14), and
#: writing so few rows takes seconds.
_SMALL_ROWS = 200_000


def compact(target: Target, state: State, *, deletions: bool = False) -> int:
    """Merge runs of small fragments.

    Args:
        target: the dataset; the caller holds its lease.
        state: the folder beside it.
        deletions: leave deleted rows of a small dataset out of its files, too.

    Returns:
        how many fragments were merged away.
    """
    dataset = target.open()
    plan = _plan(dataset, deletions=deletions)
    if not plan.tasks:
        return 0
    work = [_Rewrite(target.uri, dataset.version, task) for task in plan.tasks]
    results: list[RewriteResult] = []
    files: list[StagedFile] = []
    for result, written_files in run_tasks(_rewrite, work):
        results.append(result)
        files += written_files
    name = f"{CompactionReceipt.kind}-{dataset.version}"
    state.publish_receipt(CompactionReceipt(name=name, nonce=new_nonce(), files=files))
    target.check_held(target.ledger())
    with guard_commit(target):
        Compaction.commit(dataset, results)
    return sum(
        int(result.metrics.fragments_removed) - int(result.metrics.fragments_added)
        for result in results
    )


def is_due(dataset: LanceDataset, *, deletions: bool = False) -> bool:
    """Tell whether small fragments wait to be merged, or deleted rows to be left out."""
    return bool(_plan(dataset, deletions=deletions).tasks)


def _plan(dataset: LanceDataset, *, deletions: bool) -> CompactionPlan:
    options: dict[str, Any] = {"target_rows_per_fragment": _rows_per_fragment(dataset)}
    if deletions and dataset.count_rows() < _SMALL_ROWS:
        options["materialize_deletions_threshold"] = 0.0
    return Compaction.plan(dataset, options)


def _rows_per_fragment(dataset: LanceDataset) -> int:
    """Give the rows of a fragment that is not small, from the dataset's bytes per row."""
    fragments = [fragment.metadata for fragment in dataset.get_fragments()]
    rows = sum(fragment.physical_rows for fragment in fragments)
    size = sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.files)
    return full_fragment_rows(rows, size)


@dataclass(frozen=True, slots=True)
class _Rewrite:
    """A run of fragments of a version that one task rewrites."""

    uri: str
    version: int
    task: CompactionTask


def _rewrite(work: _Rewrite) -> tuple[RewriteResult, list[StagedFile]]:
    """Rewrite a run of fragments.  Body of a Ray task."""
    options = filesystems.storage_options(work.uri)
    dataset = lance.dataset(work.uri, version=work.version, storage_options=options)
    result: RewriteResult = work.task.execute(dataset)
    return result, staged_files(work.uri, json.loads(result.json())["new_fragments"])
