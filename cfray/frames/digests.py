"""Content hashes of frames: what verify compares and what a flipped bit cannot survive.

Each row of a column group hashes to 64 bits together with its uuid, and a
shard's hash of that group is the sum of its rows' hashes modulo 2**64.  The sum
does not depend on the order of rows, so compaction leaves it alone; the uuid
in it makes two rows that swapped their vectors show.

These hashes find accidents, not adversaries.  Their values are stored, so nothing here
may change them: XXH3 promises stable results (xxhash documentation, since 0.8),
DuckDB's and Polars' row hashes do not (``engine.md`` part 8).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from cfray.frames.schema import binary_view

Hashes = npt.NDArray[np.uint64]

#: Column groups in a fixed order; columns named ``x_...`` belong to ``vector`` where they are
#: vectors.
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

_NULL = np.uint64(
    0x9E3779B97F4A7C15
)  # 2**64 / golden ratio: the usual odd constant of multiplicative hashing (Knuth, TAOCP 3, 6.4)
#: Bytes up to which a value is hashed by words.
_SHORT = 128
_ODD = np.uint64(
    0xBF58476D1CE4E5B9
)  # the two multipliers of the splitmix64 finaliser (Steele et al., OOPSLA 2014)
_ODD2 = np.uint64(0x94D049BB133111EB)


def group_columns(schema: pa.Schema) -> dict[str, list[str]]:
    """Give the columns of each group that this schema has.

    Further vectors (``x_...``) go with ``vector``.
    """
    extra = [name for name in schema.names if name.startswith("x_")]
    return {
        group: [name for name in names if name in schema.names]
        + (extra if group == "vector" else [])
        for group, names in GROUPS.items()
    }


def content_hashes(frames: pa.RecordBatch) -> dict[str, Hashes]:
    """Hash each row of each column group.

    Returns:
        group -> ``(n,)`` uint64.
    """
    identity = row_hashes(frames.column("uuid"))
    return {
        group: _group(frames, identity, names)
        for group, names in group_columns(frames.schema).items()
    }


def group_hashes(frames: pa.RecordBatch, group: str) -> Hashes:
    """Hash each row of one column group; of the other columns only ``uuid`` is needed.

    Returns:
        ``(n,)`` uint64.
    """
    return _group(frames, row_hashes(frames.column("uuid")), group_columns(frames.schema)[group])


def _group(frames: pa.RecordBatch, identity: Hashes, names: list[str]) -> Hashes:
    row = identity.copy()
    for name in names:
        row = _mix(row * _ODD + row_hashes(frames.column(name)))
    return row


def add(sums: Mapping[str, int], hashes: Mapping[str, Hashes]) -> dict[str, int]:
    """Add rows to a shard's sums, modulo 2**64."""
    return {
        group: (sums.get(group, 0) + int(np.add.reduce(rows, dtype=np.uint64))) & (2**64 - 1)
        for group, rows in hashes.items()
    }


