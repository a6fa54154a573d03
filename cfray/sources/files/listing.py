"""Files of an export: pinned when they are listed, and opened only while they are what was listed.

A file is pinned by size and modification time when the plan is made, and a link by where it leads.
A worker that finds another size, time or link stops the run and names the file: old and new
content are never mixed.  A folder that cannot be read stops the plan: its rows would be lost.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.storage_errors import classify_read_error
from cfray.sources.base import Json
from cfray.sources.files import compression, kinds
from cfray.sources.files.walk import Entry, read_links

#: Keys of the folders that a file lies in and their values, outermost first; null where the folder
#: stands for null.
Partition = tuple[tuple[str, str | None], ...]

#: Nanoseconds after which another write gives a file another time (a choice): S3 writes times by
#: the second, FAT by two, and the clocks of two machines in one network differ by less than this.
SETTLING_NS = 60 * 10**9


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file as the plan saw it.

    Attributes:
        uri: absolute path or URI.
        name: path relative to the source's root: what ids and positions show.
        size: bytes.
        modified: modification time in ns since the epoch.
        codec: name of the compression; None for a file that is not compressed.
        links: the links that lead from ``uri`` to the file, each as it is written.
        partition: what the names of its folders say of its records; None where its records have
            neither these fields nor the file's name, as in the plans of earlier versions.
    """

    uri: str
    name: str
    size: int
    modified: int
    codec: str | None = None
    links: tuple[str, ...] = ()
    partition: Partition | None = None

    def to_json(self) -> dict[str, Json]:
        """Write the pin into a shard's ``where``."""
        pin: dict[str, Json] = {
            "uri": self.uri,
            "name": self.name,
            "size": self.size,
            "modified": self.modified,
            "codec": self.codec,
        }
        if self.links:
            pin["links"] = list(self.links)
        if self.partition is not None:
            pin["partition"] = dict(self.partition)
        return pin

    @classmethod
    def from_json(cls, data: dict[str, Json]) -> PinnedFile:
        """Read the pin from a shard's ``where``."""
        uri, codec, links = str(data["uri"]), data.get("codec"), data.get("links")
        if "codec" not in data:
            codec = kinds.codec_of_name(uri)
        partition = data.get("partition")
        return cls(
            uri,
            str(data["name"]),
            int(str(data["size"])),
            int(str(data["modified"])),
            None if codec is None else str(codec),
            tuple(map(str, links)) if isinstance(links, list) else (),
            tuple((key, None if value is None else str(value)) for key, value in partition.items())
            if isinstance(partition, dict)
            else None,
        )


def mark_of(file: PinnedFile | Entry) -> str:
    """Say in words what a pin compares: size, time and links."""
    words = f"{file.size:,} bytes of {_write_time(file.modified)}"
    return words + "".join(f", link to {link}" for link in file.links)


def is_settled(modified: int) -> bool:
    """Tell whether a file that is written to from now on will have another time than this one.

    A store may write times by the second, and its clock may differ from ours.

    Args:
        modified: ns since the epoch; 0 where the filesystem does not say.
    """
    return 0 < modified < time.time_ns() - SETTLING_NS


def utc_second(nanoseconds: int) -> dt.datetime | None:
    """Give the second of a time since 1970; None outside of the years 1 to 9999."""
    try:
        return dt.datetime.fromtimestamp(nanoseconds // 10**9, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _write_time(nanoseconds: int) -> str:
    second = utc_second(nanoseconds)
    if second is None:
        return f"{nanoseconds} ns since 1970"
    return f"{second:%Y-%m-%d %H:%M:%S}.{nanoseconds % 10**9:09d} UTC"


def read_head(file: PinnedFile) -> bytes:
    """Read a file's first bytes as they are, ``compression.HEAD_BYTES`` of them.

    Raises:
        SourceError, SourceUnavailable: the file cannot be read.
    """
    return read_file(file.uri, compression.HEAD_BYTES)


def read_file(uri: str, size: int = -1) -> bytes:
    """Read the first bytes of a small file, by default all.

    Raises:
        SourceError, SourceUnavailable: the file cannot be read.
    """
    system, path = filesystems.open_filesystem(uri)
    try:
        if isinstance(system, pafs.LocalFileSystem):
            with open(path, "rb") as local_file:
                return local_file.read(size)
        with system.open_input_file(path) as stream:
            return bytes(stream.read(None if size < 0 else size))
    except OSError as error:
        raise classify_read_error(error, uri) from error


@contextmanager
def open_file(file: PinnedFile, *, decompress: bool = True) -> Iterator[pa.NativeFile]:
    """Open a pinned file, decompressed; refuse it if it changed.

    An operating system's error in the body of the ``with`` counts as an error of this file.

    Raises:
        SourceError: no permission, the file is missing or changed since the plan, or its
            compression is broken or cannot be read.
        SourceUnavailable: the filesystem did not answer.
    """
    check_pin(file)
    system, path = filesystems.open_filesystem(file.uri)
    try:
        with system.open_input_file(path) as stream:
            if file.codec and decompress:
                with compression.decompress(stream, file.codec, file.uri) as content:
                    yield content
            else:
                yield stream
    except OSError as error:
        explained = compression.explain_error(error, file.uri)
        raise explained or classify_read_error(error, file.uri) from error
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
        SourceError: names the kind that reads the file, or what the file is instead.
    """
    codec = compression.find_codec(read_head(file), file.uri)
    if codec is not None and file.codec is None:
        raise SourceError(
            f"{file.uri} is compressed as a whole with {codec}, which kind: {kind} cannot enter",
            "decompress it, and name the file that comes of it",
        )
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
        links = read_links(path) if file.links else ()
    except OSError as error:
        raise classify_read_error(error, file.uri) from error
    if info.type != pafs.FileType.File:
        raise SourceError(
            f"{file.uri} is gone since the plan was made",
            "restore the file, then run the same command again",
        )
    if links != file.links:
        raise SourceError(
            f"{file.uri} changed since the plan was made: it was a link to {file.links[-1]} then, "
            f"and is {f'a link to {links[-1]}' if links else 'no link'} now",
            "restore the link, or start anew with another target; rows of both states are never "
            "mixed",
        )
    # Some object stores list modification times in ms and give them in s for a single file
    # (MinIO): the comparison uses what both have.
    unit = 1 if isinstance(system, pafs.LocalFileSystem) else 10**9
    if info.size != file.size or info.mtime_ns // unit != file.modified // unit:
        raise SourceError(
            f"{file.uri} changed since the plan was made: "
            f"{file.size} bytes, modified {_write_time(file.modified)} then; "
            f"{info.size} bytes, modified {_write_time(info.mtime_ns)} now",
            "restore the file, or start anew with another target; rows of both states are never "
            "mixed",
        )
