"""Frames, rows in the ContextFrame schema: their columns, their identity, their packed lists.

Identity is UUIDv5 over the job's name, the source collection and the record's id in the
source.  So the same record gets the same uuid in every run on any machine, a reference can be
rewritten without a join, and anyone can compute the uuid again; ``tests/contract`` holds test
vectors.

Nothing here reads a source or knows a mapping.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid as uuids
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: An element of the column ``relationships``.
RELATIONSHIP = pa.struct(
    [
        pa.field("type", pa.string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("path", pa.string()),
        pa.field("cid", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
    ]
)
#: An element of the column ``custom_metadata``.
METADATA_ENTRY = pa.struct([("key", pa.string()), ("value", pa.string())])

#: The column that says how each frame's vector was made: ``kept``, ``regenerated model=...``,
#: ``remapped model=... map=...``; null where a frame has no vector.
ORIGIN = "x_vector_origin"
#: Keys of custom_metadata that cfray itself writes.
ORIGINAL_ID = "original_id"
TYPES_KEY = "cfray.types"

#: Where the hex digits of a uuid stand; a dash stands before each group but the first.
_HEX_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
#: Length of a uuid's text.
_UUID_LENGTH = 36


def frame_schema(dimension: int, extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """Give the columns of the target in their order.

    Args:
        dimension: width of the column ``vector`` (float32).
        extra: further columns; their names start with ``x_``.
    """
    strings = pa.list_(pa.string())
    return pa.schema(
        [
            pa.field("uuid", pa.string(), nullable=False),
            pa.field("text_content", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dimension)),
            pa.field("title", pa.string(), nullable=False),
            *_text_fields("version", "context", "uri", "local_path", "cid"),
            *_text_fields("collection", "collection_id", "collection_id_type"),
            pa.field("position", pa.int32()),
            pa.field("author", pa.string()),
            pa.field("contributors", strings),
            pa.field("tags", strings),
            *_text_fields("created_at", "updated_at", "status"),
            *_text_fields("source_file", "source_type", "source_url"),
            pa.field("relationships", pa.list_(RELATIONSHIP)),
            pa.field("custom_metadata", pa.list_(METADATA_ENTRY)),
            *_text_fields("record_type", "raw_data_type"),
            pa.field("raw_data", pa.large_binary(), metadata={b"lance-encoding:blob": b"true"}),
            *extra,
        ]
    )


def _text_fields(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()) for name in names]


def percent_encode(text: str) -> str:
    """Percent-encode the UTF-8 bytes outside RFC 3986's unreserved ``A-Z a-z 0-9 . _ ~ -``."""
    return quote(text, safe="")


def uuid_namespace(job: str, source_collection: str) -> uuids.UUID:
    """Give the UUID namespace of one source collection of a job."""
    return uuids.uuid5(
        uuids.NAMESPACE_URL, f"cfray:{percent_encode(job)}/{percent_encode(source_collection)}"
    )


def header_uuid(space: uuids.UUID, collection: str = "") -> str:
    """Give the uuid of a collection's header row.

    Args:
        space: the UUID namespace of the source collection.
        collection: empty for the source collection itself.  Where the mapping spreads a source
            collection over several collections, the mapped name, so that each header gets
            another uuid.
    """
    return str(uuids.uuid5(space, "header:" + collection))


def dataset_uuid(job: str) -> str:
    """Give the uuid of the row that describes the whole dataset."""
    return str(uuids.uuid5(uuids.NAMESPACE_URL, f"cfray:{percent_encode(job)}"))


