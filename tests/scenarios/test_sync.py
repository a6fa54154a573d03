"""``cfray sync`` brings a target up to date: after it, the target is what a migration would make.

The oracle is a fresh migration of the same source into another target, read with pylance.
"""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import lance
import pytest

from cfray.report.names import AGAINST_SOURCE
from tests.scenarios import runs
from tests.scenarios.corpora import served
from tests.scenarios.runs import Job
from tests.testbeds.embedding_server import EmbeddingServer

DIMENSION = 8


def record(number: int, version: int = 0, **more) -> dict:
    generator = random.Random(f"{number}-{version}")
    return {
        "id": f"doc-{number:05d}",
        "text": f"text {number} of version {version} says {generator.choice(runs.WORDS)}",
        "embedding": [generator.uniform(-1, 1) for _ in range(DIMENSION)],
        "rank": version if number % 7 else str(version),
        "parent": f"doc-{number // 2:05d}" if number else None,
        **more,
    }


def write(folder: Path, rows: list[dict], name: str = "part.jsonl") -> None:
    export = folder / "export"
    export.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (export / name).write_text(text)


def job_of(folder: Path, **changes) -> Job:
    body = {
        "name": "kept up to date",
        "source": {"kind": "jsonl", "uri": "export/*.jsonl", "shard_bytes": 4_000},
        "mapping": {
            "id": "id",
            "vector": "embedding",
            "text_content": "text",
            "relationships": [{"type": "child", "to": "parent"}],
        },
        "target": {"uri": "out.lance"},
    } | changes
    return runs.write_job(folder, body)


def documents(target: str | Path) -> dict[str, dict]:
    """Give each document, and each chunk, by uuid."""
    scanner = lance.dataset(str(target)).scanner(
        filter="record_type = 'document'", blob_handling="all_binary"
    )
    rows = scanner.to_table().to_pylist()
    assert len({row["uuid"] for row in rows}) == len(rows)
    return {row["uuid"]: row for row in rows}


def fresh(cfray, job: Job, *codes: int) -> dict[str, dict]:
    """Migrate the same source into another target, and give its documents."""
    body = job.body | {"target": {"uri": f"fresh-{random.getrandbits(32)}.lance"}}
    path = job.path.parent / f"{body['target']['uri']}.yaml"
    path.write_text(json.dumps(body))
    cfray.run("migrate", path, "--quiet").ended_with(*codes)
    return documents(job.path.parent / body["target"]["uri"])


def synced(cfray, job: Job, *more: str, code: int = 0) -> dict:
    return cfray.run("sync", job.path, "--json", "--quiet", *more).ended_with(code).document()


def counts_of(report: dict) -> tuple[int, int, int]:
    return tuple(report["counts"][f"records_{name}"] for name in ("new", "changed", "gone"))


def check(report: dict, name: str) -> tuple[str, str]:
    (found,) = [item for item in report["checks"] if item["name"] == name]
    return found["status"], found["detail"]


