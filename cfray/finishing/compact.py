"""Merge small fragments, and only those; record the digests of what was written.

A shard of 256 MiB needs no compaction; many tiny shards do.  Rows keep their stable ids
and their order, so the ledger's ranges and the content hashes stay true.  A compaction is
planned, executed in tasks and committed; a crash leaves orphan files and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

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


def compact(target: Target, state: State) -> int:
    """Merge runs of small fragments.

    Returns:
        how many fragments were merged away.
    """
    dataset = target.open()
    plan = _plan(dataset)
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


def is_due(dataset: LanceDataset) -> bool:
    """Tell whether small fragments wait to be merged."""
    return bool(_plan(dataset).tasks)


def _plan(dataset: LanceDataset) -> CompactionPlan:
    return Compaction.plan(dataset, {"target_rows_per_fragment": _rows_per_fragment(dataset)})


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
