"""The points of a backup: what the dataset was at a time, file by file.

A backup is a Lance dataset with one version for each point, and a folder beside it with the state
that belongs to it.  A point counts once its record is there, which is written last.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import xxhash

from cfray.errors import ConfigError, ProofFailed, TargetError
from cfray.runtime.filesystems import Folder
from cfray.target.documents import dumps, parse_document
from cfray.transfers.files import HashedFile, check_path

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
        body["seal"] = _seal(body)
        folder_beside(backup).child(POINTS).publish(f"{self.name}.json", dumps(body))

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Point:
        """Read a record.

        Raises:
            ValueError, TypeError, LookupError: it was not written by this version of cfray, or is
                not what was written under this name.
        """
        body: dict[str, Any] = json.loads(data)
        # a record from before records were sealed has none
        seal = body.pop("seal", None)
        if seal is not None and seal != _seal(body):
            raise ValueError("not what was written")
        if body.pop("format") != _FORMAT or body["name"] != name:
            raise ValueError("of another format, or of another name")
        dt.datetime.strptime(body["name"][:_SECOND], "%Y-%m-%dT%H-%M-%SZ")  # noqa: DTZ007  # UTC
        body["files"] = [HashedFile.from_json(file) for file in body["files"]]
        body["state"] = [
            StateFile(check_path(item["path"]), HashedFile.from_json(item["file"]))
            for item in body["state"]
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


def _seal(body: dict[str, Any]) -> str:
    """Give the hash of a record: a flipped bit of it would pass for another file, or for none."""
    return xxhash.xxh3_128_hexdigest(dumps(body))


def folder_beside(dataset: str) -> Folder:
    """Name the folder beside a dataset or a backup."""
    return Folder(f"{dataset}.cfray")


def list_points(backup: str) -> list[Point]:
    """Read the points of a backup, the oldest first.

    Raises:
        ProofFailed: a record is damaged.
    """
    return [_read_point(backup, name) for name in _list_names(backup)]


def _list_names(backup: str) -> list[str]:
    """Give the names of the points, the oldest first."""
    names = folder_beside(backup).child(POINTS).list_names()
    return sorted((name[: -len(".json")] for name in names if _NAME.fullmatch(name)), key=_age)


def _read_point(backup: str, name: str) -> Point:
    folder = folder_beside(backup).child(POINTS)
    data = folder.read(f"{name}.json")
    if data is None:
        raise ProofFailed(f"{folder.uri}/{name}.json is missing", "run the same command again")
    try:
        return parse_document(
            *(data, f"{folder.uri}/{name}.json", partial(Point.from_json, name=name)),
            remedy="remove it, and the point with it; --point restores another",
        )
    except TargetError as error:
        raise ProofFailed(error.what, error.remedy) from error


def _age(name: str) -> tuple[str, int]:
    second, number = name[:_SECOND], name[_SECOND + 1 :]
    return second, int(number or 1)


def choose_point(backup: str, name: str | None) -> Point:
    """Give the point of this name, or the newest.

    Raises:
        ConfigError: there is none.
        ProofFailed: its record is damaged.
    """
    names = _list_names(backup)
    if not names:
        raise ConfigError(f"{backup} holds no backup", "cfray backup TARGET --to URI makes one")
    if name is not None and name not in names:
        raise ConfigError(f"{backup} has no point {name}", f"it has {', '.join(names)}")
    return _read_point(backup, name or names[-1])
