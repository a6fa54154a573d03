"""Frame: a row in the ContextFrame schema.

Its columns, its identity, and how its list columns are packed.

Identity is UUIDv5 over the job's name, the source collection and the record's
own id, so the same record gets the same uuid in every run on any machine, and
a reference can be rewritten without a join.  Anyone can recompute it:
``shared/contextframe.md``, "Identity"; test vectors in ``tests/contract``.

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

RELATIONSHIP = pa.struct(
    [
        pa.field("type", pa.string(), nullable=False),
        *[
            pa.field(name, pa.string())
            for name in ("id", "uri", "path", "cid", "title", "description")
        ],
    ]
)
ENTRY = pa.struct([("key", pa.string()), ("value", pa.string())])

#: Relationship types ContextFrame knows (contextframe.md, "Columns").
RELATIONSHIP_TYPES = ("parent", "child", "related", "reference", "contains", "member_of")

#: Keys of custom_metadata that cfray itself writes.
ORIGINAL_ID = "original_id"
TYPES_KEY = "cfray.types"


def frame_schema(dimension: int, extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """Give the columns of the target in their order.

    Args:
        dimension: width of the column ``vector`` (float32).
        extra: further columns; their names start with ``x_``.
    """
    strings = pa.list_(pa.string())
    fields = [
        pa.field("uuid", pa.string(), nullable=False),
        pa.field("text_content", pa.string()),
        pa.field("vector", pa.list_(pa.float32(), dimension)),
        pa.field("title", pa.string(), nullable=False),
        *[
            pa.field(name, pa.string())
            for name in ("version", "context", "uri", "local_path", "cid")
        ],
        *[
            pa.field(name, pa.string())
            for name in ("collection", "collection_id", "collection_id_type")
        ],
        pa.field("position", pa.int32()),
        pa.field("author", pa.string()),
        pa.field("contributors", strings),
        pa.field("tags", strings),
        *[
            pa.field(name, pa.string())
            for name in (
                "created_at",
                "updated_at",
                "status",
                "source_file",
                "source_type",
                "source_url",
            )
        ],
        pa.field("relationships", pa.list_(RELATIONSHIP)),
        pa.field("custom_metadata", pa.list_(ENTRY)),
        pa.field("record_type", pa.string()),
        pa.field("raw_data_type", pa.string()),
        pa.field("raw_data", pa.large_binary(), metadata={b"lance-encoding:blob": b"true"}),
        *extra,
    ]
    return pa.schema(fields)


def percent(text: str) -> str:
    """Percent-encode the UTF-8 bytes outside ``A-Z a-z 0-9 . _ ~ -``."""
    return quote(text, safe="")  # RFC 3986's unreserved characters are exactly these


def namespace(job: str, source_collection: str) -> uuids.UUID:
    """Give the UUID namespace of one source collection of a job."""
    return uuids.uuid5(uuids.NAMESPACE_URL, f"cfray:{percent(job)}/{percent(source_collection)}")


def header_uuid(space: uuids.UUID, collection: str = "") -> str:
    """Give the uuid of a collection's header row.

    ``collection`` is empty for the source collection itself (the contract); where the mapping
    spreads one source collection over several, it is the mapped value, so that each header has a
    uuid of its own.
    """
    return str(uuids.uuid5(space, "header:" + collection))


def dataset_uuid(job: str) -> str:
    """Give the uuid of the row that describes the whole dataset."""
    return str(uuids.uuid5(uuids.NAMESPACE_URL, f"cfray:{percent(job)}"))


def record_uuids(space: uuids.UUID, tagged: pa.StringArray) -> pa.StringArray:
    """Compute UUIDv5 for each tagged id (``tag:text``, no nulls).

    SHA-1 runs once a row over the Arrow buffer; version bits, hex and dashes are set for all rows
    at once.

    Source: RFC 9562, 5.5; 1.2 CPU-seconds for 2M rows against 4.2 for ``uuid.uuid5`` in a loop
    (``engine.md`` 8).
    """
    count = len(tagged)
    if not count:
        return pa.array([], pa.string())
    prefixed = pc.binary_join_element_wise(
        pa.scalar(space.bytes, pa.binary()), tagged.cast(pa.binary()), pa.scalar(b"", pa.binary())
    )
    view, offsets = binary_view(prefixed)
    sha1 = hashlib.sha1
    ends = offsets.tolist()
    joined = b"".join(
        [
            sha1(view[start:end], usedforsecurity=False).digest()
            for start, end in itertools.pairwise(ends)
        ]
    )
    digest = np.frombuffer(joined, np.uint8).reshape(count, 20)[:, :16].copy()
    digest[:, 6] = (digest[:, 6] & 0x0F) | 0x50
    digest[:, 8] = (digest[:, 8] & 0x3F) | 0x80
    return hex_uuids(digest)


def hex_uuids(digest: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Write ``(n, 16)`` bytes as n lower-case 8-4-4-4-12 uuids."""
    count = len(digest)
    plain = np.frombuffer(digest.tobytes().hex().encode(), np.uint8).reshape(count, 32)
    text = np.full((count, 36), ord("-"), np.uint8)
    for group, (start, end) in enumerate(
        ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    ):  # a dash stands before each group but the first
        text[:, start + group : end + group] = plain[:, start:end]
    offsets = np.arange(0, 36 * count + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def binary_view(array: pa.Array) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """Give the data bytes of a string or binary array and its ``n + 1`` offsets into them.

    (slices respected).
    """
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    _, offsets, data = array.buffers()
    if offsets is None:
        return memoryview(b""), np.zeros(len(array) + 1, np.int64)
    places = np.frombuffer(offsets, np.int64 if large else np.int32)[
        array.offset : array.offset + len(array) + 1
    ].astype(np.int64)
    return memoryview(data if data is not None else b""), places


def lists_of(
    parts: Sequence[tuple[npt.NDArray[np.int64], pa.Array]], rows: int, value_type: pa.DataType
) -> pa.ListArray:
    """Gather values from several columns into one list a row.

    Args:
        parts: (row numbers ``(m,)`` ascending, ``m`` values), in the order in which a row's values
            shall stand.
        rows: number of lists; a row that no part names gets an empty list.
        value_type: type of the values.
    """
    if not parts:
        return pa.ListArray.from_arrays(
            pa.array(np.zeros(rows + 1, np.int32)), pa.array([], value_type)
        )
    owner = np.concatenate([numbers for numbers, _ in parts])
    counts = np.bincount(owner, minlength=rows)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    values = pa.concat_arrays([values for _, values in parts])
    if len(parts) > 1:
        values = values.take(pa.array(np.argsort(owner, kind="stable")))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def metadata_lists(keys: Sequence[str], texts: Sequence[pa.StringArray], rows: int) -> pa.ListArray:
    """Pack columns of canonical texts into ``custom_metadata``.

    A null text leaves its key out of that row.

    Args:
        keys: k unique keys.
        texts: k columns of n texts.
        rows: n.
    """
    if not keys:
        return lists_of([], rows, ENTRY)
    present = np.stack(
        [
            np.ones(rows, np.bool_)
            if text.null_count == 0
            else text.is_valid().to_numpy(zero_copy_only=False)
            for text in texts
        ],
        axis=1,
    )
    column = np.broadcast_to(np.arange(len(keys)), present.shape)[present]
    row = np.broadcast_to(np.arange(rows)[:, None], present.shape)[present]
    values = pa.concat_arrays(texts).take(pa.array(column * rows + row))
    names = pa.array(keys, pa.string()).take(pa.array(column))
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(present.sum(axis=1), out=offsets[1:])
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays([names, values], fields=list(ENTRY))
    )
