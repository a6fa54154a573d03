"""Somebody who has the contract and pylance, but not cfray, finds exactly what the export says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from tests.exports import CSV_TYPES, articles, migrated

#: The size of the export; ``make prove`` sets it to the full one.
ROWS = int(os.environ.get("CFRAY_OUTSIDER_ROWS", "2000"))
OUTSIDER = Path(__file__).with_name("outsider.py")
TYPES = {
    "parquet": {
        "views": "int64",
        "score": "float",
        "public": "bool",
        "published": "timestamp[us, tz=UTC]",
        "price": "decimal128(20, 4)",
        "parent": "string",
    },
    "jsonl": {
        "views": "int64",
        "score": "double",
        "public": "bool",
        "published": "string",
        "price": "string",
        "parent": "string",
    },
}
TYPES["csv"] = TYPES["parquet"]


def facts(folder, kind):
    """Say what the job file says, and nothing else."""
    fields_of_columns = {
        "id": "uuid",
        "title": "title",
        "text_content": "body",
        "vector": "embedding",
        "author": "author",
        "tags": "tags",
    }
    facts = {
        "job": "the articles/2024",
        "kind": kind,
        "export": str(folder / f"articles.{kind}"),
        "target": str(folder / f"out/{kind}.lance"),
    }
    facts |= {
        "id_tag": "s",
        "taken": fields_of_columns,
        "created_at": "published",
        "references": [["parent", "parent"]],
        "types": CSV_TYPES,
    }
    path = folder / "facts.json"
    path.write_text(json.dumps(facts), "utf-8")
    return path


def check(path):
    """Run the outsider in a folder and a process of its own."""
    return subprocess.run(
        [sys.executable, str(OUTSIDER), str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )


@pytest.fixture(scope="module", params=["parquet", "jsonl", "csv"])
def export(request, tmp_path_factory, module_cfray):
    folder = tmp_path_factory.mktemp(request.param)
    report = migrated(module_cfray, folder, request.param, articles(ROWS))
    return folder, request.param, report


def test_every_uuid_reference_and_value_is_what_the_outsider_computes(export):
    folder, kind, report = export
    check_run = check(facts(folder, kind))
    assert check_run.returncode == 0, check_run.stderr[-2_000:]
    compared = json.loads(check_run.stdout)
    assert compared["records"] == report["counts"]["read"] == ROWS
    assert compared["references"] > ROWS * 1.8
    assert compared["values"] >= ROWS * 6
    assert {key: compared["types"][key] for key in TYPES[kind]} == TYPES[kind]
    assert compared["knows_cfray"] is False


@pytest.mark.parametrize("export", ["parquet"], indirect=True, scope="module")
@pytest.mark.parametrize("change", ["custom_metadata", "relationships", "uuid", "a row"])
def test_the_outsider_notices_one_changed_row(export, change, tmp_path):
    folder, kind, _ = export
    table = (
        lance.dataset(folder / "out/parquet.lance").scanner(blob_handling="all_binary").to_table()
    )
    rows = table.drop_columns(["raw_data"]).to_pylist()
    row = next(
        row for row in rows if row["record_type"] == "document" and len(row["relationships"]) == 2
    )
    if change == "custom_metadata":
        next(entry for entry in row[change] if entry["key"] == "views")["value"] += "1"
    elif change == "relationships":
        row[change][0]["id"] = row["uuid"]
    elif change == "uuid":
        row[change] = row[change][::-1]
    else:
        rows.remove(row)
    schema = table.drop_columns(["raw_data"]).schema
    lance.write_dataset(pa.Table.from_pylist(rows, schema), tmp_path / "out/parquet.lance")
    stated = json.loads(facts(folder, kind).read_text("utf-8")) | {
        "target": str(tmp_path / "out/parquet.lance")
    }
    (tmp_path / "facts.json").write_text(json.dumps(stated), "utf-8")
    check_run = check(tmp_path / "facts.json")
    assert check_run.returncode == 1
    assert "differences" in check_run.stderr
