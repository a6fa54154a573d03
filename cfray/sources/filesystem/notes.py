"""What the operator should know of a tree before it is read: what is left, and what is not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cfray.runtime.plurals import counted
from cfray.sources.files.listing import utc_second
from cfray.sources.files.locations import printable
from cfray.sources.filesystem import media, tree
from cfray.sources.filesystem.duplicates import Duplicates
from cfray.sources.filesystem.manifest import ListedFile

#: Names that a note lists.
_LISTED = 5
#: Why names are left that may stand for documents of the tree.
_UNREAD = (tree.BROKEN, tree.OUTER_FOLDER_LINK)


def list_some(names: Iterable[str]) -> str:
    """Write the first names, and say how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else ""
    return ", ".join(map(printable, listed[:_LISTED])) + more


def left_notes(left: dict[str, list[str]]) -> Iterator[str]:
    """Say what lies there and is, as the job file says or by its nature, not read."""
    for reason, names in left.items():
        if reason not in _UNREAD:
            yield f"not read, {reason}: {list_some(names)}"


def unread_notes(left: dict[str, list[str]]) -> Iterator[str]:
    """Say what may stand for documents and is not read."""
    for reason in _UNREAD:
        if names := left.get(reason):
            yield f"{counted(len(names), 'name')} not read, {reason}: {list_some(names)}"


def unused_notes(listed: tree.FileTree) -> Iterator[str]:
    """Name the patterns of the job file that change nothing, as where a letter is wrong."""
    if patterns := listed.unused_include:
        yield f"source.include: no file is read by {', '.join(map(repr, patterns))}"
    if patterns := listed.unused_exclude:
        yield f"source.exclude: nothing is left out by {', '.join(map(repr, patterns))}"


def content_notes(files: Sequence[ListedFile], max_record: int) -> Iterator[str]:
    """Say which files there are, and what of them will be seen only when they are read."""
    suffixes = Counter(media.suffix_of(file.name) or "(none)" for file in files)
    listed = ", ".join(f"{suffix} {count:,}" for suffix, count in suffixes.most_common(8))
    more = f" and {counted(len(suffixes) - 8, 'other suffix', 'other suffixes')}"
    yield f"files by suffix: {listed}{more if len(suffixes) > 8 else ''}"
    if large := [file.name for file in files if file.size > max_record]:
        yield f"over limits.max_document, and rejected: {list_some(large)}"
    if undated := [file.name for file in files if utc_second(file.modified) is None]:
        yield (
            "modified outside of the years 1 to 9999, so that the record has no field modified: "
            f"{list_some(undated)}"
        )
    if odd := [file.name for file in files if not _is_utf8(file.name)]:
        yield (
            f"names that are not UTF-8: {list_some(odd)}; their ids are the bytes of the path, and "
            "path, name and collection show such bytes as \\xNN"
        )


def duplicate_notes(duplicates: Duplicates) -> Iterator[str]:
    """Say how many files are copies of others; in a tree of documents that is no mistake."""
    groups = duplicates.groups
    if groups:
        copies = sum(len(group) - 1 for group in groups)
        shown = "; ".join(list_some(group) for group in groups[:_LISTED])
        yield (
            f"{counted(copies, 'file')} with the same bytes as another, in "
            f"{counted(len(groups), 'group')}, each a record: {shown}"
        )
    if duplicates.uncompared:
        yield (
            f"{counted(duplicates.uncompared, 'file')} of the size of another not compared, for "
            "that takes reading them: the field sha256 of the records shows copies"
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
