"""What the target holds, so that workers can look the rows of the source up.

A row becomes its key (the 16 bytes of its uuid), a hash of all that is compared and a hash of the
texts that its vectors were made of.  Tasks write them, sorted by key, to files in the target's
``scratch/``, a part for some fragments each; a worker maps the files into its memory and searches
each part.  So no process holds the target, and none sorts it.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs

from cfray.conversion import chunk_frames
from cfray.copying.uuid_search import KEY, Keys, uuid_keys
from cfray.copying.write import new_nonce
from cfray.engine.tasks import TaskOptions, run_tasks
from cfray.frames.digests import Hashes, combine, row_hashes
from cfray.proving.differences import hash_rows
from cfray.proving.read_target import task_groups
from cfray.runtime.filesystems import Folder, open_filesystem, storage_options
from cfray.runtime.storage_errors import classify_write_error
from cfray.syncing.files import WrittenFile, damaged, write_file
from cfray.target.ledger import EntryKind
from cfray.target.origins import RowOrigins
from cfray.target.scans import SCAN_LIMITS

#: What is known of a row beside its key.
ROW = np.dtype([("row_id", "<u8"), ("hash", "<u8"), ("texts", "<u8"), ("kind", "u1")])
#: Kinds of rows.  A document that left the source may be kept, with the status ``deleted``.
DOCUMENT, CHUNK, DELETED = 1, 2, 3
#: Value of the column ``status`` of a record that its source has no more.
DELETED_STATUS = "deleted"

#: Bytes of a file that are fetched at a time.
_BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Compared:
    """Which columns are compared; travels to workers.

    Attributes:
        columns: all but ``uuid``, without those whose values cfray made.
        texts: columns that the vectors are made of; none where the source gives the vectors.
    """

    columns: list[str]
    texts: list[str]

    def hashes(self, frames: pa.RecordBatch) -> tuple[Hashes, Hashes]:
        """Hash rows by all that is compared, and by their texts alone; ``(n,)`` uint64 each."""
        texts = np.zeros(frames.num_rows, np.uint64)
        for name in self.texts:
            texts = combine(texts, row_hashes(frames.column(name)))
        return hash_rows(frames, self.columns), texts


@dataclass(frozen=True, slots=True)
class KnownPart:
    """A part of the known rows: its two files, and the rows in each."""

    keys: WrittenFile
    others: WrittenFile
    rows: int


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search found of n keys.

    Attributes:
        found: ``(n,)`` whether the target has the key.
        rows: ``(n,)`` of ``ROW``; zeros where it has not.
    """

    found: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.void]


@dataclass(frozen=True)
class KnownRows:
    """The rows of one version of a target; travels to workers without its files.

    Attributes:
        folder: of the files.
        parts: of them.
    """

    folder: Folder
    parts: tuple[KnownPart, ...]

    @cached_property
    def opened(self) -> list[tuple[Keys, npt.NDArray[np.void]]]:
        """Map the files of all parts into memory, once in each process."""
        return [
            (
                _map(self.folder, part.keys.name, KEY, part.rows),
                _map(self.folder, part.others.name, ROW, part.rows),
            )
            for part in self.parts
        ]

    def find(self, keys: Keys) -> Matches:
        """Look keys up."""
        matches = Matches(np.zeros(len(keys), np.bool_), np.zeros(len(keys), ROW))
        for part_keys, part_rows in self.opened:
            places = np.minimum(np.searchsorted(part_keys, keys), len(part_keys) - 1)
            hits = np.flatnonzero(np.asarray(part_keys[places]) == keys)
            matches.found[hits] = True
            matches.rows[hits] = part_rows[places[hits]]
        return matches

    def keys_of(self, row_ids: npt.NDArray[np.uint64]) -> dict[int, bytes]:
        """Give the keys of some rows: row id -> key."""
        keys: dict[int, bytes] = {}
        for part_keys, part_rows in self.opened:
            hits = np.flatnonzero(np.isin(part_rows["row_id"], row_ids))
            ids = part_rows["row_id"][hits].tolist()
            keys |= dict(zip(ids, map(key_bytes, part_keys[hits]), strict=True))
        return keys

    def __getstate__(self) -> dict[str, Any]:
        """Travel without what is opened."""
        return {"folder": self.folder, "parts": self.parts}


def key_bytes(key: np.bytes_) -> bytes:
    """Give the 16 bytes of a key: NumPy drops zeros at the end."""
    return bytes(key).ljust(KEY.itemsize, b"\0")


