"""Name the rows in which source and target differ, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cfray.frames.schema import ORIGINAL_ID
from cfray.proving.differences import Difference as RowDifference
from cfray.proving.differences import Side, metadata_of
from cfray.report.run import Run
from cfray.syncing.difference import Difference
from cfray.syncing.folder import RowIds
from cfray.syncing.known import key_bytes

#: Rows of each kind that are named, and rows that a dry run shows.
NAMED, _SHOWN = 1000, 20


def rows_that_differ(run: Run, difference: Difference) -> Iterator[RowDifference]:
    """Name the first rows of each kind: new, changed, gone."""
    for outcome in difference.outcomes:
        shard = difference.shards[outcome.number].id
        for key in difference.files.seen_by(outcome).new["key"][:NAMED]:
            yield RowDifference(_uuid(key), "", shard, "source")
    yield from _rows_of_target(run, difference.changed_rows, "both")
    yield from _rows_of_target(run, difference.unfit_rows, "both")
    yield from _rows_of_target(run, difference.gone_rows, "target")


def _uuid(key: np.bytes_) -> str:
    text = key_bytes(key).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _rows_of_target(run: Run, row_ids: RowIds, side: Side) -> Iterator[RowDifference]:
    if not len(row_ids):
        return
    names = ",".join(map(str, row_ids[:NAMED].tolist()))
    rows = run.target.open().to_table(
        columns=["uuid", "custom_metadata"], filter=f"_rowid IN ({names})"
    )
    for batch in rows.to_batches():
        for row in range(batch.num_rows):
            single = batch.slice(row, 1)
            original_id = metadata_of(single).get(ORIGINAL_ID, "")
            yield RowDifference(single.column("uuid")[0].as_py(), original_id, "", side)


def sentences(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Say of rows how they differ, as a dry run shows them.

    ``rows``: as parsed JSON.
    """
    words = {"source": "new", "both": "changed", "target": "gone"}
    for row in rows[:_SHOWN]:
        name = f"{row['id']} ({row['uuid']})" if row["id"] else row["uuid"]
        yield f"  {words[row['side']]}: {name}"
    further = len(rows) - _SHOWN
    if further > 0:
        yield f"  and {further:,} more"
