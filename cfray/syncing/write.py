"""Write the documents that are new or changed as fragments of the target.

What the shards left in their files is put into groups, and a task writes each group.  Where a model
makes the vectors, only texts that the target does not hold at this record get new ones: the others
take over the vectors of the row in whose place they come.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion.chunk_frames import FIELD as CHUNK_OF
from cfray.conversion.chunk_frames import document_rows
from cfray.conversion.convert import Fault
from cfray.conversion.rejects import EMBED_STAGE, RejectedRow, reject_frame
from cfray.copying.removal import read_rows
from cfray.copying.write import Tally, new_nonce, write_frames
from cfray.embedding.joining_frames import make_joining_vectors
from cfray.embedding.vectors import count_origins, made_fields, schema_of_target
from cfray.engine.tasks import TaskOptions, run_tasks
from cfray.frames.schema import ORIGIN
from cfray.proving.verify import check_raw_files
from cfray.report.run import Run
from cfray.runtime.filesystems import Folder, storage_options
from cfray.syncing.difference import Difference
from cfray.syncing.files import damaged
from cfray.syncing.folder import RowIds
from cfray.syncing.known import DELETED_STATUS
from cfray.syncing.shard import REUSED, ShardOutcome, read_staged
from cfray.target.ledger import EntryKind
from cfray.target.receipts import StagedFile

#: Bytes of Arrow data, and rows, of a group: a fragment large enough to need no compaction, and
#: texts few enough for the driver, which hands them to the model.
_GROUP_BYTES, _GROUP_ROWS = 256 * 1024 * 1024, 50_000
#: Row ids in one condition.
_IDS_AT_ONCE = 10_000
#: What a document in quarantine says where its chunk was refused.
_CHUNK_REASON = "chunk {number}: {reason}"


@dataclass(frozen=True, slots=True)
class Group:
    """Outcomes whose rows are written by one task.

    Attributes:
        outcomes: of shards, each with at least a row.
        positions: id and collection of the shard of each.
        vectors: name of the file with the new vectors; empty where none is made.
        refused: number of a row in the group -> why it cannot have its vector.
    """

    outcomes: tuple[ShardOutcome, ...]
    positions: tuple[tuple[str, str], ...]
    vectors: str = ""
    refused: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Written:
    """Rows that were written, and not committed.

    Attributes:
        tally: of these rows.
        fragments: Lance's metadata (parsed JSON).
        files: of them.
        documents: rows that are no chunks.
        rejected: documents whose text or model was refused.
        counts: for the report.
    """

    tally: Tally = field(default_factory=Tally)
    fragments: list[dict[str, Any]] = field(default_factory=list)
    files: list[StagedFile] = field(default_factory=list)
    documents: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Written) -> None:
        """Add further rows."""
        self.tally.add_tally(other.tally)
        self.fragments += other.fragments
        self.files += other.files
        self.documents += other.documents
        self.rejected += other.rejected
        self.counts.update(other.counts)


def write_documents(run: Run, difference: Difference) -> Written:
    """Write what is new or changed.

    Raises:
        CfrayError: the model or the storage failed; nothing was committed.
    """
    schema = schema_of_target(run.job, run.plan.shape, run.target)
    makes = bool(difference.compared.texts)
    made = [item.name for item in made_fields(run.job.embedding, run.target.recipe())]
    work = _WriteGroup(
        *(run.target.uri, run.target.open().version, schema, difference.files.folder),
        tuple(made) if makes else (),
    )
    written = Written()
    groups: list[Group] = []
    for group in _groups(difference):
        prepared, counts = _with_vectors(run, difference, group) if makes else (group, Counter())
        groups.append(prepared)
        written.counts.update(counts)
    for part in run_tasks(work, groups, TaskOptions()):
        written.add(part)
    return written


def _groups(difference: Difference) -> Iterator[Group]:
    """Put shards with rows to write into groups."""
    group: list[ShardOutcome] = []
    size = rows = 0
    for outcome in difference.outcomes:
        is_full = size + outcome.size > _GROUP_BYTES or rows + outcome.staged > _GROUP_ROWS
        if group and is_full:
            yield _group(difference, group)
            group, size, rows = [], 0, 0
        if outcome.staged:
            group.append(outcome)
            size, rows = size + outcome.size, rows + outcome.staged
    if group:
        yield _group(difference, group)


def _group(difference: Difference, outcomes: Sequence[ShardOutcome]) -> Group:
    shards = [difference.shards[outcome.number] for outcome in outcomes]
    return Group(tuple(outcomes), tuple((shard.id, shard.collection) for shard in shards))


def _with_vectors(run: Run, difference: Difference, group: Group) -> tuple[Group, Counter[str]]:
    """Make the vectors of the texts that the target does not hold."""
    folder = difference.files.folder
    columns = ["uuid", "text_content", "title", "context", "vector", "record_type", ORIGIN]
    columns += [CHUNK_OF.name] if run.job.embedding.chunk else []
    rows: list[npt.NDArray[np.int64]] = []
    frames: list[pa.RecordBatch] = []
    first = 0
    for outcome in group.outcomes:
        for batch in read_staged(folder, outcome):
            is_new = batch.column(REUSED).is_null()
            rows.append(first + np.flatnonzero(is_new.to_numpy(zero_copy_only=False)))
            frames.append(batch.select(columns).filter(is_new))
            first += batch.num_rows
    numbers = np.concatenate(rows)
    if not len(numbers):
        return group, Counter()
    made = make_joining_vectors(run, pa.concat_batches(frames), EntryKind.SYNC)
    table = pa.table({"row": pa.array(numbers), **made.columns})
    name = f"{new_nonce()}.vectors"
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    folder.publish(name, file.getvalue())
    refused = {int(numbers[row]): why for row, why in made.refused.items()}
    return Group(group.outcomes, group.positions, name, refused), made.counts


@dataclass(frozen=True, slots=True)
class _WriteGroup:
    """Writes groups; travels to workers.

    Attributes:
        uri, version: of the target as it was compared.
        schema: of its rows.
        folder: of the comparison.
        made: columns that a model makes; none where the source gives the vectors.
    """

    uri: str
    version: int
    schema: pa.Schema
    folder: Folder
    made: tuple[str, ...]

    def __call__(self, group: Group) -> Written:
        """Write the rows of a group.  Body of a Ray task."""
        written = Written()
        written.fragments, written.files = write_frames(
            self.uri, self.schema, self._frames(group, written), written.tally
        )
        return written

    def _frames(self, group: Group, written: Written) -> Iterator[pa.RecordBatch]:
        vectors = self._vectors(group) if self.made else None
        first = 0
        for outcome, (shard, collection) in zip(group.outcomes, group.positions, strict=True):
            for batch in read_staged(self.folder, outcome):
                frames = self._in_schema(batch, first, vectors)
                refused = _units_refused(frames, first, group.refused)
                first += batch.num_rows
                keeps = np.ones(frames.num_rows, np.bool_)
                for (start, end), reason in refused.items():
                    keeps[start:end] = False
                    fault = Fault(start, EMBED_STAGE, reason)
                    written.rejected.append(reject_frame(frames, fault, shard, collection))
                kept = frames.filter(pa.array(keeps))
                if kept.num_rows:
                    _count(kept, written)
                    yield kept

    def _vectors(self, group: Group) -> _Vectors:
        if not group.vectors:
            return _Vectors({}, None, self)
        data = self.folder.read(group.vectors)
        if data is None:
            raise damaged(self.folder, group.vectors)
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all().combine_chunks()
        numbers = table["row"].to_pylist()
        return _Vectors({number: row for row, number in enumerate(numbers)}, table, self)

    def _in_schema(
        self, batch: pa.RecordBatch, first: int, vectors: _Vectors | None
    ) -> pa.RecordBatch:
        """Put the columns into the target's order, with vectors in place of the source's."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        if vectors is not None:
            columns |= vectors.of(batch.column(REUSED), first)
        arrays = [columns[item.name].cast(item.type) for item in self.schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """The vectors of a group: those that were made, and those of the target's rows.

    Attributes:
        places: number of a row in the group -> its row in ``made``.
        made: the new vectors; None where none was made.
        writer: knows the target.
    """

    places: dict[int, int]
    made: pa.Table | None
    writer: _WriteGroup

    def of(self, reused: pa.UInt64Array, first: int) -> dict[str, pa.Array]:
        """Give the vectors of some rows of the group.

        Args:
            reused: row id of the target's row whose vectors each takes over; null: new ones.
            first: number of the first row.
        """
        ids = reused.to_pylist()
        old = self._read_old([row_id for row_id in ids if row_id is not None])
        old_places = {row_id: place for place, row_id in enumerate(old["_rowid"].to_pylist())}
        names = list(self.writer.made)
        made = old.select(names).slice(0, 0) if self.made is None else self.made.select(names)
        both = pa.concat_tables([made.cast(old.select(names).schema), old.select(names)])
        places = [
            self.places[first + row] if row_id is None else made.num_rows + old_places[row_id]
            for row, row_id in enumerate(ids)
        ]
        taken = both.take(pa.array(places, pa.int64())).combine_chunks()
        return {name: _one_array(taken[name]) for name in names}

    def _read_old(self, row_ids: list[int]) -> pa.Table:
        dataset = lance.dataset(
            self.writer.uri,
            version=self.writer.version,
            storage_options=storage_options(self.writer.uri),
        )
        names = list(self.writer.made)
        tables = [
            dataset.to_table(
                columns=names,
                filter=f"_rowid IN ({','.join(map(str, row_ids[start : start + _IDS_AT_ONCE]))})",
                with_row_id=True,
            )
            for start in range(0, len(row_ids), _IDS_AT_ONCE)
        ]
        schema = pa.schema(
            [*(dataset.schema.field(name) for name in names), pa.field("_rowid", pa.uint64())]
        )
        return pa.concat_tables(
            [schema.empty_table(), *(table.select(schema.names).cast(schema) for table in tables)]
        )


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _units_refused(
    frames: pa.RecordBatch, first: int, refused: dict[int, str]
) -> dict[tuple[int, int], str]:
    """Give the documents, with their chunks, of which a row is refused: rows -> first reason."""
    if not refused:
        return {}
    units: dict[tuple[int, int], str] = {}
    for start, end in pairwise([*document_rows(frames), frames.num_rows]):
        for row in range(start, end):
            reason = refused.get(first + row)
            if reason is not None:
                if row > start:
                    number = frames.column("position")[row].as_py()
                    reason = _CHUNK_REASON.format(number=number, reason=reason)
                units[start, end] = reason
                break
    return units


def _count(frames: pa.RecordBatch, written: Written) -> None:
    documents = len(document_rows(frames))
    written.documents += documents
    origins = frames.column(ORIGIN)
    written.counts.update(count_origins(origins))
    written.counts["missing_vectors"] += origins.null_count


def mark_deleted(run: Run, difference: Difference, documents: RowIds) -> Written:
    """Write documents of the target anew, chunks included, with the status ``deleted``.

    Raises:
        ProofFailed: their bytes of ``raw_data``, which no hash of a row covers, may be others.
    """
    if len(documents) and run.job.mapping.raw_data is not None:
        check_raw_files(run.target, run.state)
    schema = schema_of_target(run.job, run.plan.shape, run.target)
    groups = [
        difference.with_chunks(documents[start : start + _IDS_AT_ONCE])
        for start in range(0, len(documents), _IDS_AT_ONCE)
    ]
    work = _MarkDeleted(run.target.uri, run.target.open().version, schema)
    written = Written()
    for part in run_tasks(work, groups, TaskOptions()):
        written.add(part)
    return written


@dataclass(frozen=True, slots=True)
class _MarkDeleted:
    uri: str
    version: int
    schema: pa.Schema

    def __call__(self, row_ids: RowIds) -> Written:
        """Write some rows anew.  Body of a Ray task."""
        written = Written()
        written.fragments, written.files = write_frames(
            self.uri, self.schema, self._frames(row_ids, written), written.tally
        )
        return written

    def _frames(self, row_ids: RowIds, written: Written) -> Iterator[pa.RecordBatch]:
        dataset = lance.dataset(
            self.uri, version=self.version, storage_options=storage_options(self.uri)
        )
        # chunks must follow their document, in whichever fragments they lie now
        batches = list(read_rows(dataset, row_ids.tolist()))
        rows = pa.Table.from_batches(batches).sort_by("_rowid").combine_chunks()
        for batch in rows.to_batches():
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns["status"] = pa.repeat(pa.scalar(DELETED_STATUS), batch.num_rows)
            arrays = [columns[item.name].cast(item.type) for item in self.schema]
            marked = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
            _count(marked, written)
            yield marked
