"""Documents of an earlier version beside today's: ``inspect`` drafts a case for them."""

import json

import pytest
import yaml

from cfray import api
from cfray.inspection.source import draft
from cfray.job.file import read_job

PROSE = "a text of several words that somebody wrote about number"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def versions(tmp_path):
    new = [
        {"id": f"n{n}", "schema_version": 2, "title": f"New {n}", "body": f"{PROSE} {n}"}
        for n in range(30)
    ]
    old = [
        {"id": f"o{n}", "schema_version": 1, "name": f"Old {n}", "content": f"{PROSE} {n}"}
        for n in range(12)
    ]
    write(tmp_path / "notes.jsonl", [*new[:10], *old, *new[10:]])
    return tmp_path


def test_two_shapes_are_drafted_as_a_mapping_and_a_case(versions):
    text = draft(str(versions / "notes.jsonl"), versions / "job.yaml").text
    mapping = yaml.safe_load(text)["mapping"]
    assert (mapping["text_content"], mapping["title"]) == ("body", "title")
    assert mapping["cases"] == [
        {
            "when": {"field": "schema_version", "equals": 1},
            "mapping": {"text_content": "content", "title": "name"},
        }
    ]
    assert "12 sampled records with schema_version 1" in text


def test_what_is_drafted_says_what_each_field_becomes(versions):
    (versions / "job.yaml").write_text(
        draft(str(versions / "notes.jsonl"), versions / "job.yaml").text
    )
    preview = api.plan(read_job(versions / "job.yaml"))
    columns = {landing.field: landing.lands for landing in preview.forecast.landings}
    assert columns["content"] == "text_content (case 0), custom_metadata"
    assert columns["body"] == "text_content"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("schema_version"),
        lambda record: record.setdefault("body", record.pop("content", "")),
    ],
    ids=["no field says it", "one text"],
)
def test_no_case_is_drafted_where_none_is_seen(versions, change):
    records = [json.loads(line) for line in (versions / "notes.jsonl").read_text().splitlines()]
    for record in records:
        change(record)
    write(versions / "notes.jsonl", records)
    text = draft(str(versions / "notes.jsonl"), versions / "job.yaml").text
    assert "cases" not in yaml.safe_load(text)["mapping"]
