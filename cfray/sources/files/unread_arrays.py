"""Arrays of records that stand beside the records that are read: counted, and said in the plan.

A file may hold several exports: ``{"users": [...], "posts": [...]}``.  A job reads one array; the
records of the others would be lost in silence if nobody named them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cfray.errors import SourceError
from cfray.formats import json_arrays
from cfray.runtime.plurals import counted
from cfray.sources.base import Description, Json
from cfray.sources.files.listing import PinnedFile

#: What a format needs to find a part of a file again (parsed JSON).
Where = dict[str, Json]
#: How a warning of such records begins.
NOT_READ = "RECORDS NOT READ"
#: Arrays that have a sentence each.
_LISTED_ARRAYS = 10


def _unread_of(where: Where) -> dict[str, Json]:
    unread = where.get("unread")
    return unread if isinstance(unread, dict) else {}


def count_unread(
    blocks: Iterable[bytes], path: tuple[str, ...], *, has_names: bool = False
) -> dict[str, Json]:
    """Count the records in the arrays beside those that are read, by the arrays' dotted paths.

    An array of other values counts where it has as many as there are records: it holds one of
    their columns.

    Args:
        blocks: the text of a file.
        path: of the array that is read.
        has_names: whether arrays called ``columns`` and ``index`` name its columns and rows.
    """
    arrays = json_arrays.find_arrays(blocks)
    read = arrays.pop(path, None)
    rows = read.elements if read is not None else 0
    names = ((*path[:-1], "columns"), (*path[:-1], "index")) if has_names else ()
    return {
        ".".join(other): content.objects or content.elements
        for other, content in arrays.items()
        if other[: len(path)] != path
        and other not in names
        and (content.objects or 1 < content.elements == rows)
    }


def sum_unread(parts: Iterable[tuple[PinnedFile, Where]]) -> dict[str, int]:
    """Add up the unread records of all files; several parts of a file have the same counts."""
    by_file = {file.name: _unread_of(where) for file, where in parts}
    total: dict[str, int] = {}
    for counts in by_file.values():
        for name, count in counts.items():
            total[name] = total.get(name, 0) + int(str(count))
    return total


def describe_unread(
    description: Description,
    unread: Mapping[str, int],
    ignored: Sequence[str],
    records: str | None,
    *,
    is_head: bool = False,
) -> Description:
    """Say in a description how many records stand in other arrays than the one that is read.

    Args:
        description: of the source.
        unread: dotted path of an array -> its records.
        ignored: arrays that the job file knows of.
        records: path of the array that is read.
        is_head: whether only the head of a file was counted.

    Raises:
        SourceError: the job file ignores an array that does not exist.
    """
    if unknown := sorted(set(ignored) - set(unread)):
        listed = f"stand {', '.join(sorted(unread))}" if unread else "stands no array of records"
        raise SourceError(
            f"source.ignore names {', '.join(unknown)}, but beside the records {listed}",
            "correct source.ignore, or leave it out",
        )
    least = "at least " if is_head else ""
    left = {name: count for name, count in unread.items() if name not in ignored}
    warnings = [
        f"{NOT_READ}: {least}{counted(count, 'record')} in {name}, beside those in "
        f"{records or 'data'}, which this job reads; a job with source.records: {name} reads them, "
        f"and cfray inspect drafts it; source.ignore: [{name}] says that this job needs none"
        for name, count in list(left.items())[:_LISTED_ARRAYS]
    ]
    if hidden := list(left.items())[_LISTED_ARRAYS:]:
        total = counted(sum(count for _, count in hidden), "record")
        names = ", ".join(name for name, _ in hidden[:_LISTED_ARRAYS])
        warnings.append(
            f"{NOT_READ}: {least}{total} in {len(hidden):,} more arrays, such as {names}"
        )
    notes = [
        f"not read, as source.ignore says: {counted(unread[name], 'record')} in {name}"
        for name in ignored
    ]
    return replace(
        description,
        unread=(*description.unread, *warnings),
        notes=(*warnings, *description.notes, *notes),
    )


def beside_note(parts: Iterable[tuple[PinnedFile, dict[str, Json]]]) -> Iterator[str]:
    """Name what the files hold beside the records, which is not read."""
    texts = {
        f"{file.name}: {', '.join(map(str, beside))}"
        for file, where in parts
        if isinstance(beside := where.get("beside"), list)
        and set(map(str, beside)) - {str(name) for name in _unread_of(where)}
    }
    if texts:
        more = f", and so in {len(texts) - 1} more" if len(texts) > 1 else ""
        yield f"not read, it stands beside the records: {min(texts)}{more}"
