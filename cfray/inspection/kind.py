"""What lies at a location: which files belong together, and which kind of source reads them.

A suffix says what a file should be, its first bytes what it is.  A folder may be a table, may hold
tables, or may hold files of several kinds: each becomes a group, which a job moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.fs as pafs

from cfray.errors import ConfigError
from cfray.inspection import first_bytes
from cfray.inspection.guess import Guess
from cfray.inspection.spread import spread
from cfray.inspection.unknown_files import (
    TEXT_SUFFIXES,
    UNREAD_SUFFIXES,
    is_document,
    list_some,
    refuse_unknown,
)
from cfray.runtime import filesystems
from cfray.runtime.error_text import describe_error
from cfray.sources.files.kinds import SUFFIXES, is_lance_dataset, kind_of_name, suffix_of
from cfray.sources.files.listing import PinnedFile
from cfray.sources.files.locations import list_files
from cfray.sources.files.selection import select_files

#: Share of the files at a location that are documents, where all are read as such.
_MOSTLY_DOCUMENTS = 0.8
#: Files of each suffix whose first bytes are looked at.
_LOOKED_AT = 16
#: Files of one suffix and several kinds that are sorted by their first bytes at most.
_MOST_SORTED = 1000
#: Suffixes of files about the data, which are no export.
_OTHER_SUFFIXES = frozenset(
    {
        *(".md", ".rst", ".html", ".htm", ".pdf", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
        *(".py", ".ipynb", ".sh", ".sql", ".log", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".lock"),
        *(".crc", ".sha256", ".md5"),
    }
)


@dataclass(frozen=True, slots=True)
class Group:
    """Files, or a table, that one job moves.

    Attributes:
        kind: of the source.
        uri: what ``source.uri`` names.
        why: what speaks for the kind.
        label: what tells the group from the others at the location; empty where there is none.
        files: some of its files' names.
    """

    kind: str
    uri: str
    why: str
    label: str = ""
    files: str = ""

    @property
    def guess(self) -> Guess:
        """Give the line of the draft."""
        return Guess("source.kind", self.kind, self.why)


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies at a location.

    Attributes:
        groups: one job each.
        notes: sentences about what belongs to none of them.
    """

    groups: list[Group]
    notes: list[str]


def look_at(location: str) -> Contents:
    """Find the groups of files at a location.

    Raises:
        ConfigError: there is no file, or none of a known kind.
        SourceError: the files cannot be listed.
    """
    try:
        tables = _find_tables(location)
    except OSError as error:
        raise ConfigError(
            f"cannot look at {location}: {describe_error(error)}",
            "check that the filesystem answers and that its credentials are set",
        ) from error
    if tables and tables[0].uri == location:
        return Contents(tables, [])
    below = tuple(f"{table.label}.lance/" for table in tables)
    files = [file for file in list_files(location) if not file.name.startswith(below)]
    if not files and not tables:
        raise ConfigError(
            f"no file at {location}",
            "give the path of a file, a folder, a glob or a YAML file with a section source",
        )
    if len(files) == 1 and not tables and first_bytes.is_postgres_dump(files[0]):
        why = f"pg_dump wrote {files[0].name}, by its first lines"
        return Contents([Group("postgres", files[0].uri, why)], [])
    groups, unknown = _group_files(location, files)
    documents = [name for name in unknown if is_document(name)]
    if not tables and documents and len(documents) >= _MOSTLY_DOCUMENTS * len(files):
        why = f"documents, each a record: {list_some(documents)}"
        return Contents([Group("filesystem", location, why)], [])
    if not groups and not tables:
        raise refuse_unknown(location, unknown)
    all_groups = [*tables, *groups]
    notes = []
    if unknown and any(group.uri != location for group in all_groups):
        way_out = "; kind: filesystem reads documents" if documents else ""
        notes.append(f"not read, of no known kind: {list_some(unknown)}{way_out}")
    if tables and len(tables) + len(groups) > 1:
        notes.append(f"a folder of tables: {', '.join(table.label for table in tables)}")
    if len(all_groups) == 1:
        all_groups = [replace(all_groups[0], label="")]
    return Contents(all_groups, notes)


def _find_tables(location: str) -> list[Group]:
    """Find a Lance dataset at a location, or the tables of a LanceDB folder."""
    if is_lance_dataset(location):
        return [Group("lance", location, "the folder holds _versions, as a Lance dataset does")]
    if _is_delta(location):
        return [Group("delta", location, "the folder holds _delta_log, as a Delta table does")]
    system, path = filesystems.open_filesystem(location)
    if system.get_file_info(path).type != pafs.FileType.Directory:
        return []
    names = sorted(
        info.base_name
        for info in system.get_file_info(pafs.FileSelector(path))
        if info.type == pafs.FileType.Directory and info.base_name.endswith(".lance")
    )
    uris = {name: f"{location.rstrip('/')}/{name}" for name in names}
    return [
        Group("lance", uri, "a table of a LanceDB folder", name.removesuffix(".lance"))
        for name, uri in uris.items()
        if is_lance_dataset(uri)
    ]


