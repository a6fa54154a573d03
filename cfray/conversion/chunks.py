"""Chunk frames: parts of a long document's text, each a frame right behind its document.

Chunks are derived, so they are not records and are counted beside them.  The uuid of a chunk is
computed from its number and its document's id, so it is the same in every run.  A chunk has its
text and its vector; its other columns are the document's, except that its ``custom_metadata`` says
only which chunk of which document it is.  It is ``member_of`` its document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.relationships import relationship_structs
from cfray.embedders.texts import Chunks
from cfray.frames.schema import (
    ORIGINAL_ID,
    RELATIONSHIP,
    gather_lists,
    pack_metadata,
    record_uuids,
    uuid_namespace,
)
from cfray.job.spec import JobSpec

#: uuid of the document that a chunk was cut from; null in every other row.
FIELD = pa.field("x_chunk_of", pa.string())
#: Key of a chunk's ``custom_metadata`` that holds its number.
NUMBER = "chunk"
#: Columns that a chunk does not take over from its document.
_REPLACED = ["text_content", "vector", "relationships", "custom_metadata", "raw_data"]


@dataclass(frozen=True, slots=True)
class Ids:
    """What the ids of chunks are made of.

    Attributes:
        tagged: id of each document as ``tag:text``.
        job: the job file.
        collection: the source collection.
    """

    tagged: pa.StringArray
    job: JobSpec
    collection: str


def with_chunks(
    batch: pa.RecordBatch, chunks: Chunks, ids: Ids, stays: npt.NDArray[np.bool_]
) -> pa.RecordBatch:
    """Put the chunks of each document behind it.

    Args:
        batch: frames of documents.
        chunks: of these documents.
        ids: of these documents.
        stays: whether a document stays; a document that does not leaves with its chunks.
    """
    chunk_stays = stays[chunks.owner]
    owners = chunks.owner[chunk_stays]
    if not len(owners):
        return batch.filter(pa.array(stays))
    documents = np.flatnonzero(stays)
    chunk_frames = _chunk_frames(batch, chunks, ids, np.flatnonzero(chunk_stays))
    frames = pa.Table.from_batches([batch.take(pa.array(documents)), chunk_frames])
    # a document sorts before its chunks, which stay in their order
    order = np.argsort(np.concatenate([documents * 2, owners * 2 + 1]), kind="stable")
    return frames.take(pa.array(order)).combine_chunks().to_batches()[0]


def document_rows(batch: pa.RecordBatch) -> list[int]:
    """List the rows that are no chunks."""
    if FIELD.name not in batch.schema.names:
        return list(range(batch.num_rows))
    rows: list[int] = pc.indices_nonzero(batch.column(FIELD.name).is_null()).to_pylist()
    return rows


def _chunk_frames(
    batch: pa.RecordBatch, chunks: Chunks, ids: Ids, numbers: npt.NDArray[np.int64]
) -> pa.RecordBatch:
    """Make frames of the chunks with these numbers among ``chunks``."""
    owners = pa.array(chunks.owner[numbers])
    rows = len(owners)
    # A document's long columns are dropped before they are repeated for each of its chunks.
    shared = batch.drop_columns(_REPLACED)
    columns = dict(zip(shared.schema.names, shared.take(owners).columns, strict=True))
    number_texts = pa.array(chunks.number[numbers].astype(str).tolist(), pa.string())
    tagged = pc.binary_join_element_wise(
        pa.scalar("chunk"), number_texts, ids.tagged.take(owners), ":"
    )
    documents = columns["uuid"]
    columns["uuid"] = record_uuids(uuid_namespace(ids.job.name, ids.collection), tagged)
    texts = [chunks.texts[number] for number in numbers.tolist()]
    columns["text_content"] = pa.array(texts, pa.string())
    vectors = np.ascontiguousarray(chunks.vectors[numbers])
    columns["vector"] = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1)), vectors.shape[1]
    )
    columns["position"] = pa.array(chunks.number[numbers].astype(np.int32))
    columns["relationships"] = _membership(documents, columns["collection_id"], ids.job)
    original_ids = _original_ids(batch.column("custom_metadata")).take(owners)
    columns["custom_metadata"] = pack_metadata(
        [NUMBER, ORIGINAL_ID], [number_texts, original_ids], rows
    )
    columns |= {
        field.name: pa.nulls(rows, field.type) for field in batch.schema if _is_left_null(field)
    }
    columns[FIELD.name] = documents
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in batch.schema.names], schema=batch.schema
    )


def _is_left_null(field: pa.Field) -> bool:
    """Tell the columns that a chunk has no value for: blobs and the document's other vectors."""
    is_further_vector = field.name.startswith("x_vector_") and field.name != "x_vector_origin"
    return is_further_vector or field.name in ("raw_data", "raw_data_type")


def _membership(
    documents: pa.StringArray, collections: pa.StringArray, job: JobSpec
) -> pa.ListArray:
    """Make each chunk a member of its document and, where documents are, of the collection."""
    rows = np.arange(len(documents))
    rows_and_structs = [(rows, relationship_structs("member_of", documents))]
    if job.mapping.member_of:
        rows_and_structs.append((rows, relationship_structs("member_of", collections)))
    return gather_lists(rows_and_structs, len(documents), RELATIONSHIP)


def _original_ids(metadata: pa.ListArray) -> pa.StringArray:
    """Read the ``original_id`` of each document: every frame has exactly one."""
    entries = metadata.flatten()
    return entries.field("value").filter(pc.equal(entries.field("key"), ORIGINAL_ID))
