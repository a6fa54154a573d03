"""What all file exports share: list once, pin each file, cut it into parts, pack parts into shards.

A file is pinned by size and modification time when the plan is made.  A worker
that finds another size or time stops the run and names the file: old and new
content are never mixed.  Which parts a file has is its format's business.
"""

from __future__ import annotations

import fnmatch
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import Field

from cfray import filesystems
from cfray.errors import SourceError, SourceUnavailable
from cfray.records import Reject
from cfray.sources.base import Consistency, Context, Description, Json, Shard, Source

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
        return cls(str(data["uri"]), str(data["name"]), int(str(data["size"])), int(str(data["modified"])))


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of one file.

    Attributes:
        file: the pinned file.
        label: sorts the parts of a file; zero-padded digits.
        where: what the format needs to find the slice.
        size: bytes of the slice at the source.
        rows: records in it, where the format says so.
        splittable: false where the format allowed no smaller slice.
    """

    file: PinnedFile
    label: str
    where: dict[str, Json]
    size: int
    rows: int | None = None
    splittable: bool = True


class FileSource(Source):
    """A file, a folder or a glob on any pyarrow filesystem.

    A subclass gives the suffixes it reads in a folder, ``parts`` of one file and ``read_part``.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    #: A file, a folder (read recursively) or a glob; relative to the job file.
    uri: str = Field(min_length=1)

    @abstractmethod
    def parts(self, file: PinnedFile, context: Context) -> list[Part]:
        """Cut one file into parts of about ``shard_bytes``.  Driver."""

    @abstractmethod
    def read_part(self, file: PinnedFile, where: dict[str, Json], context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read one part, streaming.  Worker."""

    def files(self) -> list[PinnedFile]:
        """List what this source reads, sorted by name.

        Raises:
            SourceError: nothing there.
        """
        found = [file for file in listed(self.uri) if self._reads(file)]
        if not found:
            wanted = " or ".join(self.suffixes)
            raise SourceError(f"no {wanted} file at {self.uri}", "correct source.uri in the job file")
        return found

    def _reads(self, file: PinnedFile) -> bool:
        if _is_named_or_glob(self.uri):
            return True
        stem = file.name.lower()
        for suffix in CODECS:
            stem = stem.removesuffix(suffix)
        return stem.endswith(self.suffixes)

    def shards(self, context: Context) -> list[Shard]:
        """Cut every file into parts and pack small parts together."""
        parts = [part for file in self.files() for part in self.parts(file, context)]
        return packed(parts, self.shard_bytes)

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the shard's parts one after the other."""
        parts = shard.where["parts"]
        assert isinstance(parts, list)
        for part in parts:
            assert isinstance(part, dict)
            pin, where = part["file"], part["where"]
            assert isinstance(pin, dict)
            assert isinstance(where, dict)
            yield from self.read_part(PinnedFile.from_json(pin), where, context)

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the files are, and which files of the folder are not read."""
        base = super().describe(context, shards)
        reads = self.files()
        skipped = sorted({file.name for file in listed(self.uri)} - {file.name for file in reads})
        notes = [f"not read, other kind of file: {', '.join(skipped[:10])}{' …' if len(skipped) > 10 else ''}"] if skipped else []
        whole = sum(not shard.splittable for shard in shards)
        if whole:
            notes.append(f"{whole} of {len(shards)} shards hold a file that its format does not let us split; each is streamed by one worker")
        consistency: Consistency = "pinned files"
        return Description(self.record_schema(reads[0], context), base.rows, base.exact, base.size, consistency, tuple(notes))

    def record_schema(self, file: PinnedFile, context: Context) -> pa.Schema | None:
        """Give the records' Arrow schema; None where the format has none."""
        return None


def _is_named_or_glob(uri: str) -> bool:
    system, path = filesystems.filesystem(uri)
    return bool(system.get_file_info(path).type != pafs.FileType.Directory)


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
        raise SourceError(f"cannot read {uri}: {error}", "give this user read access to the export") from error
    except OSError as error:
        raise SourceUnavailable(f"cannot list {uri}: {error}", "check that the filesystem answers and that its credentials are set") from error


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
    found = [file for file in _walk(root_uri, system, root) if fnmatch.fnmatch(f"{root}/{file.name}", path)]
    return sorted(found, key=lambda file: file.name)


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
                raise SourceError(f"file name {os.fsencode(name)!r} in {folder} is not UTF-8", "rename the file") from error
            yield os.path.join(folder, name)


def _pin(info: pafs.FileInfo, uri: str, name: str) -> PinnedFile:
    return PinnedFile(uri, name, int(info.size or 0), int(info.mtime_ns or 0))


def packed(parts: list[Part], shard_bytes: int) -> list[Shard]:
    """Pack parts, in order, into shards of at most ``shard_bytes`` (a larger part is a shard of its own)."""
    groups: list[list[Part]] = []
    filled = 0
    for part in parts:
        if not groups or filled + part.size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(part)
        filled += part.size
    return [_shard(group) for group in groups]


def _shard(parts: list[Part]) -> Shard:
    known = [part.rows for part in parts]
    rows = None if any(count is None for count in known) else sum(count or 0 for count in known)
    where: list[Json] = [{"file": part.file.as_json(), "where": part.where} for part in parts]
    first = parts[0]
    return Shard(
        id=f"{first.file.name}#{first.label}",
        where={"parts": where},
        rows=rows,
        size=sum(part.size for part in parts),
        splittable=all(part.splittable for part in parts),
    )


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
        raise SourceError(f"{file.uri} was deleted during the run", "restore the file, then run the same command again") from error
    check_pin(file)


@contextmanager
def undamaged(file: PinnedFile) -> Iterator[None]:
    """Turn what pyarrow says of bytes that are not the format into a terminal error that names the file.

    Raises:
        SourceError: the bytes are not the format, or end early.
    """
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise SourceError(f"{file.uri} cannot be read: {error}", "the file is damaged, cut short or of another format: export it again") from error


def check_pin(file: PinnedFile) -> None:
    """Compare a file with its pin.

    Raises:
        SourceError: gone or changed.
    """
    system, path = filesystems.filesystem(file.uri)
    info: pafs.FileInfo = system.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise SourceError(f"{file.uri} is gone since the plan was made", "restore the file, then run the same command again")
    if (info.size, info.mtime_ns) != (file.size, file.modified):
        raise SourceError(
            f"{file.uri} changed since the plan was made: {file.size} bytes then, {info.size} now",
            "restore the file, or start anew with another target; rows of both states are never mixed",
        )
