"""Folders of elasticdump's files that need no server: what is not read is named."""

import json

import pytest

from cfray.sources.elasticsearch.source import Elasticsearch
from tests.sources.corpus import CONTEXT, rows


def hit(index, number):
    return json.dumps({"_index": index, "_id": str(number), "_source": {"n": number}}) + "\n"


@pytest.fixture
def folder(tmp_path):
    for name, content in {
        "ix_data.json": hit("ix", 1) + hit("ix", 2),
        "ix_data.json.bak": hit("ix", 3),
        "ix_mapping.json": json.dumps({"ix": {"mappings": {"properties": {}}}}),
        "ix_settings.json": "{}",
        "iz.txt": hit("iz", 4),
        "iy.json": hit("iy", 5),
        "none.json": "",
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_files_that_are_not_read_are_named(folder):
    source = Elasticsearch(uri=str(folder), collections=["ix"])
    shards = source.shards(CONTEXT)
    assert len(rows(source, shards)) == 2
    notes = source.describe(CONTEXT, shards).notes
    named = [note for note in notes if note.startswith(("not read", "without any record"))]
    assert named == [
        (
            "not read (2), another kind of file than kind: elasticsearch reads (.json, .ndjson, "
            ".jsonl): ix_data.json.bak, iz.txt"
        ),
        "not read (1), elasticdump's files without documents: ix_settings.json",
        "without any record (1): none.json",
        "not read (1), of indices that source.collections leaves out: iy.json",
    ]


def test_a_file_that_is_named_by_itself_has_no_others(folder):
    source = Elasticsearch(uri=str(folder / "ix_data.json"))
    notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    assert not any(note.startswith("not read") for note in notes)
