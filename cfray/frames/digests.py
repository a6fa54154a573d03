"""Content hashes of frames: what verify compares, and what shows a flipped bit.

Each row of a column group hashes to 64 bits together with its uuid, and a shard's sum for
that group is the sum of its rows' hashes modulo 2**64.  A sum does not depend on the order of
rows, so compaction does not change it; the uuid in each hash makes two rows that swapped their
vectors show.

These hashes find accidents, not adversaries.  Sums are stored in receipts, so no value may
ever change: XXH3 promises stable results (xxhash documentation, since 0.8); DuckDB and Polars
promise none for their row hashes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from cfray.frames.schema import binary_view

Hashes = npt.NDArray[np.uint64]

#: Column groups in a fixed order; a vector column named ``x_...`` belongs to ``vector``.
GROUPS: dict[str, tuple[str, ...]] = {
    "text": ("text_content", "title", "context"),
    "vector": ("vector",),
    "metadata": ("custom_metadata",),
    "relations": (
        "relationships",
        "tags",
        "contributors",
        "collection",
        "collection_id",
        "collection_id_type",
        "position",
    ),
    "rest": (
        *("version", "uri", "local_path", "cid", "author", "created_at", "updated_at", "status"),
        *("source_file", "source_type", "source_url", "record_type", "raw_data_type"),
    ),
}

#: Sums of hashes wrap at this number.
MODULUS = 2**64

#: Hash of a null, and an odd constant: 2**64 divided by the golden ratio, as is usual in
#: multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4).
_NULL = np.uint64(0x9E3779B97F4A7C15)
#: The two multipliers of the splitmix64 finaliser (Steele et al., OOPSLA 2014).
_MULTIPLIER, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
#: Bytes up to which a value is hashed by words; a longer value is hashed by XXH3.
_SHORT = 128
#: Bytes of a word.
_WORD = 8


def group_columns(schema: pa.Schema) -> dict[str, list[str]]:
    """Give the columns of each group that this schema has.

    Further vectors (``x_...``) belong to the group ``vector``.
    """
    columns = {
        group: [name for name in names if name in schema.names] for group, names in GROUPS.items()
    }
    columns["vector"] += [name for name in schema.names if name.startswith("x_")]
    return columns


def content_hashes(frames: pa.RecordBatch) -> dict[str, Hashes]:
    """Hash each row of each column group.

    Returns:
        group -> ``(n,)`` uint64.
    """
    uuid_hashes = row_hashes(frames.column("uuid"))
    return {
        group: _hash_group(frames, uuid_hashes, names)
        for group, names in group_columns(frames.schema).items()
    }


def group_hashes(frames: pa.RecordBatch, group: str) -> Hashes:
    """Hash each row of one column group; of the other columns only ``uuid`` is needed.

    Returns:
        ``(n,)`` uint64.
    """
    names = group_columns(frames.schema)[group]
    return _hash_group(frames, row_hashes(frames.column("uuid")), names)


def raw_hashes(frames: pa.RecordBatch) -> Hashes:
    """Hash the bytes of ``raw_data`` of each row that has any.

    They belong to no group: to read them again from a dataset costs as much as all the rest, and
    there the digests of their files vouch for them.

    Returns:
        ``(m,)`` uint64, m rows have bytes.
    """
    if "raw_data" not in frames.schema.names:
        return np.empty(0, np.uint64)
    column = frames.column("raw_data")
    if column.null_count == len(column):
        return np.empty(0, np.uint64)
    has_bytes = column.is_valid()
    uuids = frames.column("uuid").filter(has_bytes)
    return combine(row_hashes(uuids), row_hashes(column.filter(has_bytes)))


def _hash_group(frames: pa.RecordBatch, uuid_hashes: Hashes, names: list[str]) -> Hashes:
    hashes = uuid_hashes.copy()
    for name in names:
        hashes = combine(hashes, row_hashes(frames.column(name)))
    return hashes


def add_hashes(sums: Mapping[str, int], hashes: Mapping[str, Hashes]) -> dict[str, int]:
    """Add the hashes of rows to a shard's sums, modulo 2**64."""
    return {
        group: (sums.get(group, 0) + int(np.add.reduce(rows, dtype=np.uint64))) % MODULUS
        for group, rows in hashes.items()
    }


