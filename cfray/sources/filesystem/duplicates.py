"""Files with the same bytes, found before anything is read: those of one size are hashed.

Hashing reads files, which a plan should not: beyond a limit the rest is not compared, and the
plan says so; files on another filesystem than a disk's are not compared at all.  Every record has
the ``sha256`` of its file, which finds its copies in the target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.runtime.models import MIB
from cfray.sources.files.locations import printable
from cfray.sources.filesystem.manifest import ListedFile
from cfray.sources.filesystem.pinned import read_content

#: Bytes and files that are hashed at most; a hundred megabytes take a second from a disk.
_MOST_BYTES, _MOST_FILES = 128 * MIB, 5_000


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What is known of copies.

    Attributes:
        groups: names of files with the same bytes, sorted; printable.
        uncompared: files that have the size of another and were not compared.
    """

    groups: tuple[tuple[str, ...], ...]
    uncompared: int


def find_duplicates(root: str, files: Sequence[ListedFile]) -> Duplicates:
    """Group the files that have the same bytes; empty files are not compared.

    Raises:
        SourceUnavailable: the filesystem did not answer.
    """
    by_size: dict[int, list[ListedFile]] = defaultdict(list)
    for file in files:
        if file.size:
            by_size[file.size].append(file)
    groups: list[tuple[str, ...]] = []
    bytes_left, files_left, uncompared = _MOST_BYTES, _MOST_FILES, 0
    for size, group in sorted(by_size.items()):
        if len(group) < 2:
            continue
        bytes_left -= size * len(group)
        files_left -= len(group)
        if bytes_left < 0 or files_left < 0 or filesystems.is_uri(root):
            uncompared += len(group)
            continue
        by_digest: dict[bytes, list[str]] = defaultdict(list)
        for file in group:
            digest = _digest(root, file)
            if digest:
                by_digest[digest].append(printable(file.name))
        groups += [tuple(names) for names in by_digest.values() if len(names) > 1]
    return Duplicates(tuple(sorted(groups)), uncompared)


def _digest(root: str, file: ListedFile) -> bytes:
    try:
        content = read_content(root, file)
    except SourceError as error:
        if error.transient:
            raise
        return b""  # reading it gives the reason
    return b"" if content.problem else sha256(content.data).digest()
