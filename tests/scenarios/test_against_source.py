"""``verify --against source``: what is lost, doubled or altered is found and named by id and field."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.report.names import AGAINST_SOURCE
from tests.scenarios import damages, runs
from tests.scenarios.damages import Target, delete_a_row, differences, named, replaced
from tests.scenarios.runs import Job

ROWS, SHARDS, DIMENSION = 1_200, 4, 8
#: The flawed rows of each shard: no id, NaN, and from the second shard on a repeated id.
QUARANTINED = 3 * SHARDS - 1
#: Parquet does not tell a null from a missing value.
DAMAGES = [damage for damage in damages.OF_ROWS if damage is not damages.make_a_null_missing]


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("finished")
    body = runs.export(folder, ROWS, DIMENSION, SHARDS, flawed=True)
    mapping = {**body["mapping"], "raw_data": "body", "raw_data_type": {"const": "text/plain"}}
    job = runs.write_job(folder, {**body, "mapping": mapping, "limits": {"max_quarantined": "5%"}})
    module_cfray.run("migrate", job.path).ended_with(3)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    return runs.copied(finished, tmp_path)


@pytest.fixture
def fresh(cfray, tmp_path) -> Job:
    """Migrate an export of its own: the plan names its files."""
    job = runs.write_job(tmp_path, runs.export(tmp_path, 200, DIMENSION, 2))
    cfray.run("migrate", job.path).ended_with(0)
    return job


def compare(cfray, job: Job) -> tuple[runs.Ended, str, str]:
    """Compare with the source; give how the command ended, and status and detail of the check."""
    ended = cfray.run("verify", job.path, "--against", "source", "--json")
    (check,) = [check for check in ended.document()["checks"] if check["name"] == AGAINST_SOURCE]
    assert job.report()["exit_code"] == ended.code
    return ended, check["status"], check["detail"]


def test_an_exact_copy_passes(cfray, finished):
    ended, status, detail = compare(cfray, finished)
    ended.ended_with(3)
    assert (status, detail.split(";")[0]) == (
        "pass",
        f"{ROWS:,} records of {SHARDS} shards read again, converted and compared by hash",
    )
    assert "records that do not fit compared with those in quarantine" in detail
    assert "raw_data" not in detail, "what was compared is not said to be left out"
    assert finished.report()["differences_file"] == ""


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_by_id_and_field_and_repaired(cfray, finished, job, damage):
    found = damage(Target(job.target))
    ended, status, detail = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    assert named(job) == sorted(found.rows)
    for row, _, fields in found.rows:
        assert row in detail
        assert all(field in detail for field in fields)
    check_repaired(cfray, job, finished)


def check_repaired(cfray, job: Job, finished: Job) -> None:
    """Repair a target; it must be what it was, and pass as such afterwards."""
    ended = cfray.run("verify", job.path, "--against", "source", "--repair", "--json")
    report = ended.ended_with(3).document()
    assert "repaired: " in " ".join(report["notes"])
    assert runs.digests(job.target) == runs.digests(finished.target)
    assert runs.headers(job.target) == runs.headers(finished.target)
    for command in (["verify", job.path, "--against", "source"], ["migrate", job.path]):
        report = cfray.run(*command, "--json").ended_with(3).document()
        for name in ("read", "staged", "quarantined", "frames"):
            assert report["counts"][name] == finished.report()["counts"][name]
        assert not [check for check in report["checks"] if check["status"] == "fail"]


def test_a_null_inside_a_vector_is_no_zero(cfray, tmp_path):
    """Its hash is that of 0.0: a receipt's sums do not show it."""
    rows = [{"id": f"i{row}", "title": f"Title {row}", "v": [1.0, 0.0]} for row in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    body = {
        "name": "rows",
        "source": {"kind": "jsonl", "uri": "./rows.jsonl"},
        "mapping": {"id": "id", "title": "title", "vector": "v"},
        "target": {"uri": "rows.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path).ended_with(0)
    before = runs.digests(job.target)
    replaced(job.target, "title = 'Title 4'", lambda row: row.update(vector=[1.0, None]))
    ended, status, detail = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    assert "has 1 null inside vectors" in detail
    assert [row["id"] for row in differences(job)] == ["i4"]
    cfray.run("verify", job.path, "--against", "source", "--repair").ended_with(0)
    assert runs.digests(job.target) == before


def test_bytes_that_somebody_else_wrote_are_not_taken_for_ours(cfray, finished, job):
    """No hash of a row covers ``raw_data``: a compaction must not vouch for what others wrote."""
    dataset = lance.dataset(job.target)
    columns = [name for name in dataset.schema.names if name != "raw_data"]
    row = dataset.to_table(columns=columns, filter="title = 'Title 700'")
    evil = lance.blob_array([b"evil"])
    row = row.append_column(pa.field("raw_data", evil.type), evil)
    dataset.merge_insert("uuid").when_matched_update_all().execute(row)
    for command in (["optimize", job.path], ["verify", job.path], ["optimize", job.path]):
        cfray.run(*command).ended_with(4)
    ended, _, _ = compare(cfray, job)
    assert "not written by cfray" in ended.ended_with(4).out
    check_repaired(cfray, job, finished)
    assert raw_data(job) == raw_data(finished)


@pytest.mark.parametrize("column", ["author", "raw_data"])
def test_a_column_that_is_gone_is_named(cfray, job, column):
    lance.dataset(job.target).drop_columns([column])
    ended, status, detail = compare(cfray, job)
    ended.ended_with(4)
    assert (status, column in detail) == ("not_run", True)
    assert f"the column {column} is gone" in ended.out
    ended = cfray.run("verify", job.path, "--against", "source", "--repair").ended_with(1)
    assert "were changed by another writer" in ended.err


def test_a_column_of_somebody_else_stops_a_repair_with_its_name(cfray, job):
    lance.dataset(job.target).add_columns({"note": "'mine'"})
    compare(cfray, job)[0].ended_with(3)
    delete_a_row(Target(job.target))
    ended = cfray.run("verify", job.path, "--against", "source", "--repair").ended_with(1)
    assert "the dataset has the column note" in ended.err


def test_a_damaged_report_of_an_earlier_command_stops_nothing(cfray, job):
    path = max((job.state / "reports").iterdir())
    path.write_text("{")
    report = compare(cfray, job)[0].ended_with(3).document()
    assert "an earlier report was not read" in " ".join(report["notes"])


def test_a_receipt_that_was_changed_is_told_from_a_row_that_was(cfray, job):
    receipt = next(iter(sorted((job.state / "staged").glob("2.*.json"))))
    body = json.loads(receipt.read_text())
    body["sums"]["text"] += 1
    receipt.write_text(json.dumps(body))
    ended, status, detail = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    assert "every row is as in the source; its receipt says otherwise" in detail


def test_a_changed_type_of_a_field_is_named_and_repaired(cfray, finished, job):
    dataset = lance.dataset(job.target)
    before = dataset.schema.metadata[b"cfray.types"]
    types = json.loads(before)
    types["year"] = "string"
    dataset.update_schema_metadata({"cfray.types": json.dumps(types)})
    ended = cfray.run("verify", job.path, "--json").ended_with(4)
    checks = {check["name"]: check for check in ended.document()["checks"]}
    assert checks["types of every field"]["status"] == "fail"
    assert "year" in checks["types of every field"]["detail"]
    check_repaired(cfray, job, finished)
    assert lance.dataset(job.target).schema.metadata[b"cfray.types"] == before


def test_rows_of_a_damaged_file_are_named_and_repaired(cfray, finished, job):
    """A file that cannot be read hides nothing: the rows that it held are named."""
    (fragment, *_) = lance.dataset(job.target).get_fragments()
    Path(job.target, "data", fragment.metadata.files[0].path).write_bytes(b"")
    ended, status, _ = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    checks = {check["name"]: check for check in ended.document()["checks"]}
    assert (
        f"fragment {fragment.fragment_id} cannot be read"
        in checks["content of every shard"]["detail"]
    )
    assert {row["side"] for row in differences(job)} == {"source"}
    assert len(differences(job)) == ROWS - QUARANTINED + 2
    check_repaired(cfray, job, finished)


@pytest.mark.parametrize("is_lost", [False, True], ids=["flipped", "lost"])
def test_a_file_of_raw_bytes_is_repaired(cfray, finished, job, is_lost):
    """A flipped byte of ``raw_data`` is in no hash of a row: the digest of its file finds it."""
    (fragment, *_) = lance.dataset(job.target).get_fragments()
    path = Path(job.target, "data", fragment.metadata.files[0].path)
    if is_lost:
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        needle = next(iter(raw_data(finished).values()))
        data[data.rindex(needle) + 5] ^= 1
        path.write_bytes(data)
    ended, _, _ = compare(cfray, job)
    ended.ended_with(4)
    check_repaired(cfray, job, finished)
    assert raw_data(job) == raw_data(finished)


def test_a_lost_blob_file_is_named_and_repaired(cfray, tmp_path):
    """Large values lie in files of their own, which Lance does not miss."""
    lines = [json.dumps({"id": f"i{row}", "page": f"{row} " * 60_000}) for row in range(6)]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines))
    job = runs.write_job(
        tmp_path,
        {
            "name": "pages",
            "source": {"kind": "jsonl", "uri": "./pages.jsonl"},
            "mapping": {
                "id": "id",
                "title": "id",
                "raw_data": "page",
                "raw_data_type": {"const": "text/plain"},
            },
            "target": {"uri": "pages.lance"},
        },
    )
    cfray.run("migrate", job.path).ended_with(0)
    before = raw_data(job)
    (blob,) = damages.remove_a_blob_file(Target(job.target)).files
    ended = cfray.run("verify", job.path, "--against", "source", "--json").ended_with(4)
    assert blob in ended.out
    cfray.run("verify", job.path, "--against", "source", "--repair").ended_with(0)
    assert raw_data(job) == before
    assert all(len(data) > 100_000 for data in before.values())
    cfray.run("verify", job.path, "--against", "source").ended_with(0)


def test_other_bytes_of_the_source_show_although_no_column_differs(cfray, tmp_path):
    """The file is written again with another byte and its old size and time."""
    rows = [
        {"id": f"p{number}", "text": "a page", "page": f"{number} of tea"} for number in range(9)
    ]
    file = tmp_path / "pages.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    mapping = {
        "id": "id",
        "text_content": "text",
        "raw_data": "page",
        "raw_data_type": {"const": "text/plain"},
    }
    body = {
        "name": "pages",
        "source": {"kind": "jsonl", "uri": "./pages.jsonl"},
        "mapping": mapping,
        "target": {"uri": "pages.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path).ended_with(0)
    assert compare(cfray, job)[1] == "pass"
    before = file.stat()
    file.write_text(file.read_text().replace("7 of tea", "7 of sea"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    ended, status, detail = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    assert "gives other values than were read: bytes of raw_data" in detail


def raw_data(job: Job) -> dict[str, bytes]:
    """Read the raw bytes of every document."""
    scanner = lance.dataset(job.target).scanner(
        columns=["uuid", "raw_data"],
        filter="record_type = 'document'",
        blob_handling="all_binary",
    )
    return {row["uuid"]: row["raw_data"] for row in scanner.to_table().to_pylist()}


def test_a_difference_is_found_although_target_and_ledger_agree(cfray, tmp_path):
    """Receipts that agree with a wrong target hide nothing: the source is what counts."""
    lines = [json.dumps({"id": f"doc-{row}", "title": f"Title {row}"}) for row in range(40)]
    export = tmp_path / "export.jsonl"
    export.write_text("\n".join(lines))
    stat = export.stat()
    job = runs.write_job(
        tmp_path,
        {
            "name": "notes",
            "source": {"kind": "jsonl", "uri": "./export.jsonl"},
            "mapping": {"id": "id", "title": "title", "text_content": "title"},
            "target": {"uri": "notes.lance"},
        },
    )
    cfray.run("migrate", job.path).ended_with(0)
    # as many bytes, and the time of the planned file: nothing tells that it was written again
    export.write_text(export.read_text().replace("Title 17", "Title !7"))
    os.utime(export, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    ended, status, _ = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    assert named(job) == [("doc-17", "both", ["text_content", "title"])]


def test_a_file_that_was_written_again_is_not_decided(cfray, fresh):
    part = fresh.path.parent / "export" / "part-0001.parquet"
    pq.write_table(pq.read_table(part).slice(1), part)
    ended, status, detail = compare(cfray, fresh)
    ended.ended_with(7)  # the source has gone on, which beats what could not be decided
    assert status == "not_run"
    assert "not decided" in detail
    assert "part-0001.parquet" in detail


def test_a_source_that_is_gone_is_not_decided(cfray, fresh):
    shutil.rmtree(fresh.path.parent / "export")
    ended, status, detail = compare(cfray, fresh)
    ended.ended_with(6)
    assert status == "not_run"
    assert detail.startswith("not decided: ")


def test_a_later_command_tells_what_was_found(cfray, job):
    compare(cfray, job)
    ended = cfray.run("verify", job.path, "--json").ended_with(3)
    checks = {check["name"]: check for check in ended.document()["checks"]}
    assert checks[AGAINST_SOURCE]["status"] == "not_run"
    assert f"{ROWS:,} records" in checks[AGAINST_SOURCE]["detail"]
    delete_a_row(Target(job.target))
    compare(cfray, job)
    for command in ("verify", "migrate", "verify"):
        ended = cfray.run(command, job.path, "--json").ended_with(4)
        checks = {check["name"]: check for check in ended.document()["checks"]}
        assert checks[AGAINST_SOURCE]["status"] == "fail", command


def test_an_unknown_level_is_refused(cfray, job):
    ended = cfray.run("verify", job.path, "--against", "hope").ended_with(2)
    assert "give ledger or source" in ended.err
