"""Compare one shard of the source with what the target holds, in one task.

A document and its chunks are a unit: it is the same on both sides or it is not.  What is not the
same is left in a file, to be written into the target later; of what is the same only row ids are
noted.  Ray may run a task twice: its only effects are files with names that no other run of it
has, and what it returns names those that count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion.chunk_frames import document_rows
from cfray.conversion.convert import Fault
from cfray.conversion.rejects import COMMIT_STAGE, RejectedRow, reject_frame, row_from_text
from cfray.conversion.steps import Steps
from cfray.copying.read import Reading
from cfray.copying.shard import ShardCopy
from cfray.copying.uuid_search import KEY, Keys, uuid_keys
from cfray.copying.write import new_nonce
from cfray.errors import CfrayError, SourceError, SourceUnavailable
from cfray.frames.digests import MODULUS, Hashes
from cfray.runtime import retry
from cfray.runtime.filesystems import Folder, open_filesystem
from cfray.runtime.storage_errors import classify_write_error
from cfray.sources.base import Context, Shard
from cfray.syncing.files import HashedStream, WrittenFile, damaged, write_file
from cfray.syncing.known import CHUNK, Compared, KnownRows, key_bytes, to_npy
from cfray.syncing.watermarks import ReadShard, Watermarks, read_array
from cfray.target.quarantine_counts import SAME_IDENTITY

#: Column of a staged row: the row id of the target's row whose vectors it takes over.
REUSED = "reused"
#: A run of row ids: the first, and how many.
RUN = np.dtype([("first", "<u8"), ("rows", "<u8")])
#: A row of the source: its key, and the hash of all that is compared.
ROW_HASH = np.dtype([("key", KEY), ("hash", "<u8")])


@dataclass(frozen=True, slots=True)
class ComparedShard:
    """A shard of the source as it is divided now.

    Attributes:
        number: of the shard in that division.
        shard: to read.
        elsewhere: key of a record of this shard -> where an earlier record of this identity is.
        mark: of its source collection, taken before the session (``Source.watermark``).
        before: the shard as the last sync has read it; None where it is to be read.
    """

    number: int
    shard: Shard
    elsewhere: Mapping[bytes, str] = field(default_factory=dict)
    mark: str = ""
    before: ReadShard | None = None


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """What came of a shard; every file is in the comparison's folder.

    Attributes:
        number: of the shard.
        session: id of the source's session that it was read under.
        nonce: of the names of the files.
        files: end of the name -> the file: ``kept``, ``changed``, ``unfit``, ``new``, and, where
            there are such rows, ``frames`` and ``rejected``.
        read, quarantined: records.
        rejects: sum of the hashes of the quarantined, modulo 2**64.
        same, changed, new: documents.
        staged: rows in ``<nonce>.frames``, chunks included.
        size: bytes of Arrow data in it.
        counts: for the report, of all records of the shard.
        before: the shard as the next sync can use it; None where it must be read.
        was_read: whether it was read, not only found to be as the last sync has read it.
    """

    number: int
    session: str
    nonce: str
    files: dict[str, WrittenFile]
    read: int
    quarantined: int
    rejects: int
    same: int
    changed: int
    new: int
    staged: int
    size: int
    counts: dict[str, int]
    before: ReadShard | None = None
    was_read: bool = True


@dataclass(frozen=True, slots=True)
class CompareShard:
    """Compares shards; travels to workers.

    Attributes:
        steps: from records to frames.
        context: what the source is handed.
        session: id of the source's session.
        known: rows of the target.
        compared: the columns that count.
        folder: for the files.
        stages: whether rows that differ are left in a file.
        watermarks: of the last sync; None where every shard is to be read.
    """

    steps: Steps
    context: Context
    session: str
    known: KnownRows
    compared: Compared
    folder: Folder
    stages: bool
    watermarks: Folder | None = None

    def __call__(self, planned: ComparedShard) -> ShardOutcome:
        """Compare a shard, reading it anew after a transient error.  Body of a Ray task.

        Raises:
            CfrayError: terminal, or transient after the last attempt.
        """
        return retry.run_with_retries(lambda: self._compare(planned))

    def _compare(self, planned: ComparedShard) -> ShardOutcome:
        watermark = self._watermark(planned)
        before = planned.before
        if before is not None and before.watermark == watermark:
            outcome = self._compare_unread(planned, before)
            if outcome is not None:
                return outcome
        return self._read_and_compare(planned, watermark)

    def _watermark(self, planned: ComparedShard) -> str | None:
        """Ask for the shard's watermark; a source that cannot tell it may be read all the same."""
        if self.watermarks is None:
            return None
        source = self.steps.job.source
        try:
            return source.watermark(planned.shard, planned.mark, self.context)
        except SourceUnavailable:
            raise
        except SourceError:
            return None

    def _compare_unread(self, planned: ComparedShard, before: ReadShard) -> ShardOutcome | None:
        """Compare what the last sync has read; None where the target is not that."""
        assert self.watermarks is not None
        left = Watermarks(self.watermarks)
        data = left.read(before.rows)
        lines = b"" if before.rejected is None else left.read(before.rejected)
        if data is None or lines is None:
            return None
        rows = read_array(data)
        matches = self.known.find(rows["key"])
        if not (matches.found & (matches.rows["hash"] == rows["hash"])).all():
            return None
        same = int(np.count_nonzero(matches.rows["kind"] != CHUNK))
        if same != before.read - before.quarantined:
            return None
        rejected = [RejectedRow.from_line(line) for line in lines.splitlines()]
        arrays = {
            "kept": runs_of(matches.rows["row_id"].tolist()),
            "changed": np.empty(0, np.uint64),
            "new": np.empty(0, ROW_HASH),
            "unfit": self._unfit(planned.shard, rejected),
        }
        nonce = new_nonce()
        return ShardOutcome(
            number=planned.number,
            session=self.session,
            nonce=nonce,
            files=self._write(nonce, arrays, rejected),
            read=before.read,
            quarantined=before.quarantined,
            rejects=before.rejects,
            same=same,
            changed=0,
            new=0,
            staged=0,
            size=0,
            counts=before.counts,
            before=before,
            was_read=False,
        )

    def _read_and_compare(self, planned: ComparedShard, watermark: str | None) -> ShardOutcome:
        reading = Reading(self.steps.job.source, planned.shard, self.context)
        copy = ShardCopy(reading, self.steps)
        seen = _Seen(planned, copy.rejected, copy.counts)
        nonce = new_nonce()
        staging = _Staging(self.folder, f"{nonce}.frames")
        staged = size = 0
        for frames in copy.frames():
            differing = self._differing(frames, seen)
            staged += differing.num_rows
            size += differing.nbytes
            if self.stages and differing.num_rows:
                staging.add(differing)
        arrays = {
            "kept": runs_of(seen.kept),
            "changed": np.array(seen.changed, np.uint64),
            "new": np.array(seen.new, ROW_HASH),
            "unfit": self._unfit(planned.shard, copy.rejected),
        }
        files = self._write(nonce, arrays, copy.rejected)
        if staged_file := staging.close():
            files["frames"] = staged_file
        outcome = ShardOutcome(
            number=planned.number,
            session=self.session,
            nonce=nonce,
            files=files,
            read=reading.count,
            quarantined=len(copy.rejected),
            rejects=sum(row.digest for row in copy.rejected) % MODULUS,
            same=seen.same,
            changed=len(seen.changed),
            new=len(seen.new),
            staged=staged,
            size=size,
            counts=dict(+copy.counts),
        )
        if watermark is None or not self.stages or not reading.is_lasting:
            return outcome
        return replace(outcome, before=self._leave(watermark, outcome, seen))

    def _write(
        self, nonce: str, arrays: Mapping[str, npt.NDArray[Any]], rejected: list[RejectedRow]
    ) -> dict[str, WrittenFile]:
        """Write the files of a shard; they count only where an outcome names them."""
        files = {
            name: write_file(self.folder, f"{nonce}.{name}", to_npy(array))
            for name, array in arrays.items()
        }
        if rejected and self.stages:
            lines = b"".join(row.to_line() for row in rejected)
            files["rejected"] = write_file(self.folder, f"{nonce}.rejected", lines)
        return files

    def _leave(self, watermark: str, outcome: ShardOutcome, seen: _Seen) -> ReadShard:
        """Leave what the shard's records became for the next sync."""
        assert self.watermarks is not None
        rows = np.concatenate([np.empty(0, ROW_HASH), *seen.rows])
        rejected = None
        if seen.rejected:
            lines = b"".join(row.to_line() for row in seen.rejected)
            rejected = write_file(self.watermarks, f"{outcome.nonce}.rejected", lines)
        return ReadShard(
            watermark,
            write_file(self.watermarks, f"{outcome.nonce}.rows", to_npy(rows)),
            rejected,
            outcome.read,
            outcome.quarantined,
            outcome.rejects,
            outcome.counts,
        )

    def _unfit(self, shard: Shard, rejected: list[RejectedRow]) -> npt.NDArray[np.uint64]:
        """Give the row ids of the target's documents whose records fit no longer."""
        batches: dict[str, list[pa.RecordBatch]] = defaultdict(list)
        for row in rejected:
            if row.record and row.stage != COMMIT_STAGE:
                record = row_from_text(row.record)
                batches[record.schema.to_string(show_schema_metadata=True)].append(record)
        unfit = [np.empty(0, np.uint64)]
        for alike in batches.values():
            uuids = self.steps.conversion.read_uuids(pa.concat_batches(alike), shard.collection)
            matches = self.known.find(uuid_keys(uuids))
            rows = matches.rows[matches.found & (matches.rows["kind"] != CHUNK)]
            unfit.append(rows["row_id"])
        return np.unique(np.concatenate(unfit))

    def _differing(self, frames: pa.RecordBatch, seen: _Seen) -> pa.RecordBatch:
        """Note what is the same, and give the rows of the units that are not."""
        keys = uuid_keys(frames.column("uuid"))
        matches = self.known.find(keys)
        hashes, texts = self.compared.hashes(frames)
        if self.watermarks is not None and self.stages:
            seen.note_rows(keys, hashes)
        is_same = matches.found & (matches.rows["hash"] == hashes)
        reused = matches.found & (matches.rows["texts"] == texts) & bool(self.compared.texts)
        chosen: list[int] = []
        for first, end in pairwise([*document_rows(frames), frames.num_rows]):
            key = key_bytes(keys[first])
            if seen.refuses(frames, first, end, key):
                continue
            unit = slice(first, end)
            if is_same[unit].all():
                seen.same += 1
                seen.kept += matches.rows["row_id"][unit].tolist()
                continue
            if matches.found[first]:
                seen.changed.append(int(matches.rows["row_id"][first]))
            else:
                seen.new.append((key, int(hashes[first])))
            chosen += range(first, end)
        row_ids = pa.array(matches.rows["row_id"], mask=~reused)
        differing = frames.append_column(pa.field(REUSED, pa.uint64()), row_ids)
        return differing.take(pa.array(chosen, pa.int64()))


