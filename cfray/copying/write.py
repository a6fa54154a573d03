"""Write one shard's frames as Lance fragments, prove what was written, publish the receipt.

Publishing the receipt is the last step: before it the shard does not exist, after it the
shard is complete.  Rows that did not fit go to a quarantine file of the same nonce, so
that they are counted exactly when their shard is committed.  Nothing here commits.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import lance
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import xxhash
from lance.fragment import write_fragments

from cfray.conversion.rejects import RejectedRow
from cfray.errors import CfrayError
from cfray.frames import digests
from cfray.records.vectors import matrix
from cfray.runtime import filesystems, storage_errors
from cfray.runtime.filesystems import storage_options
from cfray.target.books import CollectionVectors
from cfray.target.creation import STORAGE_VERSION
from cfray.target.receipts import Centroids, Receipt, StagedFile
from cfray.target.state import State

R = TypeVar("R", bound=Receipt)

#: Where the schema of frames comes from.
SchemaOf = Literal["first version", "latest version", "next commit"]

#: Rows of a file, Lance's own default; a shard of 256 MiB has far fewer.
_MAX_ROWS = 1024 * 1024
#: Bytes read at a time for a digest.  On an object store each block is a request; on a local disk
#: blocks that stay in the processor's cache were a third faster.
_REMOTE_BLOCK, _LOCAL_BLOCK = 8 * 1024 * 1024, 256 * 1024
#: Rows up to which a sum of vectors in float32 (numpy adds pairwise) is exact enough, and faster.
_FLOAT32_ROWS = 65_536


@dataclass(slots=True)
class Tally:
    """What is counted while the frames of a shard pass by.

    Attributes:
        has_members: whether the frames' vectors count for their collection's centroid; the
            vectors of header rows do not.
        frames: rows so far.
        size: bytes of Arrow data so far.
        sums: column group -> sum of row hashes modulo 2**64.
        raw_sum: the same of the bytes of ``raw_data``.
        collections: name -> its vectors, summed.
    """

    has_members: bool = True
    frames: int = 0
    size: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    raw_sum: int = 0
    collections: dict[str, CollectionVectors] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count, hash and sum a batch."""
        self.frames += batch.num_rows
        self.size += batch.nbytes
        self.sums = digests.add_hashes(self.sums, digests.content_hashes(batch))
        raw = digests.raw_hashes(batch)
        self.raw_sum = (self.raw_sum + int(np.add.reduce(raw, dtype=np.uint64))) % digests.MODULUS
        if self.has_members:
            add_vectors(self.collections, batch)

    def add_vectors_only(self, batch: pa.RecordBatch) -> None:
        """Sum the vectors of a batch, and nothing else."""
        self.size += batch.nbytes
        add_vectors(self.collections, batch)

    def merge(self, collections: dict[str, CollectionVectors]) -> None:
        """Add the sums of another tally's vectors."""
        for name, vectors in collections.items():
            width = len(vectors.total)
            merged = self.collections.setdefault(
                name, CollectionVectors(vectors.header_uuid, 0, np.zeros(width))
            )
            merged.count += vectors.count
            merged.total = merged.total + vectors.total

    def add_tally(self, other: Tally) -> None:
        """Add what another tally has counted."""
        self.frames += other.frames
        self.size += other.size
        self.sums = digests.add_sums(self.sums, other.sums)
        self.raw_sum = (self.raw_sum + other.raw_sum) % digests.MODULUS
        self.merge(other.collections)

    def centroids(self) -> Centroids:
        """Write the sums of the vectors for a receipt."""
        return {
            name: (
                vectors.count,
                vectors.header_uuid,
                base64.b64encode(vectors.total.tobytes()).decode(),
            )
            for name, vectors in self.collections.items()
        }


def add_vectors(
    collections: dict[str, CollectionVectors], batch: pa.RecordBatch, sign: int = 1
) -> None:
    """Add each collection's vectors to its sum; a vector of zeros (no vector) does not count.

    Args:
        collections: name -> sum; changed in place.
        batch: frames.
        sign: -1 takes the batch's vectors out again.
    """
    vectors = matrix(batch.column("vector"))
    names = batch.column("collection").dictionary_encode()
    header_uuids = batch.column("collection_id")
    codes = names.indices.to_numpy()
    for code, name in enumerate(names.dictionary.to_pylist()):
        members = vectors if len(names.dictionary) == 1 else vectors[codes == code]
        # most vectors begin with another number than zero: only the others are looked at in full
        suspects = members[members[:, 0] == 0]
        count = len(members) - len(suspects) + int(np.count_nonzero(suspects.any(axis=1)))
        dtype = np.float64 if len(members) > _FLOAT32_ROWS else np.float32
        total = np.add.reduce(members, axis=0, dtype=dtype).astype(np.float64)
        if name not in collections:
            header_uuid = header_uuids[int(np.argmax(codes == code))].as_py()
            collections[name] = CollectionVectors(header_uuid, 0, np.zeros(vectors.shape[1]))
        collections[name].count += sign * count
        collections[name].total = collections[name].total + sign * total


