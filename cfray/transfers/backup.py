"""Back up a finished dataset: a point more in the backup, for which only new files travel.

The dataset may be read and written to meanwhile: files never change once they are written, and a
tag keeps the version that is copied from being cleaned up.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import lance

from cfray.engine import failpoint
from cfray.errors import ConfigError, ProofFailed
from cfray.runtime.clock import utc_now
from cfray.runtime.filesystems import storage_options, strip_credentials
from cfray.runtime.plurals import counted
from cfray.target.commit import Target
from cfray.target.documents import dumps, parse_document
from cfray.target.ledger import Ledger
from cfray.target.state import State
from cfray.transfers.dataset_files import files_of_state, files_of_version
from cfray.transfers.files import Copied, copy_files, hash_file, list_sizes
from cfray.transfers.finished import identity_of, open_finished, pinned
from cfray.transfers.leftovers import read_notes, remove_leftovers, write_note
from cfray.transfers.places import check_apart, check_held, held, read_file
from cfray.transfers.points import ORIGIN, POINTS, Point, StateFile, folder_beside, list_points
from cfray.transfers.rotation import Rotation


@dataclass(slots=True)
class BackupReport:
    """What a backup did.

    Attributes:
        backup: address of the backup.
        point: that was made.
        copied_files, copied_bytes: that travelled.
        points: names of those that are there now.
        removed: names of those that the rotation removed.
    """

    backup: str
    point: Point
    copied_files: int
    copied_bytes: int
    points: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Give what a program wants to know."""
        body = {name: value for name, value in asdict(self).items() if name != "point"}
        return {**body, **self.point.summary(), "verdict": self.sentence(), "exit_code": 0}

    def sentence(self) -> str:
        """Say what was done."""
        point = self.point
        files = len(point.files) + len(point.state)
        gone = f"; {counted(len(self.removed), 'point')} removed" if self.removed else ""
        return (
            f"{counted(point.rows, 'row')} of version {point.version} backed up as {point.name} "
            f"at {self.backup}: {counted(files, 'file')} ({point.size:,} bytes), of which "
            f"{counted(self.copied_files, 'file')} ({self.copied_bytes:,} bytes) were copied now, "
            f"each read again and compared; {counted(len(self.points), 'point')} there{gone}"
        )


def back_up(uri: str, backup: str, rotation: Rotation) -> BackupReport:
    """Add a point to a backup, and remove those that the rotation does not keep.

    Args:
        uri: of the target.
        backup: where the backup is, or will be.
        rotation: which points stay.

    Raises:
        ConfigError: there is no finished target, or something else stands at ``backup``.
        LeaseHeld: a run is at work on the target, or another backup on this address.
        ProofFailed: a file of the target is not what was written, or a copy is not what was read.
        TargetError: a file cannot be read or written.
    """
    target, state = open_finished(uri)
    _claim(uri, state, backup)
    version = target.open().version
    with held(backup) as holding:
        with pinned(target, version, backup):
            copied, point = _copy(target, state, version, backup)
        check_held(holding, backup)
        point.save(backup)
        report = BackupReport(backup, point, copied.new_files, copied.new_bytes)
        _rotate(backup, rotation, report)
    return report


def _claim(uri: str, state: State, backup: str) -> None:
    """Take an address for the backups of this dataset, or find that it is theirs.

    Raises:
        ConfigError: something else stands there.
    """
    check_apart(backup, [uri])
    folder = folder_beside(backup)
    body = {"source": strip_credentials(uri), "dataset": identity_of(state, Target(uri).ledger())}
    data = read_file(folder, ORIGIN)
    if data is None:
        if folder.exists() or _holds_files(backup):
            raise ConfigError(
                f"{backup} is there already, and is no backup of cfray's", "give another address"
            )
        folder.publish(ORIGIN, dumps(body))
        return
    known = parse_document(data, f"{folder.uri}/{ORIGIN}", _origin, remedy="give another address")
    if known["dataset"] != body["dataset"]:
        raise ConfigError(
            f"{backup} holds backups of another dataset ({known['source']})",
            "give another address; a target that was made anew is another dataset",
        )