def _is_delta(location: str) -> bool:
    """Tell whether a folder is a Delta table; one that only lies in a table is refused later."""
    system, path = filesystems.open_filesystem(location)
    info: pafs.FileInfo = system.get_file_info(f"{path.rstrip('/')}/_delta_log")
    return bool(info.type == pafs.FileType.Directory)


def _group_files(location: str, files: Sequence[PinnedFile]) -> tuple[list[Group], list[str]]:
    """Group files by the kind that reads them; name those that no kind reads."""
    by_suffix: dict[str, list[PinnedFile]] = {}
    for file in files:
        by_suffix.setdefault(suffix_of(file.name), []).append(file)
    by_kind: dict[str, list[PinnedFile]] = {}
    unknown: list[str] = []
    has_known = any(kind_of_name(file.name) for file in files)
    for suffix, same in by_suffix.items():
        for kind, members in _kinds(suffix, same, is_alone=not has_known).items():
            if kind:
                by_kind.setdefault(kind, []).extend(members)
            else:
                unknown += [file.name for file in members]
    label = len(by_kind) > 1
    groups = [
        _group(location, kind, members, files, label=kind if label else "")
        for kind, members in sorted(by_kind.items())
    ]
    return groups, sorted(unknown)


def _kinds(
    suffix: str, files: Sequence[PinnedFile], *, is_alone: bool
) -> dict[str, list[PinnedFile]]:
    """Give the kinds of files of one suffix; the kind is empty where none reads them.

    Where the files that are looked at are of one kind, the others are taken to be, too.
    """
    if (suffix in _OTHER_SUFFIXES and not is_alone) or suffix in UNREAD_SUFFIXES:
        return {"": list(files)}
    suffix_kind = kind_of_name(f"x{suffix}") if suffix else None
    # an empty file says nothing
    looked_at = spread([file for file in files if file.size], _LOOKED_AT)
    kinds = [first_bytes.find_kind(file, suffix_kind, is_alone=is_alone) for file in looked_at]
    if suffix in TEXT_SUFFIXES and not first_bytes.are_one_table(looked_at, kinds):
        kinds = ["" if kind == "csv" else kind for kind in kinds]
    if len(set(kinds)) < 2:
        return {kinds[0] if kinds else suffix_kind or "": list(files)}
    if set(kinds) == {"json", "jsonl"}:
        return {"json": list(files)}  # which reads objects one after the other, too
    if len(files) > _MOST_SORTED:
        raise ConfigError(
            f"of {len(files):,} {suffix or 'suffixless'} files some are of kind "
            f"{' and some of kind '.join(sorted(set(kinds)))}, for example {looked_at[0].name}",
            "move the files of each kind to a folder, and inspect each",
        )
    unread_files = [file for file in files if file not in looked_at]
    kinds += [first_bytes.find_kind(file, suffix_kind, is_alone=is_alone) for file in unread_files]
    by_kind: dict[str, list[PinnedFile]] = {}
    for file, kind in zip([*looked_at, *unread_files], kinds, strict=True):
        by_kind.setdefault(kind, []).append(file)
    return by_kind


def _group(
    location: str,
    kind: str,
    members: Sequence[PinnedFile],
    files: Sequence[PinnedFile],
    *,
    label: str,
) -> Group:
    names = sorted(file.name for file in members)
    shown = names[0] if len(names) == 1 else f"{len(names):,} files"
    by_suffix = all(kind_of_name(name) == kind for name in names)
    why = f"by the suffix of {shown}" if by_suffix else f"by the content of {shown}"
    return Group(kind, _uri(location, kind, members, files), why, label, list_some(names))


def _uri(
    location: str, kind: str, members: Sequence[PinnedFile], files: Sequence[PinnedFile]
) -> str:
    """Name exactly the members of a group: the location, a glob below it, or the only file."""
    names = {file.name for file in members}
    if not _is_folder(location):
        return location if len(names) == len(files) else _only(members, location)
    if _read_by(location, kind) == names:
        return location
    root = location.rstrip("/")
    suffixes = sorted({suffix_of(name) for name in names})
    patterns = [f"{root}/*{suffix}" for suffix in suffixes if len(suffixes) == 1]
    patterns += [f"{root}/**/*{suffix}" for suffix in suffixes if len(suffixes) == 1]
    patterns += [f"{root}/*", f"{root}/**/*"]
    for pattern in patterns if len(names) > 1 else []:
        if _read_by(pattern, kind) == names:
            return pattern
    return _only(members, location)


def _read_by(uri: str, kind: str) -> set[str]:
    """List what a source of this kind and location reads, by the names of ``list_files``."""
    selection = select_files(uri, kind, SUFFIXES[kind])
    return {file.name for file in selection.files}


def _only(members: Sequence[PinnedFile], location: str) -> str:
    if len(members) == 1:
        return members[0].uri
    raise ConfigError(
        f"{location} holds files of one suffix that are of several kinds; of one kind are: "
        f"{list_some(sorted(file.name for file in members))}",
        "move the files of each kind to a folder, or inspect them one by one",
    )


def _is_folder(location: str) -> bool:
    system, path = filesystems.open_filesystem(location)
    return bool(system.get_file_info(path).type == pafs.FileType.Directory)
