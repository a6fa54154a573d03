"""The kind ``targets``: what it refuses, and the types that a row names itself."""

from __future__ import annotations

import json

import lance
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.frames.schema import METADATA_ENTRY
from cfray.job.spec import JobSpec
from cfray.sources.base import Context
from cfray.sources.files.targets import Targets, with_types


def metadata(*rows):
    entries = [
        None if row is None else [{"key": key, "value": value} for key, value in row.items()]
        for row in rows
    ]
    return pa.array(entries, pa.list_(METADATA_ENTRY))


def as_dicts(column):
    return [
        None if row is None else {entry["key"]: entry["value"] for entry in row}
        for row in column.to_pylist()
    ]


def test_a_row_names_the_types_that_are_not_those_of_the_dataset():
    column = metadata({"year": "1", "a": "x"}, {"a": "x"}, None, {})
    assert with_types(column, {}) is column
    rows = as_dicts(with_types(column, {"year": "int64"}))
    assert rows[0] == {"year": "1", "a": "x", "cfray.types": '{"year":"int64"}'}
    assert rows[1:] == [{"a": "x"}, None, {}]


def test_a_type_that_a_row_names_itself_stays():
    own = json.dumps({"year": "string", "b": "int64"})
    column = metadata({"year": "1", "b": "2", "c": "3", "cfray.types": own})
    (row,) = as_dicts(with_types(column, {"year": "int64", "c": "double", "d": "double"}))
    assert json.loads(row["cfray.types"]) == {"year": "string", "b": "int64", "c": "double"}


def test_a_dataset_of_another_program_is_no_target(tmp_path):
    lance.write_dataset(pa.table({"id": [1]}), str(tmp_path / "other.lance"))
    source = Targets(uris=[str(tmp_path / "other.lance")])
    with pytest.raises(SourceError, match="no finished target"):
        source.shards(Context())
    with pytest.raises(SourceError, match="there is no target"):
        Targets(uris=[str(tmp_path / "none.lance")]).marks(Context())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"mapping": {"id": "x"}}, "leave mapping out"),
        ({"embedding": {"policy": "regenerate", "model": "m"}}, "frames keep their vectors"),
        ({"source": {"kind": "targets", "uris": []}}, "at least 1 item"),
        (
            {"source": {"kind": "targets", "uris": ["s3://key:secret@bucket/x"]}},
            "AWS_ACCESS_KEY_ID",
        ),
    ],
)
def test_a_job_of_targets_says_what_is_wrong(section, words):
    body = {"name": "x", "source": {"kind": "targets", "uris": ["a"]}, "target": {"uri": "y"}}
    with pytest.raises(ValidationError, match=words) as refused:
        JobSpec.model_validate(body | section)
    assert "secret@" not in str(refused.value)


def test_addresses_are_resolved_against_the_folder_of_the_job_file(tmp_path):
    source = Targets(uris=["./a.lance", "s3://bucket/b.lance"]).resolve_paths(tmp_path)
    assert source.uris == [f"{tmp_path}/a.lance", "s3://bucket/b.lance"]
    assert source.address == f"file://{tmp_path}/a.lance, s3://bucket/b.lance"
    assert source.would_read(f"{tmp_path}/a.lance")
    assert not source.would_read(f"{tmp_path}/c.lance")
