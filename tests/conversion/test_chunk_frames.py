"""A chunk is a frame behind its document; its id is computed from the document's id."""

import uuid

import numpy as np
import pyarrow as pa
import pytest

from cfray.conversion import chunk_frames
from cfray.conversion.chunk_frames import Chunks, Ids
from cfray.conversion.convert import Conversion
from cfray.frames.schema import header_uuid, uuid_namespace
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Description

SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "cfray:n/docs")
#: What the copy adds to the columns of ``Conversion``.
ADDED = [pa.field("x_vector_origin", pa.string()), chunk_frames.FIELD]
NO_CHUNKS = Chunks(np.array([], np.int64), np.array([], np.int64), [])


def job_of(**mapping):
    return JobSpec.model_validate(
        {
            "name": "n",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": {"text_content": "body", **mapping},
            "target": {"uri": "t"},
        }
    )


def documents(records, **mapping):
    """Give the frames of records as the copy has them before it cuts chunks, and their ids."""
    job, batch = job_of(**mapping), pa.RecordBatch.from_pydict(records)
    description = Description(batch.schema, None, exact=False, size=0, consistency="none")
    shape = work_out_shape(job, description, [batch])
    converted = Conversion(job, shape).convert(batch, "docs")
    assert not converted.faults
    frames = converted.frames
    added = [pa.array(["kept"] * frames.num_rows), pa.nulls(frames.num_rows, pa.string())]
    frames = pa.RecordBatch.from_arrays(
        [*frames.columns, *added], schema=pa.schema([*frames.schema, *ADDED])
    )
    return frames, Ids(converted.tagged_ids, job, "docs")


def chunks_of(texts_by_row):
    owner = [row for row, texts in texts_by_row.items() for _ in texts]
    number = [n for texts in texts_by_row.values() for n in range(len(texts))]
    texts = [text for texts in texts_by_row.values() for text in texts]
    return Chunks(np.array(owner, np.int64), np.array(number, np.int64), texts)


RECORDS = {
    "id": ["a", "b", "c"],
    "body": ["short", "first second", "third fourth fifth"],
    "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    "name": ["A", "B", "C"],
    "pages": [1, 2, 3],
    "image": [b"1", b"2", b"3"],
    "kind": ["image/png"] * 3,
}
MAPPING = {"title": "name", "raw_data": "image", "raw_data_type": "kind"}


@pytest.fixture
def frames():
    batch, ids = documents(RECORDS, **MAPPING)
    chunks = chunks_of({1: ["first ", "second"], 2: ["third ", "fourth ", "fifth"]})
    result = chunk_frames.with_chunks(batch, chunks, ids)
    result.validate(full=True)
    assert result.schema.equals(batch.schema)
    return result


def test_chunks_stand_behind_their_documents(frames):
    rows = frames.to_pylist()
    assert [row["text_content"] for row in rows] == [
        *("short", "first second", "first ", "second"),
        *("third fourth fifth", "third ", "fourth ", "fifth"),
    ]
    b, c = rows[1]["uuid"], rows[4]["uuid"]
    assert [row["x_chunk_of"] for row in rows] == [None, None, b, b, None, c, c, c]
    assert chunk_frames.document_rows(frames) == [0, 1, 4]


def test_the_documents_stay_as_they_are(frames):
    batch, _ = documents(RECORDS, **MAPPING)
    assert frames.take(pa.array(chunk_frames.document_rows(frames))).equals(batch)


def test_the_uuid_of_a_chunk_is_computed_from_its_number_and_its_documents_id(frames):
    rows = frames.to_pylist()
    for number, row in enumerate(rows[5:]):
        assert row["uuid"] == str(uuid.uuid5(SPACE, f"chunk:{number}:s:c"))
    assert len({row["uuid"] for row in rows}) == len(rows)


def test_a_chunk_has_zeros_for_a_vector_and_no_origin(frames):
    rows = frames.to_pylist()
    assert [row["vector"] for row in rows[:3]] == [[1, 2], [3, 4], [0, 0]]
    assert [row["x_vector_origin"] for row in rows[:3]] == ["kept", "kept", None]
    assert frames.column("vector").null_count == 0


