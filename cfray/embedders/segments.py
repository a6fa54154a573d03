"""The files of the cache: what a segment holds, and how a damaged one is recognised.

A segment is a Parquet file of keys (the SHA-256 of texts) and vectors.  Its metadata holds
the key of the embedder's identity and a digest of its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from cfray.records.vectors import Floats

#: Keys, ``(n, 32)``.
Keys = npt.NDArray[np.uint8]

#: Keys of the file's metadata.
DIGEST, IDENTITY = b"cfray.xxh3_128", b"cfray.identity"
#: Errors that reading a damaged Parquet file raises.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError)


def hash_texts(texts: Sequence[str]) -> Keys:
    """Give the SHA-256 of the texts' UTF-8 ``(n, 32)``; lone surrogates are encoded as they are."""
    digests = b"".join(
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts
    )
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def write_segment(keys: Keys, vectors: Floats, identity: str) -> bytes:
    """Write a segment; uncompressed, for the bits of vectors and hashes have no pattern.

    Args:
        keys: ``(n, 32)``.
        vectors: ``(n, dimension)`` float32.
        identity: ``Identity.key`` of the embedder.
    """
    schema = _schema(vectors.shape[1]).with_metadata(
        {IDENTITY: identity.encode(), DIGEST: _digest(keys, vectors)}
    )
    key = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(keys), [None, pa.py_buffer(keys.tobytes())]
    )
    vector = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.ravel()), type=schema.field("vector").type
    )
    file = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays([key, vector], schema=schema),
        file,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return bytes(file.getvalue())


def read_keys(stream: Any, identity: str, dimension: int) -> Keys:
    """Read the keys of a segment, whose digest is not checked.

    Raises:
        DAMAGE: the file is damaged, or no segment of this embedder.
    """
    return _keys_of(_read(stream, ["key"], identity, dimension)[0])


def read_segment(stream: Any, identity: str, dimension: int) -> tuple[Keys, Floats]:
    """Read the keys and vectors of a segment, and check its digest.

    Raises:
        DAMAGE: the file is damaged, or no segment of this embedder.
    """
    table, metadata = _read(stream, ["key", "vector"], identity, dimension)
    keys = _keys_of(table)
    numbers = table.column("vector").chunk(0).flatten().to_numpy(zero_copy_only=False)
    vectors = numbers.reshape(table.num_rows, dimension)
    if metadata[DIGEST] != _digest(keys, vectors):
        raise ValueError("its content does not have the digest that it states")
    return keys, vectors


def _read(
    stream: Any, columns: list[str], identity: str, dimension: int
) -> tuple[pa.Table, dict[bytes, bytes]]:
    file = pq.ParquetFile(stream)
    metadata = file.schema_arrow.metadata or {}
    if (
        not file.schema_arrow.equals(_schema(dimension))
        or metadata.get(IDENTITY) != identity.encode()
    ):
        raise ValueError("it is no segment of this cache")
    table = file.read(columns, use_threads=False).combine_chunks()
    if not table.num_rows:
        raise ValueError("it is empty")
    return table, metadata


def _keys_of(table: pa.Table) -> Keys:
    key = table.column("key").chunk(0)
    data = np.frombuffer(key.buffers()[1], np.uint8, len(key) * 32, key.offset * 32)
    return data.reshape(-1, 32)


def _schema(dimension: int) -> pa.Schema:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), dimension)
    return pa.schema(
        [pa.field("key", pa.binary(32), nullable=False), pa.field("vector", vector, nullable=False)]
    )


def _digest(keys: Keys, vectors: Floats) -> bytes:
    digest = xxhash.xxh3_128(np.ascontiguousarray(keys).data)
    digest.update(np.ascontiguousarray(vectors, "<f4").data)
    return digest.hexdigest().encode()
