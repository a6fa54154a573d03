"""Sources in the open: any source as a ``ray.data.Dataset`` of its records.

For exploring, and for lines of people's own.  A shard is one read task.  Nothing here promises
that a record comes exactly once: Ray Data may run a read task again, and then keeps the blocks
that the first run had handed out, wherever the second run cuts its own.  A migration does not
read this way: its rows never pass from one task to another.

A Dataset is read when its rows are asked for, so it holds the session of its source from the
call to ``close_dataset``, or until it and every Dataset made of it are gone.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import ray
from ray.data import Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from cfray.engine import throttle
from cfray.engine.lasting import keep_ray_running
from cfray.errors import ConfigError, SourceError
from cfray.job.spec import JobSpec
from cfray.planning.sample import read_sample
from cfray.records.plain import Unfit, fitted, sampled_schema
from cfray.records.record import Reject, file_of
from cfray.sources.base import Context, Session, Shard, Source
from cfray.sources.files.base import FileSource, parts_of
from cfray.sources.session import SourceSession

__all__ = ["Dataset", "OnReject", "ReadOptions", "Values", "close_dataset", "read_dataset"]

Values = Literal["plain", "exact"]
OnReject = Literal["error", "column"]

#: Column of the file, or of the source collection, that a record is from.
FILE, COLLECTION = "$file", "$collection"
#: Column of the rows that became no record.
REJECT = "$reject"
_REJECT_TYPE = pa.struct(
    [("reason", pa.string()), ("position", pa.string()), ("content", pa.binary())]
)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How records become the rows of a Dataset.

    Attributes:
        values: ``plain``: a field without a type at the source gets one type, from a sample;
            ``exact``: it stays a variant column.
        on_reject: ``error``: a row that becomes no record ends the reading; ``column``: it is a
            row of the Dataset, whose only value is in ``$reject``.
        origin: add ``$file`` (file kinds) or ``$collection`` (stores).
        scratch: folder that every node reaches, for lists that several shards share; None: one on
            this machine.
    """

    values: Values = "plain"
    on_reject: OnReject = "error"
    origin: bool = False
    scratch: str | None = None


