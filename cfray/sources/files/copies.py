"""Files that may be copies of each other: the same export plain and compressed, or a backup of it.

Only files whose names or sizes suggest it are opened, and only their first bytes are compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from cfray.errors import SourceError
from cfray.sources.files.kinds import has_codec_suffix
from cfray.sources.files.listing import PinnedFile, open_file

#: Bytes, decompressed, that are compared.
HEAD_BYTES = 64 * 1024
#: Fewer bytes prove nothing: a CSV file may be all header.
_LEAST_BYTES = 64
#: Groups of files that are compared, and files of each.
_MOST_GROUPS, _MOST_FILES = 32, 4
#: What people and programs write behind the name of a copy.
_COPY_MARK = re.compile(
    r"([\s_.~-]*(backup|bak|copy|kopie|copie|copia|old|orig|original|export|\(\d+\)))+$"
)


def find_copies(files: Iterable[PinnedFile]) -> tuple[tuple[str, ...], ...]:
    """Group the files that begin with the same bytes, by name.

    Raises:
        SourceUnavailable: the filesystem did not answer.
    """
    groups: dict[object, list[PinnedFile]] = {}
    for file in files:
        if file.size:
            groups.setdefault(_plain_stem(file.name), []).append(file)
            if file.codec is None:
                groups.setdefault(file.size, []).append(file)
    candidates = [group for group in groups.values() if len(group) > 1]
    pairs: dict[tuple[str, ...], None] = {}
    for group in candidates[:_MOST_GROUPS]:
        pairs |= dict.fromkeys(_alike(group[:_MOST_FILES]))
    return tuple(pairs)


def _plain_stem(name: str) -> str:
    """Give the name without the suffixes and what marks a copy."""
    stem = name.lower()
    while (os.path.splitext(stem)[1] and has_codec_suffix(stem)) or stem.endswith((".bak", "~")):
        stem = os.path.splitext(stem)[0] if not stem.endswith("~") else stem[:-1]
    return _COPY_MARK.sub("", os.path.splitext(stem)[0])


def _alike(group: Sequence[PinnedFile]) -> list[tuple[str, ...]]:
    heads = [(head, file.name) for file in group if len(head := _head(file)) >= _LEAST_BYTES]
    heads.sort()
    return [
        tuple(sorted((name, other_name)))
        for (head, name), (other, other_name) in pairwise(heads)
        if other.startswith(head)
    ]


def _head(file: PinnedFile) -> bytes:
    try:
        with open_file(file) as stream:
            return bytes(stream.read(HEAD_BYTES))
    except SourceError as error:
        if error.transient:
            raise
        return b""  # reading it gives the reason
