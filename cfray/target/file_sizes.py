"""How large a target's data files are: which fragments are small, and what frames take on disk.

Compaction merges small fragments, and the plan counts what it will write.  What frames take on
disk is measured: Lance compresses texts and few vectors, and each file has a part that does not
grow with its rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import lance
import pyarrow as pa

from cfray.target.creation import STORAGE_VERSION

#: Bytes below which a fragment is small: a quarter of the size that a shard aims at.
SMALL_FRAGMENT = 64 * 1024 * 1024
_MAX_ROWS = 1024 * 1024
#: Rows that are written to measure files, and how many files of a size.
_MEASURED_ROWS, _MEASURED_FILES = 4_096, 4


def full_fragment_rows(rows: int, size: int) -> int:
    """Give the rows of a fragment that is not small, from a dataset's rows and bytes."""
    return max(1, min(_MAX_ROWS, SMALL_FRAGMENT * rows // max(1, size)))


def merge_small(fragments: Sequence[int], full_rows: int) -> list[list[int]]:
    """Group fragments as a compaction merges them.

    Lance (``lance.optimize``, pylance 14) merges neighbours that are small until they are full; a
    rest that would not be full joins the group before it.

    Args:
        fragments: rows of each fragment, in their order.
        full_rows: ``full_fragment_rows``.

    Returns:
        the rows of the fragments that become one; a group of one fragment stays as it is.
    """
    groups: list[list[int]] = []
    for is_small, neighbours in groupby(fragments, key=lambda rows: rows < full_rows):
        run = list(neighbours)
        groups += _divide(run, full_rows) if is_small else [[rows] for rows in run]
    return groups


def _divide(run: list[int], full_rows: int) -> list[list[int]]:
    """Divide neighbours that are small into groups that are full; the last takes the rest."""
    groups: list[list[int]] = [[]]
    group_rows, remaining_rows = 0, sum(run)
    for rows in run:
        if group_rows >= full_rows and remaining_rows >= full_rows:
            groups.append([])
            group_rows = 0
        groups[-1].append(rows)
        group_rows += rows
        remaining_rows -= rows
    return groups


class MeasuredFrames:
    """A sample of frames, of which it is measured what they take on disk."""

    def __init__(self, frames: Sequence[pa.RecordBatch]) -> None:
        """Take some of the frames.

        Args:
            frames: all of one schema, with a row at least.
        """
        share = max(1, -(-_MEASURED_ROWS // len(frames)))
        self._table = pa.Table.from_batches([batch.slice(0, share) for batch in frames])
        self._sizes: dict[int, float] = {}

    def file_bytes(self, rows: int) -> float:
        """Give the bytes of a file with so many rows.

        A file that the sample fills is written to a temporary folder of this machine.  A larger
        one is worked out from the whole sample: compression gains little beyond it.
        """
        if rows not in self._sizes:
            self._sizes[rows] = self._measure(rows)
        return self._sizes[rows]

    def _measure(self, rows: int) -> float:
        sampled: int = self._table.num_rows
        if rows > sampled:
            single = self.file_bytes(1)
            return single + (self.file_bytes(sampled) - single) * rows / sampled
        last_first_row = sampled - rows
        files = min(_MEASURED_FILES, last_first_row // rows + 1)
        first_rows = [last_first_row * number // max(1, files - 1) for number in range(files)]
        sizes = [_written_bytes(self._table.slice(first, rows)) for first in first_rows]
        return sum(sizes) / files


def _written_bytes(table: pa.Table) -> int:
    """Write a dataset, and count the bytes of its data files."""
    with tempfile.TemporaryDirectory(prefix="cfray-plan-") as folder:
        lance.write_dataset(table, f"{folder}/measured", data_storage_version=STORAGE_VERSION)
        files = [path for path in Path(folder, "measured/data").rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)