@dataclass(slots=True)
class _Seen:
    """The documents of a shard so far.

    Attributes:
        planned: the shard.
        rejected: rows that are set aside; those that repeat an identity are added.
        counts: of the report; these are counted.
        same: documents that are the same on both sides.
        kept: row ids of these and of their chunks.
        changed: row ids of the target's documents in whose place others come.
        new: key and hash of documents that the target has not.
        keys: of all documents.
        rows: key and hash of all rows, a batch each; only where the next sync can use them.
    """

    planned: ComparedShard
    rejected: list[RejectedRow]
    counts: Counter[str]
    same: int = 0
    kept: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    new: list[tuple[bytes, int]] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    rows: list[npt.NDArray[np.void]] = field(default_factory=list)

    def note_rows(self, keys: Keys, hashes: Hashes) -> None:
        """Note what the records of a batch became."""
        rows = np.zeros(len(keys), ROW_HASH)
        rows["key"], rows["hash"] = keys, hashes
        self.rows.append(rows)

    def refuses(self, frames: pa.RecordBatch, first: int, end: int, key: bytes) -> bool:
        """Set a document aside whose identity an earlier record has."""
        shard = self.planned.shard
        first_place = self.planned.elsewhere.get(key)
        if first_place is None and key in self.keys:
            first_place = shard.id
        self.keys.add(key)
        if first_place is None:
            return False
        # the reason is compared later, and a source may be divided otherwise then
        fault = Fault(first, COMMIT_STAGE, "same identity as an earlier record")
        position = f"{shard.id} (the earlier record is in {first_place})"
        self.rejected.append(reject_frame(frames, fault, position, shard.collection))
        self.counts[SAME_IDENTITY] += 1
        if end - first > 1:
            self.counts["derived_frames"] -= end - first - 1
        return True


