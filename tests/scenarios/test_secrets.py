"""No secret anywhere: canary keys go through a whole run, and no file, log or message holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.scenarios import runs, stores
from tests.scenarios.runs import Ended, Job
from tests.sources.pinecone_bed import KEY, PineconeBed
from tests.testbeds.embedding_server import EmbeddingServer

#: As long and as odd as real keys; some of their characters change in a URL and in JSON.
STORE_CANARY = "cAn4ry/Key+with=odd&chars-8f3b"
EMBEDDING_CANARY = "sk-cAn4ry/of+the=embedding&server-77aa"
KEYS = {KEY: STORE_CANARY, "CANARY_KEY": EMBEDDING_CANARY}


@pytest.fixture
def job(tmp_path, monkeypatch) -> Iterator[Job]:
    """Give a job whose store and whose embedding server both want a key."""
    monkeypatch.setenv(KEY, STORE_CANARY)
    with ExitStack() as stack:
        bed = stack.enter_context(PineconeBed.serving(tmp_path / "double", api_key=STORE_CANARY))
        server = stack.enter_context(EmbeddingServer(dimension=8, key=EMBEDDING_CANARY))
        rows = [
            {"id": f"r{row}", "vector": [1.0, row + 1.0], "title": f"t{row}"} for row in range(9)
        ]
        key = {"env": "CANARY_KEY"}
        endpoint = {"url": server.url, "model": "m", "api_key": key}
        (tmp_path / "job").mkdir()
        body = {
            "name": "secrets",
            "source": stores.section(bed.source(bed.seed(rows))),
            "mapping": {"id": "id", "text_content": "title"},
            "embedding": {"policy": "regenerate", "endpoint": endpoint},
            "target": {"uri": "out.lance"},
        }
        yield runs.write_job(tmp_path / "job", body)


def check_no_key_is_in(ended: Ended) -> None:
    for canary in KEYS.values():
        assert canary not in ended.out + ended.err


def test_the_keys_of_a_run_leave_no_trace(local_cfray, job):
    ended = local_cfray.run("--verbose", "migrate", job.path, **KEYS).ended_with(0)
    check_no_key_is_in(ended)
    files = [
        (path, path.read_bytes())
        for folder in (ended.folder, job.path.parent)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    assert any("ray" in path.parts for path, _ in files), "Ray's logs were looked at"
    assert any(path.name == "report.json" for path, _ in files)
    for canary in KEYS.values():
        assert [str(path) for path, data in files if canary.encode() in data] == []


@pytest.mark.parametrize("name", KEYS)
def test_a_refused_key_is_not_echoed(cfray, job, name):
    """Both doubles quote the key they got in their refusal, as real servers do."""
    keys = KEYS | {name: f"{KEYS[name]}-wrong"}
    ended = cfray.run("plan", job.path, "--json", **keys).ended_with(2)
    check_no_key_is_in(ended)
    assert ended.document()["exit_code"] == 2
