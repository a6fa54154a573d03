"""The points of a backup: what the dataset was at a time, file by file.

A backup is a Lance dataset with one version for each point, and a folder beside it with the state
that belongs to it.  A point counts once its record is there, which is written last.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from cfray.errors import ConfigError
from cfray.runtime.filesystems import Folder
from cfray.target.documents import dumps, parse_document
from cfray.transfers.files import HashedFile

_FORMAT = 1
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(-\d+)?\.json")
#: Characters of a point's name that are its second.
_SECOND = 20
#: Folder within the folder beside a backup: a record a point, and a folder a point for those files
#: of the state that are written again and again.
POINTS = "points"
#: File beside a backup that says of which dataset it is.
ORIGIN = "backup.json"


@dataclass(frozen=True, slots=True)
class StateFile:
    """A file of the folder beside a dataset.

    Attributes:
        path: below that folder.
        file: where it lies below the folder beside the backup, and what it holds.
    """

    path: str
    file: HashedFile


@dataclass(frozen=True, slots=True)
class Point:
    """What a dataset was at a time.

    Attributes:
        name: the time, UTC to the second, as a name: ``2026-11-29T10-15-00Z``; the next point of
            the same second has ``-2`` behind it.
        source: address of the dataset.
        version: of the dataset.
        ledger_digest: of the ledger of that version.
        rows: of that version.
        files: of the dataset; its manifest is the last.
        state: files of the folder beside it.
    """

    name: str
    source: str
    version: int
    ledger_digest: str
    rows: int
    files: list[HashedFile]
    state: list[StateFile]

    @property
    def size(self) -> int:
        """Give the bytes of all files."""
        return sum(file.size for file in [*self.files, *(item.file for item in self.state)])

    def save(self, backup: str) -> None:
        """Write the record: from here on the point counts."""
        body = {"format": _FORMAT, **asdict(self)}
        folder_beside(backup).child(POINTS).publish(f"{self.name}.json", dumps(body))

    @classmethod
    def from_json(cls, data: bytes) -> Point:
        """Read a record.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray.
        """
        body: dict[str, Any] = json.loads(data)
        if body.pop("format") != _FORMAT:
            raise ValueError("of another format")
        body["files"] = [HashedFile(**file) for file in body["files"]]
        body["state"] = [
            StateFile(item["path"], HashedFile(**item["file"])) for item in body["state"]
        ]
        return cls(**body)

    def summary(self) -> dict[str, Any]:
        """Give what a person wants to know of the point."""
        return {
            "point": self.name,
            "version": self.version,
            "rows": self.rows,
            "files": len(self.files) + len(self.state),
            "bytes": self.size,
            "source": self.source,
        }


def folder_beside(dataset: str) -> Folder:
    """Name the folder beside a dataset or a backup."""
    return Folder(f"{dataset}.cfray")


def list_points(backup: str) -> list[Point]:
    """Read the points of a backup, the oldest first.

    Raises:
        TargetError: a record is damaged.
    """
    folder = folder_beside(backup).child(POINTS)
    points = []
    for name in folder.list_names():
        data = folder.read(name)
        if data is not None and _NAME.fullmatch(name):
            remedy = "remove it, and the point with it; the others stay"
            points.append(
                parse_document(data, f"{folder.uri}/{name}", Point.from_json, remedy=remedy)
            )
    return sorted(points, key=lambda point: _age(point.name))


def _age(name: str) -> tuple[str, int]:
    second, number = name[:_SECOND], name[_SECOND + 1 :]
    return second, int(number or 1)


def choose_point(backup: str, name: str | None) -> Point:
    """Give the point of this name, or the newest.

    Raises:
        ConfigError: there is none.
    """
    points = list_points(backup)
    if not points:
        raise ConfigError(f"{backup} holds no backup", "cfray backup TARGET --to URI makes one")
    if name is None:
        return points[-1]
    for point in points:
        if point.name == name:
            return point
    names = ", ".join(point.name for point in points)
    raise ConfigError(f"{backup} has no point {name}", f"it has {names}")
