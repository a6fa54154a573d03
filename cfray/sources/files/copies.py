"""Files that may be copies of each other: the same export plain and compressed, or a backup of it.

Only files whose names or sizes suggest it are opened, and only some of their bytes are compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

from cfray.errors import SourceError
from cfray.sources.files.kinds import has_codec_suffix
from cfray.sources.files.listing import PinnedFile, open_file

#: Bytes, decompressed, that are compared at a place.
HEAD_BYTES = 64 * 1024
#: Fewer bytes prove nothing: a CSV file may be all header.
_LEAST_BYTES = 64
#: Groups of files that are compared, and files of each.
_MOST_GROUPS, _MOST_FILES = 32, 4
#: What people and programs write behind the name of a copy.
_COPY_MARK = re.compile(
    r"([\s_.~-]*(backup|bak|copy|kopie|copie|copia|old|orig|original|export|\(\d+\)))+$"
)


def find_copies(files: Sequence[PinnedFile], *, are_texts: bool) -> tuple[tuple[str, ...], ...]:
    """Group the files that hold the same bytes where they are looked at, by name.

    Plain files of one size are compared at their beginning, in their middle and at their end.
    Texts whose names are alike, one of them compressed or longer, are compared at their beginning;
    that of a binary file is one column, which may be equal in all parts of an export.

    Raises:
        SourceUnavailable: the filesystem did not answer.
    """
    by_size: dict[int, list[PinnedFile]] = {}
    by_stem: dict[str, list[PinnedFile]] = {}
    for file in files:
        if file.size and file.codec is None:
            by_size.setdefault(file.size, []).append(file)
        if file.size and are_texts:
            by_stem.setdefault(_plain_stem(file.name), []).append(file)
    pairs: dict[tuple[str, ...], None] = {}
    for group in _several(by_size.values()):
        starts = sorted({0, max(0, group[0].size // 2), max(0, group[0].size - HEAD_BYTES)})
        pairs |= dict.fromkeys(_alike(group, starts))
    for group in _several(by_stem.values()):
        pairs |= dict.fromkeys(_alike(group, [0]))
    return tuple(pairs)


def _several(groups: Iterable[list[PinnedFile]]) -> Iterator[list[PinnedFile]]:
    """Give the first groups of two files and more, each with its first files."""
    several = (group[:_MOST_FILES] for group in groups if len(group) > 1)
    yield from islice(several, _MOST_GROUPS)


def _plain_stem(name: str) -> str:
    """Give the name without the suffixes and what marks a copy."""
    stem = name.lower()
    while (os.path.splitext(stem)[1] and has_codec_suffix(stem)) or stem.endswith((".bak", "~")):
        stem = os.path.splitext(stem)[0] if not stem.endswith("~") else stem[:-1]
    return _COPY_MARK.sub("", os.path.splitext(stem)[0])


def _alike(group: Sequence[PinnedFile], starts: Sequence[int]) -> list[tuple[str, ...]]:
    """Pair the files of which one begins with the bytes of the other, where they are looked at."""
    contents = [(_read(file, starts), file.name) for file in group]
    contents = sorted(item for item in contents if len(item[0]) >= _LEAST_BYTES)
    return [
        tuple(sorted((name, other_name)))
        for (content, name), (other, other_name) in pairwise(contents)
        if other.startswith(content)
    ]


def _read(file: PinnedFile, starts: Sequence[int]) -> bytes:
    try:
        with open_file(file) as stream:
            content = b""
            for start in starts:
                if start:
                    stream.seek(start)
                content += bytes(stream.read(HEAD_BYTES))
            return content
    except SourceError as error:
        if error.transient:
            raise
        return b""  # reading it gives the reason
