"""The copy converts records and cuts their chunks; it makes no vector."""

import pyarrow as pa
import pytest

from cfray.conversion import chunk_frames
from cfray.conversion.steps import KEPT, Steps, copied_schema
from cfray.frames.schema import ORIGIN
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Description

ENDPOINT = {"endpoint": {"url": "http://127.0.0.1:9", "api": "tei"}}
LONG = " ".join(f"word{number}" for number in range(12))
VECTORS = [[1.0, 2.0], None, [3.0, 4.0]]


def copy_records(records, policy="keep", **embedding):
    """Take records through all steps of the copy."""
    if policy != "keep":
        embedding |= ENDPOINT
    job = JobSpec.model_validate(
        {
            "name": "n",
            "source": {"kind": "parquet", "uri": "x"},
            "mapping": {"text_content": "body"},
            "target": {"uri": "t"},
            "embedding": {"policy": policy, **embedding},
        }
    )
    batch = pa.RecordBatch.from_pydict(records)
    description = Description(batch.schema, None, exact=False, size=0, consistency="none")
    shape = work_out_shape(job, description, [batch])
    converted = Steps(job, shape)(batch, "")
    converted.frames.validate(full=True)
    assert converted.frames.schema.equals(copied_schema(job, shape))
    return converted


@pytest.mark.parametrize("policy", ["keep", "remap"])
def test_vectors_of_the_source_are_copied_in_their_own_width(policy):
    records = {"id": ["a", "b", "c"], "body": ["x", "y", "z"], "vector": VECTORS}
    converted = copy_records(records, policy)
    assert converted.frames.column("vector").to_pylist() == [VECTORS[0], [0.0, 0.0], VECTORS[2]]
    assert converted.frames.column(ORIGIN).to_pylist() == [KEPT, None, KEPT]
    assert converted.missing.tolist() == [False, True, False]


def test_regenerate_copies_zeros_one_wide():
    records = {"id": ["a", "b", "c"], "body": ["x", None, "z"], "vector": VECTORS}
    converted = copy_records(records, "regenerate", missing_vector="null")
    assert converted.frames.column("vector").to_pylist() == [[0.0]] * 3
    assert converted.frames.column(ORIGIN).null_count == 3


def test_what_the_second_line_makes_is_not_there_yet():
    columns = {"half": {"of": "vector", "dtype": "float16"}}
    records = {"id": ["a"], "body": ["x"], "vector": [[1.0, 2.0]]}
    converted = copy_records(
        records, reduce={"method": "truncate", "dimension": 1}, columns=columns
    )
    assert converted.frames.column("vector").to_pylist() == [[1.0, 2.0]]
    assert "x_vector_half" not in converted.frames.schema.names


def test_a_null_vector_waits_for_the_second_line():
    records = {"id": ["a", "b", "c"], "body": ["x", "y", "z"], "vector": VECTORS}
    null = copy_records(records, missing_vector="null")
    assert null.frames.column("vector").to_pylist()[1] is None
    reduced = copy_records(
        records, missing_vector="null", reduce={"method": "truncate", "dimension": 1}
    )
    assert reduced.frames.column("vector").to_pylist()[1] == [0.0, 0.0]


def test_chunks_stand_behind_their_documents():
    records = {"id": ["a", "b", "c"], "body": ["short", LONG, None]}
    converted = copy_records(records, "regenerate", chunk={"tokens": 8})
    rows = converted.frames.to_pylist()
    parts = [row for row in rows if row[chunk_frames.FIELD.name] is not None]
    assert "".join(row["text_content"] for row in parts) == LONG
    assert {row[chunk_frames.FIELD.name] for row in parts} == {rows[1]["uuid"]}
    assert [row["position"] for row in parts] == list(range(len(parts)))
    assert chunk_frames.document_rows(converted.frames) == [0, 1, len(rows) - 1]
    assert converted.counts["derived_frames"] == len(parts) > 1
    assert len({row["uuid"] for row in rows}) == len(rows)
    assert {tuple(row["vector"]) for row in rows} == {(0.0,)}


def test_a_record_without_text_is_refused_where_that_is_decided():
    records = {"id": ["a", "b", "c"], "body": ["x", None, " "]}
    converted = copy_records(records, "regenerate", missing_vector="quarantine")
    assert [(fault.row, fault.stage) for fault in converted.faults] == [
        (1, "convert"),
        (2, "convert"),
    ]
    assert "there is no text" in converted.faults[0].reason
    assert converted.rows.tolist() == [0]


def test_under_remap_a_record_needs_a_text_or_a_vector():
    records = {"id": ["a", "b", "c"], "body": [None, None, "z"], "vector": [[1.0, 2.0], None, None]}
    converted = copy_records(records, "remap", missing_vector="quarantine")
    assert [fault.row for fault in converted.faults] == [1]
    assert converted.frames.column(ORIGIN).to_pylist() == [KEPT, None]


def test_a_faulty_record_leaves_the_rows_of_the_others_in_step():
    records = {"id": [None, "b", "c"], "body": ["no id", LONG, "fine"]}
    converted = copy_records(records, "regenerate", chunk={"tokens": 8})
    assert [(fault.row, fault.stage) for fault in converted.faults] == [(0, "convert")]
    assert converted.rows.tolist() == [1, 2]
    documents = chunk_frames.document_rows(converted.frames)
    texts = converted.frames.column("text_content").take(pa.array(documents)).to_pylist()
    assert texts == [LONG, "fine"]
    assert converted.tagged_ids.to_pylist() == ["s:b", "s:c"]
