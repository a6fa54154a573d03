"""Exact instants of Parquet's INT96 columns, which pyarrow reads in a unit that it is told.

INT96 holds a day and nanoseconds in it.  As nanoseconds since 1970, years before 1677 and after
2262 wrap around without a word; as microseconds, the last three digits are dropped.  So a column is
read in three units, and these say for each row which unit holds it exactly.  Spark, Impala and Hive
write open ends such as 9999-12-31.

Source: pyarrow 26.0.1 multiplies the day by the units of a day in 64 bits, modulo 2**64.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types as kinds

from cfray.formats.columns import row_content
from cfray.records.record import Reject

#: The units that a column is read in: microseconds are what the records have.
UNITS = ("us", "ms", "ns")

Mask = npt.NDArray[np.bool_]


def exact_instants(
    batch: pa.RecordBatch, milliseconds: pa.RecordBatch, nanoseconds: pa.RecordBatch, position: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Yield a batch with its instants exact, and a Reject for each row that no unit holds.

    A column stays in microseconds unless a row of the batch has more digits; then the rows that
    nanoseconds reach have nanoseconds.

    Args:
        batch: all columns, INT96 read as microseconds.
        milliseconds: the columns that hold INT96, read as milliseconds.
        nanoseconds: the same columns, read as nanoseconds.
        position: where the batch stands in its file.
    """
    batch_indexes = _batch_indexes(batch.schema.names, milliseconds.schema.names)
    units = np.zeros((batch.num_rows, len(batch_indexes)), np.bool_)
    is_inexact = np.zeros(batch.num_rows, np.bool_)
    for column, batch_index in enumerate(batch_indexes):
        far, fine, wrong = _rows_by_unit(
            batch.column(batch_index), milliseconds.column(column), nanoseconds.column(column)
        )
        units[:, column] = fine.any() & ~far
        is_inexact |= wrong | (far & fine)
    changes = np.diff(is_inexact) | np.diff(units, axis=0).any(axis=1)
    ends = [0, *(np.flatnonzero(changes) + 1).tolist(), batch.num_rows]
    for start, end in itertools.pairwise(ends):
        if is_inexact[start]:
            three = (batch, milliseconds, nanoseconds)
            for row in range(start, end):
                yield _reject(three, batch_indexes, row, f"{position}, row {row} of its batch")
        elif end > start:
            rows = batch.slice(start, end - start)
            for column, batch_index in enumerate(batch_indexes):
                if units[start, column]:
                    fine_column = nanoseconds.column(column).slice(start, end - start)
                    rows = rows.set_column(
                        batch_index, batch.schema.names[batch_index], fine_column
                    )
            yield rows


def _batch_indexes(names: list[str], searched_names: list[str]) -> list[int]:
    """Find the columns of these names; where a name repeats, in the order of their places."""
    batch_indexes: dict[str, list[int]] = {}
    for batch_index, name in enumerate(names):
        batch_indexes.setdefault(name, []).append(batch_index)
    return [batch_indexes[name].pop(0) for name in searched_names]


def _rows_by_unit(us: pa.Array, ms: pa.Array, ns: pa.Array) -> tuple[Mask, Mask, Mask]:
    """Sort the rows of a column by what its instants need.

    Returns:
        Masks of the rows that hold an instant beyond the reach of nanoseconds, one with digits
        below the microsecond, and one that microseconds do not reach.
    """
    kind = us.type
    if kinds.is_timestamp(kind):
        is_valid = us.is_valid().to_numpy(zero_copy_only=False)
        counts, coarse, nanoseconds = (_counts(array) for array in (us, ms, ns))
        digits = nanoseconds.view(np.uint64) - counts.view(np.uint64) * np.uint64(1000)
        far = nanoseconds // 1000 != counts
        wrong = (digits > 999) | (counts // 1000 != coarse)
        return far & is_valid, (digits != 0) & is_valid, wrong & is_valid
    if kinds.is_struct(kind):
        masks = [
            _rows_by_unit(us.field(index), ms.field(index), ns.field(index))
            for index in range(kind.num_fields)
        ]
        hides = us.is_null().to_numpy(zero_copy_only=False)
        far, fine, wrong = (np.any(mask, axis=0) & ~hides for mask in zip(*masks, strict=True))
        return far, fine, wrong
    if kinds.is_nested(kind):
        offsets = _offsets(us)
        items = _rows_by_unit(*map(_present_items, (us, ms, ns)))
        far, fine, wrong = (_any_item(mask, offsets) for mask in items)
        return far, fine, wrong
    nothing = np.zeros(len(us), np.bool_)
    return nothing, nothing, nothing


def _counts(array: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(array.cast(pa.int64()).fill_null(0))


def _offsets(array: pa.Array) -> npt.NDArray[np.int64]:
    """Give the offsets of the lists or maps of an array into its items."""
    if kinds.is_fixed_size_list(array.type):
        lists: npt.NDArray[np.int64] = np.arange(len(array) + 1) + array.offset
        return lists * int(array.type.list_size)
    return np.asarray(array.offsets).astype(np.int64)


def _present_items(array: pa.Array) -> pa.Array:
    offsets = _offsets(array)
    return array.values.slice(offsets[0], offsets[-1] - offsets[0])


def _any_item(items: Mask, offsets: npt.NDArray[np.int64]) -> Mask:
    """Tell for each list whether the mask of the items is true for any of its items."""
    running = np.concatenate([[0], np.cumsum(items)])
    starts = offsets - offsets[0]
    has_item: Mask = running[starts[1:]] > running[starts[:-1]]
    return has_item


def _reject(
    three: tuple[pa.RecordBatch, ...], batch_indexes: list[int], row: int, position: str
) -> Reject:
    """Set aside a row, with the counts of its INT96 columns in the three units."""
    batch, milliseconds, nanoseconds = three
    content = json.loads(row_content(batch, row))
    for column, batch_index in enumerate(batch_indexes):
        arrays = (
            batch.column(batch_index),
            milliseconds.column(column),
            nanoseconds.column(column),
        )
        content[batch.schema.names[batch_index]] = dict(
            zip(UNITS, (_plain_counts(array.slice(row, 1)) for array in arrays), strict=True)
        )
    return Reject(
        "an INT96 instant has more digits than microseconds hold, and lies beyond the years 1677 "
        "to 2262, which nanoseconds reach",
        position,
        json.dumps(content, ensure_ascii=False).encode(),
    )


def _plain_counts(value: pa.Array) -> object:
    """Give an array of one value as parsed JSON, with bare counts for instants."""
    kind = value.type
    if not value[0].is_valid:
        return None
    if kinds.is_timestamp(kind):
        return value.cast(pa.int64())[0].as_py()
    if kinds.is_struct(kind):
        names = [field.name for field in kind]
        return {name: _plain_counts(value.field(i)) for i, name in enumerate(names)}
    if kinds.is_nested(kind):
        items = value[0].values
        return [_plain_counts(items.slice(row, 1)) for row in range(len(items))]
    return str(value[0].as_py())
