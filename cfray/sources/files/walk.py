"""Walk through the folders of an export: every name in them, and why a name is passed over.

Nothing is passed over without a reason, and nothing is decided here by the kind of a file.  On a
local disk a link is followed to the file that it points to; a link to a folder is refused, for it
may lead in a circle or into a folder that is read already.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.sources.files import marks
from cfray.sources.files.globs import Glob

#: Why a name is passed over, as ``plan`` says it.
NO_FILE = "neither a file nor a folder, but a pipe, a socket or a device"
MATCHED_FOLDER = "a folder, whose files a glob with /** behind it reads"
#: Bytes of a path that are given to the operating system; a name of 255 bytes may follow.
_MOST_PATH_BYTES = 4096 - 257
#: Links behind a link that are followed; Linux follows 40.
_MAX_LINKS = 40
#: What the operating system says of a link that leads to nothing, or in a circle.
_LEADS_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder, or a path below the root of a walk.

    Attributes:
        name: the name, or the path; that of a folder ends with a slash.
        is_folder: whether it is a folder.
        size: bytes; 0 for a folder.
        modified: modification time in ns since the epoch.
        links: the links that lead to the file, each as it is written; empty for a plain file.
        is_broken: whether it is a link that leads to nothing.
        identity: the file's device and number; None where the filesystem has none.
        why_passed_over: empty where it may be a file of the export.
    """

    name: str
    is_folder: bool = False
    size: int = 0
    modified: int = 0
    links: tuple[str, ...] = ()
    is_broken: bool = False
    identity: tuple[int, int] | None = None
    why_passed_over: str = ""


class Tree(Protocol):
    """The folders below a root."""

    def list_folder(self, folder: str) -> list[Entry]:
        """List what is in a folder, by its path below the root: empty, or with a slash behind."""

    def list_names(self, folder: str) -> Collection[str]:
        """List the names in a folder, those of folders with a slash behind or without."""


def walk(tree: Tree, glob: Glob | None = None) -> Iterator[Entry]:
    """Yield every file below a root, and every name that is passed over with its reason.

    Args:
        tree: the folders.
        glob: yields only what it matches, and enters only folders that may hold such a file; what
            it spells is never passed over for its name.
    """
    yield from _walk_folder(tree, "", tree.list_folder(""), glob)


def _walk_folder(
    tree: Tree, folder: str, entries: list[Entry], glob: Glob | None
) -> Iterator[Entry]:
    names = {entry.name.rstrip("/") for entry in entries}
    if marks.is_lance(names) and not folder:
        yield Entry("./", is_folder=True, why_passed_over=marks.LANCE)
        return
    for entry in sorted(entries, key=lambda entry: entry.name):
        path = folder + entry.name
        is_spelled = glob is not None and glob.spells(entry.name.rstrip("/"))
        if not entry.is_folder:
            if glob is None or glob.matches(path):
                reason = "" if is_spelled else marks.why_no_file(entry.name, names)
                yield replace(entry, name=path, why_passed_over=entry.why_passed_over or reason)
        elif glob is None or glob.leads_into(path.rstrip("/")):
            yield from _enter(tree, path, entry, glob, is_spelled=is_spelled)
        elif glob.matches(path.rstrip("/")):
            yield replace(entry, name=path, why_passed_over=MATCHED_FOLDER)


def _enter(
    tree: Tree, path: str, entry: Entry, glob: Glob | None, *, is_spelled: bool
) -> Iterator[Entry]:
    """Walk through a folder, unless it is one that holds no data; refuse a link to a folder."""
    # by its name alone first: what is not entered need not be readable
    reason = "" if is_spelled else marks.why_no_folder(path.rstrip("/"), frozenset())
    if reason:
        yield replace(entry, name=path, why_passed_over=reason)
        return
    if entry.links:
        raise SourceError(
            f"{path.rstrip('/')} is a link to a folder, which is not followed",
            "name the linked folder itself in source.uri, or move the link out of the export",
        )
    children = tree.list_folder(path)
    names = {child.name.rstrip("/") for child in children}
    reason = "" if is_spelled else marks.why_no_folder(path.rstrip("/"), names)
    if reason:
        yield replace(entry, name=path, why_passed_over=reason)
    else:
        yield from _walk_folder(tree, path, children, glob)


def paths_to(path: str) -> list[str]:
    """Give the folders that lead to a path below a root, outermost first, and the path itself."""
    names = path.split("/") if path else []
    return ["/".join(names[:count]) for count in range(1, len(names) + 1)]


def enters_target(path: str, glob: Glob | None) -> bool:
    """Tell whether a walk enters a target, or the folder beside it; it passes Lance datasets over.

    Args:
        path: of the target below the root.
        glob: of the walk.
    """
    return any(
        all(_enters(folder, glob, is_lance=folder == path) for folder in paths_to(end))
        for end in (path, f"{path}.cfray")
    )