def new_nonce() -> str:
    """Make a nonce: 64 random bits as hex."""
    return uuid.uuid4().hex[:16]


def write_frames(
    uri: str,
    schema: pa.Schema,
    frames: Iterable[pa.RecordBatch],
    tally: Tally,
    *,
    schema_of: SchemaOf = "latest version",
) -> tuple[list[dict[str, Any]], list[StagedFile]]:
    """Write frames as fragments of the target and read the files back for their digests.

    The fragments stay invisible until they are committed.

    Args:
        uri: the target.
        schema: of the frames.
        frames: consumed batch by batch.
        tally: counts every batch.
        schema_of: where the schema comes from.  One that is new to the target is the next commit's,
            which must give the fragments its field ids (``commit.renumbered``).

    Returns:
        Lance's metadata of the fragments (parsed JSON), and their files.

    Raises:
        CfrayError: whatever the producer of the frames raised, unchanged.
        TargetError: the storage refused.
    """
    producer = _Producer(frames, tally)
    try:
        written = write_fragments(
            pa.RecordBatchReader.from_batches(schema, producer.batches()),
            _first_version(uri) if schema_of == "first version" else uri,
            schema=schema,
            # in another schema than the dataset's Lance writes fragments only to overwrite it; the
            # mode takes effect with a commit of that mode, which nobody makes
            mode="append" if schema_of != "next commit" else "overwrite",
            data_storage_version=None if schema_of != "next commit" else STORAGE_VERSION,
            max_rows_per_file=_MAX_ROWS,
            storage_options=storage_options(uri),
        )
    except OSError as error:
        if isinstance(producer.error, CfrayError):
            raise producer.error from None
        if producer.error is not None:
            raise producer.error from error
        raise storage_errors.classify_write_error(error, f"could not write to {uri}") from error
    fragments = [fragment.to_json() for fragment in written if fragment.physical_rows]
    return fragments, staged_files(uri, fragments)


def _first_version(uri: str) -> lance.LanceDataset | str:
    """Open the target as it was created; only name it where ``cleanup`` removed that version.

    Lance puts the metadata of a dataset's schema into each data file, and the ledger in it grows
    with every shard: 10,000 small files would hold some 2 GB of ledgers (40 bytes a shard).  The
    first version's ledger is empty.
    """
    try:
        return lance.dataset(uri, version=1, storage_options=storage_options(uri))
    except (ValueError, OSError):
        return uri


class _Producer:
    """Counts frames on their way to Lance, which wraps an error of theirs in an OSError."""

    def __init__(self, frames: Iterable[pa.RecordBatch], tally: Tally) -> None:
        self.frames, self.tally = frames, tally
        self.error: BaseException | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self.frames:
                self.tally.add(batch)
                yield batch
        except BaseException as error:
            self.error = error
            raise


def staged_files(uri: str, fragments: list[dict[str, Any]]) -> list[StagedFile]:
    """Digest every data and blob file of some fragments."""
    system, path = filesystems.open_filesystem(uri)
    files: list[StagedFile] = []
    for fragment in fragments:
        for file in fragment["files"]:
            names = [f"data/{file['path']}"]
            blob_folder = f"{path}/data/{file['path'].removesuffix('.lance')}"
            selector = pafs.FileSelector(blob_folder, allow_not_found=True, recursive=True)
            names += sorted(
                info.path[len(path) + 1 :]
                for info in system.get_file_info(selector)
                if info.type == pafs.FileType.File
            )
            files += [StagedFile(name, *digest_file(system, f"{path}/{name}")) for name in names]
    return files


def digest_file(system: pafs.FileSystem, path: str) -> tuple[int, str]:
    """Give a file's size and XXH3-128 (hex)."""
    digest = xxhash.xxh3_128()
    size = 0
    block_size = _LOCAL_BLOCK if isinstance(system, pafs.LocalFileSystem) else _REMOTE_BLOCK
    with system.open_input_stream(path) as stream:
        while block := stream.read(block_size):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def publish(state: State, receipt: R, rejected: Iterable[RejectedRow]) -> R:
    """Publish the quarantine file (if any row is in it), then the receipt."""
    lines = b"".join(row.to_line() for row in rejected)
    if lines:
        state.quarantine.publish(receipt.quarantine_file, lines)
    state.publish_receipt(receipt)
    return receipt
