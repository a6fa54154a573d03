"""Vectors that were computed before, by the text's SHA-256, in a folder that runs share.

A cache must never change a vector, only spare one.  So a hit compares all 32 bytes of
the key, each segment carries a digest of its content that is checked whenever its
vectors are read, and a segment that is torn, altered or not one of ours is left out,
logged and counted: its texts are embedded anew.  Segments are written once, whole,
under names of their own, so any number of writers may share a folder; what another
one adds is seen by the next cache that is opened.

Layout: ``<uri>/<first 32 hex of the identity's key>/<nonce>.parquet``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from cfray.errors import TargetError
from cfray.records.vectors import Floats
from cfray.runtime import filesystems, retry

logger = logging.getLogger("cfray")

T = TypeVar("T")

Keys = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

#: Rows from which on a segment is published: 3 MB of 384 numbers, 25 MB of 3,072.
SEGMENT_ROWS = 2_048
#: Segments whose vectors are kept in memory, and segments opened side by side (an object store
#: answers in tens of milliseconds).
_KEPT, _OPENED = 8, 16
_HALF, _LOWER = np.uint64(32), np.uint64(2**32 - 1)
_SUFFIX = ".parquet"
_DIGEST, _IDENTITY = b"cfray.xxh3_128", b"cfray.identity"
#: What reading Parquet that is damaged raises.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError)


class Cache:
    """The vectors of one embedder.

    Holds 16 bytes of memory for each vector in the folder, and up to 8 segments of keys and
    vectors.

    Attributes:
        hits: texts found so far.
    """

    def __init__(self, uri: str, key: str, dimension: int) -> None:
        """Read the keys of what is there.

        Args:
            uri: folder, on any filesystem.
            key: ``Identity.key`` of the embedder.
            dimension: width of its vectors.

        Raises:
            ConfigError: no such kind of filesystem.
            TargetError: the folder cannot be read.
        """
        self.folder = filesystems.Folder(uri.rstrip("/")).child(key[:32])
        self.key, self.dimension = key, dimension
        self.hits = 0
        self._names: list[str] = []
        self._damaged: set[str] = set()
        self._fresh: dict[bytes, Floats] = {}
        #: The index: first 8 bytes of each key, sorted, and beside it the segment (upper half) and
        #: the row (lower half).
        self._heads, self._places = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self._segment = functools.lru_cache(_KEPT)(self._read_segment)
        names = [name for name in _guarded(self.folder.names) if name.endswith(_SUFFIX)]
        with ThreadPoolExecutor(_OPENED) as readers:
            found = list(readers.map(self._read_keys, names))
        self._enter(
            [(name, keys) for name, keys in zip(names, found, strict=True) if keys is not None]
        )

    @property
    def damaged(self) -> int:
        """Count the files that were left out.

        Torn, altered, or not made by this class for this embedder.
        """
        return len(self._damaged)

    def find(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Look texts up.

        Returns:
            ``(n,)`` true where a text's vector is known, and ``(n, dimension)`` float32, zero where
            it is not; both the caller's own.

        Raises:
            TargetError: a segment cannot be read for another reason than damage.
        """
        mask = np.zeros(len(texts), np.bool_)
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        keys = _keys(texts)
        heads = _heads(keys)
        at, end = (
            np.searchsorted(self._heads, heads, "left"),
            np.searchsorted(self._heads, heads, "right"),
        )
        while len(
            sought := np.flatnonzero(~mask & (at < end))
        ):  # a second time round only for a text that several segments hold
            places = self._places[at[sought]]
            numbers, rows = places >> _HALF, (places & _LOWER).astype(np.int64)
            for number in np.unique(numbers).tolist():
                here = numbers == number
                if (segment := self._segment(number)) is not None:
                    same = (segment[0][rows[here]] == keys[sought[here]]).all(axis=1)
                    vectors[sought[here][same]] = segment[1][rows[here][same]]
                    mask[sought[here][same]] = True
            at[sought] += 1
        for place in np.flatnonzero(~mask).tolist() if self._fresh else []:
            if (vector := self._fresh.get(keys[place].tobytes())) is not None:
                vectors[place], mask[place] = vector, True
        self.hits += int(mask.sum())
        return mask, vectors

    def add(self, texts: Sequence[str], vectors: Floats) -> None:
        """Keep vectors; they are published as soon as they make a segment, and found from now on.

        Raises:
            ValueError: not one float32 vector of this width for each text.
            TargetError: the segment cannot be written.
        """
        if vectors.shape != (len(texts), self.dimension) or vectors.dtype != np.float32:
            raise ValueError(
                f"{vectors.dtype} vectors {vectors.shape} for {len(texts)} texts, not float32 {(len(texts), self.dimension)}"
            )
        self._fresh.update(zip(map(bytes, _keys(texts)), vectors.copy(), strict=True))
        if len(self._fresh) >= SEGMENT_ROWS:
            self.flush()

    def flush(self) -> None:
        """Publish what was added since.  A process that dies before loses no more than that.

        Raises:
            TargetError: the segment cannot be written; it stays in memory.
        """
        if not self._fresh:
            return
        keys = np.frombuffer(b"".join(self._fresh), np.uint8).reshape(-1, 32)
        data = _segment_file(keys, np.stack(list(self._fresh.values())), self.key)
        name = uuid.uuid4().hex + _SUFFIX
        _guarded(lambda: self.folder.publish(name, data))
        self._fresh.clear()
        self._enter([(name, keys)])

    def _enter(self, segments: list[tuple[str, Keys]]) -> None:
        """Take segments into the index."""
        heads, places = [self._heads], [self._places]
        for name, keys in segments:
            heads.append(_heads(keys))
            places.append(
                (np.uint64(len(self._names)) << _HALF) + np.arange(len(keys), dtype=np.uint64)
            )
            self._names.append(name)
        order = np.argsort(
            together := np.concatenate(heads), kind="stable"
        )  # which merges what is sorted already
        self._heads, self._places = together[order], np.concatenate(places)[order]

    def _read_keys(self, name: str) -> Keys | None:
        """Read the keys of a file, ``(n, 32)``; None if it is damaged, or gone."""
        try:
            system, path = filesystems.filesystem(f"{self.folder.uri}/{name}")
            with system.open_input_file(path) as stream:
                return self._parsed(stream, ["key"])[0]
        except _DAMAGE:
            whole = self._whole(
                name
            )  # whether the file or the filesystem is at fault shows when its bytes are at hand
            return None if whole is None else whole[0]

    def _read_segment(self, number: int) -> tuple[Keys, Floats] | None:
        """Read the keys and vectors of a segment, its digest checked.

        None if it is damaged, or gone.
        """
        return self._whole(self._names[number])

    def _whole(self, name: str) -> tuple[Keys, Floats] | None:
        if name in self._damaged or (data := _guarded(lambda: self.folder.read(name))) is None:
            return None
        try:
            return self._parsed(pa.BufferReader(data), ["key", "vector"])
        except _DAMAGE as error:
            self._damaged.add(name)
            logger.warning(
                "left out of the cache, its texts are embedded anew: %s/%s: %s",
                self.folder.uri,
                name,
                str(error)[:200],
            )
            return None

    def _parsed(self, stream: Any, columns: list[str]) -> tuple[Keys, Floats]:
        """Read a segment; without the column of vectors there are none.

        The digest goes unchecked.
        """
        file = pq.ParquetFile(stream)
        told = file.schema_arrow.metadata or {}
        if (
            not file.schema_arrow.equals(_schema(self.dimension))
            or told.get(_IDENTITY) != self.key.encode()
        ):
            raise ValueError("it is no segment of this cache")
        table = file.read(columns, use_threads=False).combine_chunks()
        keys, vectors = _arrays(table, self.dimension)
        if "vector" in columns and told[_DIGEST] != _digest(keys, vectors):
            raise ValueError("its content is not what its digest says")
        return keys, vectors


