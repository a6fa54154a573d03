"""What lies at a location: a file, a folder or a glob, on any filesystem.

Every name there is listed, with the reason where it is passed over.  Which files a kind of source
reads is not decided here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote

import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.storage_errors import classify_read_error
from cfray.sources.files import kinds
from cfray.sources.files.globs import Glob, split_path
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.walk import (
    Entry,
    LocalTree,
    RemoteTree,
    Tree,
    UnlistedTree,
    read_links,
    walk,
)

#: What looks like an escape of ``printable``.
_ESCAPE = re.compile(r"\\(?:[nrt\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies at a location.

    Attributes:
        root: path or URI of the folder that the names are relative to.
        path: the root's path on its filesystem.
        is_folder: whether the location is a folder, of which a source reads only some files.
        entries: every file, and every name that is passed over, sorted by name.
        tree: the folders below the root.
    """

    root: str
    path: str
    is_folder: bool
    entries: list[Entry]
    tree: Tree

    def pin(self, entry: Entry) -> PinnedFile:
        """Pin a file; its codec is what its suffix says.

        Raises:
            SourceError: the file is a link that leads to nothing, or its name is not UTF-8.
        """
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise SourceError(
                f"file name {printable(entry.name)} in {self.root} is not UTF-8", "rename the file"
            ) from error
        uri = self.locate(entry.name)
        if entry.is_broken:
            raise SourceError(
                f"{uri} is a link to {entry.links[-1]}, which leads to no file: a download that "
                "was cut short, or a file that was moved",
                "fetch or restore the file, or remove the link; then run the same command again",
            )
        codec = kinds.codec_of_name(entry.name)
        return PinnedFile(uri, entry.name, entry.size, entry.modified, codec, entry.links)

    def locate(self, name: str) -> str:
        """Give the path or URI of a name below the root."""
        return locate(self.root, name)


def locate(root: str, name: str) -> str:
    """Give the path or URI of a name below a folder; a URI has its special characters as %XX."""
    if not filesystems.is_uri(root):
        return f"{root.rstrip('/')}/{name}"
    base, mark, query = root.partition("?")
    return f"{base.rstrip('/')}/{quote(name)}{mark}{query}"


def path_below(target: str, uri: str) -> tuple[str, Glob | None] | None:
    """Give a target's path below the folder that a source reads, and the glob that it goes by.

    Args:
        target: path or URI of the target.
        uri: path or URI of a file, a folder or a glob.

    Returns:
        None where the target lies elsewhere; an empty path where it is that folder.

    Raises:
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.open_filesystem(uri)
    root, glob = uri, None
    try:
        if system.get_file_info(path).type == pafs.FileType.NotFound:
            _, pattern = split_path(
                path, lambda name: bool(system.get_file_info(name).type == pafs.FileType.Directory)
            )
            root = folder_above(uri, pattern.count("/") + 1 if pattern else 0)
            glob = Glob(pattern) if pattern else None
    except OSError as error:
        raise classify_read_error(error, uri) from error
    below = filesystems.path_below(target, root)
    return None if below is None else (below, glob)


def printable(name: str) -> str:
    r"""Write a file's name, or its path, on one line; no two names are written alike.

    Line breaks and their like are escaped as Python writes them, bytes that are not UTF-8 as
    ``\xNN``.  In a name with such an escape, or with what looks like one, a backslash is doubled.
    """
    return "/".join(map(_printable_part, name.split("/")))


def _printable_part(name: str) -> str:
    if name.isprintable() and not _ESCAPE.search(name):
        return name
    return "".join(map(_escaped, name))


def _escaped(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{ord(sign) - 0xDC00:02x}"
    if "\x80" <= sign <= "\xff" and not sign.isprintable():
        return f"\\u{ord(sign):04x}"  # no byte
    return sign if sign.isprintable() and sign != "\\" else ascii(sign)[1:-1]


def list_files(uri: str) -> list[PinnedFile]:
    """List the files at a path, in a folder or under a glob, sorted by name.

    Names that ``marks`` knows to hold no record are left out.

    Raises:
        SourceError: no permission, a file name that is not UTF-8, a link to a folder, or a link
            that leads to nothing.
        SourceUnavailable: the filesystem did not answer.
    """
    listing = list_location(uri)
    return [listing.pin(entry) for entry in listing.entries if not entry.why_passed_over]


def list_location(uri: str) -> Listing:
    """List every name at a path, in a folder or under a glob.

    What exists under this name is no glob, whatever characters its name has.

    Raises:
        SourceError: no permission, a link to a folder, a location that is no file and no folder, or
            a glob that may mean two things.
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.open_filesystem(uri)
    try:
        listing = _list_location(uri, system, path)
    except OSError as error:
        raise classify_read_error(error, uri) from error
    listing.entries.sort(key=lambda entry: entry.name)
    return listing


def _list_location(uri: str, system: pafs.FileSystem, path: str) -> Listing:
    info: pafs.FileInfo = system.get_file_info(path)
    if info.type == pafs.FileType.Directory:
        tree = _open_tree(system, path)
        return Listing(uri, path, is_folder=True, entries=list(walk(tree)), tree=tree)
    is_local = isinstance(system, pafs.LocalFileSystem)
    links = read_links(path) if is_local else ()
    if info.type == pafs.FileType.File or links:
        folder, name = os.path.split(path)
        is_broken = info.type != pafs.FileType.File
        entry = Entry(name, False, int(info.size or 0), int(info.mtime_ns or 0), links, is_broken)
        root = folder_above(uri, 1)
        return Listing(root, folder, is_folder=False, entries=[entry], tree=UnlistedTree())
    if info.type != pafs.FileType.NotFound:
        raise SourceError(
            f"{uri} is neither a file nor a folder", "correct source.uri in the job file"
        )
    root, pattern = split_path(
        path, lambda name: bool(system.get_file_info(name).type == pafs.FileType.Directory)
    )
    if not pattern or system.get_file_info(root).type != pafs.FileType.Directory:
        return Listing(uri, path, is_folder=False, entries=[], tree=UnlistedTree())
    tree = _open_tree(system, root)
    root_uri = folder_above(uri, pattern.count("/") + 1)
    return Listing(root_uri, root, is_folder=False, entries=_match(tree, pattern, uri), tree=tree)


def _open_tree(system: pafs.FileSystem, root: str) -> Tree:
    if isinstance(system, pafs.LocalFileSystem):
        return LocalTree(root)
    return RemoteTree(system, root)


def folder_above(uri: str, levels: int) -> str:
    """Give the folder that is so many levels above a path or URI; itself at 0 levels."""
    if not levels:
        return uri
    base, mark, query = uri, "", ""
    if filesystems.is_uri(uri):
        base, mark, query = uri.partition("?")
    folder = "/".join(base.rstrip("/").split("/")[:-levels])
    return f"{folder or '/'}{mark}{query}"


def _match(tree: Tree, pattern: str, uri: str) -> list[Entry]:
    """Find what a glob matches; its brackets may also be meant as they stand."""
    entries = list(walk(tree, Glob(pattern)))
    if "[" not in pattern:
        return entries
    literal_entries = list(walk(tree, Glob(pattern, literal_brackets=True)))
    names, literal_names = (
        {entry.name for entry in matches} for matches in (entries, literal_entries)
    )
    if names and literal_names and names != literal_names:
        raise SourceError(
            f"{uri} may mean two things: as a glob it matches {printable(min(names))}, and where "
            f"its brackets stand for themselves {printable(min(literal_names))}",
            "write [[] in place of a [ that stands for itself",
        )
    return entries or literal_entries