class OpenSession:
    """A source's session, held open until ``close``, or until nothing refers to this."""

    def __init__(self, session: SourceSession, held: ExitStack) -> None:
        """Take over an open session, and what else is to be closed."""
        self._session: SourceSession | None = session
        self._finalizer: weakref.finalize[Any, Any] | None = weakref.finalize(self, held.close)

    @property
    def fault(self) -> str | None:
        """Say why nothing can be read in it any more; None while something can."""
        if self._finalizer is not None and not self._finalizer.alive:
            return "it was closed"
        try:
            if self._session is not None:
                self._session.check()
        except SourceError as error:
            return error.what
        return None

    def close(self) -> None:
        """Release what the source holds; again is no error.

        Raises:
            SourceError: the store could not release it.
        """
        if self._finalizer is not None:
            self._finalizer()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a session that somebody else holds: the process that opened it closes it."""
        return _borrowed, ()


def _borrowed() -> OpenSession:
    """Give a session that another process holds."""
    session = OpenSession.__new__(OpenSession)
    session._session = session._finalizer = None  # noqa: SLF001  # it has just been created
    return session


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Reads shards of one source as tables; travels to the workers."""

    source: Source
    context: Context
    schema: pa.Schema
    options: ReadOptions

    @property
    def origin_column(self) -> str | None:
        """Name the column of the origin; None where it was not asked for."""
        if not self.options.origin:
            return None
        return FILE if isinstance(self.source, FileSource) else COLLECTION

    @property
    def table_schema(self) -> pa.Schema:
        """Give the columns of the Dataset.

        Raises:
            ConfigError: a field of the source has the name of a column that is asked for.
        """
        schema = self.schema
        asked_for = [
            *([(self.origin_column, pa.string())] if self.origin_column else []),
            *([(REJECT, _REJECT_TYPE)] if self.options.on_reject == "column" else []),
        ]
        for name, kind in asked_for:
            if schema.get_field_index(name) >= 0:
                raise ConfigError(
                    f"the records have a field {name}, which is the name of a column of cfray's",
                    "read without origin and on_reject",
                )
            schema = schema.append(pa.field(name, kind))
        return schema

    def tables(self, shard: Shard) -> Iterator[pa.Table]:
        """Read one shard.

        Raises:
            SourceError: a row became no record, or a value does not fit its column; says where.
            SourceUnavailable: the store does not answer.
        """
        ordinal = 0
        for item in self.source.read(shard, self.context):
            if isinstance(item, Reject):
                batch = self._of_reject(item)
            else:
                batch = self._of_records(item, shard, ordinal)
            ordinal += batch.num_rows
            yield pa.Table.from_batches([batch])

    def _of_reject(self, reject: Reject) -> pa.RecordBatch:
        if self.options.on_reject == "error":
            raise SourceError(
                f"{reject.position}: {reject.reason}",
                "correct the source, read with on_reject='column' to see each such row, or "
                "migrate, which puts such rows in quarantine",
            )
        content = {name: getattr(reject, name) for name in ("reason", "position", "content")}
        row = pa.RecordBatch.from_pylist([{REJECT: content}], pa.schema([(REJECT, _REJECT_TYPE)]))
        return self._fitted(row)

    def _of_records(self, batch: pa.RecordBatch, shard: Shard, ordinal: int) -> pa.RecordBatch:
        file = file_of(batch)
        if self.origin_column:
            origin = file if self.origin_column == FILE else shard.collection
            column = pa.array([origin] * len(batch), pa.string())
            batch = batch.append_column(self.origin_column, column)
        try:
            batch = self._fitted(batch)
        except Unfit as error:
            raise _misfit(error, file or shard.id, ordinal) from None
        if not batch.num_columns:
            # Ray Data counts no row in a table without columns
            raise SourceError(
                f"{file or shard.id}: no record of the sample has a field, nor has record "
                f"{ordinal:,}",
                "read with origin=True, which adds a column",
            )
        return batch

    def _fitted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return fitted(batch, self.table_schema, plain=self.options.values == "plain")


def _misfit(error: Unfit, place: str, ordinal: int) -> SourceError:
    if error.row is None:
        return SourceError(
            f"{place}: {error.field} is {error.kind}, and {error.expected} in the other records",
            "read the files or collections of each type by themselves",
        )
    return SourceError(
        f"{place}, record {ordinal + error.row:,} of its shard: {error.field} is of type "
        f"{error.kind}, and {error.expected} in the records of the sample",
        "read with values='exact', which keeps the type of each value",
    )


class RecordDatasource(Datasource):  # type: ignore[misc]  # Ray ships no types
    """Ray Data's view of a source: one read task a shard."""

    def __init__(self, reader: RecordReader, shards: list[Shard], session: OpenSession) -> None:
        """Hold the session for as long as a Dataset refers to this."""
        super().__init__()
        self.reader, self.shards, self.session = reader, shards, session

    def get_name(self) -> str:
        """Name the operator: ``ReadCfrayParquet``."""
        return f"Cfray{self.reader.source.kind.capitalize()}"

    def estimate_inmemory_data_size(self) -> int | None:
        """Give the bytes at the source, which Ray Data takes for those in memory."""
        return sum(shard.size for shard in self.shards) or None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        """Give a task for each shard, however many Ray Data would like."""
        schema, fault = self.reader.table_schema, self.session.fault
        return [
            ReadTask(
                _read_function(self.reader, shard, fault),
                BlockMetadata(shard.rows, shard.size or None, _files_of(self.reader, shard), None),
                schema=schema,
                per_task_row_limit=per_task_row_limit,
            )
            for shard in self.shards
        ]


