"""Quarantined rows on their way back: converted anew with the mapping as it is now.

A row that was set aside as a record takes every step that the copy takes; a row that left the
target as a frame needs no mapping, and its chunks are cut again.  Both get the vectors that the job
asks for.  Nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from cfray.conversion import chunk_frames
from cfray.conversion.convert import Converted
from cfray.conversion.cut_chunks import planned_tokenizer
from cfray.conversion.steps import Steps
from cfray.embedding.joining_frames import joining_job, make_joining_vectors
from cfray.frames.schema import ORIGIN
from cfray.joining.quarantine import QuarantinedRow
from cfray.records.record import file_of
from cfray.records.vectors import vector_lists
from cfray.report.run import Run

#: Rows converted at once.
_BATCH_ROWS = 1000

#: A record that fits now: its row in quarantine, and its frame with the chunks behind it.
RepairedRow = tuple[QuarantinedRow, pa.RecordBatch]


def repaired_rows(run: Run, rows: Iterator[QuarantinedRow]) -> Iterator[RepairedRow]:
    """Convert rows anew; yield those that fit now, each with its frame and its chunks."""
    # plans of earlier versions name no tokenizer
    tokenizer = run.plan.tokenizer or planned_tokenizer(run.job.embedding)
    steps = Steps(joining_job(run), run.plan.shape, tokenizer)
    for group in _groups(rows):
        yield from _repair(steps, group)


def _groups(rows: Iterator[QuarantinedRow]) -> Iterator[list[QuarantinedRow]]:
    """Gather rows that can be converted at once: same form, collection, columns and file."""
    groups: dict[tuple[str, str, str], list[QuarantinedRow]] = {}
    for row in rows:
        if not row.content.record:
            # the bytes never were a record, and no mapping can make them one
            continue
        record = row.record
        columns = f"{record.schema.remove_metadata()} of {file_of(record)}"
        key = (row.content.form, row.content.collection, columns)
        groups.setdefault(key, []).append(row)
        if len(groups[key]) == _BATCH_ROWS:
            yield groups.pop(key)
    yield from groups.values()


def _repair(steps: Steps, rows: list[QuarantinedRow]) -> list[RepairedRow]:
    """Convert rows anew and give those that fit, each with its frame and its chunks."""
    batch = pa.concat_batches([row.record for row in rows])
    collection = rows[0].content.collection
    if rows[0].content.form == "frame":
        converted = steps.cut(_as_converted(steps, batch, collection), collection)
    else:
        converted = steps(batch, collection)
    starts = chunk_frames.document_rows(converted.frames)
    ends = [*starts, converted.frames.num_rows][1:]
    return [
        (rows[int(row)], converted.frames.slice(start, end - start))
        for row, start, end in zip(converted.rows, starts, ends, strict=True)
    ]


def _as_converted(steps: Steps, frames: pa.RecordBatch, collection: str) -> Converted:
    """Take frames that left the target for converted ones, without those that fit no longer.

    A model makes their vectors anew; kept vectors must be as wide as those of the source.  The
    chunks of a document need its id: a frame whose uuid tells none stays in quarantine.
    """
    schema, rows = steps.conversion.schema, frames.num_rows
    columns = dict(zip(frames.schema.names, frames.columns, strict=True))
    if steps.job.embedding.policy != "keep":
        zeros = np.zeros((rows, steps.shape.read_dimension), np.float32)
        columns["vector"] = vector_lists(zeros, np.zeros(rows, np.bool_), pa.float32())
    tagged_ids = _tagged_ids(steps, frames, collection)
    fits = np.full(rows, columns["vector"].type.list_size == steps.shape.read_dimension)
    if steps.cutter is not None:
        fits &= tagged_ids.is_valid().to_numpy(zero_copy_only=False)
    missing = columns[ORIGIN].is_null().to_numpy(zero_copy_only=False)
    numbers = np.flatnonzero(fits)
    arrays = [
        columns[field.name].take(pa.array(numbers)).cast(field.type)
        if field.name in columns
        else pa.nulls(len(numbers), field.type)
        for field in schema
    ]
    again = pa.RecordBatch.from_arrays(arrays, schema=schema)
    chosen_ids = tagged_ids.take(pa.array(numbers))
    return Converted(again, numbers, [], Counter(), missing[numbers], chosen_ids)


def _tagged_ids(steps: Steps, frames: pa.RecordBatch, collection: str) -> pa.StringArray:
    return pa.array(
        [
            chunk_frames.tagged_id(
                frames.slice(row, 1), steps.job, collection, id_tag=steps.shape.id_tag
            )
            for row in range(frames.num_rows)
        ],
        pa.string(),
    )


def with_vectors(run: Run, repaired: list[RepairedRow]) -> tuple[list[RepairedRow], Counter[str]]:
    """Give frames the vectors that the job asks for; a row that is refused stays in quarantine.

    Returns:
        The rows that have their vectors, and figures of the texts that the model was given.

    Raises:
        CfrayError: the model failed as a whole; nothing was committed.
    """
    if not repaired or not run.job.embedding.makes_vectors:
        return repaired, Counter()
    made = make_joining_vectors(run, pa.concat_batches([frames for _, frames in repaired]))
    complete: list[RepairedRow] = []
    first = 0
    for row, frames in repaired:
        numbers = range(first, first + frames.num_rows)
        first += frames.num_rows
        if made.refused.keys().isdisjoint(numbers):
            columns = {
                name: column.slice(numbers[0], len(numbers))
                for name, column in made.columns.items()
            }
            complete.append((row, _with_columns(frames, columns)))
    return complete, made.counts


def _with_columns(frames: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    for name, column in columns.items():
        index = frames.schema.get_field_index(name)
        frames = (
            frames.append_column(name, column)
            if index < 0
            else frames.set_column(index, name, column)
        )
    return frames