def row_hashes(column: pa.Array) -> Hashes:
    """Hash each value of a column to 64 bits; null has a value of its own.

    Raises:
        TypeError: a column type that no frame has.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count == len(column):
        return np.full(len(column), _NULL, np.uint64)
    hashes = _hashes(column)
    if column.null_count:
        hashes = np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL, hashes)
    return hashes


def _hashes(column: pa.Array) -> Hashes:
    kind = column.type
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    ):
        return _slices(*binary_view(column))
    if pa.types.is_fixed_size_list(kind):
        return _fixed(column)
    if pa.types.is_list(kind):
        return _lists(column)
    if pa.types.is_struct(kind):  # a sparse vector: its indices and its values
        row = np.zeros(len(column), np.uint64)
        for place in range(kind.num_fields):
            row = _mix(row * _ODD + row_hashes(column.field(place)))
        return row
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        filled = (column.fill_null(0) if column.null_count else column).to_numpy(
            zero_copy_only=False
        )
        bits = filled.astype(
            np.float64 if pa.types.is_floating(kind) else np.int64, copy=False
        ).view(np.uint64)
        return _mix(bits + _NULL)
    raise TypeError(f"no content hash for a column of type {kind}")


def _fixed(column: pa.FixedSizeListArray) -> Hashes:
    """Hash the bytes of each fixed-size list of numbers."""
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    if isinstance(values, pa.ListArray):  # multi-vectors
        return _lists(
            pa.ListArray.from_arrays(
                pa.array(np.arange(len(column) + 1, dtype=np.int32) * width), values
            )
        )
    flat = (
        np.ascontiguousarray(values.fill_null(0).to_numpy(zero_copy_only=False))
        if values.null_count
        else values.to_numpy(zero_copy_only=False)
    )
    step = width * flat.itemsize
    return _slices(
        memoryview(flat.view(np.uint8).data),
        np.arange(0, len(column) * step + 1, step, dtype=np.int64),
    )


def _lists(column: pa.ListArray) -> Hashes:
    """Hash lists of strings or numbers, and of structs of them.

    The bytes of a row's elements and their lengths.
    """
    offsets = np.frombuffer(column.buffers()[1], np.int32)[
        column.offset : column.offset + len(column) + 1
    ].astype(np.int64)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    starts = offsets - offsets[0]
    leaves = (
        [values]
        if not pa.types.is_struct(values.type)
        else [values.field(place) for place in range(values.type.num_fields)]
    )
    row = _mix((starts[1:] - starts[:-1]).astype(np.uint64) + _NULL)
    elements = np.zeros(len(values), np.uint64)
    factor = 1
    for leaf in leaves:
        factor = factor * int(_ODD2) % 2**64
        if leaf.null_count == len(leaf):  # adds nothing, whatever other batches hold in it
            row = _mix(row * _ODD)
            continue
        marks, content = _leaf(leaf, starts)
        elements += marks * np.uint64(factor)
        row = _mix(row * _ODD + content)
    return _mix(row * _ODD + _ordered(elements, starts))


def _leaf(leaf: pa.Array, starts: npt.NDArray[np.int64]) -> tuple[Hashes, Hashes]:
    """Give a mark for each element of a leaf (0 for null).

    For each list the hash of its elements' bytes.
    """
    if not (pa.types.is_string(leaf.type) or pa.types.is_binary(leaf.type)):
        marks = row_hashes(leaf)
        return np.where(marks == _NULL, np.uint64(0), marks), np.zeros(len(starts) - 1, np.uint64)
    view, places = binary_view(leaf)
    lengths = (places[1:] - places[:-1] + 1).astype(np.uint64)
    if leaf.null_count:
        lengths[leaf.is_null().to_numpy(zero_copy_only=False)] = 0
    ends = places[starts]
    return lengths, np.where(ends[1:] == ends[:-1], np.uint64(0), _slices(view, ends))


def _ordered(elements: Hashes, starts: npt.NDArray[np.int64]) -> Hashes:
    """Combine each list's elements so that their order matters.

    An element of 0 (null) adds nothing.
    """
    counts = starts[1:] - starts[:-1]
    place = (np.arange(len(elements)) - np.repeat(starts[:-1], counts)).astype(np.uint64)
    marked = np.where(elements == 0, np.uint64(0), _mix(elements + place * _NULL))
    running = np.zeros(len(elements) + 1, np.uint64)
    np.cumsum(marked, out=running[1:])
    return running[starts[1:]] - running[starts[:-1]]


def _slices(view: memoryview, places: npt.NDArray[np.int64]) -> Hashes:
    """Hash ``view[places[i]:places[i + 1]]`` for each i.

    Long ones with XXH3, short ones all at once by 8-byte words.

    A call of XXH3 costs 0.15 us whatever the length, which for a row of ten short fields is more
    than reading and mapping it.  Which way a value goes depends on its own length alone.
    """
    count = len(places) - 1
    widths = np.diff(places)
    hashes = np.empty(count, np.uint64)
    long = np.flatnonzero(widths > _SHORT)
    if len(long):
        digest = xxhash.xxh3_64_intdigest
        bounds = zip(places[long].tolist(), places[long + 1].tolist(), strict=True)
        hashes[long] = np.fromiter(
            (digest(view[start:end]) for start, end in bounds), np.uint64, len(long)
        )
    short = np.flatnonzero(widths <= _SHORT) if len(long) else slice(None)
    hashes[short] = _words(np.frombuffer(view, np.uint8), places[:-1][short], widths[short])
    return hashes


def _words(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]
) -> Hashes:
    """Hash ``data[start:start + width]`` word by word.

    (8 bytes, little endian, the last one filled up with zeros).
    """
    count, most = len(starts), int(widths.max(initial=0))
    if count > 1 and bool((widths == most).all()) and bool((np.diff(starts) == most).all()):
        block = data[starts[0] : starts[0] + count * most].reshape(count, most)
        if bool((block[1] == block[0]).all()) and bool((block == block[0]).all()):
            return np.full(
                count, _words(data, starts[:1], widths[:1])[0], np.uint64
            )  # a column that says the same in every row
    else:
        rest = (
            np.concatenate([data, np.zeros(most, np.uint8)])
            if count and starts[-1] + most > len(data)
            else data
        )
        block = (
            np.lib.stride_tricks.sliding_window_view(rest, most)[starts]
            if most
            else np.zeros((count, 0), np.uint8)
        )
        if bool((widths < most).any()):
            block = block * (np.arange(most) < widths[:, None])
    padded = np.zeros((count, -(-most // 8) * 8), np.uint8)
    padded[:, :most] = block
    row = widths.astype(np.uint64) * _NULL
    for place, word in enumerate(padded.view("<u8").T):
        mixed = (row ^ word) * _ODD
        mixed ^= mixed >> np.uint64(32)
        row = (
            np.where(widths > 8 * place, mixed, row) if bool((widths <= 8 * place).any()) else mixed
        )
    return _mix(row)


def _mix(values: Hashes) -> Hashes:
    """Spread every input bit over all output bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _ODD
    values = (values ^ (values >> np.uint64(27))) * _ODD2
    return values ^ (values >> np.uint64(31))