def _read_function(
    reader: RecordReader, shard: Shard, fault: str | None
) -> Callable[[], Iterator[pa.Table]]:
    """Give the body of a read task; Ray Data asks it for ``__name__``, which a partial lacks."""

    def read_records() -> Iterator[pa.Table]:
        if fault is not None:
            raise SourceError(
                f"the session in which this Dataset reads its source is gone: {fault}",
                "call cfray.read again, and close the Dataset when all is read",
            )
        yield from reader.tables(shard)

    return read_records


def _files_of(reader: RecordReader, shard: Shard) -> list[str] | None:
    if not isinstance(reader.source, FileSource):
        return None
    return list(dict.fromkeys(file.uri for file, _ in parts_of(shard)))


_sessions: weakref.WeakKeyDictionary[Dataset, OpenSession] = weakref.WeakKeyDictionary()


def read_dataset(job: JobSpec, options: ReadOptions) -> Dataset:
    """Open a source, divide it into shards, and give a Dataset that reads them.

    Args:
        job: whose source and ``limits.max_document`` count.
        options: how records become rows.

    Raises:
        ConfigError: the options do not fit the source or the cluster.
        SourceError: the source cannot be read, or holds no record.
        EngineError: Ray did not start.
    """
    with ExitStack() as held:
        session = SourceSession(job.source)
        context = _context(job, options, held.enter_context(session), held)
        shards = sorted(job.source.shards(context), key=lambda shard: shard.id)
        schema = _record_schema(job, shards, context, options)
        keep_ray_running()
        _check_scratch(options, context)
        context = replace(context, throttle=throttle.shared_budget(job.source))
        reader = RecordReader(job.source, context, schema, options)
        datasource = RecordDatasource(reader, shards, OpenSession(session, held.pop_all()))
    dataset = ray.data.read_datasource(datasource)
    _sessions[dataset] = datasource.session
    return dataset


def close_dataset(dataset: Dataset) -> None:
    """End the session of a Dataset that ``read_dataset`` gave.

    Raises:
        ConfigError: it gave no such Dataset.
        SourceError: the store could not release what the session held.
    """
    session = _sessions.get(dataset)
    if session is None:
        raise ConfigError(
            "this Dataset has no session of its own: cfray.read did not give it",
            "close the Dataset that cfray.read gave",
        )
    session.close()


def _context(job: JobSpec, options: ReadOptions, session: Session, held: ExitStack) -> Context:
    """Give what a source is handed while it is planned; ``held`` removes a folder on this disk."""
    scratch = options.scratch
    if scratch is None:
        scratch = held.enter_context(tempfile.TemporaryDirectory(prefix="cfray-read-"))
    return Context(
        session=session.state,
        scratch=scratch,
        max_record=job.limits.max_document,
        throttle=throttle.local_budget(job.source),
    )


def _record_schema(
    job: JobSpec, shards: list[Shard], context: Context, options: ReadOptions
) -> pa.Schema:
    """Give the fields of the records: as the source declares them, else as a sample has them."""
    declared = job.source.describe(context, shards).schema
    if declared is not None:
        return declared.remove_metadata()
    sample = read_sample(job, shards, context)
    try:
        return sampled_schema(sample.batches, plain=options.values == "plain")
    except Unfit as error:
        raise _misfit(error, job.source.address, 0) from None


def _check_scratch(options: ReadOptions, context: Context) -> None:
    """Refuse lists on this machine's disk where other nodes would need them.

    Raises:
        ConfigError: the cluster has other nodes, and no ``scratch`` was given.
    """
    nodes = sum(node["Alive"] for node in ray.nodes())
    if options.scratch is None and nodes > 1 and any(Path(context.scratch).iterdir()):
        raise ConfigError(
            f"the source wrote lists for its shards to {context.scratch}, which the other "
            f"{nodes - 1} nodes of the cluster do not see",
            "give scratch: the URI of a folder that every node reaches",
        )
