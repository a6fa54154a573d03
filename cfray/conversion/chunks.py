"""Chunk frames: pieces of a long document, each a frame of its own right behind its document.

``member_of`` it.

Derived, not records: counted beside them.  A chunk's uuid follows from its
number and its document's id (``contextframe.md``, "Identity"), so it is the same in
every run; it carries its document's columns, its own text and vector, and as
``custom_metadata`` only where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.convert import relations
from cfray.embedders.texts import Chunks
from cfray.frames.schema import (
    ORIGINAL_ID,
    RELATIONSHIP,
    lists_of,
    metadata_lists,
    namespace,
    record_uuids,
)
from cfray.job.spec import JobSpec

#: uuid of the document a chunk was cut from; null in every other row.
FIELD = pa.field("x_chunk_of", pa.string())
#: Key of a chunk's ``custom_metadata`` that holds its number.
NUMBER = "chunk"


@dataclass(frozen=True, slots=True)
class Ids:
    """What a chunk's identity is made of.

    Attributes:
        tagged: id of each document as ``tag:text``.
        job: the job file.
        collection: the source collection.
    """

    tagged: pa.StringArray
    job: JobSpec
    collection: str


def with_chunks(
    batch: pa.RecordBatch, chunks: Chunks, ids: Ids, kept: npt.NDArray[np.bool_]
) -> pa.RecordBatch:
    """Put each document's chunks behind it.

    Leave out documents that are not kept together with theirs.
    """
    own = kept[chunks.owner]
    owner = chunks.owner[own]
    documents = np.flatnonzero(kept)
    if not len(owner):
        return batch.filter(pa.array(kept))
    made = _frames(batch, chunks, ids, np.flatnonzero(own))
    order = np.argsort(
        np.concatenate([documents * 2, owner * 2 + 1]), kind="stable"
    )  # documents come first, chunks in their order
    table = (
        pa.Table.from_batches([batch.take(pa.array(documents)), made])
        .take(pa.array(order))
        .combine_chunks()
    )
    return table.to_batches()[0]


def documents(batch: pa.RecordBatch) -> list[int]:
    """Number the rows that are no chunks."""
    if FIELD.name not in batch.schema.names:
        return list(range(batch.num_rows))
    rows: list[int] = pc.indices_nonzero(batch.column(FIELD.name).is_null()).to_pylist()
    return rows


def _frames(
    batch: pa.RecordBatch, chunks: Chunks, ids: Ids, own: npt.NDArray[np.int64]
) -> pa.RecordBatch:
    owner = pa.array(chunks.owner[own])
    rows = len(owner)
    plain = batch.drop_columns(
        ["text_content", "vector", "relationships", "custom_metadata", "raw_data"]
    )
    columns = dict(
        zip(plain.schema.names, plain.take(owner).columns, strict=True)
    )  # a text is not repeated for each of its thousand chunks
    numbers = pa.array(chunks.number[own].astype(str).tolist(), pa.string())
    named = pc.binary_join_element_wise(pa.scalar("chunk"), numbers, ids.tagged.take(owner), ":")
    documents = columns["uuid"]
    columns["uuid"] = record_uuids(namespace(ids.job.name, ids.collection), named)
    columns["text_content"] = pa.array([chunks.texts[place] for place in own.tolist()], pa.string())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(chunks.vectors[own]).reshape(-1)), chunks.vectors.shape[1]
    )
    columns["position"] = pa.array(chunks.number[own].astype(np.int32))
    columns["relationships"] = _membership(documents, columns["collection_id"], ids.job)
    original = _original_ids(batch.column("custom_metadata")).take(owner)
    columns["custom_metadata"] = metadata_lists([NUMBER, ORIGINAL_ID], [numbers, original], rows)
    for name in batch.schema.names:
        if name in ("raw_data", "raw_data_type") or (
            name.startswith("x_vector_") and name != "x_vector_origin"
        ):
            columns[name] = pa.nulls(rows, batch.schema.field(name).type)
    columns[FIELD.name] = documents
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in batch.schema.names], schema=batch.schema
    )


def _membership(
    documents: pa.StringArray, collections: pa.StringArray, job: JobSpec
) -> pa.ListArray:
    """Make each chunk a member of its document and, where documents are, of the collection."""
    rows = np.arange(len(documents))
    parts = [(rows, relations("member_of", documents))]
    if job.mapping.member_of:
        parts.append((rows, relations("member_of", collections)))
    return lists_of(parts, len(documents), RELATIONSHIP)


def _original_ids(metadata: pa.ListArray) -> pa.StringArray:
    """Read each document's ``original_id``: every frame has exactly one."""
    entries = metadata.flatten()
    return entries.field("value").filter(pc.equal(entries.field("key"), ORIGINAL_ID))
