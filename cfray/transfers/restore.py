"""Restore a point of a backup, or check that its files are what they were.

The dataset opens once its manifest is there, which is copied last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cfray.errors import ConfigError, ProofFailed
from cfray.runtime.plurals import counted
from cfray.target.commit import Target
from cfray.target.documents import dumps, parse_document
from cfray.transfers.files import HashedFile, Wanted, copy_files, hash_all, list_sizes
from cfray.transfers.points import Point, choose_point, folder_beside, list_points

#: File beside a dataset that is being restored: which point of which backup.
RESTORING = "restoring.json"


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    Attributes:
        dataset: address of the restored dataset.
        point: that was restored.
        copied_files, copied_bytes: that travelled; an interrupted restore has copied others.
    """

    dataset: str
    point: Point
    copied_files: int
    copied_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Give what a program wants to know."""
        return {
            "dataset": self.dataset,
            "copied_files": self.copied_files,
            "copied_bytes": self.copied_bytes,
            **self.point.summary(),
            "verdict": self.sentence(),
            "exit_code": 0,
        }

    def sentence(self) -> str:
        """Say what was done."""
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
    _claim(backup, point, uri)
    files = [Wanted(file.path, file.path, file) for file in point.files]
    state = [Wanted(item.file.path, item.path, item.file) for item in point.state]
    present = list_sizes(uri)
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
    if target.ledger().digest != point.ledger_digest or target.open().count_rows() != point.rows:
        raise ProofFailed(
            f"what was restored to {uri} is not what {point.name} says",
            "the record of the point is damaged: restore another one",
        )
    beside.remove(RESTORING)
    return RestoreReport(uri, point, copied.new_files, copied.new_bytes)


def _claim(backup: str, point: Point, uri: str) -> None:
    """Take an address for a restore, or find that an interrupted one of this point has it.

    Raises:
        ConfigError: something else stands there.
    """
    body = {"backup": backup, "point": point.name}
    beside = folder_beside(uri)
    data = beside.read(RESTORING)
    if data is not None:
        begun = parse_document(
            data, f"{beside.uri}/{RESTORING}", json.loads, remedy="give another address"
        )
        if begun == body:
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
    chosen = [choose_point(backup, name)]
    points = list_points(backup) if name is None else chosen
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
