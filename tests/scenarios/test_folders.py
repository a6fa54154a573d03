"""Folders as writers leave them, moved whole: partitions, marks, splits, tables, changed links."""

from __future__ import annotations

import json

import lance
import pyarrow as pa
import pytest
import yaml

from tests.scenarios.runs import Job
from tests.sources.file_shapes import records, write_jsonl, write_parquet


def job_at(folder, **source) -> Job:
    body = {
        "name": "folders",
        "source": source,
        "mapping": {"id": "id", "status": "$file.top"},
        "target": {"uri": "out.lance"},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(body))
    return Job(path, str(folder / "out.lance"), body)


def documents(job) -> dict[str, dict]:
    """Read the documents by their id, without cfray."""
    table = lance.dataset(job.target).to_table(
        columns=["source_file", "status", "custom_metadata"], filter="record_type = 'document'"
    )
    rows = table.to_pylist()
    for row in rows:
        row["metadata"] = {entry["key"]: entry["value"] for entry in row.pop("custom_metadata")}
    return {row["metadata"]["original_id"]: row for row in rows}


def test_a_partitioned_folder_lands_with_its_keys_and_its_files(cfray, tmp_path):
    for number, lang in enumerate(["de", "__HIVE_DEFAULT_PARTITION__"]):
        write_parquet(tmp_path / f"t/year=2024/lang={lang}/a.parquet", records(number * 2, 2))
    write_parquet(tmp_path / "t/_drafts/b.parquet", records(4, 1))
    (tmp_path / "t/_SUCCESS").write_bytes(b"")
    (tmp_path / "t/notes.txt").write_text("no export")
    job = job_at(tmp_path, kind="parquet", uri="t", types={"year": "int32"})
    plan = cfray.run("plan", job.path, "--json").ended_with(0).document()
    notes = " ".join(json.dumps(plan["notes"]).split())
    assert all(word in notes for word in ("_SUCCESS", "notes.txt", "year, lang", "b.parquet"))
    cfray.run("migrate", job.path).ended_with(0)
    rows = documents(job)
    assert {
        key: (row["metadata"].get("year"), row["metadata"].get("lang")) for key, row in rows.items()
    } == {
        "d0": ("2024", "de"),
        "d1": ("2024", "de"),
        "d2": ("2024", None),
        "d3": ("2024", None),
        "d4": (None, None),
    }
    assert rows["d0"]["source_file"] == "year=2024/lang=de/a.parquet"
    assert rows["d4"]["status"] == "_drafts"
    types = json.loads(lance.dataset(job.target).schema.metadata[b"cfray.types"])
    assert (types["year"], types["lang"], "$file" in types) == ("int32", "string", False)


def test_a_delta_table_lands_as_it_was_when_the_run_was_planned(cfray, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    location = str(tmp_path / "t")
    table = pa.Table.from_pylist(records(0, 6)).append_column("lang", pa.array(["de", "en"] * 3))
    deltalake.write_deltalake(location, table, partition_by=["lang"])
    deltalake.DeltaTable(location).delete("n < 2")
    job = job_at(tmp_path, kind="delta", uri="t")
    cfray.run("migrate", job.path).ended_with(0)
    assert set(documents(job)) == {"d2", "d3", "d4", "d5"}
    assert documents(job)["d2"]["metadata"]["lang"] == "de"
    as_parquet = job_at(tmp_path, kind="parquet", uri="t").changed(target={"uri": "other.lance"})
    refused = cfray.run("plan", as_parquet.path).ended_with(2)
    assert "is a Delta table" in refused.err
    assert "Traceback" not in refused.err


def test_quarantined_records_of_several_files_keep_their_file_through_a_replay(cfray, tmp_path):
    for name in ("train/a", "test/b"):
        write_jsonl(
            tmp_path / f"t/{name}.jsonl", [{"key": name}, {"key": f"{name}2"}, {"id": f"{name}3"}]
        )
    job = job_at(tmp_path, kind="jsonl", uri="t")
    job = job.changed(limits={"max_quarantined": 9})
    cfray.run("migrate", job.path).ended_with(3)
    mapping = {"id": ["id", "key"], "status": "$file.top"}
    repaired = job.changed(mapping=mapping)
    cfray.run("quarantine", "replay", repaired.path).ended_with(0)
    landed = {key: (row["status"], row["source_file"]) for key, row in documents(job).items()}
    assert landed == {
        f"{name}{number}": (name.partition("/")[0], f"{name}.jsonl")
        for name in ("train/a", "test/b")
        for number in ("", "2", "3")
    }