def test_what_is_new_changed_and_gone_comes_in(cfray, tmp_path):
    rows = [record(number) for number in range(200)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    changed = [record(number, 1) if number % 10 == 3 else row for number, row in enumerate(rows)]
    write(tmp_path, [*changed[:150], *(record(number) for number in range(300, 320))])
    report = synced(cfray, job)
    assert documents(job.target) == fresh(cfray, job, 0)
    assert counts_of(report) == (20, 15, 50)
    assert report["counts"]["read"] == report["counts"]["staged"] == 170
    against = cfray.run("verify", job.path, "--against", "source", "--json").ended_with(0)
    assert check(against.document(), AGAINST_SOURCE)[0] == "pass"
    version = lance.dataset(job.target).version
    assert counts_of(synced(cfray, job)) == (0, 0, 0)
    # a sync that finds nothing commits nothing: what it adds is its own holding of the target
    assert lance.dataset(job.target).version == version + 1
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    ended = cfray.run("migrate", job.path, "--extend", "--quiet").ended_with(2)
    assert "cfray sync" in ended.err


def test_a_dry_run_says_what_would_come_in_and_changes_nothing(cfray, tmp_path):
    rows = [record(number) for number in range(40)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    version, files = lance.dataset(job.target).version, sorted(job.state.rglob("*"))
    write(tmp_path, [record(5, 1), *rows[6:], record(50)])
    ended = cfray.run("sync", job.path, "--dry-run", "--quiet").ended_with(0)
    assert "1 new, 1 changed, 5 gone from the source, 34 the same" in ended.out
    assert "changed: doc-00005" in ended.out
    assert "gone: doc-00004" in ended.out
    assert lance.dataset(job.target).version == version
    assert [path for path in sorted(job.state.rglob("*")) if "sessions" not in str(path)] == [
        path for path in files if "sessions" not in str(path)
    ]


def test_records_that_are_gone_can_be_marked_or_kept(cfray, tmp_path):
    rows = [record(number) for number in range(30)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    before = documents(job.target)
    write(tmp_path, rows[10:])
    report = synced(cfray, job, "--deletes", "ignore")
    assert counts_of(report) == (0, 0, 0)
    assert "10 gone from the source" in " ".join(report["notes"])
    assert documents(job.target) == before
    report = synced(cfray, job, "--deletes", "mark")
    marked = {uuid for uuid, row in documents(job.target).items() if row["status"] == "deleted"}
    assert len(marked) == 10
    assert counts_of(synced(cfray, job, "--deletes", "mark")) == (0, 0, 0)
    assert {uuid: row | {"status": None} for uuid, row in documents(job.target).items()} == before
    against = cfray.run("verify", job.path, "--against", "source", "--json").ended_with(0)
    assert check(against.document(), AGAINST_SOURCE)[0] == "pass"
    # a record that comes back is no longer marked; then the others leave
    write(tmp_path, rows[9:])
    synced(cfray, job, "--deletes", "mark")
    assert sum(row["status"] == "deleted" for row in documents(job.target).values()) == 9
    assert counts_of(synced(cfray, job)) == (0, 0, 9)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_a_source_that_answers_with_nothing_is_not_believed(cfray, tmp_path):
    rows = [record(number) for number in range(30)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    before = documents(job.target)
    write(tmp_path, [])
    ended = cfray.run("sync", job.path, "--quiet").ended_with(2)
    assert "no record at all" in ended.err
    assert "--allow-empty" in ended.err
    write(tmp_path, rows[:14])
    ended = cfray.run("sync", job.path, "--quiet").ended_with(2)
    assert "16 of the target's 30 documents are gone" in ended.err
    assert documents(job.target) == before
    write(tmp_path, [])
    synced(cfray, job, "--allow-empty")
    assert documents(job.target) == {}


def test_of_two_records_of_one_identity_the_first_stays(cfray, tmp_path):
    rows = [record(number) for number in range(60)]
    twice = [record(3, 1), record(50, 1)]
    write(tmp_path, [*rows, *twice, record(70), record(70, 1)])
    write(tmp_path, [record(3, 2), record(80)], "second.jsonl")
    limits = {"max_quarantined": "50%"}
    job = job_of(tmp_path, limits=limits)
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    write(tmp_path, [*rows[4:], *twice, record(70), record(70, 1), record(80, 1)])
    report = synced(cfray, job, code=3)
    assert documents(job.target) == fresh(cfray, job, 3)
    assert report["counts"]["quarantined"] == 4
    assert report["quarantine_reasons"] == {"same identity as another record": 4}
    # the first of an identity leaves: the next one comes in
    write(tmp_path, [*rows[:50], record(50, 1), record(70, 1), record(3, 4)])
    synced(cfray, job, code=3)
    assert documents(job.target) == fresh(cfray, job, 3)
    refusing = job.changed(mapping={**job.body["mapping"], "on_duplicate": "error"})
    cfray.run("sync", refusing.path, "--quiet").ended_with(2)


def test_quarantine_is_that_of_the_source_as_it_is_now(cfray, tmp_path):
    rows = [record(number) for number in range(40)]
    nameless = {"text": "who am I", "embedding": [0.5] * DIMENSION}
    write(tmp_path, [*rows, nameless, nameless | {"other": "n1"}])
    job = job_of(tmp_path, limits={"max_quarantined": "50%"})
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    write(tmp_path, [*rows[:20], nameless | {"text": "another"}, nameless | {"other": "n2"}])
    report = synced(cfray, job, code=3)
    assert report["counts"]["quarantined"] == 2
    texts = {row["content"]["text"] for row in runs.quarantined(cfray, job)}
    assert texts == {"another", "who am I"}
    corrected = job.changed(mapping={**job.body["mapping"], "id": ["id", "other"]})
    cfray.run("quarantine", "replay", corrected.path, "--quiet").ended_with(3)
    assert documents(corrected.target) == fresh(cfray, corrected, 3)
    ended = cfray.run("sync", job.path, "--quiet").ended_with(2)
    assert "the last cfray quarantine replay" in ended.err
    assert counts_of(synced(cfray, corrected, code=3)) == (0, 0, 0)
    write(tmp_path, [*rows[:20], nameless | {"other": "n3"}])
    synced(cfray, corrected)
    assert documents(corrected.target) == fresh(cfray, corrected, 0)
    assert runs.quarantined(cfray, corrected) == []


@pytest.mark.parametrize("where", ["compared", "found", "written", "synced", "compact", "index"])
def test_a_sync_that_is_killed_is_run_again(cfray, tmp_path, where):
    rows = [record(number) for number in range(120)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    write(tmp_path, [*(record(number, number % 3) for number in range(20, 120)), record(200)])
    killed = cfray.start("sync", job.path, "--quiet", CFRAY_FAIL_AT=f"{where}:1").wait()
    assert killed.code == -signal.SIGKILL, killed.err
    synced(cfray, job)
    assert documents(job.target) == fresh(cfray, job, 0)
    cfray.run("cleanup", job.path).ended_with(0)
    assert runs.data_files(job.target) == runs.referenced_files(job.target)
    assert [path for path in (job.state / "scratch").iterdir() if "difference" in path.name] == []


def test_headers_are_those_of_the_collections_that_are_there(cfray, tmp_path):
    """A collection whose last document leaves has no header any more; a new one has its own."""
    mapping = {
        "id": "id",
        "text_content": "text",
        "vector": "embedding",
        "collection": "kind",
        "member_of": True,
    }
    kinds = ["it's", "news", "letters"]
    rows = [record(number, kind=kinds[number % 3]) for number in range(30)]
    write(tmp_path, rows)
    job = job_of(tmp_path, mapping=mapping)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    write(tmp_path, [row for row in rows if row["kind"] != "it's"] + [record(70, kind="new")])
    synced(cfray, job)
    again = job.changed(target={"uri": "again.lance"})
    cfray.run("migrate", again.path, "--quiet").ended_with(0)
    assert documents(job.target) == documents(again.target)
    assert runs.headers(job.target) == runs.headers(again.target)
    assert len(runs.headers(job.target)) == 4


def test_a_sync_that_is_killed_goes_on_where_files_are_as_they_were(cfray, tmp_path):
    write(tmp_path, [record(number) for number in range(200)])
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    rows = [record(number, number % 2) for number in range(200)]
    write(tmp_path, rows)
    killed = cfray.start("sync", job.path, "--quiet", CFRAY_FAIL_AT="compared:3").wait()
    assert killed.code == -signal.SIGKILL, killed.err
    report = synced(cfray, job)
    assert 0 < report["stages"]["source"]["rows"] < 200
    assert documents(job.target) == fresh(cfray, job, 0)
    write(tmp_path, rows[:150])
    killed = cfray.start("sync", job.path, "--quiet", CFRAY_FAIL_AT="compared:3").wait()
    assert killed.code == -signal.SIGKILL, killed.err
    # a file that was written to meanwhile is read from the start
    write(tmp_path, [record(number, number % 3) for number in range(150)])
    report = synced(cfray, job)
    assert report["stages"]["source"]["rows"] == 150
    assert documents(job.target) == fresh(cfray, job, 0)


def test_bytes_alone_that_have_changed_come_in(cfray, tmp_path):
    mapping = {"id": "id", "text_content": "text", "raw_data": "body", "raw_data_type": "kind"}

    def rows(byte: str) -> list[dict]:
        return [
            {
                "id": str(number),
                "text": "t",
                "kind": "text/plain",
                "body": byte * 10 ** (number % 6),
            }
            for number in range(12)
        ]

    write(tmp_path, rows("a"))
    job = job_of(tmp_path, mapping=mapping)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    changed = [*rows("a")[:5], *rows("b")[5:8], *rows("a")[8:]]
    write(tmp_path, changed)
    assert counts_of(synced(cfray, job)) == (0, 3, 0)
    assert documents(job.target) == fresh(cfray, job, 0)


def test_what_comes_in_is_a_version_that_other_commands_know(cfray, tmp_path):
    rows = [record(number) for number in range(60)]
    write(tmp_path, rows)
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    version, before = lance.dataset(job.target).version, documents(job.target)
    write(tmp_path, [record(1, 1), *rows[2:], record(100)])
    synced(cfray, job)
    after = documents(job.target)
    versions = cfray.run("versions", job.path, "--json").ended_with(0).document()
    assert any("changes of the source brought in" in item["what"] for item in versions)
    cfray.run("backup", job.path, "--to", tmp_path / "backup").ended_with(0)
    cfray.run("rollback", job.path, "--to-version", version).ended_with(0)
    assert documents(job.target) == before
    synced(cfray, job)
    assert documents(job.target) == after
    cfray.run("restore", tmp_path / "backup", "--to", tmp_path / "restored.lance").ended_with(0)
    assert documents(tmp_path / "restored.lance") == after
    trip = cfray.run("roundtrip", job.path, "--work", tmp_path / "trip", "--quiet")
    trip.ended_with(0)


def test_old_versions_go_as_the_policy_says(cfray, tmp_path):
    write(tmp_path, [record(number) for number in range(60)])
    job = job_of(tmp_path)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    for number in range(3):
        write(tmp_path, [record(row, number + 1) for row in range(60)])
        synced(cfray, job, "--keep-versions", "4")
        assert len(lance.dataset(job.target).versions()) == 4
        fragments = lance.dataset(job.target).get_fragments()
        assert [fragment.num_deletions for fragment in fragments] == [0] * len(fragments)
        assert len(fragments) <= 2
    assert documents(job.target) == fresh(cfray, job, 0)


@pytest.fixture
def server():
    with EmbeddingServer(DIMENSION) as server:
        yield server


def embedded_rows(versions: dict[int, int]) -> list[dict]:
    """Give rows of which every fifth text is cut into chunks; ``rank`` is none of the text."""
    return [
        {
            "id": f"doc-{number:05d}",
            "title": f"title {number}",
            "text": f"text {number} of version {version}"
            + " and of a stone" * (12 * (number % 5 == 0)),
            "rank": rank,
        }
        for number, (version, rank) in versions.items()
    ]


def embedding_job(folder: Path, server: EmbeddingServer, **more) -> Job:
    section = served(server, **more)
    mapping = {"id": "id", "text_content": "text", "title": "title"}
    return job_of(folder, mapping=mapping, embedding=section, limits={"max_quarantined": "50%"})


def texts_sent(server: EmbeddingServer) -> list[str]:
    return [text for texts in server.sent("/v1/embeddings") for text in texts]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"endpoint": {"max_tokens": 25}, "chunk": {"tokens": 12, "overlap": 2}},
        {"columns": {"heading": {"of": "title"}}},
    ],
    ids=["texts", "chunks", "columns"],
)
def test_only_texts_that_have_changed_are_embedded(cfray, tmp_path, server, more):
    versions = dict.fromkeys(range(40), (0, 0))
    write(tmp_path, embedded_rows(versions))
    job = embedding_job(tmp_path, server, **more)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    old = {row["text_content"] for row in documents(job.target).values()}
    changed = dict.fromkeys(range(10, 20), (0, 1)) | {5: (1, 0), 6: (1, 1), 50: (0, 0)}
    versions = {number: value for number, value in (versions | changed).items() if number > 2}
    write(tmp_path, embedded_rows(versions))
    server.requests.clear()
    report = synced(cfray, job)
    assert counts_of(report) == (1, 12, 3)
    now = documents(job.target)
    sent = set(texts_sent(server))
    probes = {text for text in sent if "text" not in text and "title" not in text}
    new = {row["text_content"] for row in now.values()} - old
    if "chunk" in more:
        # a text above the model's limit is cut, and a chunk is a part of a text
        parts = [text for text in new if any(part in text for part in sent)]
        assert len(parts) == len(new)
        assert all(any(part in text for text in new) for part in sent - probes)
    else:
        # of a record of which a text has changed, every text is embedded
        titles = {"title 5", "title 6", "title 50"} if "columns" in more else set()
        assert sent - probes == new | titles
    assert now == fresh(cfray, job, 0)
    counts = report["counts"]
    assert counts["vectors_regenerated"] == len(now)
    server.requests.clear()
    assert counts_of(synced(cfray, job)) == (0, 0, 0)
    assert set(texts_sent(server)) <= probes


def test_a_text_that_the_model_refuses_goes_to_quarantine(cfray, tmp_path, server):
    versions = dict.fromkeys(range(20), (0, 0))
    write(tmp_path, embedded_rows(versions))
    more = {"endpoint": {"max_tokens": 60}, "on_long_text": "error"}
    job = embedding_job(tmp_path, server, **more)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    rows = embedded_rows(versions)
    rows[3]["text"] += " and of a river" * 40
    rows.append(rows[3] | {"id": "doc-00099"})
    write(tmp_path, rows)
    report = synced(cfray, job, code=3)
    assert report["counts"]["quarantined"] == 2
    assert report["counts"]["staged"] == len(documents(job.target)) == 19
    assert documents(job.target) == fresh(cfray, job, 3)
    against = cfray.run("verify", job.path, "--against", "source", "--json").ended_with(3)
    assert check(against.document(), AGAINST_SOURCE)[0] == "pass"
    version = lance.dataset(job.target).version
    synced(cfray, job, code=3)
    assert lance.dataset(job.target).version == version + 1
    write(tmp_path, embedded_rows(versions))
    synced(cfray, job)
    assert documents(job.target) == fresh(cfray, job, 0)