def add_sums(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """Add the sums of two sets of rows group by group, modulo 2**64.

    A group that only one side names keeps that side's sum.
    """
    groups = [*left, *(group for group in right if group not in left)]
    return {group: (left.get(group, 0) + right.get(group, 0)) % MODULUS for group in groups}


def subtract_sums(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """Subtract the sums of some rows from the sums of all, modulo 2**64.

    Returns:
        The groups of ``left``; a group that ``right`` does not name keeps its sum.
    """
    return {group: (total - right.get(group, 0)) % MODULUS for group, total in left.items()}


def row_hashes(column: pa.Array) -> Hashes:
    """Hash each value of a column to 64 bits; a null has a fixed hash.

    Raises:
        TypeError: a column type that no frame has.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count == len(column):
        return np.full(len(column), _NULL, np.uint64)
    hashes = _hash_values(column)
    if column.null_count:
        hashes = np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL, hashes)
    return hashes


def _hash_values(column: pa.Array) -> Hashes:
    """Hash a column's values by its type; what a null hashes to does not matter here."""
    column_type = column.type
    if _is_bytes(column_type) or _is_large_bytes(column_type):
        return _hash_slices(*binary_view(column))
    if pa.types.is_fixed_size_list(column_type):
        return _hash_fixed_size_lists(column)
    if pa.types.is_list(column_type):
        return _hash_lists(column)
    # a sparse vector: its indices and its values
    if pa.types.is_struct(column_type):
        hashes = np.zeros(len(column), np.uint64)
        for field in range(column_type.num_fields):
            hashes = combine(hashes, row_hashes(column.field(field)))
        return hashes
    if pa.types.is_integer(column_type) or pa.types.is_floating(column_type):
        return _hash_numbers(column)
    raise TypeError(f"no content hash for a column of type {column_type}")


def _is_bytes(column_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(column_type) or pa.types.is_binary(column_type))


def _is_large_bytes(column_type: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(column_type) or pa.types.is_large_binary(column_type))


def _hash_numbers(column: pa.Array) -> Hashes:
    """Hash the bits of each number, widened to int64 or float64."""
    wide_type = np.float64 if pa.types.is_floating(column.type) else np.int64
    values = column.fill_null(0) if column.null_count else column
    numbers = values.to_numpy(zero_copy_only=False).astype(wide_type, copy=False)
    return _mix(numbers.view(np.uint64) + _NULL)


def _hash_fixed_size_lists(column: pa.FixedSizeListArray) -> Hashes:
    """Hash the bytes of each fixed-size list of numbers, or the lists in it (multi-vectors)."""
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    if isinstance(values, pa.ListArray):
        offsets = np.arange(len(column) + 1, dtype=np.int32) * width
        return _hash_lists(pa.ListArray.from_arrays(pa.array(offsets), values))
    filled = values.fill_null(0) if values.null_count else values
    numbers = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))
    row_bytes = width * numbers.itemsize
    offsets = np.arange(0, len(column) * row_bytes + 1, row_bytes, dtype=np.int64)
    return _hash_slices(memoryview(numbers.view(np.uint8).data), offsets)


def _hash_lists(column: pa.ListArray) -> Hashes:
    """Hash lists of strings or numbers, or of structs of them.

    The hash of a row depends on the number of its elements, on each element's length or value,
    and on the bytes of all elements.  A struct counts as several lists, one for each field.
    """
    offsets = np.frombuffer(column.buffers()[1], np.int32)[
        column.offset : column.offset + len(column) + 1
    ].astype(np.int64)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    starts = offsets - offsets[0]
    leaves = [values]
    if pa.types.is_struct(values.type):
        leaves = [values.field(field) for field in range(values.type.num_fields)]
    hashes = _mix(np.diff(starts).astype(np.uint64) + _NULL)
    elements = np.zeros(len(values), np.uint64)
    factor = 1
    for leaf in leaves:
        factor = factor * int(_MULTIPLIER_2) % MODULUS
        # a leaf of nulls adds nothing, whatever other batches hold in it
        if leaf.null_count == len(leaf):
            hashes = combine(hashes, np.uint64(0))
            continue
        marks, content = _hash_leaf(leaf, starts)
        elements += marks * np.uint64(factor)
        hashes = combine(hashes, content)
    return combine(hashes, _hash_in_order(elements, starts))


def _hash_leaf(leaf: pa.Array, starts: npt.NDArray[np.int64]) -> tuple[Hashes, Hashes]:
    """Give a mark of each element, and for each list the hash of its elements' bytes.

    The mark is the length of a string plus 1 or the hash of a number, and 0 for null.
    """
    if not _is_bytes(leaf.type):
        hashes = row_hashes(leaf)
        marks = np.where(hashes == _NULL, np.uint64(0), hashes)
        return marks, np.zeros(len(starts) - 1, np.uint64)
    view, offsets = binary_view(leaf)
    marks = (np.diff(offsets) + 1).astype(np.uint64)
    if leaf.null_count:
        marks[leaf.is_null().to_numpy(zero_copy_only=False)] = 0
    ends = offsets[starts]
    return marks, np.where(ends[1:] == ends[:-1], np.uint64(0), _hash_slices(view, ends))


