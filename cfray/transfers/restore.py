"""Restore a point of a backup, or check that its files are what they were.

The dataset opens once its manifest is there, which is copied last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import lance
import pyarrow as pa

from cfray.errors import ConfigError, ProofFailed
from cfray.frames.schema import frame_schema
from cfray.proving.certificate import CERTIFICATE_KEY
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import storage_options
from cfray.runtime.plurals import counted
from cfray.runtime.storage_errors import classify_write_error
from cfray.target.commit import Target, with_field
from cfray.target.creation import STORAGE_VERSION
from cfray.target.documents import dumps, parse_document
from cfray.target.ledger import LEDGER_KEY
from cfray.transfers.files import HashedFile, Wanted, copy_files, hash_all, list_sizes
from cfray.transfers.places import check_apart, read_file
from cfray.transfers.points import Point, choose_point, folder_beside, list_points

#: File beside a dataset that is being restored: which point of which backup.
RESTORING = "restoring.json"
#: Bytes of rows that are read at a time: a row may hold megabytes.
_BATCH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    Attributes:
        dataset: address of the restored dataset.
        point: that was restored.
        copied_files, copied_bytes: that travelled; an interrupted restore has copied others.
        where: the condition that rows had to fit; empty where all were restored.
    """

    dataset: str
    point: Point
    copied_files: int
    copied_bytes: int
    where: str = ""

    def as_json(self) -> dict[str, Any]:
        """Give what a program wants to know."""
        return {
            "dataset": self.dataset,
            "copied_files": self.copied_files,
            "copied_bytes": self.copied_bytes,
            "where": self.where,
            **self.point.summary(),
            "verdict": self.sentence(),
            "exit_code": 0,
        }

    def sentence(self) -> str:
        """Say what was done."""
        if self.where:
            return (
                f"{counted(self.point.rows, 'row')} of {self.point.name} with {self.where} "
                f"written to {self.dataset}: a Lance dataset, and no target of cfray's"
            )
        return (
            f"{counted(self.point.rows, 'row')} restored to {self.dataset}: version "
            f"{self.point.version}, as {self.point.name} has it; every file was read again and "
            "compared"
        )


def restore(backup: str, name: str | None, uri: str) -> RestoreReport:
    """Restore a point to an address where nothing is.

    Args:
        backup: address of the backup.
        name: of the point; None: the newest.
        uri: where the dataset goes.

    Raises:
        ConfigError: there is no such point, or something stands at ``uri``.
        ProofFailed: a file of the backup is damaged; the dataset does not open then.
        TargetError: a file cannot be read or written.
    """
    point = choose_point(backup, name)
    beside = folder_beside(uri)
    check_apart(uri, [backup])
    _claim(backup, point, uri)
    files = [Wanted(file.path, file.path, file) for file in point.files]
    state = [Wanted(item.file.path, item.path, item.file) for item in point.state]
    present = list_sizes(uri)
    if files[-1].to in present:
        # a restore that was killed behind its last file: what is beside it may be newer by now
        state = []
    copied = copy_files(backup, uri, files[:-1], present=present, trusted={})
    copied.add(
        copy_files(
            folder_beside(backup).uri,
            beside.uri,
            state,
            present=list_sizes(beside.uri),
            trusted={},
        )
    )
    copied.add(copy_files(backup, uri, files[-1:], present=present, trusted={}))
    target = Target(uri)
    dataset = target.open()
    found = (dataset.version, target.ledger().digest, dataset.count_rows())
    if found != (point.version, point.ledger_digest, point.rows):
        raise ProofFailed(
            f"what was restored to {uri} is not what {point.name} says",
            "the record of the point is damaged: restore another one",
        )
    beside.remove(RESTORING)
    return RestoreReport(uri, point, copied.new_files, copied.new_bytes)