def test_a_chunk_has_its_documents_columns_but_not_its_blob_nor_its_metadata(frames):
    document, chunk = frames.to_pylist()[1:3]
    for name in ("title", "collection", "collection_id", "source_type", "source_url"):
        assert chunk[name] == document[name] is not None
    assert (document["raw_data"], document["raw_data_type"]) == (b"2", "image/png")
    assert chunk["raw_data"] is chunk["raw_data_type"] is None
    assert chunk["position"] == 0
    assert chunk["custom_metadata"] == [
        {"key": "chunk", "value": "0"},
        {"key": "original_id", "value": "b"},
    ]
    assert "pages" in {entry["key"] for entry in document["custom_metadata"]}


@pytest.mark.parametrize("member_of", [True, False])
def test_a_chunk_is_member_of_its_document_and_of_the_collection_if_documents_are(member_of):
    batch, ids = documents(RECORDS, member_of=member_of)
    rows = chunk_frames.with_chunks(batch, chunks_of({1: ["first "]}), ids).to_pylist()
    collections = [rows[1]["collection_id"]] if member_of else []
    links = [(link["type"], link["id"]) for link in rows[2]["relationships"]]
    assert links == [("member_of", id_) for id_ in [rows[1]["uuid"], *collections]]


def test_without_chunks_the_batch_is_as_it_was():
    batch, ids = documents(RECORDS)
    assert chunk_frames.with_chunks(batch, NO_CHUNKS, ids) is batch
    plain = batch.drop_columns(["x_chunk_of"])
    assert chunk_frames.document_rows(plain) == [0, 1, 2]


def uuids_of(*numbers):
    values = [uuid.UUID(int=number).bytes for number in numbers]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))


@pytest.mark.parametrize(
    ("ids", "rule", "tag"),
    [
        (pa.array(["42", "ß 漢", "chunk:0:s:a", "s:a"]), "id", "s"),
        (pa.array([42, -1, 0, 2**63 - 1]), "id", "i"),
        (uuids_of(1, 2, 3, 4), "id", "u"),
        (pa.array([b"\x00", b"\xff", b"", b"a"]), "id", "b"),
        (pa.array(["a", "b", "c", "d"]), {"key": ["id", "body"]}, "j"),
    ],
)
def test_the_tagged_id_is_found_from_the_frame(ids, rule, tag):
    records = {"id": ids, "body": ["first second"] * 4}
    frames, known = documents(records, id=rule)
    for row, tagged in enumerate(known.tagged.to_pylist()):
        assert tagged.startswith(f"{tag}:")
        assert chunk_frames.tagged_id(frames.slice(row, 1), known.job, "docs") == tagged
        assert chunk_frames.tagged_id(frames.slice(row, 1), known.job, "others") is None


def test_the_tagged_id_of_an_object_id_is_found():
    text = "507f1f77bcf86cd799439011"
    batch, ids = documents(RECORDS)
    (metadata,) = batch.slice(0, 1).column("custom_metadata").to_pylist()
    entries = [
        entry | ({"value": text} if entry["key"] == "original_id" else {}) for entry in metadata
    ]
    frame = pa.RecordBatch.from_pydict(
        {
            "uuid": [str(uuid.uuid5(SPACE, f"o:{text}"))],
            "custom_metadata": pa.array([entries], batch.schema.field("custom_metadata").type),
        }
    )
    assert chunk_frames.tagged_id(frame, ids.job, "docs") == f"o:{text}"


def test_a_kept_uuid_tells_no_tag():
    kept = "0A7F1F77-0000-4000-8000-0000000000AB"
    frames, ids = documents({"id": [kept, "no uuid"], "body": ["", ""]}, keep_uuid=True)
    assert frames.column("uuid").to_pylist()[0] == kept.lower()
    first, second = frames.slice(0, 1), frames.slice(1, 1)
    assert chunk_frames.tagged_id(first, ids.job, "docs") == f"u:{kept}"
    assert chunk_frames.tagged_id(first, ids.job, "docs", id_tag="s") == ids.tagged[0].as_py()
    assert chunk_frames.tagged_id(second, ids.job, "docs") == "s:no uuid"
    assert chunk_frames.tagged_id(first, job_of(), "docs") is None


def test_a_chunk_and_a_header_have_no_tagged_id(frames):
    job = job_of()
    assert chunk_frames.tagged_id(frames.slice(1, 1), job, "docs") == "s:b"
    assert chunk_frames.tagged_id(frames.slice(2, 1), job, "docs") is None
    header = pa.RecordBatch.from_pydict(
        {
            "uuid": [header_uuid(uuid_namespace("n", "docs"))],
            "custom_metadata": pa.array([[]], frames.schema.field("custom_metadata").type),
        }
    )
    assert chunk_frames.tagged_id(header, job, "docs") is None
