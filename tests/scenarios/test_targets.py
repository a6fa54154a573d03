"""Several jobs in one dataset: their targets are the source, and references lead across them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import lance
import pytest

from tests.scenarios import runs
from tests.scenarios.runs import Job

DIMENSION = 4


def documents(target: str | Path) -> dict[str, dict]:
    scanner = lance.dataset(str(target)).scanner(
        filter="record_type = 'document'", blob_handling="all_binary"
    )
    rows = scanner.to_table().to_pylist()
    assert len({row["uuid"] for row in rows}) == len(rows)
    return {row["uuid"]: row for row in rows}


def write(folder: Path, name: str, rows: list[dict]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def people(count: int = 12) -> list[dict]:
    return [
        {
            "id": number,
            "text": f"person {number}",
            "vector": [number, 1, 2, 3],
            "year": 1950 + number,
        }
        for number in range(count)
    ]


def articles(count: int = 20) -> list[dict]:
    return [
        {
            "id": f"a{number}",
            "text": f"article {number}",
            "vector": [0.5, number, 2, 3],
            "year": f"year {number}",
            "author": number % 12,
        }
        for number in range(count)
    ]


def part(folder: Path, name: str, **mapping) -> Job:
    body = {
        "name": name,
        "source": {"kind": "jsonl", "uri": f"{name}.jsonl"},
        "mapping": {"id": "id", "text_content": "text", "vector": "vector", **mapping},
        "target": {"uri": f"{name}.lance"},
    }
    return runs.write_job(folder, body, f"{name}.yaml")


def merged(folder: Path, *names: str, **source) -> Job:
    uris = [f"{name}.lance" for name in names]
    body = {
        "name": "library",
        "source": {"kind": "targets", "uris": uris, **source},
        "target": {"uri": "library.lance"},
    }
    return runs.write_job(folder, body, "library.yaml")


WRITTEN_BY = {"type": "reference", "to": "author", "job": "people"}


@pytest.fixture
def parts(cfray, tmp_path):
    write(tmp_path, "people", people())
    write(tmp_path, "articles", articles())
    jobs = [
        part(tmp_path, "people", collection={"const": "staff"}, member_of=True),
        part(tmp_path, "articles", collection={"const": "texts"}, relationships=[WRITTEN_BY]),
    ]
    for job in jobs:
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return jobs


def types_of(row: dict, declared: dict) -> str:
    metadata = {entry["key"]: entry["value"] for entry in row["custom_metadata"]}
    return json.loads(metadata.get("cfray.types", "{}")).get("year", declared["year"])


def test_the_documents_of_every_job_are_there_and_refer_to_each_other(cfray, parts, tmp_path):
    job = merged(tmp_path, "people", "articles")
    report = cfray.run("migrate", job.path, "--json", "--quiet").ended_with(0).document()
    rows = documents(job.target)
    assert len(rows) == report["counts"]["read"] == 32
    assert report["counts"]["dangling_references"] == 0
    declared = json.loads(lance.dataset(job.target).schema.metadata[b"cfray.types"])
    for origin in parts:
        own = json.loads(lance.dataset(origin.target).schema.metadata[b"cfray.types"])
        for uuid, row in documents(origin.target).items():
            twin = rows[uuid]
            assert types_of(twin, declared) == types_of(row, own)
            for name in row.keys() - {"custom_metadata"}:
                assert twin[name] == row[name], name
    by_text = {row["text_content"]: row for row in rows.values()}
    for number in range(20):
        targets = [item["id"] for item in by_text[f"article {number}"]["relationships"]]
        assert by_text[f"person {number % 12}"]["uuid"] in targets
    titles = {row[1] for row in runs.headers(job.target)}
    assert titles == {"library", "staff", "texts"}
    header = next(row[0] for row in runs.headers(job.target) if row[1] == "staff")
    (membership,) = by_text["person 3"]["relationships"]
    assert (membership["type"], membership["id"]) == ("member_of", header)
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)
    ended = cfray.run("query", job.target, "article 3", "--mode", "text").ended_with(0)
    assert "article 3" in ended.out


def test_a_sync_of_each_job_and_then_of_all_brings_it_up_to_date(cfray, parts, tmp_path):
    job = merged(tmp_path, "people", "articles")
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    write(tmp_path, "articles", [*articles()[3:], articles(25)[24]])
    ended = cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert "nothing" in ended.out
    cfray.run("sync", parts[1].path, "--quiet").ended_with(0)
    ended = cfray.run("migrate", job.path, "--quiet").ended_with(7)
    assert "articles has changed" in ended.out
    report = cfray.run("sync", job.path, "--json", "--quiet").ended_with(0).document()
    counts = report["counts"]
    assert [counts[f"records_{name}"] for name in ("new", "changed", "gone")] == [1, 0, 3]
    expected = {uuid for origin in parts for uuid in documents(origin.target)}
    assert documents(job.target).keys() == expected


def test_jobs_that_do_not_fit_into_one_dataset_are_refused(cfray, parts, tmp_path):
    def refused(job: Job) -> str:
        return cfray.run("migrate", job.path, "--quiet").ended_with(2).err

    assert "there is no target at" in refused(merged(tmp_path, "people", "nothing"))
    assert "both of the job people" in refused(merged(tmp_path, "people", "people"))
    write(tmp_path, "wide", [row | {"vector": [1, 2]} for row in people()])
    wide = part(tmp_path, "wide", collection={"const": "other"})
    cfray.run("migrate", wide.path, "--quiet").ended_with(0)
    assert "are 4 wide, those of wide 2" in refused(merged(tmp_path, "people", "wide"))
    write(tmp_path, "more", people())
    more = part(tmp_path, "more", collection={"const": "staff"})
    cfray.run("migrate", more.path, "--quiet").ended_with(0)
    assert "prefix_collections" in refused(merged(tmp_path, "people", "more"))
    job = merged(tmp_path, "people", "more", prefix_collections=True)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    assert {row[1] for row in runs.headers(job.target)} == {"library", "people/staff", "more/staff"}
    assert len(documents(job.target)) == 24


def test_references_into_another_job_have_the_type_of_its_ids(cfray, tmp_path):
    write(tmp_path, "people", people())
    rows = [row | {"author": f"{row['author']:02d}".lstrip("0") or "0"} for row in articles()]
    write(tmp_path, "articles", rows)
    jobs = [
        part(tmp_path, "people"),
        part(tmp_path, "articles", relationships=[WRITTEN_BY | {"ids": "integer"}]),
    ]
    for job in jobs:
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
    job = merged(tmp_path, "people", "articles", prefix_collections=True)
    report = cfray.run("migrate", job.path, "--json", "--quiet").ended_with(0).document()
    assert report["counts"]["dangling_references"] == 0


def test_references_that_lead_nowhere_are_counted_in_the_dataset_of_all(cfray, tmp_path):
    """The job of the references cannot know; a name of a job may be misspelt there."""
    write(tmp_path, "people", people(5))
    write(tmp_path, "articles", articles())
    misspelt = WRITTEN_BY | {"job": "poeple", "type": "related"}
    jobs = [
        part(tmp_path, "people"),
        part(tmp_path, "articles", relationships=[WRITTEN_BY, misspelt]),
    ]
    ended = cfray.run("plan", jobs[1].path).ended_with(0)
    assert "DANGLE" not in ended.out
    assert (
        "20 of 20 references of the sample (author) lead to records of the job people" in ended.out
    )
    for job in jobs:
        cfray.run("migrate", job.path, "--quiet").ended_with(0)
    job = merged(tmp_path, "people", "articles", prefix_collections=True)
    report = cfray.run("migrate", job.path, "--json", "--quiet").ended_with(0).document()
    there = sum(row["author"] < 5 for row in articles())
    assert report["counts"]["dangling_references"] == 20 - there + 20


def test_a_target_that_is_not_finished_is_refused(cfray, tmp_path):
    source = {"kind": "jsonl", "uri": "people*.jsonl"}
    write(tmp_path, "people", people())
    job = part(tmp_path, "people").changed(source=source)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    library = merged(tmp_path, "people")
    cfray.run("migrate", library.path, "--quiet").ended_with(0)
    write(tmp_path, "people2", [row | {"id": row["id"] + 100} for row in people()])
    killed = cfray.start("migrate", job.path, "--extend", "--quiet", CFRAY_FAIL_AT="extended:1")
    assert killed.wait().code == -signal.SIGKILL
    for command in ("sync", "plan"):
        ended = cfray.run(command, library.path).ended_with(1, 2)
        assert "people.lance is not finished: 1 of 2 shards are missing" in ended.err
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    cfray.run("sync", library.path, "--quiet").ended_with(0)
    assert len(documents(library.target)) == 24
    plan = Path(f"{job.target}.cfray/plan.json")
    plan.write_bytes(plan.read_bytes()[:100])
    ended = cfray.run("plan", library.path).ended_with(1, 2)
    assert "plan.json is damaged" in ended.err


def test_a_report_says_what_the_jobs_left_out_and_what_was_read(cfray, tmp_path):
    write(tmp_path, "people", [*people(), {"text": "without an id", "vector": [1, 2, 3, 4]}])
    job = part(tmp_path, "people").changed(limits={"max_quarantined": 5})
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    library = merged(tmp_path, "people")
    report = cfray.run("migrate", library.path, "--json", "--quiet").ended_with(0).document()
    notes = " ".join(report["notes"])
    assert "1 record of the job people is in its quarantine, and not here" in notes
    assert "12 documents of the job people" in notes
    write(tmp_path, "people", people(10))
    cfray.run("sync", job.path, "--quiet").ended_with(0)
    cfray.run("sync", library.path, "--quiet").ended_with(0)
    report = cfray.run("verify", library.path, "--json").ended_with(0).document()
    assert "12 documents" not in " ".join(report["notes"])
    ended = cfray.run("sync", library.path, "--deletes", "mark", "--quiet").ended_with(2)
    assert "have a status of their own" in ended.err
    versions = cfray.run("versions", library.path).ended_with(0).out
    assert "changes of the source brought in, 0 new, 0 changed, 2 gone" in versions
    wrong = merged(tmp_path, "people").changed(
        source={"kind": "targets", "uris": ["people.jsonl"]}, target={"uri": "other.lance"}
    )
    ended = cfray.run("plan", wrong.path).ended_with(1, 2)
    assert "people.jsonl is a file, and a target is a folder" in ended.err