def restore_part(backup: str, name: str | None, uri: str, where: str) -> RestoreReport:
    """Write the rows of a point that fit a condition, as a Lance dataset of its own.

    It is no target: it has no ledger, and nothing stands beside it.

    Args:
        backup: address of the backup.
        name: of the point; None: the newest.
        uri: where the dataset goes.
        where: SQL condition on columns.

    Raises:
        ConfigError: there is no such point, something stands at ``uri``, or the condition is wrong.
        ProofFailed: a file of the point is damaged; nothing was written.
        TargetError: a file cannot be read or written.
    """
    point = choose_point(backup, name)
    check_apart(uri, [backup])
    if folder_beside(uri).exists() or list_sizes(uri):
        raise ConfigError(
            f"something is at {uri} already; nothing was changed", "give another address"
        )
    if damaged := [file.path for file in _damaged(backup, set(point.files))]:
        raise ProofFailed(f"{backup}/{damaged[0]} is damaged", "restore another point")
    options = storage_options(backup)
    dataset = lance.dataset(backup, version=point.version, storage_options=options)
    try:
        wanted = dataset.count_rows(where)
    except (ValueError, OSError) as error:  # every file was just read: it is the condition
        raise ConfigError(
            f"--where cannot be read: {describe_error(error)[:300]}",
            "write a SQL condition on the columns of the dataset",
        ) from error
    try:
        scanner = dataset.scanner(
            filter=where, blob_handling="all_binary", batch_size_bytes=_BATCH_BYTES
        )
        metadata = {
            key: value
            for key, value in (dataset.schema.metadata or {}).items()
            if key.decode() not in (LEDGER_KEY, CERTIFICATE_KEY)
        }
        # Lance shows the column as places of blobs, and takes it as bytes
        raw = frame_schema(1).field("raw_data")
        schema = with_field(dataset.schema, raw).with_metadata(metadata)
        written = lance.write_dataset(
            pa.RecordBatchReader.from_batches(
                schema, (batch.cast(schema) for batch in scanner.to_batches())
            ),
            uri,
            schema=schema,
            data_storage_version=STORAGE_VERSION,
            storage_options=storage_options(uri),
        )
    except OSError as error:
        raise classify_write_error(error, f"could not write {uri}") from error
    rows = written.count_rows()
    if rows != wanted:
        raise ProofFailed(
            f"{rows:,} of {counted(wanted, 'row')} were written to {uri}",
            "remove it, and run the same command again",
        )
    size = sum(list_sizes(uri).values())
    return RestoreReport(uri, replace(point, rows=rows), len(list_sizes(uri)), size, where)


def _claim(backup: str, point: Point, uri: str) -> None:
    """Take an address for a restore, or find that an interrupted one of this point has it.

    Raises:
        ConfigError: something else stands there.
    """
    body = {"backup": backup, "point": point.name}
    beside = folder_beside(uri)
    data = read_file(beside, RESTORING)
    if data is not None:
        begun = parse_document(
            data, f"{beside.uri}/{RESTORING}", json.loads, remedy="give another address"
        )
        if begun == body:
            _check_untouched(point, uri)
            return
        raise ConfigError(
            f"a restore of {begun.get('point')} to {uri} was interrupted",
            "finish it, or give another address",
        )
    if beside.exists() or list_sizes(uri):
        raise ConfigError(
            f"something is at {uri} already; nothing was changed", "give another address"
        )
    beside.publish(RESTORING, dumps(body))


def _check_untouched(point: Point, uri: str) -> None:
    """Find that nobody has written to what an interrupted restore left.

    Raises:
        ConfigError: somebody did.
    """
    manifests = {
        path
        for path in list_sizes(uri)
        if path.startswith("_versions/") and path.endswith(".manifest")
    }
    if manifests - {point.files[-1].path}:
        raise ConfigError(
            f"{uri} was restored and has been written to since; nothing was changed",
            "go on with it as it is, or give another address",
        )


def list_chosen(backup: str, name: str | None) -> list[Point]:
    """List the points of a backup, or the one of this name.

    Raises:
        ConfigError: there is none.
    """
    chosen = [choose_point(backup, name)]
    return list_points(backup) if name is None else chosen


def check(backup: str, name: str | None) -> list[Point]:
    """Read every file of some points, and compare it with its hash.

    Args:
        backup: address of the backup.
        name: of a point; None: all of them.

    Returns:
        the points, which are intact.

    Raises:
        ConfigError: there is no such point.
        ProofFailed: names the files that are damaged or missing, and their points.
    """
    points = list_chosen(backup, name)
    damaged = [*_damaged(backup, {file for point in points for file in point.files})]
    beside = folder_beside(backup).uri
    damaged_state = [*_damaged(beside, {item.file for point in points for item in point.state})]
    if damaged or damaged_state:
        hurt = [
            point.name
            for point in points
            if set(damaged) & set(point.files)
            or set(damaged_state) & {item.file for item in point.state}
        ]
        names = [f"{backup}/{file.path}" for file in damaged]
        names += [f"{beside}/{file.path}" for file in damaged_state]
        further = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        raise ProofFailed(
            f"{counted(len(names), 'file is', 'files are')} damaged or missing: "
            f"{', '.join(names[:5])}{further}; points that need them: {', '.join(hurt)}",
            "back up to another address while the dataset is there; other points may be restored",
        )
    return points


def _damaged(folder: str, files: set[HashedFile]) -> Iterator[HashedFile]:
    expected = sorted(files, key=lambda file: file.path)
    for file, found in zip(expected, hash_all(folder, expected), strict=True):
        if found != file:
            yield file
