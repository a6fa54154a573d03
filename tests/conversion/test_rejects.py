"""A line of the quarantine says what its copy for replay is: the record, or a frame of the target."""

import json

import pyarrow as pa
import pytest

from cfray.conversion.convert import Fault
from cfray.conversion.rejects import RejectedRow, reject_frame, reject_record, row_from_text
from cfray.conversion.steps import Steps
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.sources.base import Description

JOB = JobSpec.model_validate(
    {
        "name": "n",
        "source": {"kind": "parquet", "uri": "x"},
        "mapping": {"id": "id", "text_content": "body"},
        "target": {"uri": "t"},
    }
)
RECORDS = pa.RecordBatch.from_pydict(
    {"id": ["a", "b"], "body": ["one", "two"], "vector": [[1.0, 2.0], [3.0, 4.0]]}
)


def frames():
    description = Description(RECORDS.schema, None, exact=False, size=0, consistency="none")
    return Steps(JOB, work_out_shape(JOB, description, [RECORDS]))(RECORDS, "").frames


def rejected(form):
    fault = Fault(1, "embed" if form == "frame" else "convert", "why")
    if form == "frame":
        return reject_frame(frames(), fault, "shard a, frame 1", "docs")
    return reject_record(RECORDS, fault, "shard a, record 1", "docs", JOB.mapping)


@pytest.mark.parametrize("form", ["record", "frame"])
def test_a_line_comes_back_as_it_was_written(form):
    row = rejected(form)
    again = RejectedRow.from_line(row.to_line())
    assert again == row
    assert (again.form, again.id, again.collection) == (form, "b", "docs")
    expected = frames() if form == "frame" else RECORDS
    assert row_from_text(again.record).equals(expected.slice(1, 1))


@pytest.mark.parametrize("stage", ["read", "convert", "embed"])
def test_a_line_of_an_earlier_version_holds_a_record(stage):
    body = json.loads(rejected("record").to_line())
    del body["form"]
    again = RejectedRow.from_line(json.dumps({**body, "stage": stage}).encode())
    assert again.form == "record"
    assert row_from_text(again.record).equals(RECORDS.slice(1, 1))


def test_a_duplicate_of_an_earlier_version_is_a_frame():
    body = json.loads(rejected("frame").to_line())
    del body["form"]
    again = RejectedRow.from_line(json.dumps({**body, "stage": "commit"}).encode())
    assert again.form == "frame"
    assert row_from_text(again.record).num_columns == len(frames().schema)


def test_people_read_neither_the_copy_for_replay_nor_its_form():
    assert set(rejected("frame").readable()) == {"stage", "reason", "position", "id", "content"}
