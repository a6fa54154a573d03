"""An error of the embedding server while a run is planned decides how the run ends.

A server that is down may answer later, so the same command is worth another try (exit 1).
A server that refuses the key or the model will refuse again, so the run is refused (exit 2).
Neither is an error of the source.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray import pipeline
from cfray.errors import (
    CfrayError,
    ConfigError,
    EmbeddingError,
    EmbeddingUnavailable,
    SourceError,
)
from cfray.job.file import read_job
from tests.testbeds.embedding_server import EmbeddingServer
from tests.testbeds.faults import Status
from tests.testbeds.server import free_ports

KEY = "CFRAY_TEST_EMBEDDING_KEY"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)


def planning_error(folder: Path, url: str, key: str = "") -> CfrayError:
    """Plan a migration that embeds with a server, and give the error it ends with."""
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["first", "second"]}), folder / "in.parquet")
    job_file = folder / "job.yaml"
    job_file.write_text(
        "name: served\n"
        "source: {kind: parquet, uri: ./in.parquet}\n"
        "mapping: {id: id, text_content: text}\n"
        f"embedding: {{policy: regenerate, endpoint: {{url: '{url}', model: m{key}}}}}\n"
        "target: {uri: ./out.lance}\n"
    )
    with pytest.raises(CfrayError) as refused:
        pipeline.forecast(read_job(job_file))
    assert not (folder / "out.lance").exists()
    assert not isinstance(refused.value, SourceError)
    return refused.value


def test_a_server_that_is_down_is_worth_another_try(tmp_path):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    error = planning_error(tmp_path, url)
    assert isinstance(error, EmbeddingUnavailable)
    assert (error.exit_code, error.transient) == (1, True)
    assert url in error.what
    assert "run the same command again" in error.remedy


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_overloaded_is_worth_another_try(tmp_path, status):
    with EmbeddingServer(16) as server:
        server.fail(Status(status, {}, b"busy"), on=range(20))
        error = planning_error(tmp_path, server.url)
    assert isinstance(error, EmbeddingUnavailable)
    assert error.exit_code == 1


@pytest.mark.parametrize("status", [401, 404, 422])
def test_a_server_that_refuses_refuses_the_run(tmp_path, status):
    with EmbeddingServer(16) as server:
        server.fail(Status(status, {}, b"no"), on=range(20))
        error = planning_error(tmp_path, server.url)
    assert isinstance(error, ConfigError)
    assert error.exit_code == 2
    assert isinstance(error.__cause__, EmbeddingError)
    assert server.url in error.what


def test_a_key_that_is_missing_refuses_the_run(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    error = planning_error(tmp_path, "http://127.0.0.1:9", f", api_key: {{env: {KEY}}}")
    assert isinstance(error, ConfigError)
    assert "embedding.endpoint.api_key" in error.what
    assert KEY in error.what
