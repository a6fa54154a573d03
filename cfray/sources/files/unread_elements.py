"""Elements and texts that stand outside of the records of XML files: counted, and said in the plan.

The head of each file is walked through when the plan is made.  What stands behind it is found by
the worker that reads the file, and is a reject there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cfray.formats import lines
from cfray.formats.xml import RecordRules
from cfray.formats.xml_outside import TEXT, count_of
from cfray.formats.xml_paths import is_ignored
from cfray.formats.xml_walk import walk_head
from cfray.runtime.models import MIB
from cfray.sources.base import Description
from cfray.sources.files.listing import PinnedFile, explain_read_errors, open_file
from cfray.sources.files.unread_arrays import (
    NOT_READ,
    Unread,
    Where,
    Words,
    describe_names,
    refuse_unknown_names,
    sum_unread,
)

#: Bytes of each file that are walked through when the plan is made: a walk takes some 30 MB a
#: second on one core, and a plan is made on one.
_HEAD_BYTES = 4 * MIB
#: Bytes that are read at a time, for most files are smaller.
_BLOCK = MIB
#: Key of a part: whether the file is longer than its head.
_IS_HEAD = "is_head"
#: Key of a part: whether the file has no record.
_IS_EMPTY = "is_empty"


def count_outside(file: PinnedFile, rules: RecordRules) -> Where:
    """Count what stands outside of the records in a file's head, as a part of the file keeps it.

    Raises:
        SourceError: the head is not well-formed; or it is the whole file, and holds other elements
            and no record.
    """
    with explain_read_errors(file), open_file(file) as stream:
        blocks = lines.read_blocks(stream, None, _BLOCK)
        walk = walk_head(blocks, file.name, rules.path, _HEAD_BYTES)
    where = Unread(walk.outside.counts).as_where()
    if not walk.is_whole:
        return {**where, _IS_HEAD: True}
    rules.check(walk, file.name)
    return where if walk.records else {**where, _IS_EMPTY: True}


def describe_outside(
    description: Description,
    parts: Sequence[tuple[PinnedFile, Where]],
    ignored: Sequence[str],
    record: str | None,
) -> Description:
    """Say in a description what stands outside of the records.

    Args:
        description: of the source.
        parts: of the files.
        ignored: paths that the job file knows of.
        record: ``source.record``.

    Raises:
        SourceError: the job file ignores a path at which nothing stands.
    """
    unread = sum_unread(parts)
    unread.is_head = any(_IS_HEAD in where for _, where in parts)
    counts = unread.counts
    if not unread.is_head:
        unknown = [text for text in ignored if not any(is_ignored(path, [text]) for path in counts)]
        refuse_unknown_names(unknown, counts, "element and no text")
    words = Words(
        count=lambda path: count_of(path, counts[path]),
        warn=lambda path: _warning(path, unread, record),
        plural=("elements and texts", "paths"),
    )
    ignored_paths = [path for path in counts if is_ignored(path, ignored)]
    return describe_names(description, counts, ignored_paths, words)


def _warning(path: str, unread: Unread, record: str | None) -> str:
    count = count_of(path, unread.counts[path])
    if unread.is_head:
        count = f"at least {count} (the first 4 MiB of each file are counted)"
    beside = f"those at {record}" if record else "the children of the root"
    way_in = "" if path.endswith(TEXT) else f" a job with source.record: {path} reads them;"
    return (
        f"{NOT_READ}: {count}, beside {beside}, which this job reads;{way_in} "
        f"source.ignore: [{path}] says that this job needs none"
    )


def files_without_record(parts: Iterable[tuple[PinnedFile, Where]]) -> list[PinnedFile]:
    """Give the files that were walked through to their end and have no record."""
    return [file for file, where in parts if _IS_EMPTY in where]
