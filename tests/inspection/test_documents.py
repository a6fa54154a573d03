"""Trees of documents: known by their suffixes, and drafted with the fields that their records have."""

import pytest
import yaml

from cfray.inspection.source import draft, draft_all
from cfray.job.file import read_job
from tests.sources.filesystem_bed import write_tree

MAPPING = {
    "id": "id",
    "text_content": "text",
    "title": "title",
    "collection": "collection",
    "updated_at": "modified",
    "source_file": "path",
    "raw_data": "raw",
    "raw_data_type": "raw_type",
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n{}.txt", "Notes {}, of today\nDear all, this is it\nRegards, me\n"),
        ("n{}.md", "# Head {}\n\n| x | y |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"),
        ("a/n{}.html", "<h1>Head {}</h1>"),
    ],
)
def test_a_folder_of_documents_is_a_tree(tmp_path, name, content):
    write_tree(tmp_path / "in", {name.format(n): content.format(n) for n in range(4)})
    out = tmp_path / "job.yaml"
    drafted = draft(str(tmp_path / "in"), out)
    job = yaml.safe_load(drafted.text)
    assert job["source"] == {"kind": "filesystem", "uri": "./in"}
    assert job["mapping"] == MAPPING
    out.write_text(drafted.text)
    assert read_job(out).fingerprint


def test_keys_of_the_front_matter_are_mapped(tmp_path):
    text = "---\nauthor: Zo\ntags: [a]\ndate: 2024-01-31\n---\nbody"
    write_tree(tmp_path / "in", {"a.md": text, "b.md": text})
    mapping = yaml.safe_load(draft(str(tmp_path / "in"), None).text)["mapping"]
    assert mapping == MAPPING | {"author": "author", "tags": "tags", "created_at": "date"}


def test_a_data_file_among_documents_is_one_of_them(tmp_path):
    files = {f"{n}.md": "text" for n in range(9)} | {"schema.json": "{}"}
    write_tree(tmp_path / "in", files)
    assert "kind: filesystem" in draft(str(tmp_path / "in"), None).text


def test_documents_beside_an_export_are_named_with_their_kind(tmp_path):
    rows = "".join(
        f'{{"id": {n}, "text": "a text of some length, number {n}"}}\n' for n in range(20)
    )
    write_tree(
        tmp_path / "in", {"a.jsonl": rows, "b.jsonl": rows.replace("number", "no"), "n.md": "x"}
    )
    [drafted] = draft_all(str(tmp_path / "in"), None)
    assert "kind: jsonl" in drafted.text
