"""Arrays of records that stand beside the records that are read: counted, and said in the plan.

A file may hold several exports: ``{"users": [...], "posts": [...]}``.  A job reads one array; the
records of the others would be lost in silence if nobody named them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

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


@dataclass(slots=True)
class Unread:
    """What stands in other arrays than the one that is read.

    Attributes:
        counts: dotted path of an array -> its elements.
        columns: arrays of plain values, as many as there are records: they are columns of these.
        torn: arrays of plain values, almost as many as there are records.
        is_head: whether only the head of a file was counted.
    """

    counts: dict[str, int] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)
    is_head: bool = False

    def as_where(self) -> Where:
        """Write it into a part of a file; nothing where nothing is unread."""
        if not self.counts:
            return {}
        return {
            "unread": {**self.counts},
            "unread_columns": [*sorted(self.columns)],
            "unread_torn": [*sorted(self.torn)],
        }


def count_unread(
    blocks: Iterable[bytes], path: tuple[str, ...], *, has_names: bool = False
) -> Unread:
    """Count the elements of the arrays beside those that are read.

    Args:
        blocks: the text of a file.
        path: of the array that is read.
        has_names: whether arrays called ``columns`` and ``index`` name its columns and rows.
    """
    arrays = json_arrays.find_arrays(blocks)
    read = arrays.pop(path, None)
    rows = read.elements if read is not None else 0
    names = ((*path[:-1], "columns"), (*path[:-1], "index")) if has_names else ()
    unread = Unread()
    for other, content in arrays.items():
        is_column = not content.objects and 1 < content.elements == rows
        if other[: len(path)] == path or other in names or not (content.objects or is_column):
            continue
        dotted = ".".join(other)
        unread.counts[dotted] = content.objects or content.elements
        if is_column:
            unread.columns.add(dotted)
    return unread


def sum_unread(parts: Iterable[tuple[PinnedFile, Where]]) -> Unread:
    """Add up the unread records of all files; several parts of a file have the same counts."""
    total = Unread()
    for where in {file.name: where for file, where in parts}.values():
        counts, columns = where.get("unread"), where.get("unread_columns")
        for name, count in counts.items() if isinstance(counts, dict) else ():
            total.counts[name] = total.counts.get(name, 0) + int(str(count))
        total.columns.update(map(str, columns if isinstance(columns, list) else ()))
        torn = where.get("unread_torn")
        total.torn.update(map(str, torn if isinstance(torn, list) else ()))
    return total


def describe_unread(
    description: Description, unread: Unread, ignored: Sequence[str], records: str | None
) -> Description:
    """Say in a description how many records stand in other arrays than the one that is read.

    Args:
        description: of the source.
        unread: what is not read.
        ignored: arrays that the job file knows of.
        records: path of the array that is read.

    Raises:
        SourceError: the job file ignores an array that does not exist.
    """
    counts = unread.counts
    refuse_unknown_names(sorted(set(ignored) - set(counts)), counts, "array of records")
    words = Words(
        count=lambda name: f"{counted(counts[name], 'record')} in {name}",
        warn=lambda name: _warning(name, unread, records or "data"),
        plural=("records", "arrays"),
    )
    return describe_names(description, counts, ignored, words)


@dataclass(frozen=True, slots=True)
class Words:
    """How a format speaks of what is not read.

    Attributes:
        count: gives the number of what a name stands for, and the name.
        warn: gives the sentence that warns of it.
        plural: what is counted, and what the names stand for.
    """

    count: Callable[[str], str]
    warn: Callable[[str], str]
    plural: tuple[str, str]


def refuse_unknown_names(unknown: Sequence[str], counts: Mapping[str, int], what: str) -> None:
    """Refuse names that a job file ignores, and that stand for nothing.

    Args:
        unknown: the names.
        counts: name -> number, of what is not read.
        what: one thing that is not read.

    Raises:
        SourceError: there are such names; says which names there are instead.
    """
    if unknown:
        listed = f"stand {', '.join(sorted(counts))}" if counts else f"stands no {what}"
        raise SourceError(
            f"source.ignore names {', '.join(unknown)}, but beside the records {listed}",
            "correct source.ignore, or leave it out",
        )


def describe_names(
    description: Description, counts: Mapping[str, int], ignored: Sequence[str], words: Words
) -> Description:
    """Say in a description what is not read, name by name.

    Args:
        description: of the source.
        counts: name -> number, of what is not read.
        ignored: the names among them that the job file knows of.
        words: how the format speaks of them.
    """
    unread_names = [name for name in counts if name not in ignored]
    warnings = [words.warn(name) for name in unread_names[:_LISTED_ARRAYS]]
    if hidden := unread_names[_LISTED_ARRAYS:]:
        things, places = words.plural
        total = sum(counts[name] for name in hidden)
        warnings.append(
            f"{NOT_READ}: {total:,} {things} in {len(hidden):,} more {places}, such as "
            f"{', '.join(hidden[:_LISTED_ARRAYS])}"
        )
    notes = [f"not read, as source.ignore says: {words.count(name)}" for name in ignored]
    return replace(
        description,
        unread=(*description.unread, *warnings),
        notes=(*warnings, *description.notes, *notes),
    )


def _warning(name: str, unread: Unread, records: str) -> str:
    least = "at least " if unread.is_head else ""
    way_out = f"source.ignore: [{name}] says that this job needs none"
    if name in unread.torn:
        return (
            f"{NOT_READ}: {counted(unread.counts[name], 'value')} in {name}, another number than "
            f"the columns that are read have: the export is torn there; {way_out}"
        )
    if name in unread.columns:
        return (
            f"{NOT_READ}: {counted(unread.counts[name], 'value')} in {name}, as many as there are "
            f"records in {records}: a column of theirs; source.orient: list, without "
            f"source.records, reads a file of columns; {way_out}"
        )
    return (
        f"{NOT_READ}: {least}{counted(unread.counts[name], 'record')} in {name}, beside those in "
        f"{records}, which this job reads; a job with source.records: {name} reads them, and "
        f"cfray inspect drafts it; {way_out}"
    )


def beside_note(parts: Iterable[tuple[PinnedFile, dict[str, Json]]]) -> Iterator[str]:
    """Name what the files hold beside the records, which is not read."""
    texts = {
        f"{file.name}: {', '.join(map(str, beside))}"
        for file, where in parts
        if isinstance(beside := where.get("beside"), list)
        and set(map(str, beside)) - set(sum_unread([(file, where)]).counts)
    }
    if texts:
        more = f", and so in {len(texts) - 1} more" if len(texts) > 1 else ""
        yield f"not read, it stands beside the records: {min(texts)}{more}"