def record_uuids(space: uuids.UUID, tagged: pa.StringArray) -> pa.StringArray:
    """Compute UUIDv5 for each tagged id (``tag:text``, no nulls).

    SHA-1 runs once a row over the Arrow buffer; version bits, hex and dashes are set for all rows
    at once.  That takes 1.2 CPU-seconds for 2M rows, against 4.2 for ``uuid.uuid5`` in a loop.

    Source: RFC 9562, 5.5.
    """
    count = len(tagged)
    if not count:
        return pa.array([], pa.string())
    prefixed = pc.binary_join_element_wise(
        pa.scalar(space.bytes, pa.binary()), tagged.cast(pa.binary()), pa.scalar(b"", pa.binary())
    )
    view, offsets = binary_view(prefixed)
    sha1 = hashlib.sha1
    digests = [
        sha1(view[start:end], usedforsecurity=False).digest()
        for start, end in itertools.pairwise(offsets.tolist())
    ]
    uuid_bytes = np.frombuffer(b"".join(digests), np.uint8).reshape(count, 20)[:, :16].copy()
    uuid_bytes[:, 6] = (uuid_bytes[:, 6] & 0x0F) | 0x50
    uuid_bytes[:, 8] = (uuid_bytes[:, 8] & 0x3F) | 0x80
    return _format_uuids(uuid_bytes)


def _format_uuids(uuid_bytes: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Write ``(n, 16)`` bytes as n lower-case 8-4-4-4-12 uuids."""
    count = len(uuid_bytes)
    digits = np.frombuffer(uuid_bytes.tobytes().hex().encode(), np.uint8).reshape(count, 32)
    text = np.full((count, _UUID_LENGTH), ord("-"), np.uint8)
    for group, (start, end) in enumerate(_HEX_GROUPS):
        text[:, start + group : end + group] = digits[:, start:end]
    offsets = np.arange(0, _UUID_LENGTH * count + 1, _UUID_LENGTH, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def binary_view(array: pa.Array) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """Give the data bytes of a string or binary array and its ``n + 1`` offsets into them.

    A slice of an array gives its offsets alone.
    """
    is_large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offset_buffer, data = array.buffers()
    if offset_buffer is None:
        return memoryview(b""), np.zeros(len(array) + 1, np.int64)
    offset_type = np.int64 if is_large else np.int32
    offsets = np.frombuffer(offset_buffer, offset_type)[
        array.offset : array.offset + len(array) + 1
    ].astype(np.int64)
    return memoryview(data if data is not None else b""), offsets


def gather_lists(
    columns: Sequence[tuple[npt.NDArray[np.int64], pa.Array]], rows: int, value_type: pa.DataType
) -> pa.ListArray:
    """Gather values from several columns into one list for each row.

    Args:
        columns: (row numbers ``(m,)`` ascending, ``m`` values), in the order in which the values of
            a row shall stand.
        rows: number of lists; a row that no column names gets an empty list.
        value_type: type of the values.
    """
    if not columns:
        return pa.ListArray.from_arrays(
            pa.array(np.zeros(rows + 1, np.int32)), pa.array([], value_type)
        )
    row_numbers = np.concatenate([numbers for numbers, _ in columns])
    counts = np.bincount(row_numbers, minlength=rows)
    values = pa.concat_arrays([values for _, values in columns])
    if len(columns) > 1:
        values = values.take(pa.array(np.argsort(row_numbers, kind="stable")))
    return pa.ListArray.from_arrays(_list_offsets(counts), values)


def pack_metadata(keys: Sequence[str], texts: Sequence[pa.StringArray], rows: int) -> pa.ListArray:
    """Pack columns of canonical texts into ``custom_metadata``.

    A null text leaves its key out of that row.

    Args:
        keys: k unique keys.
        texts: k columns of n texts.
        rows: n.
    """
    if not keys:
        return gather_lists([], rows, METADATA_ENTRY)
    # (n, k), so that selected cells come row by row and, in a row, in the order of the keys
    is_present = np.stack(
        [
            np.ones(rows, np.bool_)
            if text.null_count == 0
            else text.is_valid().to_numpy(zero_copy_only=False)
            for text in texts
        ],
        axis=1,
    )
    row, column = np.nonzero(is_present)
    values = pa.concat_arrays(texts).take(pa.array(column * rows + row))
    names = pa.array(keys, pa.string()).take(pa.array(column))
    entries = pa.StructArray.from_arrays([names, values], fields=list(METADATA_ENTRY))
    return pa.ListArray.from_arrays(_list_offsets(is_present.sum(axis=1)), entries)


def _list_offsets(counts: npt.NDArray[np.int64]) -> pa.Array:
    """Give the offsets of lists that have so many elements each."""
    return pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
