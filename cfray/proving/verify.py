"""Prove that the target holds what was handed to ``write``, and that no file changed a bit.

Everything is read again, without the source: the rows and the content hash per column
group of each shard against its receipt, and the digest of every data and blob file.
Reading alone proves nothing: of 14 bits flipped at as many offsets of a data file, 11
gave wrong values without an error (measured with pylance 14.0.2).  This module reports;
it repairs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from lance import LanceDataset

from cfray.copying.write import digest_file
from cfray.engine.tasks import run_tasks
from cfray.errors import ProofFailed, TargetError
from cfray.finishing import index
from cfray.frames import digests
from cfray.frames.schema import TYPES_KEY, frame_schema
from cfray.proving.read_target import FOREIGN, EntryName, TargetContent, read_target, task_groups
from cfray.report.facts import Report
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.runtime.plurals import counted
from cfray.target.books import Content, read_books
from cfray.target.commit import Target
from cfray.target.ledger import Ledger
from cfray.target.origins import RowOrigins, entry_label
from cfray.target.receipts import data_file_of
from cfray.target.state import Plan, State

#: Fields that the last column may have inside it (a blob has five).
_INNER_FIELDS = 16
#: Mismatches that a report names in full.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class TargetFindings:
    """What the checks at the ledger level found, for checks that go on from there.

    Attributes:
        version: of the dataset that was read.
        content: what the dataset holds.
        damaged: name of each entry whose rows are not what was written -> how they differ.
        untrusted: ids of the fragments that cannot be read, or of which a file has changed.
        types_are_damaged: whether the types of the fields are not those of the plan.
        missing_columns: of the plan, which the dataset does not have.
    """

    version: int
    content: TargetContent
    damaged: dict[EntryName, str]
    untrusted: frozenset[int]
    types_are_damaged: bool
    missing_columns: list[str]

    @property
    def is_damaged(self) -> bool:
        """Tell whether anything in the target is not what was written, or was written by others."""
        return bool(
            self.damaged
            or self.untrusted
            or self.types_are_damaged
            or self.content.rows.get(FOREIGN, Content()).rows
        )


def verify(
    target: Target, state: State, plan: Plan, report: Report, *, has_raw_data: bool = False
) -> TargetFindings:
    """Run every check at the ledger level and note the result of each.

    ``has_raw_data``: rows have bytes that no hash of a row covers, only the digests of their files.
    """
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
    changed_files = _check_files(target, dataset, state, report, has_raw_data=has_raw_data)
    content = read_target(target, dataset, RowOrigins(plan, ledger))
    labels = {name: entry_label(plan, name, entry.kind) for name, entry in ledger.entries.items()}
    damaged = _check_content(read_books(state, ledger).content, content, labels, report)
    types_are_damaged, missing_columns = _check_types(dataset, plan, report)
    report.stage("verify").rows = sum(rows.rows for rows in content.rows.values())
    _check_indexes(dataset, report)
    untrusted = _fragments_with(dataset, changed_files) | content.unreadable.keys()
    return TargetFindings(
        *(dataset.version, content, damaged, frozenset(untrusted)),
        types_are_damaged=types_are_damaged,
        missing_columns=missing_columns,
    )


def _check_content(
    expected: dict[str, Content],
    actual: TargetContent,
    labels: dict[str, str],
    report: Report,
) -> dict[EntryName, str]:
    """Compare what was read with what the receipts add up to; labels name entries for people.

    Returns:
        name of each entry that differs -> how.
    """
    damaged = {
        EntryName(name): difference
        for name, content in expected.items()
        if (difference := _difference(content, actual.rows.get(EntryName(name), Content())))
    }
    for name, nulls in actual.nulls.items():
        if nulls and name in expected:
            damaged.setdefault(
                name, f"has {counted(nulls, 'null')} inside vectors, none were written"
            )
    mismatches = [
        *(
            f"fragment {number} cannot be read: {error}"
            for number, error in sorted(actual.unreadable.items())
        ),
        *(f"{labels[name]} {difference}" for name, difference in damaged.items()),
    ]
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
    foreign_rows = actual.rows.get(FOREIGN, Content()).rows
    if foreign_rows:
        report.check(
            "rows that cfray did not write",
            "not_run",
            f"{counted(foreign_rows, 'row was', 'rows were')} added by others; nothing is known "
            "of them",
        )
    return damaged


def _difference(expected: Content, actual: Content) -> str:
    """Say how rows differ from those that were written; empty where they do not."""
    if actual.rows != expected.rows:
        written = counted(expected.rows, "was", "were")
        return f"has {counted(actual.rows, 'row')}, {written} written"
    if not expected.rows:
        # the sums of rows that left as they were written cancel out
        groups = [group for group, total in expected.sums.items() if total]
        return f"had rows that were damaged when they left: {', '.join(groups)}" if groups else ""
    groups = [group for group, total in expected.sums.items() if actual.sums.get(group) != total]
    return f"differs from what was written: {', '.join(groups)}" if groups else ""


def _fragments_with(dataset: LanceDataset, paths: set[str]) -> set[int]:
    """Give the ids of the fragments that some data or blob files belong to."""
    files = {data_file_of(path) for path in paths}
    return {
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if files & {data_file_of(f"data/{file.path}") for file in fragment.metadata.files}
    }


def _check_types(dataset: LanceDataset, plan: Plan, report: Report) -> tuple[bool, list[str]]:
    """Compare the columns, and the types by which an export restores every field, with the plan.

    Returns:
        whether the types of the fields differ, and the columns that are gone.
    """
    name = "types of every field"
    text = (dataset.schema.metadata or {}).get(TYPES_KEY.encode())
    types = plan.shape.metadata_types
    try:
        recorded = None if text is None else json.loads(text)
    except ValueError:
        recorded = None
    planned = [*frame_schema(1).names, *(f"x_vector_{vector}" for vector in plan.shape.vectors)]
    missing = [column for column in planned if column not in dataset.schema.names]
    findings = [f"the column {column} is gone" for column in missing]
    if recorded != types:
        known = recorded if isinstance(recorded, dict) else {}
        changed = sorted(key for key in {*types, *known} if types.get(key) != known.get(key))
        findings.append(f"the metadata key {TYPES_KEY} was changed: {_named(changed) or 'damaged'}")
    if findings:
        report.check(name, "fail", _named(findings))
    else:
        report.check(name, "pass", counted(len(types), "field is", "fields are") + " as planned")
    return recorded != types, missing


def _named(mismatches: list[str]) -> str:
    detail = "; ".join(mismatches[:_NAMED])
    further = len(mismatches) - _NAMED
    return f"{detail} and {further} more" if further > 0 else detail


@dataclass(frozen=True, slots=True)
class _Files:
    """What became of the data and blob files that hold rows.

    Attributes:
        changed: path of a file that changed -> ``missing`` or ``changed``.
        unrecorded: names of the data files that have no recorded digest.
        with_bytes: those of them that hold ``raw_data``.
        compared: how many files were compared.
    """

    changed: dict[str, str]
    unrecorded: set[str]
    with_bytes: set[str]
    compared: int


def _look_at_files(target: Target, dataset: LanceDataset, state: State) -> _Files:
    """Digest every data and blob file again, but for fragments without a row."""
    recorded = {file.path: file for receipt in state.published_receipts() for file in receipt.files}
    files = [
        file
        for fragment in dataset.get_fragments()
        if fragment.num_deletions < fragment.physical_rows
        for file in fragment.metadata.files
    ]
    used_files = {data_file_of(f"data/{file.path}") for file in files}
    raw_ids = _raw_field_ids(dataset)
    with_bytes = {
        data_file_of(f"data/{file.path}") for file in files if raw_ids.intersection(file.fields)
    }
    paths = [path for path in recorded if data_file_of(path) in used_files]
    work = [(target.uri, group) for group in task_groups(paths)]
    changed: dict[str, str] = {}
    for digest_by_path in run_tasks(_digest_files, work):
        for path, digest in digest_by_path.items():
            if digest != (recorded[path].size, recorded[path].digest):
                changed[path] = "missing" if digest is None else "changed"
    unrecorded = used_files - {data_file_of(path) for path in paths}
    return _Files(changed, unrecorded, unrecorded & with_bytes, len(paths))


def _raw_field_ids(dataset: LanceDataset) -> set[int]:
    """Give the ids of the field ``raw_data`` and of what is inside it."""
    starts = [(field.id(), field.name()) for field in dataset.lance_schema.fields()]
    ends = [start for start, _ in starts[1:]]
    return {
        number
        for (start, name), end in zip(starts, [*ends, starts[-1][0] + _INNER_FIELDS], strict=True)
        if name == "raw_data"
        for number in range(start, max(end, start + 1))
    }


def check_raw_files(target: Target, state: State) -> None:
    """Refuse to rewrite files whose bytes nobody vouches for: their digests would be made anew.

    To be called before a compaction where rows have bytes that no hash of a row covers.

    Raises:
        ProofFailed: names the first file that changed, or that cfray did not write.
    """
    files = _look_at_files(target, target.open(), state)
    doubtful = [
        *sorted(files.changed),
        *(f"data/{name}.lance" for name in sorted(files.with_bytes)),
    ]
    if doubtful:
        raise ProofFailed(
            f"{doubtful[0]} of {target.uri} is not as cfray wrote it, and may hold other raw_data",
            "run `cfray verify JOB --against source --repair`, or restore a backup",
        )


def _check_files(
    target: Target, dataset: LanceDataset, state: State, report: Report, *, has_raw_data: bool
) -> set[str]:
    """Note which files changed; a file of another writer may hold other bytes of ``raw_data``.

    Returns:
        paths of those that changed.
    """
    files = _look_at_files(target, dataset, state)
    changed = dict(files.changed)
    if has_raw_data:
        changed |= {f"data/{name}.lance": "not written by cfray" for name in files.with_bytes}
    sentences = [f"{path} ({word})" for path, word in sorted(changed.items())]
    detail = (
        ", ".join(sentences[:_NAMED])
        if changed
        else counted(
            files.compared,
            "data or blob file unchanged since it was written",
            "data and blob files unchanged since they were written",
        )
    )
    report.check("every data file", "fail" if changed else "pass", detail)
    number = len(files.unrecorded - (files.with_bytes if has_raw_data else set()))
    if number:
        report.check(
            "data files of other writers",
            "not_run",
            f"{counted(number, 'file has', 'files have')} no recorded digest",
        )
    return set(changed)


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
