"""Read a file of the list whole, only while it is what was listed.

Size, modification time and links are compared before and after reading.  A local file is opened by
its bytes' name, which Arrow cannot do where they are not UTF-8, and never waited for: a pipe that
took the place of a file is no file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.fs as pafs

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.models import MIB
from cfray.runtime.storage_errors import classify_read_error, is_missing, is_refused_access
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.locations import locate
from cfray.sources.files.walk import reachable, read_links
from cfray.sources.filesystem.manifest import ListedFile

#: What the operating system says where a name is no longer that of a file.
_OTHER_NOW = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV})
#: Files of a remote filesystem that are read at the same time, for an object store answers each in
#: some 30 ms; and bytes of these at most.
_THREADS, _MOST_BYTES = 16, 32 * MIB


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, or why there are none.

    Attributes:
        data: whole.
        problem: empty where the file was read.
    """

    data: bytes = b""
    problem: str = ""


def read_contents(
    root: str, files: Sequence[ListedFile], most: int
) -> Iterator[tuple[ListedFile, Content]]:
    """Read files one after the other, and some remote ones ahead.

    Args:
        root: path or URI of the folder that the names are relative to.
        files: as they were listed.
        most: bytes above which a file is not read; it has a problem then.

    Raises:
        SourceError, SourceUnavailable: as ``read_content``.
    """

    def read(file: ListedFile) -> Content:
        if file.size > most:
            return Content(problem=f"{file.size} bytes, over limits.max_document ({most})")
        return read_content(root, file)

    if not filesystems.is_uri(root):
        for file in files:
            yield file, read(file)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        for group in _groups(files):
            yield from zip(group, threads.map(read, group), strict=True)


def _groups(files: Sequence[ListedFile]) -> Iterator[list[ListedFile]]:
    group: list[ListedFile] = []
    size = 0
    for file in files:
        if group and (len(group) == 2 * _THREADS or size + file.size > _MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def read_content(root: str, file: ListedFile) -> Content:
    """Read a file.

    Args:
        root: path or URI of the folder that the name is relative to.
        file: as it was listed.

    Raises:
        SourceError: the root is gone, or empty, as where a disk is no longer mounted.
        SourceUnavailable: the filesystem did not answer.
    """
    system, path = filesystems.open_filesystem(root)
    if not isinstance(system, pafs.LocalFileSystem):
        return _read_remote(root, file)
    try:
        with reachable(f"{path.rstrip('/')}/{file.name}") as short_path:
            return _read_local(short_path, file)
    except OSError as error:
        if is_refused_access(error):
            return Content(problem="no permission to read the file")
        if is_missing(error):
            _check_root(path)
            return Content(problem="the file is gone since the plan was made")
        if error.errno in _OTHER_NOW:
            return Content(problem="changed since the plan was made: it is no file now")
        raise classify_read_error(error, f"{root}/{file.name}") from error


def _read_local(path: str, file: ListedFile) -> Content:
    if read_links(path) != file.links:
        return Content(problem="changed since the plan was made: the link leads elsewhere")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        before = os.fstat(stream.fileno())
        if problem := _difference(before, file):
            return Content(problem=problem)
        data = stream.read(file.size + 1)
    # by its name, for a file that was replaced meanwhile is another file
    if problem := _difference(os.stat(path), file):
        return Content(problem=problem)
    if len(data) != file.size:
        return Content(problem=f"{file.size} bytes by its folder, but {len(data)} were read")
    return Content(data)


def _difference(status: os.stat_result, file: ListedFile) -> str:
    """Say how a file differs from what was listed; empty where it does not."""
    if not stat.S_ISREG(status.st_mode):
        return "changed since the plan was made: it is no file now"
    if (status.st_size, status.st_mtime_ns) == (file.size, file.modified):
        return ""
    if status.st_size != file.size:
        return f"changed since the plan was made: {file.size} bytes then, {status.st_size} now"
    return "changed since the plan was made: it has another modification time"


def _read_remote(root: str, file: ListedFile) -> Content:
    pin = PinnedFile(locate(root, file.name), file.name, file.size, file.modified)
    try:
        with open_file(pin) as stream:
            return Content(bytes(stream.read()))
    except SourceError as error:
        if error.transient:
            raise
        return Content(problem=error.what)


def _check_root(path: str) -> None:
    if not os.path.isdir(path) or not os.listdir(path):
        raise SourceError(
            f"{path} is gone, or holds nothing now",
            "mount or restore the folder, then run the same command again",
        )
