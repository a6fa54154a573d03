"""Several jobs in one dataset: their targets are the source, and references lead across them."""

from __future__ import annotations

import json
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
        part(tmp_path, "people", collection={"const": "staff"}),
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
