"""Which files make a version of a target: of the dataset, and of the folder beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cfray.target.commit import Target
from cfray.target.lease import FILE as LEASE
from cfray.target.receipts import data_file_of
from cfray.target.state import State
from cfray.transfers.files import HashedFile, Wanted, list_sizes

#: Folders of the state whose files never change once they are there.
_LASTING = ("staged", "quarantine", "maps", "sessions", "reports", "differences")
#: Begin of the names of files in ``scratch/`` that no plan refers to.
_WORKING = re.compile(r"(embed|replay)-\d+-|\.")


def files_of_version(target: Target, state: State, version: int) -> tuple[list[Wanted], Wanted]:
    """List the files of a version of the dataset.

    A blob of some size lies in a file of its own beside its data file, which Lance does not list
    (lance-format/lance#7134).

    Returns:
        the files, and the manifest, which must be copied last.
    """
    tracked = target.open(version).tracked_files(min_version=version).read_all()
    listed = {
        (row["type"], row["path"]) for row in tracked.to_pylist() if row["version"] == version
    }
    (manifest,) = [path for kind, path in listed if kind == "manifest"]
    paths = {path for kind, path in listed if kind != "manifest"}
    data_files = {data_file_of(path) for path in paths if path.startswith("data/")}
    blobs = {
        path
        for path in list_sizes(f"{target.uri}/data")
        if "/" in path and path.partition("/")[0] in data_files
    }
    paths |= {f"data/{path}" for path in blobs}
    recorded = {file.path: file for receipt in state.published_receipts() for file in receipt.files}
    known = {
        path: HashedFile(path, recorded[path].size, recorded[path].digest)
        for path in paths
        if path in recorded
    }
    wanted = [Wanted(path, path, known.get(path)) for path in sorted(paths)]
    return wanted, Wanted(manifest, manifest)


def files_of_state(state: State, point: str) -> Iterator[Wanted]:
    """List the files of the folder beside the dataset that belong to a target.

    Those that are written again and again go to a folder of the point.
    """
    for path in sorted(list_sizes(state.folder.uri)):
        folder, _, rest = path.partition("/")
        if not rest:
            if path != LEASE and not path.startswith("."):
                yield Wanted(path, f"points/{point}/{path}")
        elif folder in _LASTING or (
            folder == "scratch" and "/" not in rest and not _WORKING.match(rest)
        ):
            yield Wanted(path, path)
