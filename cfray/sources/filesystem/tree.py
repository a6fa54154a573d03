"""The files of a tree, each once, and every name that is not read with the reason.

On a local disk a link to a file is read as that file, unless the file is read under its own name;
a link to a folder is never followed, so that a circle of links ends.  A folder that cannot be read
stops the plan, for nobody knows what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.storage_errors import classify_read_error, is_refused_access
from cfray.sources.files import marks
from cfray.sources.files.globs import Glob, split_path
from cfray.sources.files.locations import folder_above, path_below, printable
from cfray.sources.files.walk import (
    Entry,
    LocalTree,
    RemoteTree,
    Tree,
    UnlistedTree,
    paths_to,
    read_links,
)
from cfray.sources.filesystem.patterns import Patterns

EXCLUDED = "left out by source.exclude"
NOT_INCLUDED = "left out by source.include"
BROKEN = "links that lead to no file"
SAME_FILE = "links to files that are read under their own names"
INNER_FOLDER_LINK = "links to folders of this tree, which are read under their own names"
OUTER_FOLDER_LINK = "links to folders outside of this tree, which are not followed"
NO_DOCUMENT = "kept there by a file manager, no document"

#: What file managers leave in folders, in lower case.
_LEFT_FILES = frozenset(
    {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".localized"}
)
#: Folders that an error names.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class FileTree:
    """What lies at a location.

    Attributes:
        root: path or URI of the folder that the names are relative to.
        files: the files that are read, sorted by name.
        left: reason -> names that are not read, folders with a slash behind.
        unused_include: patterns of ``source.include`` that match no file.
        unused_exclude: patterns of ``source.exclude`` that match nothing that is looked at.
    """

    root: str
    files: list[Entry]
    left: dict[str, list[str]]
    unused_include: list[str]
    unused_exclude: list[str]


@dataclass(slots=True)
class _Walk:
    """One walk through a tree.

    Attributes:
        tree: the folders.
        root: the root's path on a local disk; empty on any other filesystem.
        include: a file must match it, where it has patterns.
        exclude: what matches it is not read.
        glob: of ``source.uri``; a file must match it.
        unreadable: folders that may not be read.
        matching: the patterns of ``include`` and ``exclude`` that match something.
    """

    tree: Tree
    root: str
    include: Patterns
    exclude: Patterns
    glob: Glob | None
    unreadable: list[str] = field(default_factory=list)
    matching: set[Glob] = field(default_factory=set)

    def entries(self) -> Iterator[Entry]:
        """Yield every file, and what is passed over with its reason, in no order."""
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                entries = self.tree.list_folder(folder)
            except OSError as error:
                if not is_refused_access(error):
                    raise
                self.unreadable.append(folder or "./")
                continue
            for entry in entries:
                path = folder + entry.name
                if not entry.is_folder:
                    if self.glob is None or self.glob.matches(path):
                        reason = self._why_no_file(entry, path)
                        yield replace(entry, name=path, why_passed_over=reason)
                elif self.glob is None or self.glob.leads_into(path.rstrip("/")):
                    reason = self._why_not_entered(entry, path.rstrip("/"))
                    if reason:
                        yield replace(entry, name=path, why_passed_over=reason)
                    else:
                        folders.append(path)

    def _why_no_file(self, entry: Entry, path: str) -> str:
        if entry.why_passed_over:
            return entry.why_passed_over
        if self._noted(self.exclude.match_file(path)):
            return EXCLUDED
        if self.include.globs and not self._noted(self.include.match_file(path)):
            return NOT_INCLUDED
        if entry.is_broken:
            return BROKEN
        return NO_DOCUMENT if entry.name.lower() in _LEFT_FILES else ""

    def _noted(self, globs: set[Glob]) -> bool:
        self.matching |= globs
        return bool(globs)

    def enters(self, path: str) -> bool:
        """Tell whether the walk would enter a folder, which need not exist."""
        return all(
            (self.glob is None or self.glob.leads_into(folder))
            and not self._why_not_entered(Entry(f"{folder}/", is_folder=True), folder)
            for folder in paths_to(path)
        )

    def _why_not_entered(self, entry: Entry, path: str) -> str:
        if self._noted(self.exclude.match_folder(path)):
            return EXCLUDED
        if entry.links:
            target, root = os.path.realpath(f"{self.root}/{path}"), os.path.realpath(self.root)
            is_inside = target == root or target.startswith(f"{root.rstrip('/')}/")
            return INNER_FOLDER_LINK if is_inside else OUTER_FOLDER_LINK
        if self.include.globs and not self.include.leads_into(path):
            return NOT_INCLUDED
        reason = marks.why_no_folder(path, frozenset())
        return reason if reason == marks.LEFT_BEHIND else ""


def enters_target(uri: str, include: Patterns, exclude: Patterns, target: str) -> bool:
    """Tell whether the listing of a tree would enter a target, or the folder beside it.

    Raises:
        SourceUnavailable: the filesystem did not answer.
    """
    place = path_below(target, uri)
    if place is None:
        return False
    path, glob = place
    walk = _Walk(UnlistedTree(), "", include, exclude, glob)
    return walk.enters(path) or walk.enters(f"{path}.cfray")


def list_tree(uri: str, include: Patterns, exclude: Patterns) -> FileTree:
    """List the files at a path, in a folder or under a glob.

    What exists under this name is no glob, whatever characters its name has.

    Raises:
        SourceError: there is nothing at the location, or a folder that may not be read.
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.open_filesystem(uri)
    try:
        root, entries, walk = _list(uri, system, path, (include, exclude))
    except OSError as error:
        raise classify_read_error(error, uri) from error
    if unreadable := walk.unreadable:
        more = f" and {len(unreadable) - _LISTED:,} more" if len(unreadable) > _LISTED else ""
        listed = ", ".join(map(printable, sorted(unreadable)[:_LISTED]))
        raise SourceError(
            f"no permission to read folders in {root}: {listed}{more}",
            "give this user read permission (chmod a+rx), or name them in source.exclude",
        )
    _leave_links_to(entries)
    entries.sort(key=lambda entry: os.fsencode(entry.name))
    left: dict[str, list[str]] = {}
    for entry in entries:
        if entry.why_passed_over:
            left.setdefault(entry.why_passed_over, []).append(entry.name)
    files = [entry for entry in entries if not entry.why_passed_over]
    return FileTree(
        root, files, left, include.list_unused(walk.matching), exclude.list_unused(walk.matching)
    )


