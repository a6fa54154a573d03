"""Which rows of one shard differ between source and target, and in which fields.

Called only for a shard whose sums differ.  Both sides are read twice: first each row becomes
one hash, and rows that are alike on both sides cancel out; then the rows that are left are
read and compared field by field.  So the memory that a shard takes is 16 bytes a row, and
that of the rows that differ, of which the first 10,000 are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion import chunk_frames
from cfray.copying.shard import PlannedShard
from cfray.frames.digests import Hashes, combine, row_hashes
from cfray.frames.schema import ORIGINAL_ID
from cfray.proving.read_source import SourceReader
from cfray.proving.read_target import EntryName, Fragments
from cfray.runtime import retry

#: Where a row that differs stands.
Side = Literal["source", "target", "both"]
#: Rows of one side of a shard that are compared field by field; further rows are counted.
MAX_NAMED = 10_000
#: Digits of a hash that stands for a value in a report.
_DIGITS = 16
_METADATA = "custom_metadata"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same in source and target.

    Attributes:
        uuid: of the row.
        id: its original id; empty where neither side tells it.
        shard: id of the shard, or name of the entry.
        side: the side that alone has the row, or both where they differ.
        fields: name of a column, or ``custom_metadata.<key>`` -> hashes of the value in the source
            and in the target, 16 hex digits; empty where a side has no such value.  Empty where one
            side alone has the row.
        row: hash of the whole row.
    """

    uuid: str
    id: str
    shard: str
    side: Side
    fields: dict[str, tuple[str, str]] = field(default_factory=dict)
    row: int = 0

    def __str__(self) -> str:
        """Name the row, and what differs."""
        name = f"{self.id!r} ({self.uuid})" if self.id else self.uuid
        if self.side == "both":
            return f"{name} differs: {', '.join(self.fields) or 'the row'}"
        return f"{name} is only in the {self.side}"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A shard whose rows are to be compared one by one.

    Attributes:
        planned: the shard.
        entries: names of its entry and of those that hold rows of it in place of others.
        fragments: that hold its rows.
        left: uuid -> rows that left the target for the quarantine and are still in the source.
    """

    planned: PlannedShard
    entries: frozenset[EntryName]
    fragments: Fragments
    left: dict[str, int]


@dataclass(frozen=True, slots=True)
class ShardDifferences:
    """What came of a comparison.

    Attributes:
        number: of the shard in the plan.
        named: the rows that differ.
        unnamed: further rows that differ.
        moved: rows that are the same on both sides, in another shard of the source.
    """

    number: int
    named: list[Difference]
    unnamed: int
    moved: int = 0


@dataclass(frozen=True, slots=True)
class RowComparison:
    """Compares shards row by row; travels to workers.

    Attributes:
        reader: of the source.
        left_out: columns that are not compared, for cfray made their values.
    """

    reader: SourceReader
    left_out: frozenset[str]

    def __call__(self, suspect: Suspect) -> ShardDifferences:
        """Compare the rows of one shard.  Body of a Ray task."""
        return retry.run_with_retries(lambda: self._compare(suspect))

    def _compare(self, suspect: Suspect) -> ShardDifferences:
        columns = compared_columns(self.reader, self.left_out)
        source, target = self._sides(suspect, columns)
        source_rows = concatenate(hash_rows(batch, columns) for batch in source())
        target_rows = concatenate(hash_rows(batch, columns) for batch in target())
        only_source, only_target = cancel(source_rows, target_rows)
        return ShardDifferences(
            suspect.planned.number,
            *_pair(
                suspect,
                _rows_of(source(), columns, only_source),
                _rows_of(target(), columns, only_target),
                columns,
            ),
        )

    def _sides(
        self, suspect: Suspect, columns: list[str]
    ) -> tuple[Callable[[], Iterator[pa.RecordBatch]], Callable[[], Iterator[pa.RecordBatch]]]:
        names = ["uuid", *columns]

        def source() -> Iterator[pa.RecordBatch]:
            for frames in self.reader.frames(suspect.planned):
                yield frames.select(names)

        def target() -> Iterator[pa.RecordBatch]:
            for _, _, rows in suspect.fragments.rows_of(suspect.entries, names):
                yield rows.select(names)

        return source, target


def compared_columns(reader: SourceReader, left_out: frozenset[str]) -> list[str]:
    """Name the columns that are compared, but ``uuid``, by which rows are known."""
    return [name for name in reader.steps.schema.names if name not in left_out | {"uuid"}]


def hash_rows(frames: pa.RecordBatch, columns: list[str]) -> Hashes:
    """Hash each row with its uuid to one number, ``(n,)`` uint64."""
    hashes = row_hashes(frames.column("uuid"))
    for name in columns:
        hashes = combine(hashes, hash_values(frames.column(name)))
    return hashes


def hash_values(column: pa.Array) -> Hashes:
    """Hash each value of a column; a null inside a vector is no zero here."""
    hashes = row_hashes(column)
    if isinstance(column, pa.FixedSizeListArray) and column.flatten().null_count:
        width = column.type.list_size
        inner = column.values.slice(column.offset * width, len(column) * width)
        nulls = inner.is_null().to_numpy(zero_copy_only=False).reshape(len(column), width)
        counts = np.where(column.is_valid().to_numpy(zero_copy_only=False), nulls.sum(axis=1), 0)
        hashes = np.where(counts > 0, combine(hashes, counts.astype(np.uint64)), hashes)
    return hashes


def concatenate(hashes: Iterable[Hashes]) -> Hashes:
    """Put hashes into one array."""
    return np.concatenate([np.zeros(0, np.uint64), *hashes])


def cancel(left: Hashes, right: Hashes) -> tuple[Counter[int], Counter[int]]:
    """Give how often each hash occurs more often on one side than on the other."""
    values, indices = np.unique(np.concatenate([left, right]), return_inverse=True)
    counts = np.bincount(indices[: len(left)], minlength=len(values))
    counts = counts - np.bincount(indices[len(left) :], minlength=len(values))
    return _surplus(values, counts), _surplus(values, -counts)


def _surplus(values: Hashes, counts: npt.NDArray[np.int64]) -> Counter[int]:
    chosen = counts > 0
    return Counter(dict(zip(values[chosen].tolist(), counts[chosen].tolist(), strict=True)))


@dataclass(slots=True)
class _Rows:
    """Rows of one side that the other side lacks.

    Attributes:
        frames: the first ``MAX_NAMED`` of them, without those that are counted as left.
        hashes: of these.
        unnamed: further rows.
    """

    frames: list[pa.RecordBatch] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    unnamed: int = 0


def _rows_of(batches: Iterator[pa.RecordBatch], columns: list[str], wanted: Counter[int]) -> _Rows:
    """Pick the rows whose hashes are wanted, each as often as it is wanted."""
    rows = _Rows()
    if not wanted:
        return rows
    remaining = wanted.copy()
    keys = np.fromiter(wanted, np.uint64, len(wanted))
    for batch in batches:
        hashes = hash_rows(batch, columns)
        chosen: list[int] = []
        for row in np.flatnonzero(np.isin(hashes, keys)).tolist():
            value = int(hashes[row])
            if remaining[value] > 0:
                remaining[value] -= 1
                chosen.append(row)
        free = MAX_NAMED - len(rows.hashes)
        rows.unnamed += max(0, len(chosen) - free)
        if chosen[:free]:
            rows.frames.append(batch.take(pa.array(chosen[:free])))
            rows.hashes += [int(hashes[row]) for row in chosen[:free]]
    return rows


def _pair(
    suspect: Suspect, source: _Rows, target: _Rows, columns: list[str]
) -> tuple[list[Difference], int]:
    """Put rows of one uuid together; a row without its fellow is only on its side.

    A record of the source that left the target for the quarantine has no fellow, and is none of
    the differences.
    """
    named: list[Difference] = []
    left = Counter(suspect.left)
    label = suspect.planned.shard.id
    source_rows, target_rows = list(_single_rows(source)), list(_single_rows(target))
    fellows: dict[str, list[tuple[pa.RecordBatch, int]]] = {}
    for row, value in target_rows:
        fellows.setdefault(_uuid(row), []).append((row, value))
    for row, value in source_rows:
        name = _uuid(row)
        if fellows.get(name):
            other, _ = fellows[name].pop(0)
            fields = _fields(row, other, columns)
            original_id = _original_id(row) or _original_id(other)
            named.append(Difference(name, original_id, label, "both", fields, value))
        elif left[name] > 0:
            left[name] -= 1
        elif document_of(row) not in suspect.left:
            named.append(Difference(name, _original_id(row), label, "source", row=value))
    named += [
        Difference(_uuid(row), _original_id(row), label, "target", row=value)
        for rows in fellows.values()
        for row, value in rows
    ]
    return named, source.unnamed + target.unnamed


def _single_rows(rows: _Rows) -> Iterator[tuple[pa.RecordBatch, int]]:
    singles = (batch.slice(row, 1) for batch in rows.frames for row in range(batch.num_rows))
    yield from zip(singles, rows.hashes, strict=True)


def _uuid(row: pa.RecordBatch) -> str:
    return str(row.column("uuid")[0].as_py())


def document_of(row: pa.RecordBatch) -> str:
    """Give the uuid of the document that a chunk was cut from; empty for a document."""
    name = chunk_frames.FIELD.name
    return (row.column(name)[0].as_py() or "") if name in row.schema.names else ""


def _original_id(row: pa.RecordBatch) -> str:
    return metadata_of(row).get(ORIGINAL_ID, "")


def metadata_of(row: pa.RecordBatch) -> dict[str, str]:
    """Give the custom metadata of a batch of one row."""
    entries = row.column(_METADATA)[0].as_py() or []
    return {entry["key"]: entry["value"] for entry in entries}


def _fields(
    source: pa.RecordBatch, target: pa.RecordBatch, columns: list[str]
) -> dict[str, tuple[str, str]]:
    """Name the fields in which two rows differ, each with the hashes of both values."""
    fields: dict[str, tuple[str, str]] = {}
    for name in columns:
        source_hash, target_hash = (_hash_of(row.column(name)) for row in (source, target))
        if source_hash == target_hash:
            continue
        keys = _metadata_fields(source, target) if name == _METADATA else {}
        fields |= keys or {name: (source_hash, target_hash)}
    return fields


def _metadata_fields(source: pa.RecordBatch, target: pa.RecordBatch) -> dict[str, tuple[str, str]]:
    """Name the keys of custom_metadata; nothing where only their order differs."""
    left, right = metadata_of(source), metadata_of(target)
    return {
        f"{_METADATA}.{key}": (_text_hash(left.get(key)), _text_hash(right.get(key)))
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key) or (key in left) != (key in right)
    }


def _text_hash(text: str | None) -> str:
    return "" if text is None else _hash_of(pa.array([text]))


def _hash_of(column: pa.Array) -> str:
    """Give the hash of one value; empty for a null."""
    return "" if column[0].as_py() is None else f"{int(hash_values(column)[0]):0{_DIGITS}x}"
