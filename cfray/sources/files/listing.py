"""Files of an export: listed once, pinned, and opened only while they are what was listed.

A file is pinned by size and modification time when the plan is made.  A worker that
finds another size or time stops the run and names the file: old and new content are
never mixed.  A folder that cannot be read stops the plan: its rows would be lost.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.storage_errors import classify_read_error
from cfray.sources.base import Json
from cfray.sources.files import kinds


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file as the plan saw it.

    Attributes:
        uri: absolute path or URI.
        name: path relative to the source's root: what ids and positions show.
        size: bytes.
        modified: modification time in ns since the epoch.
    """

    uri: str
    name: str
    size: int
    modified: int

    @property
    def codec(self) -> str | None:
        """Name the compression, if any."""
        return kinds.CODECS.get(os.path.splitext(self.uri)[1].lower())

    def to_json(self) -> dict[str, Json]:
        """Write the pin into a shard's ``where``."""
        return {"uri": self.uri, "name": self.name, "size": self.size, "modified": self.modified}

    @classmethod
    def from_json(cls, data: dict[str, Json]) -> PinnedFile:
        """Read the pin from a shard's ``where``."""
        return cls(
            str(data["uri"]), str(data["name"]), int(str(data["size"])), int(str(data["modified"]))
        )


def list_files(uri: str) -> list[PinnedFile]:
    """List the files at a path, in a folder or under a glob, sorted by name.

    Hidden files (``.x``) and markers (``_SUCCESS``) in folders are no exports and are left out.
    Links to folders are not followed: they may lead in a circle.

    Raises:
        SourceError: no permission, a file name that is not UTF-8, or a linked folder.
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.open_filesystem(uri)
    try:
        return sorted(_find_files(uri, system, path), key=lambda file: file.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise classify_read_error(error, uri) from error


def _find_files(uri: str, system: pafs.FileSystem, path: str) -> Iterator[PinnedFile]:
    info: pafs.FileInfo = system.get_file_info(path)
    if info.type == pafs.FileType.File:
        yield _pin(info, uri, os.path.basename(path))
    elif info.type == pafs.FileType.Directory:
        yield from _walk(uri, system, path)
    elif any(wildcard in path for wildcard in "*?["):
        root = path
        while any(wildcard in root for wildcard in "*?["):
            root = os.path.dirname(root)
        root_uri = uri[: len(uri) - len(path)] + root
        pattern = path[len(root) + 1 :]
        for file in _walk(root_uri, system, root):
            if _matches(file.name, pattern):
                yield file


def _matches(name: str, pattern: str) -> bool:
    """Match as a shell does: ``*`` stays inside one folder, ``**`` crosses them."""
    return fnmatch.fnmatchcase(name, pattern) and (
        "**" in pattern or name.count("/") == pattern.count("/")
    )


def _walk(uri: str, system: pafs.FileSystem, root: str) -> Iterator[PinnedFile]:
    if isinstance(system, pafs.LocalFileSystem):
        infos: Iterable[pafs.FileInfo] = map(system.get_file_info, _local_paths(root))
    else:
        infos = system.get_file_info(pafs.FileSelector(root, recursive=True))
    prefix = len(root.rstrip("/")) + 1
    for info in infos:
        name = info.path[prefix:]
        hidden = any(step.startswith((".", "_")) for step in name.split("/"))
        if info.type == pafs.FileType.File and not hidden:
            yield _pin(info, f"{uri.rstrip('/')}/{name}", name)


def _local_paths(root: str) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root, onerror=_raise, followlinks=False):
        for name in subfolders:
            if Path(folder, name).is_symlink():
                raise SourceError(
                    f"{folder}/{name} is a link to a folder, which is not followed",
                    "name the linked folder itself in source.uri, or move the link out of the "
                    "export",
                )
        # An unreadable hidden folder holds nothing that would be read.
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "_"))]
        for name in files:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise SourceError(
                    f"file name {os.fsencode(name)!r} in {folder} is not UTF-8", "rename the file"
                ) from error
            yield os.path.join(folder, name)


def _raise(error: OSError) -> None:
    """Raise what ``os.walk`` would pass over: a folder that cannot be read."""
    raise error


def _pin(info: pafs.FileInfo, uri: str, name: str) -> PinnedFile:
    return PinnedFile(uri, name, int(info.size or 0), int(info.mtime_ns or 0))


@contextmanager
def open_file(file: PinnedFile, *, decompress: bool = True) -> Iterator[pa.NativeFile]:
    """Open a pinned file, decompressing by its suffix; refuse it if it changed.

    An operating system's error in the body of the ``with`` counts as an error of this file.

    Raises:
        SourceError: no permission, the file is missing or changed since the plan, or its
            compression is broken.
        SourceUnavailable: the filesystem did not answer.
    """
    check_pin(file)
    system, path = filesystems.open_filesystem(file.uri)
    try:
        if file.codec and decompress:
            with system.open_input_stream(path, compression=file.codec) as stream:
                yield stream
        else:
            with system.open_input_file(path) as stream:
                yield stream
    except OSError as error:
        raise classify_read_error(error, file.uri) from error
    check_pin(file)


@contextmanager
def explain_read_errors(file: PinnedFile, kind: str = "") -> Iterator[None]:
    """Turn Arrow's error about bytes that are not the format into an error that names the file.

    Args:
        file: the file that the body of the ``with`` reads.
        kind: kind of source that reads it: where the file is another kind's, the error says so.

    Raises:
        SourceError: the bytes are not the format, or end early.
        SourceUnavailable: a remote filesystem did not deliver them.
    """
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if kind:
            check_kind(file, kind)
        raise classify_read_error(error, file.uri) from error


def check_kind(file: PinnedFile, kind: str) -> None:
    """Refuse a file that another kind of source reads, by its first bytes or by its suffix.

    To be called where reading failed, or before a file is read that has no suffix of ``kind``.

    Raises:
        SourceError: names the kind that reads the file.
    """
    with open_file(file) as stream:
        right_kind = kinds.kind_of_bytes(stream.read(kinds.FIRST_BYTES_NEEDED))
    if right_kind is None and kind not in kinds.TEXT_KINDS:
        right_kind = kinds.kind_of_name(file.name)
    if right_kind is not None and right_kind != kind:
        raise SourceError(
            f"{file.uri} is no file for kind: {kind}; kind: {right_kind} reads it",
            f"write source.kind: {right_kind} in the job file, or correct source.uri",
        )


def check_pin(file: PinnedFile) -> None:
    """Compare a file with its pin.

    Raises:
        SourceError: the file is gone or changed, or its folder cannot be searched.
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.open_filesystem(file.uri)
    try:
        info: pafs.FileInfo = system.get_file_info(path)
    except OSError as error:
        raise classify_read_error(error, file.uri) from error
    if info.type != pafs.FileType.File:
        raise SourceError(
            f"{file.uri} is gone since the plan was made",
            "restore the file, then run the same command again",
        )
    # Some object stores list modification times in ms and give them in s for a single file
    # (MinIO): the comparison uses what both have.
    unit = 1 if isinstance(system, pafs.LocalFileSystem) else 10**9
    if info.size != file.size or info.mtime_ns // unit != file.modified // unit:
        raise SourceError(
            f"{file.uri} changed since the plan was made: "
            f"{file.size} bytes, modified {_iso_time(file.modified)} then; "
            f"{info.size} bytes, modified {_iso_time(info.mtime_ns)} now",
            "restore the file, or start anew with another target; rows of both states are never "
            "mixed",
        )


def _iso_time(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).isoformat(timespec="milliseconds")