def _enters(path: str, glob: Glob | None, *, is_lance: bool) -> bool:
    if glob is not None and not glob.leads_into(path):
        return False
    if glob is not None and glob.spells(path.rpartition("/")[2]):
        return True
    return not marks.why_no_folder(path, {"_versions"} if is_lance else frozenset())


class UnlistedTree:
    """Folders that nobody needs to list, for the location is a file, or there is none."""

    def list_folder(self, folder: str) -> list[Entry]:
        """Give nothing."""
        return []

    def list_names(self, folder: str) -> Collection[str]:
        """Give nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class LocalTree:
    """Folders on a disk of this machine.

    Attributes:
        root: absolute path.
    """

    root: str

    def list_folder(self, folder: str) -> list[Entry]:
        """List a folder.

        Raises:
            OSError: the folder cannot be read.
        """
        with (
            reachable(os.path.join(self.root, folder)) as path,
            os.scandir(path) as items,
        ):
            return [_local_entry(item) for item in items]

    def list_names(self, folder: str) -> Collection[str]:
        """List the names in a folder.

        Raises:
            OSError: the folder cannot be read.
        """
        with reachable(os.path.join(self.root, folder)) as path:
            return os.listdir(path)


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """Give a path that the operating system takes: Linux refuses one of more than 4,095 bytes.

    The longer one goes on from an open folder.  Names in it may be appended.

    Raises:
        OSError: a folder on the way is gone, or may not be searched.
    """
    with ExitStack() as folders:
        while len(os.fsencode(path)) > _MOST_PATH_BYTES:
            above = os.path.dirname(os.fsdecode(os.fsencode(path)[:_MOST_PATH_BYTES]))
            number = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            folders.callback(os.close, number)
            path = f"/proc/self/fd/{number}{path[len(above) :]}"
        yield path


def _local_entry(item: os.DirEntry[str]) -> Entry:
    links = read_links(item.path) if item.is_symlink() else ()
    try:
        status = item.stat()
    except OSError as error:
        if links and error.errno in _LEADS_NOWHERE:
            return Entry(item.name, links=links, is_broken=True)
        raise
    if stat.S_ISDIR(status.st_mode):
        return Entry(f"{item.name}/", is_folder=True, links=links)
    return Entry(
        item.name,
        size=status.st_size,
        modified=status.st_mtime_ns,
        links=links,
        identity=(status.st_dev, status.st_ino),
        why_passed_over="" if stat.S_ISREG(status.st_mode) else NO_FILE,
    )


def read_links(path: str) -> tuple[str, ...]:
    """Read the links that lead from a path to a file, each as it is written; none for a file."""
    links: list[str] = []
    while len(links) < _MAX_LINKS and os.path.islink(path):
        links.append(os.readlink(path))
        path = os.path.join(os.path.dirname(path), links[-1])
    return tuple(links)


class RemoteTree:
    """Folders of an object store or a remote filesystem, all listed at once."""

    def __init__(self, system: pafs.FileSystem, root: str) -> None:
        """List everything below a root.

        Raises:
            OSError: the filesystem did not answer, or refused.
        """
        self._folders: dict[str, dict[str, Entry]] = {"": {}}
        prefix = len(root.rstrip("/")) + 1
        for info in system.get_file_info(pafs.FileSelector(root, recursive=True)):
            self._add(info, info.path[prefix:])

    def list_folder(self, folder: str) -> list[Entry]:
        """List a folder."""
        return list(self._folders.get(folder, {}).values())

    def list_names(self, folder: str) -> Collection[str]:
        """List the names in a folder."""
        return self._folders.get(folder, {})

    def _add(self, info: pafs.FileInfo, path: str) -> None:
        above, _, name = path.rpartition("/")
        folder = above and f"{above}/"
        if folder not in self._folders:
            # a filesystem may list a file before its folder
            self._add_folder(above)
        if info.type == pafs.FileType.Directory:
            self._add_folder(path)
        elif name:
            reason = "" if info.type == pafs.FileType.File else NO_FILE
            self._folders[folder][name] = Entry(
                name,
                size=int(info.size or 0),
                modified=int(info.mtime_ns or 0),
                why_passed_over=reason,
            )

    def _add_folder(self, path: str) -> None:
        if not path or f"{path}/" in self._folders:
            return
        above, _, name = path.rpartition("/")
        self._add_folder(above)
        self._folders[above and f"{above}/"][f"{name}/"] = Entry(f"{name}/", is_folder=True)
        self._folders[f"{path}/"] = {}
