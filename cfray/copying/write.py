"""Write one shard's frames as Lance fragments, prove what was written, and publish the receipt.

The receipt is the last step: before it the shard does not exist, after it the
shard is whole.  Rows that did not fit go to a quarantine file of the same
nonce, so that they are counted exactly when their shard is committed.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import xxhash
from lance.fragment import write_fragments

from cfray.errors import CfrayError
from cfray.frames import digests
from cfray.runtime import filesystems
from cfray.runtime.filesystems import storage_options
from cfray.target.receipts import Receipt, StagedFile
from cfray.target.state import State

#: Rows of one file; a shard of 256 MiB has far fewer (``engine.md`` 1.1: Lance's own default).
_MAX_ROWS = 1024 * 1024
#: Bytes read at a time for a digest: a request each on an object store, a third faster in small
#: blocks where they stay in the cache.
_BLOCK, _LOCAL_BLOCK = 8 * 1024 * 1024, 256 * 1024


@dataclass(slots=True)
class Tally:
    """What is counted while a shard's frames pass by; ``members``.

    Their vectors count for their collection's centroid.
    """

    members: bool = True
    frames: int = 0
    size: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    vectors: dict[str, tuple[int, str, Any]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count, hash and sum one batch."""
        self.frames += batch.num_rows
        self.size += batch.nbytes
        self.sums = digests.add(self.sums, digests.content_hashes(batch))
        if self.members:
            add_centroids(self.vectors, batch)

    def gather(self, batch: pa.RecordBatch) -> None:
        """Sum the vectors of one batch, and nothing else."""
        self.size += batch.nbytes
        add_centroids(self.vectors, batch)

    def merge(self, sums: dict[str, tuple[int, str, Any]]) -> None:
        """Add another account's sums of vectors."""
        for name, (count, header, total) in sums.items():
            before, _, known = self.vectors.get(name, (0, header, 0.0))
            self.vectors[name] = (before + count, header, known + total)

    def centroids(self) -> dict[str, tuple[int, str, str]]:
        """Write the vector sums for a receipt."""
        return {
            name: (count, header, base64.b64encode(total.tobytes()).decode())
            for name, (count, header, total) in self.vectors.items()
        }


def add_centroids(
    sums: dict[str, tuple[int, str, Any]], batch: pa.RecordBatch, sign: int = 1
) -> None:
    """Add each collection's vectors to its sum; vectors of zeros (no vector) do not count.

    Args:
        sums: collection -> (vectors, uuid of its header row, float64 sum ``(d,)``); changed in
            place.
        batch: frames of one shard.
        sign: -1 takes the batch's vectors out again.
    """
    column = batch.column("vector")
    width = column.type.list_size
    matrix = (
        column.values.slice(column.offset * width, len(column) * width)
        .to_numpy(zero_copy_only=False)
        .reshape(-1, width)
    )
    names = batch.column("collection").dictionary_encode()
    headers = batch.column("collection_id")
    codes = names.indices.to_numpy()
    for code, name in enumerate(names.dictionary.to_pylist()):
        rows = matrix if len(names.dictionary) == 1 else matrix[codes == code]
        blank = rows[rows[:, 0] == 0]
        used = len(rows) - len(blank) + int(np.count_nonzero(blank.any(axis=1)))
        header = headers[int(np.argmax(codes == code))].as_py()
        count, _, total = sums.get(name, (0, header, np.zeros(width)))
        sums[name] = (
            count + sign * used,
            header,
            total
            + sign
            * np.add.reduce(
                rows, axis=0, dtype=np.float64 if len(rows) > 65_536 else np.float32
            ).astype(np.float64),
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """One quarantined row, as its file holds it.

    Attributes:
        stage: which stage found the fault.
        reason, position: why, and where the row stands in its source.
        id: its original id, where it has one.
        content: the row for people; bytes that are no text as base64.
        record: the row for replay, an Arrow IPC stream of one row as base64; empty where it never
            was a Record.
        collection: the source collection.
    """

    stage: str
    reason: str
    position: str
    id: str | None
    content: Any
    record: str = ""
    collection: str = ""

    def line(self) -> bytes:
        """Write the row as one line of JSON."""
        body = {
            name: getattr(self, name)
            for name in ("stage", "reason", "position", "id", "content", "record", "collection")
        }
        return json.dumps(body, ensure_ascii=False).encode() + b"\n"


def new_nonce() -> str:
    """Make a nonce: 64 random bits as hex."""
    return uuid.uuid4().hex[:16]


def write_frames(
    uri: str, schema: pa.Schema, frames: Iterable[pa.RecordBatch], account: Tally
) -> tuple[list[dict[str, Any]], list[StagedFile]]:
    """Write frames as fragments of the target.

    (invisible until committed) and read the files back for their digests.

    Raises:
        CfrayError: whatever the frames' producer raised, unchanged.
        TargetError: the storage refused.
    """
    failure: list[BaseException] = []

    def passing() -> Iterator[pa.RecordBatch]:
        try:
            for batch in frames:
                account.add(batch)
                yield batch
        except BaseException as error:
            failure.append(error)  # Lance wraps what crosses it in an OSError of its own
            raise

    reader = pa.RecordBatchReader.from_batches(schema, passing())
    try:
        written = write_fragments(
            reader,
            uri,
            schema=schema,
            mode="append",
            max_rows_per_file=_MAX_ROWS,
            storage_options=storage_options(uri),
        )
    except OSError as error:
        if failure and isinstance(failure[0], CfrayError):
            raise failure[0] from None
        if failure:
            raise failure[0] from error
        raise filesystems.storage_error(error, f"could not write to {uri}") from error
    fragments = [fragment.to_json() for fragment in written if fragment.physical_rows]
    return fragments, staged_files(uri, fragments)


def staged_files(uri: str, fragments: list[dict[str, Any]]) -> list[StagedFile]:
    """Digest every data and blob file of some fragments."""
    system, path = filesystems.filesystem(uri)
    found: list[StagedFile] = []
    for fragment in fragments:
        for file in fragment["files"]:
            names = [f"data/{file['path']}"]
            stem = file["path"].removesuffix(".lance")
            selector = pafs.FileSelector(
                f"{path}/data/{stem}", allow_not_found=True, recursive=True
            )
            names += sorted(
                info.path[len(path) + 1 :]
                for info in system.get_file_info(selector)
                if info.type == pafs.FileType.File
            )
            found += [StagedFile(name, *digest_file(system, f"{path}/{name}")) for name in names]
    return found


def digest_file(system: pafs.FileSystem, path: str) -> tuple[int, str]:
    """Give a file's size and XXH3-128 (hex)."""
    digest = xxhash.xxh3_128()
    size = 0
    most = _LOCAL_BLOCK if isinstance(system, pafs.LocalFileSystem) else _BLOCK
    with system.open_input_stream(path) as stream:
        while block := stream.read(most):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def publish(state: State, receipt: Receipt, rejected: Iterable[Rejected]) -> Receipt:
    """Publish the quarantine file (if any row is in it), then the receipt."""
    lines = b"".join(row.line() for row in rejected)
    if lines:
        state.quarantine.publish(f"{receipt.name}.{receipt.nonce}.jsonl", lines)
    state.publish_receipt(receipt)
    return receipt