def _list(
    uri: str, system: pafs.FileSystem, path: str, patterns: tuple[Patterns, Patterns]
) -> tuple[str, list[Entry], _Walk]:
    """Give the root, every name below it, and the walk that found them."""
    info: pafs.FileInfo = system.get_file_info(path)
    is_local = isinstance(system, pafs.LocalFileSystem)
    if info.type == pafs.FileType.File:
        name = os.path.basename(path)
        links = read_links(path) if is_local else ()
        # Arrow's times end in the year 2262
        modified = os.stat(path).st_mtime_ns if is_local else int(info.mtime_ns or 0)
        entry = Entry(name, size=int(info.size or 0), modified=modified, links=links)
        return folder_above(uri, 1), [entry], _Walk(UnlistedTree(), "", *patterns, None)
    root, root_uri, glob = path, uri, None
    if info.type == pafs.FileType.NotFound:
        root, pattern = split_path(
            path, lambda name: bool(system.get_file_info(name).type == pafs.FileType.Directory)
        )
        if not pattern or system.get_file_info(root).type != pafs.FileType.Directory:
            bucket = path.partition("/")[0]
            if not is_local and system.get_file_info(bucket).type == pafs.FileType.NotFound:
                raise SourceError(
                    f"there is no bucket or container {bucket} for {uri}",
                    "correct source.uri in the job file, or the endpoint in the environment",
                )
            raise SourceError(f"nothing at {uri}", "correct source.uri in the job file")
        root_uri, glob = folder_above(uri, pattern.count("/") + 1), Glob(pattern)
    elif info.type != pafs.FileType.Directory:
        raise SourceError(
            f"{uri} is neither a file nor a folder", "correct source.uri in the job file"
        )
    tree: Tree = LocalTree(root) if is_local else RemoteTree(system, root)
    walk = _Walk(tree, root if is_local else "", *patterns, glob)
    return root_uri, list(walk.entries()), walk


def _leave_links_to(entries: list[Entry]) -> None:
    """Leave links to files that are read under their own names."""
    plain = {
        entry.identity
        for entry in entries
        if not entry.links and not entry.why_passed_over and entry.identity is not None
    }
    for number, entry in enumerate(entries):
        if entry.links and not entry.why_passed_over and entry.identity in plain:
            entries[number] = replace(entry, why_passed_over=SAME_FILE)