def _keys(texts: Sequence[str]) -> Keys:
    """Hash texts: the SHA-256 of their UTF-8, lone surrogates as they are, ``(n, 32)``."""
    digests = b"".join(
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts
    )
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def _heads(keys: Keys) -> Words:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]


def _schema(dimension: int) -> pa.Schema:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), dimension)
    return pa.schema(
        [pa.field("key", pa.binary(32), nullable=False), pa.field("vector", vector, nullable=False)]
    )


def _digest(keys: Keys, vectors: Floats) -> bytes:
    digest = xxhash.xxh3_128(np.ascontiguousarray(keys).data)
    digest.update(np.ascontiguousarray(vectors, "<f4").data)
    return digest.hexdigest().encode()


def _segment_file(keys: Keys, vectors: Floats, identity: str) -> bytes:
    """Write a segment; uncompressed, since the bits of vectors and hashes have no pattern."""
    schema = _schema(vectors.shape[1]).with_metadata(
        {_IDENTITY: identity.encode(), _DIGEST: _digest(keys, vectors)}
    )
    key = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(keys), [None, pa.py_buffer(keys.tobytes())]
    )
    vector = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.ravel()), type=schema.field("vector").type
    )
    out = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays([key, vector], schema=schema),
        out,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return bytes(out.getvalue())


def _arrays(table: pa.Table, dimension: int) -> tuple[Keys, Floats]:
    """Give the keys ``(n, 32)`` and, if they are in the table, the vectors ``(n, dimension)``."""
    count = table.num_rows
    if not count:
        raise ValueError("it is empty")
    key = table.column("key").chunk(0)
    keys = np.frombuffer(key.buffers()[1], np.uint8, count * 32, key.offset * 32).reshape(-1, 32)
    if "vector" not in table.column_names:
        return keys, np.zeros((0, dimension), np.float32)
    return keys, table.column("vector").chunk(0).flatten().to_numpy(zero_copy_only=False).reshape(
        count, dimension
    )


def _guarded(action: Callable[[], T]) -> T:
    """Use the folder, again after a transient error.

    The remedy names the cache and not the target.
    """

    def once() -> T:
        try:
            return action()
        except OSError as error:
            raise _of_cache(filesystems.storage_error(error, "the cache cannot be used")) from error
        except TargetError as error:
            raise _of_cache(error) from error

    return retry.retried(once)


def _of_cache(error: TargetError) -> TargetError:
    return type(error)(
        error.what,
        "make embedding.cache a folder that this user can read and write, or leave it out of the job file",
    )