def _map(folder: Folder, name: str, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
    """Map a file into memory; one on an object store is fetched first, to a file without a name.

    Raises:
        ComparisonDamaged: it is gone, or cut.
    """
    system, path = open_filesystem(folder.uri)
    try:
        if isinstance(system, pafs.LocalFileSystem):
            return np.memmap(f"{path}/{name}", dtype, "r", shape=(rows,))
        with (
            tempfile.TemporaryFile() as local,
            system.open_input_stream(f"{path}/{name}") as stream,
        ):
            while block := stream.read(_BLOCK_BYTES):
                local.write(block)
            local.flush()
            return np.memmap(local, dtype, "r", shape=(rows,))
    except (OSError, ValueError) as error:
        raise damaged(folder, name) from error


def scan_known_rows(
    uri: str, version: int, origins: RowOrigins, compared: Compared, folder: Folder
) -> KnownRows:
    """Read the whole target; rows that cfray did not write, and headers, are left out.

    Args:
        uri: of the target.
        version: of the dataset.
        origins: of its rows.
        compared: the columns to be compared.
        folder: for the files.

    Raises:
        TargetError: the target could not be read, or the files not be written.
    """
    dataset = lance.dataset(uri, version=version, storage_options=storage_options(uri))
    groups = task_groups([fragment.fragment_id for fragment in dataset.get_fragments()])
    scan = _Scan(uri, version, origins, compared, folder)
    parts = [part for part in run_tasks(scan, groups, TaskOptions()) if part.rows]
    return KnownRows(folder, tuple(sorted(parts, key=lambda part: part.keys.name)))


@dataclass(frozen=True, slots=True)
class _Scan:
    uri: str
    version: int
    origins: RowOrigins
    compared: Compared
    folder: Folder

    def __call__(self, fragment_ids: list[int]) -> KnownPart:
        """Write the part of some fragments.  Body of a Ray task."""
        try:
            scanned = [self._known(batch) for batch in self._batches(fragment_ids)]
        except OSError as error:
            raise classify_write_error(error, f"could not read {self.uri}") from error
        keys = np.concatenate([np.empty(0, KEY), *(keys for keys, _ in scanned)])
        rows = np.concatenate([np.empty(0, ROW), *(rows for _, rows in scanned)])
        order = np.argsort(keys, kind="stable")
        name = new_nonce()
        return KnownPart(
            write_file(self.folder, f"{name}.keys", keys[order].tobytes()),
            write_file(self.folder, f"{name}.rows", rows[order].tobytes()),
            len(keys),
        )

    def _batches(self, fragment_ids: list[int]) -> Iterator[pa.RecordBatch]:
        dataset = lance.dataset(
            self.uri, version=self.version, storage_options=storage_options(self.uri)
        )
        names = dict.fromkeys(["uuid", "status", *self.compared.columns, *self.compared.texts])
        if chunk_frames.FIELD.name in dataset.schema.names:
            names[chunk_frames.FIELD.name] = None
        yield from dataset.scanner(
            columns=list(names),
            fragments=[dataset.get_fragment(number) for number in fragment_ids],
            with_row_id=True,
            blob_handling="all_binary",
            **SCAN_LIMITS,
        ).to_batches()

    def _known(self, batch: pa.RecordBatch) -> tuple[Keys, npt.NDArray[np.void]]:
        indices = self.origins.range_indices(batch.column("_rowid").to_numpy().astype(np.int64))
        is_header = np.array(
            [entry.kind is EntryKind.HEADERS for _, entry in self.origins.ranges] + [True]
        )
        # an index of -1, a row that cfray did not write, is the last one
        batch = batch.filter(pa.array(~is_header[indices]))
        rows = np.zeros(batch.num_rows, ROW)
        rows["row_id"] = batch.column("_rowid").to_numpy()
        rows["hash"], rows["texts"] = self.compared.hashes(batch)
        rows["kind"] = DOCUMENT
        statuses = batch.column("status")
        rows["kind"][np.array(statuses.to_pylist(), object) == DELETED_STATUS] = DELETED
        if chunk_frames.FIELD.name in batch.schema.names:
            is_chunk = batch.column(chunk_frames.FIELD.name).is_valid()
            rows["kind"][is_chunk.to_numpy(zero_copy_only=False)] = CHUNK
        return uuid_keys(batch.column("uuid")), rows


def to_npy(array: npt.NDArray[Any]) -> bytes:
    """Write an array as a file of NumPy's."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
