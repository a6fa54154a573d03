"""Files that appear after the plan come into a finished target, and nothing else changes.

What must be there is what the files hold, read with pyarrow and json; the target is read with
pylance.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import lance
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import exported, job_of, notes, served
from tests.scenarios.runs import Job
from tests.testbeds.embedding_server import EmbeddingServer

ROWS, SHARDS, MORE = 120, 3, 40


def migrated(cfray, folder: Path, **changes) -> Job:
    job = runs.write_job(folder, runs.export(folder, ROWS, 8, SHARDS) | changes)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


def appear(job: Job, name: str, first: int, rows: int = MORE) -> None:
    """Write a further file; ids count on from ``first``."""
    values = runs.columns(first, rows, 8, np.random.default_rng(first))
    pq.write_table(runs.table(values), job.path.parent / "export" / name)


def ids(first: int, end: int) -> list[str]:
    return [f"doc-{number:07d}" for number in range(first, end)]


def check(job: Job, name: str) -> tuple[str, str]:
    (found,) = [item for item in job.report()["checks"] if item["name"] == name]
    return found["status"], found["detail"]


def test_files_that_appeared_come_in_and_the_rest_stays(cfray, tmp_path):
    job = migrated(cfray, tmp_path)
    before = set(runs.digests(job.target))
    # before and behind the planned files in the order of names
    appear(job, "a-first.parquet", ROWS)
    appear(job, "z-last.parquet", ROWS + MORE)
    ended = cfray.run("migrate", job.path, "--quiet").ended_with(7)
    assert "cfray migrate JOB --extend" in ended.out + ended.err + " ".join(job.report()["notes"])
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids(0, ROWS + 2 * MORE)
    assert before < set(runs.digests(job.target))
    counts = job.report()["counts"]
    assert (counts["read"], counts["shards"], counts["shards_read"]) == (ROWS + 2 * MORE, 5, 2)
    assert check(job, "source since the plan")[0] == "pass"
    assert check(job, "source count")[0] == "pass"
    assert any("a-first.parquet, z-last.parquet" in note for note in job.report()["notes"])
    (header,) = [row for row in runs.headers(job.target) if "dataset_header" in row]
    assert f"{ROWS + 2 * MORE} records" in str(header)
    # the longer target is compared with the source, and a second look finds nothing to do
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)
    version = lance.dataset(job.target).version
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids(0, ROWS + 2 * MORE)
    assert lance.dataset(job.target).version <= version + 1  # the lease


@pytest.mark.parametrize(
    "boundary",
    [
        "extended:1",
        "commit:1",
        *(
            pytest.param(name, marks=pytest.mark.prove)
            for name in ("plan:1", "stage:1", "headers:1")
        ),
    ],
)
def test_an_extension_that_was_killed_goes_on_without_the_option(cfray, tmp_path, boundary):
    job = migrated(cfray, tmp_path)
    appear(job, "x.parquet", ROWS)
    appear(job, "y.parquet", ROWS + MORE)
    killed = cfray.start("migrate", job.path, "--extend", "--quiet", CFRAY_FAIL_AT=boundary)
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    if boundary == "plan:1":  # before the plan was extended
        cfray.run("migrate", job.path, "--quiet").ended_with(7)
        assert runs.document_ids(job.target) == ids(0, ROWS)
        return
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids(0, ROWS + 2 * MORE)
    assert len(set(runs.digests(job.target))) == ROWS + 2 * MORE


def test_of_two_records_with_one_identity_the_one_planned_first_stays(cfray, tmp_path):
    body = runs.export(tmp_path, ROWS, 8, SHARDS)
    values = runs.columns(ROWS, 2, 8, np.random.default_rng(1)) | {"id": ["doc-0000000", "new-1"]}
    pq.write_table(runs.table(values), tmp_path / "export" / "part-0003.parquet")
    job = runs.write_job(tmp_path, body | {"limits": {"max_quarantined": 9}})
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    values = runs.columns(ROWS, 3, 8, np.random.default_rng(2))
    values["id"] = ["doc-0000001", "new-2", "new-1"]
    pq.write_table(runs.table(values), tmp_path / "export" / "a.parquet")
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(3)
    assert runs.document_ids(job.target) == sorted([*ids(0, ROWS), "new-1", "new-2"])
    reasons = [row["reason"] for row in runs.quarantined(cfray, job)]
    assert len(reasons) == 3
    assert sum("part-0003.parquet#" in reason for reason in reasons) == 1
    counts = job.report()["counts"]
    assert (counts["read"], counts["staged"], counts["quarantined"]) == (ROWS + 5, ROWS + 2, 3)
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(3)


def test_other_fields_and_other_types_arrive_as_they_are(cfray, tmp_path):
    export = tmp_path / "export"
    export.mkdir()
    old = [{"id": f"o{number}", "text": "a", "n": number} for number in range(50)]
    new = [
        {"id": f"n{number}", "text": "b", "n": f"{number}", "m": [1, None]} for number in range(9)
    ]
    (export / "old.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in old))
    body = {
        "name": "notes",
        "source": {"kind": "jsonl", "uri": "./export"},
        "mapping": {"id": "id", "text_content": "text"},
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    (export / "new.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in new))
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    dataset = lance.dataset(job.target)
    rows = dataset.to_table(columns=["custom_metadata"], filter="record_type = 'document'")
    types = json.loads(dataset.schema.metadata[b"cfray.types"])
    found = []
    for row in rows["custom_metadata"].to_pylist():
        texts = {item["key"]: item["value"] for item in row}
        own_types = types | json.loads(texts.get("cfray.types", "{}"))
        found.append((own_types["n"], texts["n"], texts.get("m")))
    assert sorted(found) == sorted(
        [("int64", f"{number}", None) for number in range(50)]
        + [("string", f"{number}", "[1,null]") for number in range(9)]
    )
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)


def test_files_that_do_not_fit_are_refused_before_the_plan_is_extended(cfray, tmp_path):
    job = migrated(cfray, tmp_path)
    plan = (job.state / "plan.json").read_bytes()
    appear(job, "again.parquet", 0)  # what the target has already
    refused = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "the target has a record of this identity" in refused.err
    pq.write_table(
        pq.read_table(tmp_path / "export/part-0000.parquet").rename_columns(
            ["key", "title", "body", "embedding", "score", "year", "parent"]
        ),
        tmp_path / "export/again.parquet",
    )
    refused = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "the files that appeared do not fit" in refused.err
    assert (job.state / "plan.json").read_bytes() == plan
    (tmp_path / "export/again.parquet").unlink()
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids(0, ROWS)


def test_a_file_that_has_changed_is_still_named_when_another_came_in(cfray, tmp_path):
    job = migrated(cfray, tmp_path)
    part = tmp_path / "export/part-0001.parquet"
    pq.write_table(pq.read_table(part).slice(1), part)
    appear(job, "new.parquet", ROWS)
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(7)
    assert runs.document_ids(job.target) == ids(0, ROWS + MORE)
    assert "part-0001.parquet has changed" in check(job, "source since the plan")[1]


def test_a_tree_of_documents_grows(cfray, tmp_path):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/one.md").write_text("# One\n")
    body = {
        "name": "tree",
        "source": {"kind": "filesystem", "uri": "./tree"},
        "mapping": {"id": "id", "text_content": "text", "collection": "collection"},
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    (tree / "b").mkdir()
    (tree / "b/two.md").write_text("# Two\n")
    (tree / "b/README.md").write_text("What b is.\n")
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    table = lance.dataset(job.target).to_table(columns=["record_type", "title", "text_content"])
    texts = {row["text_content"] for row in table.to_pylist() if row["record_type"] == "document"}
    assert texts == {"# One\n", "# Two\n", "What b is.\n"}
    (header,) = [
        row
        for row in table.to_pylist()
        if row["record_type"] == "collection_header" and row["title"] == "b"
    ]
    assert header["text_content"] == "What b is.\n"
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)


def test_what_cannot_be_extended_is_refused(cfray, tmp_path):
    with EmbeddingServer(8) as server:
        exported(tmp_path, notes(20), 1)
        job = job_of(tmp_path, served(server))
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
        exported(tmp_path, [(f"more-{row[0]}", *row[1:]) for row in notes(20)], 1)
        (tmp_path / "export/000.parquet").rename(tmp_path / "export/001.parquet")
        refused = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "--extend makes none for those that come in later" in refused.err
    lance.write_dataset(pq.read_table(tmp_path / "export/001.parquet"), tmp_path / "source.lance")
    body = job.body | {
        "source": {"kind": "lance", "uri": "source.lance"},
        "target": {"uri": "second.lance"},
        "embedding": {"policy": "keep"},
    }
    job = runs.write_job(tmp_path, body, "second.yaml")
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    refused = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "a source of the kind lance does not grow by files" in refused.err


def test_after_a_replay_the_shards_own_mapping_is_needed(cfray, tmp_path):
    export = tmp_path / "export"
    export.mkdir()

    def write(name: str, key: str, first: int) -> None:
        rows = [{key: f"r{first + n}", "text": "a"} for n in range(4)]
        (export / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    write("a.jsonl", "id", 0)
    body = {
        "name": "notes",
        "source": {"kind": "jsonl", "uri": "./export"},
        "mapping": {"id": "id", "text_content": "text"},
        "limits": {"max_quarantined": 9},
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    other = job.changed(mapping={"id": ["id", "alt"], "text_content": "text"})
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    write("b.jsonl", "alt", 4)
    refused = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "mapping.id" in refused.err
    rows = (export / "b.jsonl").read_text() + json.dumps({"id": "r8", "text": "b"})
    (export / "b.jsonl").write_text(rows)
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(3)
    cfray.run("quarantine", "replay", other.path, "--quiet").ended_with(0)
    write("c.jsonl", "id", 10)
    refused = cfray.run("migrate", other.path, "--extend", "--quiet").ended_with(2)
    assert "extend with the first job file" in refused.err
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    cfray.run("verify", other.path, "--against", "source", "--quiet").ended_with(0)


def test_an_extension_of_which_nothing_is_committed_is_planned_anew(cfray, tmp_path):
    """The file was still written, or was taken away, when the run had planned it."""
    job = migrated(cfray, tmp_path)
    appear(job, "new.parquet", ROWS, rows=10)
    killed = cfray.start("migrate", job.path, "--extend", "--quiet", CFRAY_FAIL_AT="stage:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    appear(job, "new.parquet", ROWS)  # a staged receipt tells of the file as it was
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids(0, ROWS + MORE)
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)


def test_a_file_that_went_again_leaves_no_trace_in_the_plan(cfray, tmp_path):
    job = migrated(cfray, tmp_path)
    plan = json.loads((job.state / "plan.json").read_bytes())
    appear(job, "new.parquet", ROWS)
    killed = cfray.start("migrate", job.path, "--extend", "--quiet", CFRAY_FAIL_AT="extended:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    (tmp_path / "export/new.parquet").unlink()
    cfray.run("migrate", job.path, "--quiet").ended_with(1)
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    assert json.loads((job.state / "plan.json").read_bytes()) == plan
    assert runs.document_ids(job.target) == ids(0, ROWS)
    # an empty file comes in when it has been filled
    empty = pq.read_table(tmp_path / "export/part-0000.parquet").slice(0, 0)
    pq.write_table(empty, tmp_path / "export/late.parquet")
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    appear(job, "late.parquet", ROWS)
    cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(0)
    assert runs.document_ids(job.target) == ids(0, ROWS + MORE)


def test_files_without_the_mapped_vector_are_refused(cfray, tmp_path):
    job = migrated(cfray, tmp_path)
    values = runs.columns(ROWS, 5, 8, np.random.default_rng(1))
    values["emb2"] = values.pop("embedding")
    pq.write_table(runs.table(values), tmp_path / "export/new.parquet")
    refused = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "mapping.vector" in refused.err
    assert "emb2" in refused.err
