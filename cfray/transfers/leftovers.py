"""What a run that was killed left in a backup: files that no point needs.

A note ``points/<name>.begun`` lists the files of a point before they are copied, and again before
they are removed.  A later backup removes what the notes list and no point needs, and nothing that
no note lists: that was written by somebody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cfray.runtime.filesystems import open_filesystem
from cfray.target.documents import dumps, parse_document
from cfray.transfers.files import check_path, is_part, list_sizes
from cfray.transfers.points import POINTS, Point, folder_beside

_SUFFIX = ".begun"


@dataclass(frozen=True, slots=True)
class Note:
    """Files that may be there without a point.

    Attributes:
        name: of the note's file.
        files: paths in the backup.
        state: paths in the folder beside it.
    """

    name: str
    files: frozenset[str]
    state: frozenset[str]


def write_note(backup: str, point: str, files: Iterable[str], state: Iterable[str]) -> None:
    """Note the files of a point that are about to be copied or removed."""
    body = {"files": sorted(files), "state": sorted(state)}
    folder_beside(backup).child(POINTS).publish(f"{point}{_SUFFIX}", dumps(body))


def read_notes(backup: str) -> list[Note]:
    """Read every note.

    Raises:
        TargetError: one is damaged.
    """
    folder = folder_beside(backup).child(POINTS)
    notes = []
    for name in folder.list_names():
        data = folder.read(name) if name.endswith(_SUFFIX) else None
        if data is not None:
            remedy = "remove it: files that a killed backup left may stay"
            files, state = parse_document(data, f"{folder.uri}/{name}", _paths, remedy=remedy)
            notes.append(Note(name, files, state))
    return notes


def _paths(data: bytes) -> tuple[frozenset[str], frozenset[str]]:
    body = json.loads(data)
    files, state = (frozenset(map(check_path, body[name])) for name in ("files", "state"))
    return files, state


def remove_leftovers(backup: str, points: Sequence[Point]) -> None:
    """Remove what the notes list and no point needs, then the notes.

    Args:
        backup: held by this run.
        points: all that stay.
    """
    files = {file.path for point in points for file in point.files}
    state = {item.file.path for point in points for item in point.state}
    beside = folder_beside(backup)
    for note in read_notes(backup):
        for folder, noted, needed in (
            (backup, note.files, files),
            (beside.uri, note.state, state),
        ):
            _remove_files(folder, noted - needed)
            _remove_files(folder, (path for path in list_sizes(folder) if is_part(path, noted)))
        beside.child(POINTS).remove(note.name)


def _remove_files(folder: str, paths: Iterable[str]) -> None:
    system, root = open_filesystem(folder)
    for path in sorted(paths):
        with suppress(FileNotFoundError):  # it was never copied, or an earlier removal got so far
            system.delete_file(f"{root}/{path}")
