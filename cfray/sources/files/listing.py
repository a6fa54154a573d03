"""Files of an export: listed once, pinned, and opened only while they are what was listed.

A file is pinned by size and modification time when the plan is made.  A worker
that finds another size or time stops the run and names the file: old and new
content are never mixed.
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

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime import filesystems
from cfray.sources.base import Json

#: Suffixes of compressed files and the codec pyarrow reads them with.
CODECS = {".gz": "gzip", ".zst": "zstd"}


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
        return CODECS.get(os.path.splitext(self.uri)[1].lower())

    def as_json(self) -> dict[str, Json]:
        """Write the pin into a shard's ``where``."""
        return {"uri": self.uri, "name": self.name, "size": self.size, "modified": self.modified}

    @classmethod
    def from_json(cls, data: dict[str, Json]) -> PinnedFile:
        """Read the pin from a shard's ``where``."""
        return cls(
            str(data["uri"]), str(data["name"]), int(str(data["size"])), int(str(data["modified"]))
        )


def listed(uri: str) -> list[PinnedFile]:
    """List the files at a path, in a folder or under a glob, sorted by name.

    Hidden files (``.x``) and markers (``_SUCCESS``) in folders are no exports and are left out.
    Links to folders are not followed: they may lead in a circle.

    Raises:
        SourceError: a file name that is not UTF-8, or a linked folder.
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.filesystem(uri)
    try:
        return _listed(uri, system, path)
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise SourceError(
            f"cannot read {uri}: {error}", "give this user read access to the export"
        ) from error
    except OSError as error:
        raise SourceUnavailable(
            f"cannot list {uri}: {error}",
            "check that the filesystem answers and that its credentials are set",
        ) from error


def _listed(uri: str, system: pafs.FileSystem, path: str) -> list[PinnedFile]:
    info: pafs.FileInfo = system.get_file_info(path)
    if info.type == pafs.FileType.File:
        return [_pin(info, uri, os.path.basename(path))]
    if info.type == pafs.FileType.Directory:
        return sorted(_walk(uri, system, path), key=lambda file: file.name)
    if not any(c in path for c in "*?["):
        return []
    root = path
    while any(c in root for c in "*?["):
        root = os.path.dirname(root)
    root_uri = uri[: len(uri) - len(path)] + root
    pattern = path[len(root) + 1 :]
    found = [file for file in _walk(root_uri, system, root) if _matches(file.name, pattern)]
    return sorted(found, key=lambda file: file.name)


def _matches(name: str, pattern: str) -> bool:
    """Match as a shell does: ``*`` stays inside one folder, ``**`` crosses them."""
    return fnmatch.fnmatchcase(name, pattern) and (
        "**" in pattern or name.count("/") == pattern.count("/")
    )


def _walk(uri: str, system: pafs.FileSystem, root: str) -> Iterator[PinnedFile]:
    if isinstance(system, pafs.LocalFileSystem):
        paths: Iterable[str] = _local_paths(root)
        infos: Iterable[pafs.FileInfo] = (system.get_file_info(found) for found in paths)
    else:
        infos = system.get_file_info(pafs.FileSelector(root, recursive=True))
    prefix = len(root.rstrip("/")) + 1
    for info in infos:
        name = info.path[prefix:]
        hidden = any(piece.startswith((".", "_")) for piece in name.split("/"))
        if info.type == pafs.FileType.File and not hidden:
            yield _pin(info, f"{uri.rstrip('/')}/{name}", name)


def _local_paths(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in folders:
            if Path(folder, name).is_symlink():
                raise SourceError(
                    f"{folder}/{name} is a link to a folder, which is not followed",
                    "name the linked folder itself in source.uri, or move the link out of the export",
                )
        for name in files:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise SourceError(
                    f"file name {os.fsencode(name)!r} in {folder} is not UTF-8", "rename the file"
                ) from error
            yield os.path.join(folder, name)


def _pin(info: pafs.FileInfo, uri: str, name: str) -> PinnedFile:
    return PinnedFile(uri, name, int(info.size or 0), int(info.mtime_ns or 0))


@contextmanager
def opened(file: PinnedFile, *, decompress: bool = True) -> Iterator[pa.NativeFile]:
    """Open a pinned file, decompressing by its suffix; refuse it if it changed.

    Raises:
        SourceError: it is gone or changed since the plan.
        SourceUnavailable: the filesystem did not answer.
    """
    check_pin(file)
    system, path = filesystems.filesystem(file.uri)
    try:
        if file.codec and decompress:
            with system.open_input_stream(path, compression=file.codec) as stream:
                yield stream
        else:
            with system.open_input_file(path) as stream:
                yield stream
    except FileNotFoundError as error:
        raise SourceError(
            f"{file.uri} was deleted during the run",
            "restore the file, then run the same command again",
        ) from error
    check_pin(file)


@contextmanager
def undamaged(file: PinnedFile) -> Iterator[None]:
    """Turn what pyarrow says of bytes that are not the format into a terminal error that names the file.

    An operating system's error counts as damage on a local disk; on a remote filesystem it may be the network.

    Raises:
        SourceError: the bytes are not the format, or end early.
        SourceUnavailable: a remote filesystem did not deliver them.
    """
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and filesystems.is_uri(file.uri):
            raise SourceUnavailable(
                f"{file.uri} cannot be read: {error}",
                "check that the filesystem answers, then run the same command again",
            ) from error
        raise SourceError(
            f"{file.uri} cannot be read: {error}",
            "the file is damaged, cut short or of another format: export it again",
        ) from error


def check_pin(file: PinnedFile) -> None:
    """Compare a file with its pin.

    Raises:
        SourceError: gone or changed.
    """
    system, path = filesystems.filesystem(file.uri)
    info: pafs.FileInfo = system.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise SourceError(
            f"{file.uri} is gone since the plan was made",
            "restore the file, then run the same command again",
        )
    # some object stores list modification times in ms and give single ones in s (MinIO): compare
    # what both have
    unit = 1 if isinstance(system, pafs.LocalFileSystem) else 10**9
    if info.size != file.size or info.mtime_ns // unit != file.modified // unit:
        raise SourceError(
            f"{file.uri} changed since the plan was made: {file.size} bytes, modified {_when(file.modified)} then; {info.size} bytes, modified {_when(info.mtime_ns)} now",
            "restore the file, or start anew with another target; rows of both states are never mixed",
        )


def _when(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).isoformat(timespec="milliseconds")