def _holds_files(folder: str) -> bool:
    return bool(list_sizes(folder))


def _origin(data: bytes) -> dict[str, str]:
    body = json.loads(data)
    return {name: str(body[name]) for name in ("source", "dataset")}


def _copy(target: Target, state: State, version: int, backup: str) -> tuple[Copied, Point]:
    """Copy what a version needs and the backup does not have; the manifest last."""
    points = list_points(backup)
    name = _new_name([point.name for point in points])
    ledger = Ledger.from_metadata(target.open(version).schema.metadata, target.uri)
    beside = folder_beside(backup).uri
    trusted = {file.path: file for point in points for file in point.files}
    trusted_state = {item.file.path: item.file for point in points for item in point.state}
    files, manifest = files_of_version(target, state, version)
    _check_manifests(target, version, backup, manifest.path, points)
    of_state = list(files_of_state(state, name))
    write_note(
        *(backup, name, [item.to for item in [*files, manifest]], [item.to for item in of_state])
    )
    present = list_sizes(backup)
    copied = copy_files(target.uri, backup, files, present=present, trusted=trusted)
    copied_state = copy_files(
        state.folder.uri, beside, of_state, present=list_sizes(beside), trusted=trusted_state
    )
    copied.add(copy_files(target.uri, backup, [manifest], present=present, trusted=trusted))
    dataset = lance.dataset(backup, version=version, storage_options=storage_options(backup))
    rows = dataset.count_rows()
    if Ledger.from_metadata(dataset.schema.metadata, backup).digest != ledger.digest:
        raise ProofFailed(
            f"the copy at {backup} is not version {version} of {target.uri}",
            "give another address for the backup, and report this",
        )
    point = Point(
        name=name,
        source=strip_credentials(target.uri),
        version=version,
        ledger_digest=ledger.digest,
        rows=rows,
        files=list(copied.files),
        state=[
            StateFile(item.path, file)
            for item, file in zip(of_state, copied_state.files, strict=True)
        ],
    )
    copied.add(copied_state)
    return copied, point


def _check_manifests(
    target: Target, version: int, backup: str, path: str, points: list[Point]
) -> None:
    """Find that nobody else wrote to a backup, and that its manifest of a version is the target's.

    Only its number names a manifest, and a target that was restored to an earlier point makes the
    numbers behind it again.

    Raises:
        ConfigError: there is a version of somebody else, or another one of the same number.
    """
    proven = {file.path: file for point in points for file in point.files}
    noted = {name for note in read_notes(backup) for name in note.files}
    unknown = sorted(
        name
        for name in list_sizes(backup).keys() - proven.keys() - noted
        if name.startswith("_versions/") and name.endswith(".manifest")
    )
    if unknown:
        raise ConfigError(
            f"{backup} has a version that cfray did not copy ({unknown[0]}); nothing was changed",
            "give another address; the points at this one can be restored as before",
        )
    if path in proven and hash_file(target.uri, path) != proven[path]:
        raise ConfigError(
            f"{backup} holds another version {version}: {target.uri} was restored to an earlier "
            "point and went on from there; nothing was changed",
            "give another address; the points at this one can be restored as before",
        )


def _new_name(names: list[str]) -> str:
    """Name a point by the time; of several in one second each has another name."""
    name = second = utc_now().replace(":", "-")
    number = 1
    while name in names:
        number += 1
        name = f"{second}-{number}"
    return name


def _rotate(backup: str, rotation: Rotation, report: BackupReport) -> None:
    """Remove the points that are not kept: their records first, then what no other point needs."""
    points = {point.name: point for point in list_points(backup)}
    # its name is not the newest where a clock was wrong
    kept = rotation.kept(list(points)) | {report.point.name}
    report.points = sorted(kept)
    report.removed = sorted(points.keys() - kept)
    records = folder_beside(backup).child(POINTS)
    for name in report.removed:
        point = points[name]
        state = [item.file.path for item in point.state]
        write_note(backup, name, [file.path for file in point.files], state)
        records.remove(f"{name}.json")
        failpoint.reach("rotated")
    remove_leftovers(backup, [points[name] for name in kept])
