"""``cfray plan`` of a job that makes vectors: two lines, pieces, chunks, and what is on disk."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cfray.job.file import read_job
from cfray.planning.plan import preview
from cfray.planning.show import as_json, show_forecast
from tests.scenarios import runs
from tests.testbeds.embedding_server import EmbeddingServer

ROWS = 90


@pytest.fixture
def server():
    with EmbeddingServer(16) as server:
        yield server


def planned(folder, embedding, *, words=30, **more):
    """Plan a job over three files of thirty texts; every third text is twice as long."""
    for number in range(3):
        rows = [
            {"id": f"{number}-{n}", "body": "word " * (words * (1 + (n % 3 == 0))), "title": "a b"}
            for n in range(ROWS // 3)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"docs-{number}.parquet")
    body = {
        "name": "docs",
        "source": {"kind": "parquet", "uri": "docs-*.parquet", "shard_bytes": 1},
        "mapping": {"text_content": "body", "title": "title"},
        "target": {"uri": "out.lance"},
        "embedding": embedding,
        **more,
    }
    plan, forecast = preview(read_job(runs.write_job(folder, body).path))
    console = Console(file=io.StringIO(), width=300)
    show_forecast("docs", plan, forecast, console)
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"docs-{number}.parquet" for number in range(3)),
        "job.yaml",
    ], "a plan writes nothing"
    return as_json(plan, forecast), console.file.getvalue()


def regenerate(server, **more):
    endpoint = {"url": server.url, "model": "m", "batch": 2, **more.pop("endpoint", {})}
    return {"policy": "regenerate", "endpoint": endpoint, **more}


def test_the_two_lines_and_the_number_of_pieces_are_said(tmp_path, server):
    document, text = planned(tmp_path, regenerate(server))
    # the three files are small, so they are merged to a single fragment before it is divided
    assert document["lines"] == {"shards": 3, "frames": ROWS, "pieces": 12, "piece_rows": 8}
    assert "first line, the copy: 3 shards, about 90 rows; the source is released" in text
    assert "second line, the embedding: about 12 pieces of at most 8 rows" in text
    parts = document["disk_parts"]
    assert document["disk"] == sum(parts.values()) - parts["pieces"]
    assert document["disk_peak"] == document["disk"] + parts["pieces"]
    assert parts["vectors"] >= ROWS * 16 * 4
    assert all(parts.values())


def test_a_job_that_keeps_its_vectors_has_one_line(tmp_path):
    document, text = planned(tmp_path, {"policy": "keep"})
    assert (document["lines"]["pieces"], document["disk_parts"]["vectors"]) == (0, 0)
    assert document["disk_peak"] == document["disk"]
    assert "line" not in text.replace("lines", "")


def test_chunks_are_rows_of_the_second_line_and_cost_as_such(tmp_path, server):
    price = {"endpoint": {"price_per_million_tokens": 1_000_000}}
    plain, _ = planned(tmp_path, regenerate(server, **price))
    chunked, text = planned(tmp_path, regenerate(server, chunk={"tokens": 40}, **price))
    chunks = chunked["lines"]["frames"] - ROWS
    assert chunks > 0
    assert chunked["embedding"]["chunks"] == chunks
    assert chunked["embedding"]["texts"] == ROWS + chunks
    assert chunked["embedding"]["cost"] > plain["embedding"]["cost"]
    assert chunked["disk_parts"]["vectors"] > plain["disk_parts"]["vectors"]
    assert f"about {ROWS + chunks} rows" in text


def test_texts_of_further_columns_are_paid_and_their_vectors_take_disk(tmp_path, server):
    price = {"endpoint": {"price_per_million_tokens": 1_000_000}}
    plain, _ = planned(tmp_path, regenerate(server, **price))
    columns = {"title": {"of": "title"}, "half": {"of": "vector", "dtype": "float16"}}
    more, _ = planned(tmp_path, regenerate(server, columns=columns, **price))
    assert more["embedding"]["cost"] > plain["embedding"]["cost"]
    added = more["disk_parts"]["vectors"] - plain["disk_parts"]["vectors"]
    assert added == ROWS * 16 * (4 + 2)
