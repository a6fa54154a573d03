"""Guess the kind of a source from the files at a location."""

from __future__ import annotations

import pyarrow.fs as pafs

from cfray.errors import ConfigError
from cfray.inspection.guesses import Guess
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.sources.files.kinds import SUFFIXES, is_lance_dataset, kind_of_name
from cfray.sources.files.listing import list_files


def guess_kind(location: str) -> Guess:
    """Guess the kind of source from the files at a location.

    Raises:
        ConfigError: no file, no file of a known kind, or files of several kinds.
    """
    try:
        if is_lance_dataset(location):
            why = "the folder holds _versions, as a Lance dataset does"
            return Guess("source.kind", "lance", why)
    except OSError as error:
        raise ConfigError(
            f"cannot look at {location}: {describe_error(error)}",
            "check that the filesystem answers and that its credentials are set",
        ) from error
    names_by_kind: dict[str, list[str]] = {}
    for file in list_files(location):
        names_by_kind.setdefault(kind_of_name(file.name) or "", []).append(file.name)
    if not names_by_kind:
        raise ConfigError(
            f"no file at {location}",
            "give the path of a file, a folder, a glob or a YAML file with a section source",
        )
    kinds = [kind for kind in names_by_kind if kind]
    if not kinds:
        suffixes = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in SUFFIXES.items())
        raise ConfigError(
            f"no known kind of file at {location}: {', '.join(names_by_kind[''][:5])}",
            "name the kind in a YAML file with source: {kind: ..., uri: ...}; known suffixes are "
            f"{suffixes} (and .gz, .zst behind them); lance: a dataset's folder",
        )
    # a glob reads every file it matches, also those of an unknown kind
    if len(kinds) > 1 or (len(names_by_kind) > 1 and not _is_folder(location)):
        raise ConfigError(
            f"{location} holds several kinds of files: {_listing(names_by_kind)}",
            "inspect one kind at a time: give a glob, or a YAML file that names source.kind",
        )
    names = names_by_kind[kinds[0]]
    files = names[0] if len(names) == 1 else f"{len(names):,} files"
    return Guess("source.kind", kinds[0], f"by the suffix of {files}")


def _is_folder(location: str) -> bool:
    system, path = filesystems.open_filesystem(location)
    return bool(system.get_file_info(path).type == pafs.FileType.Directory)


def _listing(names_by_kind: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{len(names):,} {kind or 'unknown'} "
        f"({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
        for kind, names in names_by_kind.items()
    )