class _Staging:
    """Writes rows to a file as they come; it counts only where an outcome names it."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name = folder, name
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._stream: HashedStream | None = None

    def add(self, frames: pa.RecordBatch) -> None:
        try:
            if self._writer is None:
                self._stream = HashedStream(self.folder, self.name)
                sink = pa.PythonFile(self._stream, mode="w")
                self._writer = pa.ipc.new_stream(sink, frames.schema)
            self._writer.write_batch(frames)
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> WrittenFile | None:
        """Close the file; None where no row was written."""
        if self._writer is None or self._stream is None:
            return None
        try:
            self._writer.close()
            self._stream.close()
        except OSError as error:
            raise self._error(error) from error
        return self._stream.file()

    def _error(self, error: OSError) -> CfrayError:
        return classify_write_error(error, f"could not write to {self.folder.uri}")


def read_staged(folder: Folder, outcome: ShardOutcome) -> Iterator[pa.RecordBatch]:
    """Read the rows that a shard left in its file.

    Raises:
        ComparisonDamaged: the file is not what was written.
    """
    system, path = open_filesystem(folder.uri)
    rows = 0
    try:
        with system.open_input_stream(f"{path}/{outcome.nonce}.frames") as stream:
            for batch in pa.ipc.open_stream(stream):
                rows += batch.num_rows
                yield batch
    except (OSError, pa.ArrowException) as error:
        raise damaged(folder, f"{outcome.nonce}.frames") from error
    if rows != outcome.staged:  # a stream may end without its end marker
        raise damaged(folder, f"{outcome.nonce}.frames")


def runs_of(row_ids: list[int]) -> npt.NDArray[np.void]:
    """Write row ids as runs: those of a shard mostly follow each other."""
    ids = np.array(row_ids, np.uint64)
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - np.uint64(2)) != 1)
    runs = np.zeros(len(starts), RUN)
    runs["first"] = ids[starts]
    runs["rows"] = np.diff(np.append(starts, len(ids)))
    return runs


def ids_of(runs: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Give the row ids of runs, in their order."""
    rows = runs["rows"].astype(np.int64)
    starts = np.repeat(runs["first"].astype(np.int64), rows)
    steps = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    row_ids: npt.NDArray[np.uint64] = (starts + steps).astype(np.uint64)
    return row_ids
