"""Vectors are read alike from every kind of file, in every form that the file can hold."""

import base64
import csv
import json

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.conversion.convert import Conversion
from cfray.job.spec import JobSpec
from cfray.planning.plan import preview
from cfray.sources.base import Context

VECTORS = np.random.default_rng(3).standard_normal((6, 24)).astype(np.float32)


def write_file(kind, path, column):
    """Write six records, each with an id and a vector as it stands in ``column``."""
    ids = [f"d{row}" for row in range(len(column))]
    if kind in ("jsonl", "json"):
        records = [{"id": key, "v": value} for key, value in zip(ids, column, strict=True)]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        path.write_text(lines if kind == "jsonl" else json.dumps(records))
    elif kind == "csv":
        with path.open("w", newline="") as text:
            csv.writer(text).writerows([("id", "v"), *zip(ids, column, strict=True)])
    else:
        table = pa.table({"id": ids, "v": pa.array(column)})
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "lance":
            lance.write_dataset(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table)


def plan_and_frames(tmp_path, kind, column, vector, **job):
    """Plan a job, and convert what it reads as a run does."""
    path = tmp_path / f"docs.{kind}"
    write_file(kind, path, column)
    spec = JobSpec.model_validate(
        {
            "name": "j",
            "source": {"kind": kind, "uri": str(path)},
            "mapping": {"id": "id", "vector": vector},
            "target": {"uri": str(tmp_path / "t.lance")},
            **job,
        }
    )
    plan, forecast = preview(spec)
    conversion = Conversion(spec, plan.shape)
    frames = [
        conversion.convert(batch, shard.collection)
        for shard in plan.shards
        for batch in spec.source.read(shard, Context())
    ]
    assert not any(converted.faults for converted in frames)
    return forecast, pa.Table.from_batches([converted.frames for converted in frames])


def check_same(frames):
    flat = frames.column("vector").combine_chunks().flatten().to_numpy()
    assert flat.tobytes() == VECTORS.tobytes()


def printed(vector):
    with np.printoptions(threshold=10**6, floatmode="unique"):
        return str(vector)


TEXTS = {
    "json": (lambda v: json.dumps(v.tolist()), "v"),
    "1 x d": (lambda v: json.dumps([v.tolist()]), "v"),
    "numpy": (printed, "v"),
    "PostgreSQL": (lambda v: "{" + ",".join(map(str, v)) + "}", "v"),
    "Float32Array": (lambda v: json.dumps({str(n): x for n, x in enumerate(v.tolist())}), "v"),
    "base64": (
        lambda v: base64.b64encode(v.tobytes()).decode(),
        {"path": "v", "as": "base64"},
    ),
    "separated": (lambda v: " ".join(map(str, v)), {"path": "v", "as": "separated"}),
}


@pytest.mark.parametrize("form", TEXTS)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet", "arrow", "lance"])
def test_texts(tmp_path, kind, form):
    write, vector = TEXTS[form]
    column = [write(row) for row in VECTORS]
    forecast, frames = plan_and_frames(tmp_path, kind, column, vector)
    check_same(frames)
    assert any("not how they are written" in note for note in forecast.notes)
    assert forecast.warnings == []
    assert (forecast.quarantined.total(), forecast.lossy) == (0, [])


@pytest.mark.parametrize("kind", ["parquet", "arrow", "lance"])
@pytest.mark.parametrize(("form", "number"), [("floats", "<f4"), ("doubles", "<f8")])
def test_bytes(tmp_path, kind, form, number):
    column = [row.astype(number).tobytes() for row in VECTORS]
    _, frames = plan_and_frames(tmp_path, kind, column, {"path": "v", "as": form})
    check_same(frames)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_objects_and_nested_lists(tmp_path, kind):
    rows = [row.tolist() for row in VECTORS]
    objects = [
        rows[0],
        [rows[1]],
        {str(index): number for index, number in enumerate(rows[2])},
        [{"$numberDouble": repr(number)} for number in rows[3]],
        json.dumps(rows[4]),
        printed(VECTORS[5]),
    ]
    check_same(plan_and_frames(tmp_path, kind, objects, "v")[1])


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow", "lance"])
def test_a_vector_in_an_item_of_a_list(tmp_path, kind):
    column = [{"data": [{"embedding": row.tolist(), "index": 0}]} for row in VECTORS]
    _, frames = plan_and_frames(tmp_path, kind, column, "v.data[0].embedding")
    check_same(frames)
    keys = {
        entry["key"]
        for entries in frames.column("custom_metadata").to_pylist()
        for entry in entries
    }
    assert keys == {"original_id", "v.data[0].index"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow", "lance"])
def test_an_empty_list_is_a_missing_vector(tmp_path, kind):
    column = [row.tolist() for row in VECTORS]
    column[2] = []
    forecast, frames = plan_and_frames(
        tmp_path, kind, column, "v", embedding={"missing_vector": "null"}
    )
    assert frames.column("vector").to_pylist()[2] is None
    assert any("1 of 6 sampled records have an empty vector" in note for note in forecast.notes)
