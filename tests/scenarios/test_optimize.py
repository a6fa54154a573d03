"""Indexes are built as the job file says, and are complete after compaction and added rows."""

import io
import json
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cfray import pipeline
from cfray.errors import ConfigError
from cfray.finishing import index
from cfray.job.file import read_job
from cfray.report.progress import Progress


@pytest.fixture(autouse=True)
def ray(shared_ray):
    """Have this process be a driver on the shared Ray."""
    shared_ray.join()


def export(folder: Path, rows: int, dimension: int, files: int = 1) -> None:
    rng = np.random.default_rng(3)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(rng.standard_normal(rows * dimension).astype("f4")), dimension
    )
    table = pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "text": [f"word{row % 97} text" for row in range(rows)],
            "vector": vectors,
            "kind": [f"k{row % 5}" for row in range(rows)],
        }
    )
    folder.mkdir()
    step = -(-rows // files)
    for number in range(files):
        pq.write_table(table.slice(number * step, step), folder / f"{number:03d}.parquet")


def job_of(tmp_path: Path, index_section: dict, **more: object):
    data = {
        "name": "i",
        "source": {"kind": "parquet", "uri": "in", **more},
        "mapping": {"tags": "kind"},
        "target": {"uri": "out.lance"},
        "index": index_section,
    }
    (tmp_path / "job.yaml").write_text(json.dumps(data))
    return read_job(tmp_path / "job.yaml")


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()), quiet=True)


def kinds(uri: str) -> dict[str, str]:
    return {item.name: item.index_type for item in lance.dataset(uri).describe_indices()}


@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_SQ", "IVF_RQ", "IVF_PQ", "IVF_HNSW_SQ"])
def test_every_vector_index_is_built_and_finds_a_row_by_its_own_vector(tmp_path, kind):
    export(tmp_path / "in", 2_000, 16)
    job = job_of(tmp_path, {"vector": {"type": kind, "metric": "l2"}, "text": [], "scalar": []})
    assert pipeline.migrate(job, quiet()).exit_code == 0
    dataset = lance.dataset(job.target.uri)
    assert kinds(job.target.uri) == {"vector_idx": kind}
    row = dataset.to_table(
        columns=["uuid", "vector"], filter="record_type = 'document'", limit=1
    ).to_pylist()[0]
    nearest = {"column": "vector", "q": row["vector"], "k": 10, "nprobes": 50, "refine_factor": 20}
    assert (
        row["uuid"]
        in dataset.to_table(nearest=nearest, columns=["uuid", "_distance"])["uuid"].to_pylist()
    )


@pytest.mark.parametrize(
    ("rows", "dimension", "kind"),
    [
        (index.AUTO_FROM - 1_000, 8, None),
        (index.AUTO_FROM, 8, "IVF_RQ"),
        (index.AUTO_FROM, 10, "IVF_SQ"),
    ],
)
def test_auto_looks_at_rows_and_dimension(tmp_path, rows, dimension, kind):
    export(tmp_path / "in", rows, dimension)
    job = job_of(tmp_path, {"text": [], "scalar": []})
    assert pipeline.migrate(job, quiet()).exit_code == 0
    assert kinds(job.target.uri).get("vector_idx") == kind


def test_text_and_scalar_indexes_answer(tmp_path):
    export(tmp_path / "in", 1_000, 8)
    job = job_of(
        tmp_path,
        {"vector": {"type": "none"}, "scalar": ["uuid", "collection", "tags", "created_at"]},
    )
    assert pipeline.migrate(job, quiet()).exit_code == 0
    dataset = lance.dataset(job.target.uri)
    assert kinds(job.target.uri) == {
        "text_content_idx": "Inverted",
        "uuid_idx": "BTree",
        "collection_idx": "Bitmap",
        "tags_idx": "LabelList",
        "created_at_idx": "BTree",
    }
    assert (
        dataset.to_table(full_text_query="word5", columns=["uuid", "_score"], limit=100).num_rows
        == 11
    )
    assert dataset.count_rows("array_has_any(tags, ['k3'])") == 200


def test_small_fragments_are_merged_and_every_index_covers_the_result(tmp_path):
    export(tmp_path / "in", 3_000, 8, files=12)
    job = job_of(tmp_path, {"vector": {"type": "IVF_FLAT"}}, shard_bytes=1_000)
    before = pipeline.migrate(job, quiet())
    assert before.exit_code == 0
    assert before.counts["shards"] == 12
    assert before.counts["fragments_compacted"] == 12
    dataset = lance.dataset(job.target.uri)
    assert len(dataset.get_fragments()) == 1
    assert set(index.coverage(dataset)) == {
        "vector_idx",
        "text_content_idx",
        "uuid_idx",
        "collection_idx",
    }
    assert pipeline.optimize(job, quiet()).counts["fragments_compacted"] == 0


def test_optimize_completes_indexes_after_somebody_added_rows(tmp_path):
    export(tmp_path / "in", 1_000, 8)
    job = job_of(tmp_path, {"vector": {"type": "IVF_FLAT"}})
    assert pipeline.migrate(job, quiet()).exit_code == 0
    dataset = lance.dataset(job.target.uri)
    row = {
        "uuid": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "title": "theirs",
        "text_content": "foreign",
        "vector": [1.0] * 8,
    }
    schema = pa.schema([dataset.schema.field(name) for name in row])
    lance.write_dataset(pa.Table.from_pylist([row], schema=schema), job.target.uri, mode="append")
    verified = pipeline.check(job, quiet())
    assert verified.exit_code == 4
    assert "index coverage" in {check.name for check in verified.checks if check.status == "fail"}
    optimized = pipeline.optimize(job, quiet())
    assert optimized.exit_code == 0
    assert {check.name for check in optimized.checks if check.status == "not_run"} >= {
        "rows that cfray did not write"
    }
    assert lance.dataset(job.target.uri).to_table(
        full_text_query="foreign", columns=["title", "_score"]
    )["title"].to_pylist() == ["theirs"]


def test_an_index_the_dimension_does_not_allow_is_refused(tmp_path):
    export(tmp_path / "in", 300, 10)
    job = job_of(tmp_path, {"vector": {"type": "IVF_RQ"}})
    with pytest.raises(ConfigError, match="8 divides"):
        pipeline.migrate(job, quiet())
    assert not (tmp_path / "out.lance").exists()
