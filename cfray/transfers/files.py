"""Copy files from one folder to another, each proven by its hash on both sides.

A file appears under its name when it is whole, never before: on a local disk by a rename, on an
object store by itself.  So an interrupted copy leaves whole files, and goes on with the others.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import xxhash

from cfray.copying.write import digest_file
from cfray.engine import failpoint, interrupts
from cfray.errors import ProofFailed, TargetError
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import open_filesystem
from cfray.runtime.storage_errors import classify_write_error

#: Files that are copied at the same time: on an object store each waits for its round trips.
_COPIERS = 8
#: Random characters in the name of a file that is being copied.
_PART = 8
#: Bytes read at a time.
_BLOCK = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file and what it holds.

    Attributes:
        path: below its folder.
        size: bytes.
        digest: XXH3-128, hex.
    """

    path: str
    size: int
    digest: str

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> HashedFile:
        """Read what a record says of a file.

        Raises:
            ValueError, TypeError, LookupError: cfray did not write that.
        """
        return cls(check_path(body["path"]), int(body["size"]), str(body["digest"]))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is to be copied.

    Attributes:
        path: below the folder that it is in.
        to: below the folder that it goes to.
        known: what it must hold; None where nobody wrote that down.
    """

    path: str
    to: str
    known: HashedFile | None = None


@dataclass(slots=True)
class Copied:
    """What a copy did.

    Attributes:
        files: every file that was asked for, by its path where it is now.
        new_files, new_bytes: that had to be copied.
    """

    files: list[HashedFile]
    new_files: int = 0
    new_bytes: int = 0

    def add(self, other: Copied) -> None:
        """Add what another copy did."""
        self.files += other.files
        self.new_files += other.new_files
        self.new_bytes += other.new_bytes


def check_path(path: str) -> str:
    """Refuse a path of a record that leads out of its folder.

    Raises:
        ValueError: it does.
    """
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"{path!r} is no path below a folder")
    return path


def is_part(path: str, of: Container[str]) -> bool:
    """Tell whether a killed copy left this file, which was to become one of others."""
    return path.endswith(".part") and path[: -len(".part") - _PART - 1] in of


def list_sizes(folder: str) -> dict[str, int]:
    """Give the size of every file below a folder by its path; none if it is missing."""
    system, root = open_filesystem(folder)
    selector = pafs.FileSelector(root, allow_not_found=True, recursive=True)
    try:
        infos: list[pafs.FileInfo] = system.get_file_info(selector)
    except OSError as error:
        raise TargetError(
            f"cannot list {folder}: {describe_error(error)}", "check the storage and its credential"
        ) from error
    return {
        info.path[len(root.rstrip("/")) + 1 :]: int(info.size or 0)
        for info in infos
        if info.type == pafs.FileType.File
    }


def copy_files(
    source: str,
    destination: str,
    wanted: Iterable[Wanted],
    *,
    present: Mapping[str, int],
    trusted: Mapping[str, HashedFile],
) -> Copied:
    """Copy files, some at the same time.

    Args:
        source: folder that the files are in.
        destination: folder that they go to.
        wanted: the files.
        present: path -> size of the files that the destination has.
        trusted: path -> what an earlier copy has proven of a file at the destination; such a file
            is not read again where it has its size.

    Raises:
        ProofFailed: a file does not hold what it must, on either side.
        TargetError: a file cannot be read or written.
    """

    def copy(item: Wanted) -> tuple[HashedFile, bool]:
        proven = trusted.get(item.to)
        if proven is not None and present.get(item.to) == proven.size:
            return proven, False
        if item.to in present:
            # an interrupted copy left it, whole
            file = hash_file(destination, item.to)
            if file == _hash_source(source, item):
                return file, False
        return copy_file(source, destination, item), True

    copied = Copied([])
    for file, is_new in _at_once(copy, wanted):
        copied.files.append(file)
        if is_new:
            copied.new_files += 1
            copied.new_bytes += file.size
            failpoint.reach("transferred")
    return copied


def _at_once(
    copy: Callable[[Wanted], tuple[HashedFile, bool]], wanted: Iterable[Wanted]
) -> Iterator[tuple[HashedFile, bool]]:
    with ThreadPoolExecutor(_COPIERS) as copiers:
        try:
            for result in copiers.map(copy, wanted):
                interrupts.check()
                yield result
        except BaseException:
            copiers.shutdown(cancel_futures=True)
            raise


def _hash_source(source: str, item: Wanted) -> HashedFile:
    """Give what a file must hold at the destination."""
    known = item.known or hash_file(source, item.path)
    return HashedFile(item.to, known.size, known.digest)


def copy_file(source: str, destination: str, item: Wanted) -> HashedFile:
    """Copy one file, and read it again where it is now.

    Raises:
        ProofFailed: it does not hold what it must, on either side.
        TargetError: it cannot be read or written.
    """
    from_system, from_root = open_filesystem(source)
    to_system, to_root = open_filesystem(destination)
    path = f"{to_root}/{item.to}"
    is_local = isinstance(to_system, pafs.LocalFileSystem)
    begun = f"{path}.{uuid.uuid4().hex[:_PART]}.part" if is_local else path
    digest, size = xxhash.xxh3_128(), 0
    try:
        if is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        stream = _open_input(from_system, f"{from_root}/{item.path}")
        with stream, to_system.open_output_stream(begun) as output:
            while block := stream.read(_BLOCK):
                digest.update(block)
                size += len(block)
                output.write(block)
        read = HashedFile(item.to, size, digest.hexdigest())
        if item.known is not None and (size, read.digest) != (item.known.size, item.known.digest):
            raise ProofFailed(
                f"{source}/{item.path} is not what was written",
                "it is damaged: run cfray verify, which says what of the dataset is",
            )
        if is_local:
            os.replace(begun, path)
    except OSError as error:
        raise classify_write_error(error, f"could not copy {destination}/{item.to}") from error
    finally:
        if is_local and os.path.exists(begun):
            os.unlink(begun)
    written = hash_file(destination, item.to)
    if written != read:
        raise ProofFailed(
            f"{destination}/{item.to} does not hold what was written to it",
            "check the storage, then run the same command again",
        )
    return written


def _open_input(system: pafs.FileSystem, path: str) -> pa.NativeFile:
    try:
        return system.open_input_stream(path)
    except FileNotFoundError:
        raise ProofFailed(
            f"{path} is missing", "it was removed: run cfray verify on the dataset it belongs to"
        ) from None


def hash_file(folder: str, path: str) -> HashedFile:
    """Read a file for its hash.

    Raises:
        ProofFailed: it is missing.
        TargetError: it cannot be read.
    """
    system, root = open_filesystem(folder)
    try:
        return HashedFile(path, *digest_file(system, f"{root}/{path}"))
    except FileNotFoundError:
        raise ProofFailed(f"{folder}/{path} is missing", "copy it from another backup") from None
    except OSError as error:
        raise TargetError(
            f"cannot read {folder}/{path}: {describe_error(error)}",
            "check the storage and its credential",
        ) from error


def hash_all(folder: str, files: Iterable[HashedFile]) -> Iterator[HashedFile | None]:
    """Read files for their hashes, some at the same time; None for one that is missing.

    Raises:
        TargetError: a file cannot be read.
    """

    def hash_one(file: HashedFile) -> HashedFile | None:
        try:
            return hash_file(folder, file.path)
        except ProofFailed:
            return None

    with ThreadPoolExecutor(_COPIERS) as readers:
        for found in readers.map(hash_one, files):
            interrupts.check()
            yield found
