"""What ``plan`` says of the files at a location: which are not read and why, and what is odd.

Every file that is not read is in one of these sentences, by its name where there are few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pyarrow as pa

from cfray.errors import SourceError
from cfray.runtime.plurals import counted
from cfray.sources.files import kinds, marks, partitions
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.locations import printable
from cfray.sources.files.selection import OTHER_KIND, Selection
from cfray.sources.files.walk import MATCHED_FOLDER

#: Names that a sentence lists at most.
_LISTED_NAMES = 10
#: A name that says how many files there are (Hugging Face, TensorFlow, Beam).
_COUNTED_NAME = re.compile(
    r"(?P<stem>.*?)(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<end>\D.*|)", re.DOTALL
)


def list_names(names: Iterable[str]) -> str:
    """Write the first names of a list, each on one line, and say whether there are more."""
    names = list(names)
    more = f" and {len(names) - _LISTED_NAMES:,} more" if len(names) > _LISTED_NAMES else ""
    return ", ".join(map(printable, names[:_LISTED_NAMES])) + more


def selection_notes(selection: Selection, kind: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Name what is not read, reason by reason, and names that are one and the same file."""
    for reason, names in selection.passed_over.items():
        why = reason
        if reason == OTHER_KIND:
            right_kind = kinds.describe_names(names)[1]
            other = f"; kind: {right_kind} reads some of them" if right_kind else ""
            why = f"{reason} than kind: {kind} reads ({', '.join(suffixes)}{other})"
        yield f"not read ({len(names):,}), {why}: {list_names(names)}"
    for names in selection.twins:
        yield (
            f"{list_names(names)} are one and the same file, which is read under each of its names"
        )


def partition_notes(
    selection: Selection,
    files: list[PinnedFile],
    schemas: list[tuple[PinnedFile, pa.Schema]],
    partitioning: str,
) -> Iterator[str]:
    """Say which fields the names of folders give, and which files lie in no such folder.

    Args:
        selection: the files, and where they lie.
        files: as they are pinned.
        schemas: of their records, where the format has a schema.
        partitioning: the key of the job file.
    """
    keys = partitions.list_keys(files)
    if not keys:
        unused = partitions.keys_of_folders(selection)
        if unused:
            yield (
                f"source.partitioning: {partitioning}: what the names of the folders say of "
                f"{', '.join(unused)} is no field of the records; $file has the path"
            )
        return
    yield (
        f"source.partitioning: {partitioning}: the names of the folders give each record "
        f"{', '.join(keys)}"
    )
    for key in keys:
        lacking = [file.name for file in files if key not in dict(file.partition or ())]
        if lacking:
            yield f"no {key} in the path of {counted(len(lacking), 'file')}: {list_names(lacking)}"
        if any(key in schema.names for _, schema in schemas):
            yield (
                f"the files have a column {key}, too, which stays; where the folder says something "
                f"else, its value is in {partitions.second_name(key)}"
            )


def missing_notes(files: list[PinnedFile]) -> Iterator[str]:
    """Name groups of files whose names count more files than there are: ``a-00000-of-00003``."""
    groups: dict[tuple[str, str, int], set[int]] = {}
    for file in files:
        if "-of-" in file.name and (match := _COUNTED_NAME.fullmatch(file.name)):
            key = (match["stem"], match["end"], int(match["total"]))
            groups.setdefault(key, set()).add(int(match["number"]))
    for (stem, end, total), numbers in groups.items():
        if len(numbers) < total:
            pattern = f"{printable(stem)}*-of-*{printable(end)}"
            yield (
                f"{counted(total, 'file')} should be called {pattern} by their names, and "
                f"{len(numbers):,} of them are here: others may be missing"
            )


def empty_notes(files: list[PinnedFile]) -> Iterator[str]:
    """Name the files that hold no record."""
    if files:
        yield f"without any record ({len(files):,}): {list_names(file.name for file in files)}"


def no_file(selection: Selection, location: str, suffixes: tuple[str, ...]) -> SourceError:
    """Say that there is nothing to read, and which files there are instead."""
    what = f"no {' or '.join(suffixes)} file at {location}"
    datasets = selection.passed_over.get(marks.LANCE, [])
    if datasets == ["./"]:
        return SourceError(
            f"{what}: it is a Lance dataset, which kind: lance reads",
            "write source.kind: lance in the job file, or correct source.uri",
        )
    if datasets:
        return SourceError(
            f"{what}; there are Lance datasets, as LanceDB keeps its tables: "
            f"{list_names(name.rstrip('/') for name in datasets)}",
            f"make a job for each, with source.kind: lance and source.uri: "
            f"{selection.listing.locate(datasets[0].rstrip('/'))}",
        )
    folders = selection.passed_over.get(MATCHED_FOLDER, [])
    if folders:
        return SourceError(
            f"{what}: it matches folders, and no file: {list_names(folders)}",
            "write /** behind it in source.uri, which reads the files in them",
        )
    marks_alone = set(selection.passed_over) <= {marks.LEFT_BEHIND, marks.TABLE_LOG}
    names = [
        name
        for reason, names in selection.passed_over.items()
        if marks_alone or reason not in (marks.LEFT_BEHIND, marks.TABLE_LOG)
        for name in names
    ]
    if not names:
        return SourceError(f"{what}: there is no file at all", "correct source.uri in the job file")
    if marks_alone:
        return SourceError(
            f"{what}; there is only what writers and systems leave beside data: "
            f"{list_names(names)}",
            "correct source.uri in the job file; a glob that spells such a name reads it",
        )
    present, right_kind = kinds.describe_names(names)
    change = (
        f"write source.kind: {right_kind} in the job file"
        if right_kind
        else "give source.uri as a glob if these files are to be read"
    )
    return SourceError(f"{what}; there are: {present}", f"{change}, or correct source.uri")