def _hash_in_order(elements: Hashes, starts: npt.NDArray[np.int64]) -> Hashes:
    """Combine each list's elements so that their order matters; an element of 0 adds nothing."""
    counts = np.diff(starts)
    position = (np.arange(len(elements)) - np.repeat(starts[:-1], counts)).astype(np.uint64)
    marked = np.where(elements == 0, np.uint64(0), _mix(elements + position * _NULL))
    running = np.zeros(len(elements) + 1, np.uint64)
    np.cumsum(marked, out=running[1:])
    return running[starts[1:]] - running[starts[:-1]]


def _hash_slices(view: memoryview, offsets: npt.NDArray[np.int64]) -> Hashes:
    """Hash ``view[offsets[i]:offsets[i + 1]]`` for each i.

    Long slices are hashed by XXH3, short slices by words, all of them at once: a call of XXH3
    costs 0.15 us whatever the length, which for a row of ten short fields is more than reading
    and mapping the row.  Which way a slice takes depends on its length alone.
    """
    count = len(offsets) - 1
    widths = np.diff(offsets)
    hashes = np.empty(count, np.uint64)
    long_rows = np.flatnonzero(widths > _SHORT)
    short_rows: npt.NDArray[np.int64] | slice = slice(None)
    if len(long_rows):
        digest = xxhash.xxh3_64_intdigest
        bounds = zip(offsets[long_rows].tolist(), offsets[long_rows + 1].tolist(), strict=True)
        digests = (digest(view[start:end]) for start, end in bounds)
        hashes[long_rows] = np.fromiter(digests, np.uint64, len(long_rows))
        short_rows = np.flatnonzero(widths <= _SHORT)
    data = np.frombuffer(view, np.uint8)
    hashes[short_rows] = _hash_words(data, offsets[:-1][short_rows], widths[short_rows])
    return hashes


def _hash_words(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]
) -> Hashes:
    """Hash ``data[start:start + width]`` word by word, all values at once.

    The values become the rows of a matrix as wide as the longest value, filled up with zeros to
    words of 8 bytes (little endian).  Three values ``abc``, ``0123456789`` and the empty value::

        data     abc0123456789            starts 0 3 13    widths 3 10 0

                 word 0            word 1
        padded   a b c . . . . .   . . . . . . . .      word 0 alone is hashed
                 0 1 2 3 4 5 6 7   8 9 . . . . . .      both words are hashed
                 . . . . . . . .   . . . . . . . .      no word is hashed

    The loop goes through the words (the columns); each step hashes one word of every value that
    reaches so far.  The hash begins with the width, so that a text and the same text
    with a zero byte behind it differ.
    """
    count, max_width = len(starts), int(widths.max(initial=0))
    values = _gather_values(data, starts, widths, max_width)
    # a column that says the same in every row is hashed once
    is_even = count > 1 and bool((widths == max_width).all())
    if is_even and (values[1] == values[0]).all() and (values == values[0]).all():
        return np.full(count, _hash_words(data, starts[:1], widths[:1])[0], np.uint64)
    padded = np.zeros((count, -(-max_width // _WORD) * _WORD), np.uint8)
    padded[:, :max_width] = values
    hashes = widths.astype(np.uint64) * _NULL
    for index, word in enumerate(padded.view("<u8").T):
        mixed = (hashes ^ word) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(32)
        reaches = widths > _WORD * index
        hashes = mixed if reaches.all() else np.where(reaches, mixed, hashes)
    return _mix(hashes)


def _gather_values(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    max_width: int,
) -> npt.NDArray[np.uint8]:
    """Give the values as rows of ``(n, max_width)`` bytes, zero behind a value's end."""
    count = len(starts)
    if not count or not max_width:
        return np.zeros((count, max_width), np.uint8)
    # values of one width that stand side by side are a matrix already
    if (widths == max_width).all() and (np.diff(starts) == max_width).all():
        return data[starts[0] : starts[0] + count * max_width].reshape(count, max_width)
    # the last values may end less than max_width before the end of the data
    if starts[-1] + max_width > len(data):
        data = np.concatenate([data, np.zeros(max_width, np.uint8)])
    values = np.lib.stride_tricks.sliding_window_view(data, max_width)[starts]
    if (widths < max_width).any():
        values = values * (np.arange(max_width) < widths[:, None])
    return values


def combine(hashes: Hashes, further: Hashes | np.uint64) -> Hashes:
    """Extend hashes by the hashes of a further column, so that the order of columns matters."""
    return _mix(hashes * _MULTIPLIER + further)


def _mix(values: Hashes) -> Hashes:
    """Spread every input bit over all output bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIER
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLIER_2
    return values ^ (values >> np.uint64(31))
