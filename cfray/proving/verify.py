"""Prove that the target holds what was handed to ``write``, and that no file changed a bit.

Everything is read again, without the source: the rows and the content hash per column
group of each shard against its receipt, and the digest of every data and blob file.
Reading alone proves nothing: of 14 bits flipped at as many offsets of a data file, 11
gave wrong values without an error (measured with pylance 14.0.2).  This module reports;
it repairs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, TypeVar

import lance
import pyarrow as pa
from lance import LanceDataset

from cfray.copying.write import digest_file
from cfray.engine import cluster
from cfray.engine.tasks import run_tasks
from cfray.errors import TargetError
from cfray.finishing import index
from cfray.frames import digests
from cfray.report.facts import Report
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.runtime.plurals import counted
from cfray.target.books import Content, read_books
from cfray.target.commit import Target
from cfray.target.ledger import Ledger
from cfray.target.origins import RowOrigins, by_entry, entry_label
from cfray.target.receipts import data_file_of
from cfray.target.state import Plan, State

T = TypeVar("T")

#: Name of a ledger entry; empty for rows that cfray did not write.
EntryName = NewType("EntryName", str)
_FOREIGN = EntryName("")

#: Bytes of Arrow data that a verifying scan holds at once.
_BATCH_BYTES = 16 * 1024 * 1024
#: Batches and bytes that a scan reads ahead.  Lance's defaults (16 batches, 2 GiB) would let the
#: reader, not the data, set the peak memory of a run.
_READAHEAD = 4
_IO_BUFFER = 64 * 1024 * 1024
#: Tasks per core: the last tasks to end keep few cores waiting.
_TASKS_PER_CORE = 4
#: Mismatches that a report names in full.
_NAMED = 5


def verify(target: Target, state: State, plan: Plan, report: Report) -> None:
    """Run every check at the ledger level and note the result of each."""
    dataset = target.open()
    ledger = Ledger.from_metadata(dataset.schema.metadata, target.uri)
    report.dataset_version = dataset.version
    missing_shards = [
        shard.id for number, shard in enumerate(plan.shards) if str(number) not in ledger.entries
    ]
    planned = len(plan.shards)
    detail = f"{planned - len(missing_shards)} of {counted(planned, 'shard')}"
    if missing_shards:
        detail += f"; first missing: {missing_shards[0]}"
    report.check("every shard committed", "fail" if missing_shards else "pass", detail)
    damaged_files = _check_files(target, dataset, state, report)
    try:
        actual = _read_again(target, dataset, plan, ledger)
    except (OSError, pa.ArrowException) as error:
        # the type of Lance's error depends on where in a file the damage is
        detail = f"the dataset cannot be read: {describe_error(error)[:200]}"
        if damaged_files:
            detail += f"; damaged: {', '.join(damaged_files)}"
        report.check("content of every shard", "fail", detail)
        _leave_out_indexes(report, "the dataset cannot be read")
        return
    labels = {name: entry_label(plan, name, entry.kind) for name, entry in ledger.entries.items()}
    _check_content(read_books(state, ledger).content, actual, labels, report)
    report.stage("verify").rows = sum(content.rows for content in actual.values())
    _check_indexes(dataset, report)


def _check_content(
    expected: dict[str, Content],
    actual: dict[EntryName, Content],
    labels: dict[str, str],
    report: Report,
) -> None:
    """Compare what was read with what the receipts add up to; labels name entries for people."""
    mismatches: list[str] = []
    for name, content in expected.items():
        read_content = actual.get(EntryName(name), Content())
        mismatches += _mismatches(labels[name], content, read_content)
    rows = sum(content.rows for content in expected.values())
    groups = ", ".join(digests.GROUPS)
    detail = (
        _named(mismatches)
        if mismatches
        else (
            f"{counted(rows, 'row')} of {counted(len(expected), 'entry', 'entries')} re-read and "
            f"compared by {groups}"
        )
    )
    report.check("content of every shard", "fail" if mismatches else "pass", detail)
    foreign_rows = actual.get(_FOREIGN, Content()).rows
    if foreign_rows:
        report.check(
            "rows that cfray did not write",
            "not_run",
            f"{counted(foreign_rows, 'row was', 'rows were')} added by others; nothing is known "
            "of them",
        )


def _mismatches(label: str, expected: Content, actual: Content) -> list[str]:
    if actual.rows != expected.rows:
        written = counted(expected.rows, "was", "were")
        return [f"{label} has {counted(actual.rows, 'row')}, {written} written"]
    if not expected.rows:
        return []
    groups = [group for group, total in expected.sums.items() if actual.sums.get(group) != total]
    return [f"{label}: {', '.join(groups)} differ from what was written"] if groups else []


def _named(mismatches: list[str]) -> str:
    detail = "; ".join(mismatches[:_NAMED])
    further = len(mismatches) - _NAMED
    return f"{detail} and {further} more" if further > 0 else detail


@dataclass(frozen=True, slots=True)
class _Scan:
    """Fragments that one task reads."""

    uri: str
    version: int
    fragment_ids: list[int]
    origins: RowOrigins


def _read_again(
    target: Target, dataset: LanceDataset, plan: Plan, ledger: Ledger
) -> dict[EntryName, Content]:
    """Read the whole dataset again, some fragments a task, and sum by ledger entry."""
    fragment_ids = [fragment.fragment_id for fragment in dataset.get_fragments()]
    origins = RowOrigins(plan, ledger)
    scans = [
        _Scan(target.uri, dataset.version, group, origins) for group in _task_groups(fragment_ids)
    ]
    contents: dict[EntryName, Content] = {}
    for partial in run_tasks(_sum_fragments, scans):
        for name, content in partial.items():
            contents[name] = contents.get(name, Content()) + content
    return contents


def _sum_fragments(scan: _Scan) -> dict[EntryName, Content]:
    """Hash the rows of some fragments and sum them by ledger entry.  Body of a Ray task."""
    options = filesystems.storage_options(scan.uri)
    dataset = lance.dataset(scan.uri, version=scan.version, storage_options=options)
    hashed = [name for names in digests.group_columns(dataset.schema).values() for name in names]
    contents: dict[EntryName, Content] = {}
    for fragment_id in scan.fragment_ids:
        scanner = dataset.get_fragment(fragment_id).scanner(
            columns=["uuid", *hashed],
            with_row_id=True,
            batch_size_bytes=_BATCH_BYTES,
            batch_readahead=_READAHEAD,
            io_buffer_size=_IO_BUFFER,
        )
        for batch in scanner.to_batches():
            for entry, rows in by_entry(batch, scan.origins):
                name = EntryName(entry)
                contents[name] = contents.get(name, Content()) + Content.of(rows)
    return contents


def _check_files(target: Target, dataset: LanceDataset, state: State, report: Report) -> list[str]:
    """Digest every data and blob file again; name those that changed."""
    recorded = {file.path: file for receipt in state.published_receipts() for file in receipt.files}
    used_files = {
        data_file_of(f"data/{file.path}")
        for fragment in dataset.get_fragments()
        for file in fragment.metadata.files
    }
    paths = [path for path in recorded if data_file_of(path) in used_files]
    unrecorded = used_files - {data_file_of(path) for path in paths}
    work = [(target.uri, group) for group in _task_groups(paths)]
    changed: list[str] = []
    for digest_by_path in run_tasks(_digest_files, work):
        for path, digest in digest_by_path.items():
            if digest != (recorded[path].size, recorded[path].digest):
                changed.append(f"{path} ({'missing' if digest is None else 'changed'})")
    changed.sort()
    detail = (
        ", ".join(changed[:_NAMED])
        if changed
        else counted(
            len(paths),
            "data or blob file unchanged since it was written",
            "data and blob files unchanged since they were written",
        )
    )
    report.check("every data file", "fail" if changed else "pass", detail)
    if unrecorded:
        report.check(
            "data files of other writers",
            "not_run",
            f"{counted(len(unrecorded), 'file has', 'files have')} no recorded digest",
        )
    return changed


def _task_groups(items: list[T]) -> list[list[T]]:
    """Divide items among tasks."""
    count = max(1, min(len(items), cluster.cores() * _TASKS_PER_CORE))
    return [items[number::count] for number in range(count)]


def _digest_files(work: tuple[str, list[str]]) -> dict[str, tuple[int, str] | None]:
    """Digest some files; None for a file that is gone.  Body of a Ray task."""
    uri, paths = work
    system, root = filesystems.open_filesystem(uri)
    digest_by_path: dict[str, tuple[int, str] | None] = {}
    for path in paths:
        try:
            digest_by_path[path] = digest_file(system, f"{root}/{path}")
        except FileNotFoundError:
            digest_by_path[path] = None
        except OSError as error:
            raise TargetError(
                f"cannot read {uri}/{path}: {describe_error(error)}",
                "check the storage, then run verify again",
            ) from error
    return digest_by_path


def _check_indexes(dataset: LanceDataset, report: Report) -> None:
    """State what the indexes cover; their files are derived and not digested."""
    fragment_ids = {fragment.fragment_id for fragment in dataset.get_fragments()}
    covered = index.coverage(dataset)
    lagging = sorted(name for name, covers in covered.items() if not fragment_ids <= covers)
    if not covered:
        _leave_out_indexes(report, "the dataset has no index")
        return
    detail = (
        f"{', '.join(lagging)} do not cover every fragment: run cfray optimize"
        if lagging
        else f"{', '.join(sorted(covered))} cover every fragment"
    )
    report.check("index coverage", "fail" if lagging else "pass", detail)
    report.check(
        "index files",
        "not_run",
        "index files are derived from the data and not digested; "
        "cfray optimize can build them anew",
    )


def _leave_out_indexes(report: Report, reason: str) -> None:
    for name in ("index coverage", "index files"):
        report.check(name, "not_run", reason)
