"""Delta tables: the live rows of one pinned version, a snapshot whatever is written meanwhile.

The table's log says which files are live; it is read with delta-rs when the plan is made, and the
plan keeps the files, the values of their partitions and the schema.  Workers read Parquet, and need
neither the log nor delta-rs.  What the protocol allows and is not read right is refused by name.

Source: the Delta transaction log protocol (github.com/delta-io/delta, PROTOCOL.md).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa
from pydantic import Field

from cfray.errors import SourceError
from cfray.records.record import Reject, with_file
from cfray.runtime.models import Location
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Description, Json, Shard, Source
from cfray.sources.files import deletions, delta_log, rowgroups
from cfray.sources.files.base import FilePart, pack_parts, parts_of


class Delta(Source):
    """One Delta table."""

    kind: Literal["delta"] = "delta"
    #: The table's folder: the one that holds ``_delta_log``.
    uri: Location
    #: The version to read; default: the newest when the plan is made.
    version: int | None = Field(default=None, ge=0)

    def shards(self, context: Context) -> list[Shard]:
        """Gather row groups of the live files, in order, into shards of about ``shard_bytes``."""
        snapshot = delta_log.read_snapshot(self.uri, self.version)
        deleted = deletions.publish_deletions(snapshot.deleted, context)
        parts: list[FilePart] = []
        for file in snapshot.files:
            extra: dict[str, Json] = {}
            if snapshot.partitions[file.name].num_columns:
                extra["values"] = _to_text(snapshot.partitions[file.name])
            if file.name in deleted:
                extra["deleted"] = deleted[file.name]
            file_parts = rowgroups.split_file(file, self.shard_bytes)
            counts = deletions.count_rows(file_parts, snapshot.deleted.get(file.name))
            parts += [
                replace(part, rows=rows, where={**part.where, **extra, "first": first})
                for part, (first, rows) in zip(file_parts, counts, strict=True)
            ]
        if not parts:
            raise SourceError(
                f"version {snapshot.version} of the Delta table at {self.uri} has no rows",
                "correct source.uri or source.version in the job file",
            )
        where: dict[str, Json] = {
            "version": snapshot.version,
            "schema": base64.b64encode(snapshot.schema.serialize()).decode(),
            "physical_names": dict(snapshot.physical_names),
        }
        return [
            replace(shard, where={**shard.where, **where})
            for shard in pack_parts(parts, self.shard_bytes)
        ]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch | Reject]:
        """Read the row groups of the shard, without the rows that a later commit deleted."""
        layout = _Layout.of(shard)
        for file, where in parts_of(shard):
            values = _from_text(str(where["values"])) if "values" in where else None
            items = rowgroups.read_part(file, where, context.batch_bytes)
            if "deleted" in where:
                items = deletions.leave_out(items, where, context)
            for item in items:
                if isinstance(item, Reject):
                    yield item
                elif item.num_rows:
                    yield with_file(layout.arrange(item, values), file.name)

    def marks(self, context: Context) -> dict[str, str]:
        """Mark the table by the version that is read."""
        return {"the table": f"version {delta_log.read_snapshot(self.uri, self.version).version}"}

    def describe(self, context: Context, shards: list[Shard]) -> Description:
        """Say what the pinned version holds."""
        layout = _Layout.of(shards[0])
        files = {file.name for shard in shards for file, _ in parts_of(shard)}
        deleted = {
            file.name for shard in shards for file, where in parts_of(shard) if "deleted" in where
        }
        version = shards[0].where["version"]
        read = counted(len(files), "live file")
        notes = [f"version {version} of the table is read: its {read} and no others"]
        if deleted:
            marked = counted(len(deleted), "file")
            notes.append(f"rows that deletion vectors mark as deleted in {marked} are not read")
        return replace(
            super().describe(context, shards),
            schema=layout.schema,
            consistency="snapshot",
            notes=tuple(notes),
        )


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of the pinned version, as the plan keeps them in each shard.

    Attributes:
        schema: the columns, those of the partitions included.
        physical_names: name of a column -> its name in the files, where that is another.
    """

    schema: pa.Schema
    physical_names: dict[str, str]

    @classmethod
    def of(cls, shard: Shard) -> _Layout:
        """Read the columns from a shard."""
        data = base64.b64decode(str(shard.where["schema"]))
        names = shard.where["physical_names"]
        assert isinstance(names, dict)
        schema = pa.ipc.read_schema(pa.py_buffer(data))
        return cls(schema, {name: str(physical) for name, physical in names.items()})

    def arrange(self, batch: pa.RecordBatch, values: pa.RecordBatch | None) -> pa.RecordBatch:
        """Give a batch of a file the columns of the table.

        A column that the file lacks is null, as the protocol says.  A column that does not become
        the table's type without a loss keeps the type that it has in the file.

        Args:
            batch: as it is in the file.
            values: a row with the values of the file's partition; None where there are none.
        """
        arrays, fields = [], []
        for field in self.schema:
            in_file = batch.schema.get_field_index(self.physical_names.get(field.name, field.name))
            if values is not None and field.name in values.schema.names:
                column = pa.repeat(values.column(field.name)[0], batch.num_rows)
            elif in_file >= 0:
                column = _cast(batch.column(in_file), field.type)
            else:
                column = pa.nulls(batch.num_rows, field.type)
            arrays.append(column)
            fields.append(field.with_type(column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type.equals(kind):
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column


def _to_text(batch: pa.RecordBatch) -> str:
    """Write a row into the plan, with its types."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode()


def _from_text(text: str) -> pa.RecordBatch:
    (batch,) = pa.ipc.open_stream(base64.b64decode(text))
    return batch
