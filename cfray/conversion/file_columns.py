"""``$file``: the file that a batch's records are from, as columns for the rules of a mapping.

It is no field of the records: no rule needs to name it, and custom_metadata never holds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import pyarrow as pa

from cfray.job.mapping import Path
from cfray.records.record import file_of
from cfray.sources.files.kinds import CODECS

#: First name of the paths that lead to a record's file.
FILE = "$file"


def _folder(path: str) -> str | None:
    return os.path.dirname(path) or None


def _top(path: str) -> str | None:
    top, slash, _ = path.partition("/")
    return top if slash else None


def _stem(path: str) -> str:
    """Give a file's name without its suffix, and without a codec's suffix behind it."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    return os.path.splitext(stem)[0] if suffix.lower() in CODECS else stem


#: What a rule may name -> its text, from the path of the file below the source's location.
_PARTS: dict[Path, Callable[[str], str | None]] = {
    (FILE,): str,
    (FILE, "folder"): _folder,
    (FILE, "top"): _top,
    (FILE, "name"): os.path.basename,
    (FILE, "stem"): _stem,
}


def file_paths(batch: pa.RecordBatch) -> set[Path]:
    """List what rules may name of the file that a batch is from.

    Nothing where it is from no file, or where the records have a field of that very name.
    """
    is_taken = FILE in batch.schema.names
    return set() if is_taken or file_of(batch) is None else set(_PARTS)


def file_columns(batch: pa.RecordBatch, paths: Iterable[Path]) -> dict[Path, pa.Array]:
    """Make the columns of the file that rules name: text, null where there is no such folder."""
    file_rules = file_paths(batch)
    file = file_of(batch)
    return {
        path: pa.repeat(pa.scalar(_PARTS[path](file), pa.string()), batch.num_rows)
        for path in paths
        if file is not None and path in file_rules
    }
