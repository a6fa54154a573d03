"""A folder of CSV files with different headers: tables that need a job each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from cfray.errors import SourceError
from cfray.inspection.origin import Origin, plain_file_name
from cfray.inspection.variants import list_variants
from cfray.sources.base import Context
from cfray.sources.files.csv import Csv
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.selection import select_files

#: Files whose headers are compared.
_MOST_FILES = 64


def split_by_header(origin: Origin) -> list[Origin]:
    """Make an origin of each header; what cannot be split stays, and reading it says why not."""
    try:
        source = list_variants(origin)[0].source
        if not isinstance(source, Csv) or "columns" in origin.section:
            return [origin]
        files = source.find_files()
        if not 1 < len(files) <= _MOST_FILES:
            return [origin]
        tables: dict[tuple[str, ...], list[PinnedFile]] = {}
        for file in files:
            header = tuple(source.record_schema(file, Context()).names)
            tables.setdefault(header, []).append(file)
        for in_folders in (False, True):
            parts = [
                _part(origin, source, members, in_folders=in_folders) for members in tables.values()
            ]
            split = [part for part in parts if part is not None]
            if 1 < len({part.label for part in split}) == len(tables):
                return split
    except SourceError:
        pass
    return [origin]


def _part(
    origin: Origin, source: Csv, members: Sequence[PinnedFile], *, in_folders: bool
) -> Origin | None:
    """Make an origin of some files; None where no location names just these.

    Args:
        origin: of all files.
        source: of all files.
        members: files of one header.
        in_folders: whether the label holds the names of the folders, too.
    """
    names = [file.name for file in members]
    prefix = _common_prefix(names)
    uri = members[0].uri
    if len(members) > 1:
        root = select_files(source.uri, source.kind, source.suffixes).listing.root.rstrip("/")
        uri = f"{root}/{prefix}*{os.path.splitext(names[0])[1]}"
        selection = select_files(uri, source.kind, source.suffixes)
        if {file.uri for file in selection.files} != {file.uri for file in members}:
            return None
    stem = os.path.splitext(prefix if in_folders else os.path.basename(prefix))[0]
    if len(members) > 1:
        stem = stem.rstrip("-_.0123456789")
    label = plain_file_name("-".join(filter(None, [origin.label, stem or names[0]])))
    unnamed_guesses = tuple(guess for guess in origin.guesses if guess.key != "name")
    name = origin.name.removesuffix(f"-{origin.label}") if origin.label else origin.name
    part = replace(origin, guesses=unnamed_guesses, label=label, files=", ".join(names[:5]))
    return part.at(uri).with_name(f"{name}-{label}")


def _common_prefix(names: Sequence[str]) -> str:
    """Give the letters with which all names begin; of one name all of it."""
    first, last = min(names), max(names)
    differing = (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, len(first))]
