"""Chunk frames: parts of a long document's text, each a frame right behind its document.

Chunks are derived, so they are not records and are counted beside them.  The uuid of a chunk is
computed from its number and its document's id, so it is the same in every run.  A chunk has its
text; its vector is made after the copy and is zeros until then.  Its other columns are the
document's, except that its ``custom_metadata`` says only which chunk of which document it is.  It
is ``member_of`` its document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.relationships import relationship_structs
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
#: Tags that the id of a record can have (``conversion/identity.py``).
TAGS = ("s", "i", "u", "o", "b", "j")


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of the long texts of a batch, in the order of their documents.

    Attributes:
        owner: row of each chunk's document ``(m,)``.
        number: of the chunk within its document, from 0 ``(m,)``.
        texts: m texts.
    """

    owner: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    texts: list[str]


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


def with_chunks(batch: pa.RecordBatch, chunks: Chunks, ids: Ids) -> pa.RecordBatch:
    """Put the chunks of each document behind it.

    Args:
        batch: frames of documents, with the column ``x_chunk_of``.
        chunks: of these documents.
        ids: of these documents.
    """
    if not len(chunks.owner):
        return batch
    frames = pa.Table.from_batches([batch, _chunk_frames(batch, chunks, ids)])
    # a document sorts before its chunks, which stay in their order
    documents = np.arange(batch.num_rows)
    order = np.argsort(np.concatenate([documents * 2, chunks.owner * 2 + 1]), kind="stable")
    return frames.take(pa.array(order)).combine_chunks().to_batches()[0]


def document_rows(batch: pa.RecordBatch) -> list[int]:
    """List the rows that are no chunks."""
    if FIELD.name not in batch.schema.names:
        return list(range(batch.num_rows))
    rows: list[int] = pc.indices_nonzero(batch.column(FIELD.name).is_null()).to_pylist()
    return rows


def tagged_id(
    frame: pa.RecordBatch, job: JobSpec, collection: str, *, id_tag: str = "u"
) -> str | None:
    """Find the id ``tag:text`` that a document's frame was made of.

    The frame has the text; its uuid tells the tag, for another tag gives another uuid.  A uuid that
    ``mapping.keep_uuid`` took over from the source tells no tag.

    Args:
        frame: a batch of one row.
        job: the job file that the frame was made by.
        collection: the source collection of the frame.
        id_tag: of an id that is the frame's uuid itself: the source's (``SourceShape.id_tag``).

    Returns:
        None where the frame is of no record of this job and collection: a chunk, a header.
    """
    (uuid,) = frame.column("uuid").to_pylist()
    texts = _original_ids(frame.column("custom_metadata")).to_pylist()
    if len(texts) != 1:
        return None
    (text,) = texts
    if job.mapping.keep_uuid and text.lower() == uuid:
        return f"{id_tag}:{text}"
    tagged = [f"{tag}:{text}" for tag in TAGS]
    uuids = record_uuids(uuid_namespace(job.name, collection), pa.array(tagged)).to_pylist()
    return dict(zip(uuids, tagged, strict=True)).get(uuid)


def _chunk_frames(batch: pa.RecordBatch, chunks: Chunks, ids: Ids) -> pa.RecordBatch:
    """Make a frame of each chunk."""
    owners = pa.array(chunks.owner)
    rows = len(owners)
    # A document's long columns are dropped before they are repeated for each of its chunks.
    shared = batch.drop_columns(_REPLACED)
    columns = dict(zip(shared.schema.names, shared.take(owners).columns, strict=True))
    number_texts = pa.array(chunks.number.astype(str).tolist(), pa.string())
    tagged = pc.binary_join_element_wise(
        pa.scalar("chunk"), number_texts, ids.tagged.take(owners), ":"
    )
    documents = columns["uuid"]
    columns["uuid"] = record_uuids(uuid_namespace(ids.job.name, ids.collection), tagged)
    columns["text_content"] = pa.array(chunks.texts, pa.string())
    columns["vector"] = _zeros(batch.schema.field("vector").type, rows)
    columns["position"] = pa.array(chunks.number.astype(np.int32))
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


def _zeros(kind: pa.FixedSizeListType, rows: int) -> pa.FixedSizeListArray:
    """Give vectors of zeros in the type of the batch's vectors."""
    width = kind.list_size
    zeros = pa.array(np.zeros(rows * width, kind.value_type.to_pandas_dtype()), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(zeros, width)


def _is_left_null(field: pa.Field) -> bool:
    """Tell the columns that a chunk has no value for: blobs, its vector's origin, other vectors."""
    return field.name.startswith("x_vector_") or field.name in ("raw_data", "raw_data_type")


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
