"""Rows that a Delta table has deleted without writing their file anew (deletion vectors).

The plan writes the rows of each such file to the run's scratch folder, so that a resume leaves out
the same rows, and a worker reads only those of its own files.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FilePart

#: For each row of a file, whether it is deleted; rows behind the end are not.
Deleted = npt.NDArray[np.bool_]


def publish_deletions(deleted: Mapping[str, Deleted], context: Context) -> dict[str, str]:
    """Write down the deleted rows of each file.

    Args:
        deleted: name of a data file -> its deleted rows.
        context: of the run; its scratch folder takes the files.

    Returns:
        name of the data file -> name of the file in the scratch folder.
    """
    names: dict[str, str] = {}
    for name, rows in deleted.items():
        data = zlib.compress(np.packbits(rows).tobytes())
        names[name] = f"deleted-{hashlib.sha256(name.encode() + data).hexdigest()[:16]}.bin"
        Folder(context.scratch).publish(names[name], data)
    return names


def count_rows(parts: Sequence[FilePart], deleted: Deleted | None) -> Iterator[tuple[int, int]]:
    """Give for each part of a file the number of its first row, and how many rows are live."""
    counts = [part.rows or 0 for part in parts]
    ends = list(itertools.accumulate(counts))
    for count, end in zip(counts, ends, strict=True):
        first = end - count
        yield first, count - (0 if deleted is None else int(deleted[first:end].sum()))


def leave_out(
    items: Iterator[pa.RecordBatch | Reject], where: Mapping[str, Json], context: Context
) -> Iterator[pa.RecordBatch | Reject]:
    """Leave the deleted rows out of a part, whether they could be read or not.

    Args:
        items: the part's records and rejects, in the order of the file.
        where: of the part.
        context: of the run.

    Raises:
        SourceError: the scratch folder has lost the list of deleted rows.
    """
    deleted = _read_deleted(str(where["deleted"]), context)
    row = int(str(where["first"]))
    for item in items:
        count = 1 if isinstance(item, Reject) else item.num_rows
        is_deleted = deleted[row : row + count]
        row += count
        if not is_deleted.any():
            yield item
        elif not isinstance(item, Reject):
            is_live = np.ones(count, np.bool_)
            is_live[: len(is_deleted)] = ~is_deleted
            yield item.filter(pa.array(is_live))


def _read_deleted(name: str, context: Context) -> Deleted:
    data = Folder(context.scratch).read(name)
    if data is None:
        raise SourceError(
            f"the list of deleted rows {context.scratch}/{name} is gone",
            "restore the folder beside the target, or start anew with another target",
        )
    return np.unpackbits(np.frombuffer(zlib.decompress(data), np.uint8)).astype(np.bool_)
