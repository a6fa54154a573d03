"""Vectors that were computed before, by the text's SHA-256, in a folder that runs share.

A cache may save the work of a vector but must never change a vector.  So a hit compares
all 32 bytes of the key, and each segment carries a digest of its content that is checked
whenever its vectors are read.  A segment that is torn, altered or written by another
program is left out, logged and counted: its texts are embedded anew.  Each segment is
published once, under a name that no other has, so any number of writers may share a
folder; a cache sees the segments that were there when it was opened.

A segment is ``<uri>/<first 32 hex of the identity's key>/<nonce>.parquet``; ``segments.py``
says what is in it.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.embedders import segments
from cfray.embedders.segments import DAMAGE, Keys
from cfray.errors import TargetError
from cfray.records.vectors import Floats
from cfray.runtime import filesystems, retry, storage_errors

logger = logging.getLogger("cfray")

T = TypeVar("T")

Words = npt.NDArray[np.uint64]

#: Vectors that make a segment: 3 MB at 384 numbers a vector, 25 MB at 3,072.
SEGMENT_ROWS = 2_048
#: Segments whose vectors stay in memory.
_SEGMENTS_IN_MEMORY = 8
#: Segments that are opened at the same time: an object store answers in tens of milliseconds.
_OPENED_AT_ONCE = 16
#: A location packs two numbers into 64 bits: the segment (upper half) and the row (lower half).
_SEGMENT_SHIFT, _ROW_MASK = np.uint64(32), np.uint64(2**32 - 1)
_SUFFIX = ".parquet"


class Cache:
    """The vectors of one embedder.

    A cache holds 16 bytes of memory for each vector in the folder, and up to 8 segments of keys
    and vectors.

    Attributes:
        hits: texts whose vectors it gave so far.
    """

    def __init__(self, uri: str, key: str, dimension: int) -> None:
        """Read the keys of all segments in the folder.

        Args:
            uri: folder, on any filesystem.
            key: ``Identity.key`` of the embedder.
            dimension: width of its vectors.

        Raises:
            ConfigError: the kind of filesystem is unknown.
            TargetError: the folder cannot be read.
        """
        self.folder = filesystems.Folder(uri.rstrip("/")).child(key[:32])
        self.key, self.dimension = key, dimension
        self.hits = 0
        self._names: list[str] = []
        self._damaged: set[str] = set()
        #: Vectors that no segment holds yet, by key.
        self._unpublished: dict[bytes, Floats] = {}
        #: The index: the first 8 bytes of each key, sorted, and the location of each key.
        self._heads, self._locations = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self._segment = functools.lru_cache(_SEGMENTS_IN_MEMORY)(self._read_segment)
        names = [name for name in _use_folder(self.folder.list_names) if name.endswith(_SUFFIX)]
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as readers:
            keys_by_segment = list(readers.map(self._read_keys, names))
        self._add_to_index(
            [
                (name, keys)
                for name, keys in zip(names, keys_by_segment, strict=True)
                if keys is not None
            ]
        )

    @property
    def damaged(self) -> int:
        """Count the files that were left out: torn, altered, or not written for this embedder."""
        return len(self._damaged)

    def find(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Look up the vectors of texts.

        Returns:
            ``(n,)`` true where a text's vector is in the cache, and ``(n, dimension)`` float32,
            zero where it is not; the caller may change both.

        Raises:
            TargetError: a segment cannot be read for another reason than damage.
        """
        mask = np.zeros(len(texts), np.bool_)
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        keys = segments.hash_texts(texts)
        heads = _heads(keys)
        positions = np.searchsorted(self._heads, heads, "left")
        ends = np.searchsorted(self._heads, heads, "right")
        # A second pass only looks for texts whose head several keys share, or that several
        # segments hold.
        while len(open_texts := np.flatnonzero(~mask & (positions < ends))):
            locations = self._locations[positions[open_texts]]
            self._look_up(keys, open_texts, locations, mask, vectors)
            positions[open_texts] += 1
        if self._unpublished:
            for index in np.flatnonzero(~mask).tolist():
                vector = self._unpublished.get(keys[index].tobytes())
                if vector is not None:
                    vectors[index], mask[index] = vector, True
        self.hits += int(mask.sum())
        return mask, vectors

    def _look_up(
        self,
        keys: Keys,
        texts: npt.NDArray[np.intp],
        locations: Words,
        mask: npt.NDArray[np.bool_],
        vectors: Floats,
    ) -> None:
        """Copy the vectors at these locations whose keys are those of these texts.

        Args:
            keys: of all texts.
            texts: numbers of the texts that are looked for.
            locations: for each of them, where a key with its head stands.
            mask: of all texts; set where a vector is found.
            vectors: of all texts; changed in place.
        """
        numbers = locations >> _SEGMENT_SHIFT
        rows = (locations & _ROW_MASK).astype(np.int64)
        for number in np.unique(numbers).tolist():
            segment = self._segment(number)
            if segment is None:
                continue
            segment_keys, segment_vectors = segment
            in_segment = numbers == number
            segment_texts, segment_rows = texts[in_segment], rows[in_segment]
            same = (segment_keys[segment_rows] == keys[segment_texts]).all(axis=1)
            vectors[segment_texts[same]] = segment_vectors[segment_rows[same]]
            mask[segment_texts[same]] = True

    def add(self, texts: Sequence[str], vectors: Floats) -> None:
        """Add vectors; ``find`` gives them at once, and they are published with a full segment.

        Raises:
            ValueError: there is not exactly one float32 vector of this width for each text.
            TargetError: the segment cannot be written.
        """
        if vectors.shape != (len(texts), self.dimension) or vectors.dtype != np.float32:
            raise ValueError(
                f"{vectors.dtype} vectors {vectors.shape} for {len(texts)} texts, not float32 "
                f"{(len(texts), self.dimension)}"
            )
        self._unpublished.update(
            zip(map(bytes, segments.hash_texts(texts)), vectors.copy(), strict=True)
        )
        if len(self._unpublished) >= SEGMENT_ROWS:
            self.flush()

    def flush(self) -> None:
        """Publish the vectors that no segment holds yet.

        A process that dies before loses these vectors and no others.

        Raises:
            TargetError: the segment cannot be written; its vectors stay in memory.
        """
        if not self._unpublished:
            return
        keys = np.frombuffer(b"".join(self._unpublished), np.uint8).reshape(-1, 32)
        data = segments.write_segment(keys, np.stack(list(self._unpublished.values())), self.key)
        name = uuid.uuid4().hex + _SUFFIX
        _use_folder(lambda: self.folder.publish(name, data))
        self._unpublished.clear()
        self._add_to_index([(name, keys)])

    def _add_to_index(self, segments: list[tuple[str, Keys]]) -> None:
        """Add the keys of segments to the index."""
        heads, locations = [self._heads], [self._locations]
        for name, keys in segments:
            heads.append(_heads(keys))
            first_location = np.uint64(len(self._names)) << _SEGMENT_SHIFT
            locations.append(first_location + np.arange(len(keys), dtype=np.uint64))
            self._names.append(name)
        all_heads = np.concatenate(heads)
        # NumPy's stable sort merges runs that are sorted already.
        order = np.argsort(all_heads, kind="stable")
        self._heads, self._locations = all_heads[order], np.concatenate(locations)[order]

    def _read_keys(self, name: str) -> Keys | None:
        """Read the keys of a file, ``(n, 32)``; None if the file is damaged or was deleted."""
        try:
            system, path = filesystems.open_filesystem(f"{self.folder.uri}/{name}")
            with system.open_input_file(path) as stream:
                return segments.read_keys(stream, self.key, self.dimension)
        except DAMAGE:
            # Whether the file or the filesystem is at fault shows when all bytes are read.
            segment = self._read_checked(name)
            return None if segment is None else segment[0]

    def _read_segment(self, number: int) -> tuple[Keys, Floats] | None:
        """Read the keys and vectors of a segment; None if its file is damaged or was deleted."""
        return self._read_checked(self._names[number])

    def _read_checked(self, name: str) -> tuple[Keys, Floats] | None:
        """Read the keys and vectors of a file, and check its digest; log a damaged file once."""
        if name in self._damaged or (data := _use_folder(lambda: self.folder.read(name))) is None:
            return None
        try:
            return segments.read_segment(pa.BufferReader(data), self.key, self.dimension)
        except DAMAGE as error:
            self._damaged.add(name)
            logger.warning(
                "a file of the cache is left out, its texts are embedded anew: %s/%s: %s",
                self.folder.uri,
                name,
                str(error)[:200],
            )
            return None


def _heads(keys: Keys) -> Words:
    """Give the first 8 bytes of each key as a number."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]


def _use_folder(action: Callable[[], T]) -> T:
    """Do something with the folder, and do it again after a transient error.

    Raises:
        TargetError: the folder cannot be used; the remedy names the cache and not the target.
    """

    def attempt() -> T:
        try:
            return action()
        except OSError as error:
            storage_error = storage_errors.classify_write_error(error, "the cache cannot be used")
            raise _name_cache(storage_error) from error
        except TargetError as error:
            raise _name_cache(error) from error

    return retry.run_with_retries(attempt)


def _name_cache(error: TargetError) -> TargetError:
    """Give the error with a remedy that names the cache."""
    return type(error)(
        error.what,
        "make embedding.cache a folder that this user can read and write, or leave it out of the "
        "job file",
    )
