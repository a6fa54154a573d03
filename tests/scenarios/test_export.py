"""Exports: records as the source held them, in every format; frames that a dataset is made of.

The files are read here with pyarrow, json, csv and yaml alone.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import random
import shutil
import signal
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import ipc

from tests.arrow_arrays import LEAVES, make_array
from tests.restoring import plain_values
from tests.scenarios import runs
from tests.scenarios.runs import Job

FORMATS = ("parquet", "arrow", "lance", "jsonl", "json", "csv", "markdown")
WIDTH = 8


def as_number(value: float) -> float:
    return np.float32(value).item()


ODD_NUMBER = pa.array(["7.038531e-26"]).cast(pa.float32())[0].as_py()


def objects() -> list[dict]:
    """Make records with all that JSON can hold, and texts that each format must escape."""
    generator = random.Random(3)
    odd = ['"', "'", ",", "\n", "\r\n", "\t", "---\n", "--- \n", "null", "1", "~", "#", "\x7f"]
    odd += [
        "\u2028",
        "\ufeff",
        "\U0001f600",
        "\\",
        "é",
        "=1+1",
        " ",
        ": ",
        "- a",
        "|",
        "\x00",
        "\x85",
    ]
    records = []
    for number in range(120):
        record = {
            "id": f"d/{number}" if number % 3 else f"d {number} {odd[number % len(odd)]}",
            "body": f"{odd[number % len(odd)]}text {number}{odd[-1 - number % len(odd)]}",
            "tags": ["a", odd[number % len(odd)]][: number % 3],
            "price": number if number % 2 else number + 0.1,
            "big": 2**70 + number,
            "meta": {"by": f"w{number}", "n": number, "x.y": [1, "2", None]},
            "when": "2020-01-01T00:00:00Z",
            "parent": f"d/{number - 1}",
            "shelf": ("a/b", "..", "", "c d")[number % 4],
            # the shortest digits of the first number are another float32 by way of a float64
            "vector": [ODD_NUMBER] + [as_number(generator.random()) for _ in range(WIDTH - 1)],
            "page": base64.b64encode(generator.randbytes(number * 50)).decode(),
        }
        if number % 5 == 0:
            record["nothing"] = None
        if number % 7 == 0:
            record["mixed"] = (number, str(number), [number], {"a": number})[number % 4]
        if number % 11 == 0:
            del record["vector"], record["body"]
        if number % 13 == 0:
            record["body"] = ""
        records.append(record)
    return records


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("things")
    lines = (json.dumps(record) + "\n" for record in objects())
    (folder / "things.jsonl").write_text("".join(lines))
    body = {
        "name": "things",
        "source": {"kind": "jsonl", "uri": "./things.jsonl"},
        "mapping": {
            "text_content": ["body", "title"],
            "tags": "tags",
            "author": "meta.by",
            "created_at": "when",
            "collection": "shelf",
            "relationships": [{"type": "parent", "to": "parent"}],
            "raw_data": "page",
            "raw_data_type": {"const": "application/octet-stream"},
        },
        "target": {"uri": "things.lance"},
    }
    job = runs.write_job(folder, body)
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job


def exported(cfray, job: Job, to: Path, *options: str) -> dict:
    ended = cfray.run("export", job.path, "--to", to, *options, "--json")
    return ended.ended_with(0).document()


def parts(to: Path) -> list[Path]:
    return sorted(path for path in to.rglob("*") if path.is_file() and path.suffix != ".json")


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_dataset_made_of_an_export_has_the_same_documents(cfray, finished, tmp_path, file_format):
    work = tmp_path / "work"
    ended = cfray.run(
        *("roundtrip", finished.path, "--work", work, "--format", file_format, "--quiet", "--json")
    ).ended_with(0)
    trip = ended.document()
    assert trip["differing"] == []
    assert trip["before"] == trip["after"]
    assert trip["before"]["rows"] == 120
    assert not work.exists()


def test_a_dataset_made_of_frames_is_a_target_like_any_other(cfray, finished, tmp_path):
    exported(cfray, finished, tmp_path / "frames", "--as", "frames", "--format", "jsonl")
    body = {
        "name": "again",
        "source": {"kind": "frames", "uri": "./frames"},
        "target": {"uri": "again.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    # one letter of a frame, and its row is found and put right
    lance.dataset(job.target).update({"author": "'Ann'"}, where="author = 'w7'")
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(4)
    cfray.run("verify", job.path, "--against", "source", "--repair", "--quiet").ended_with(0)
    cfray.run("verify", job.path, "--against", "source", "--quiet").ended_with(0)
    authors = lance.dataset(job.target).to_table(columns=["author"])["author"].to_pylist()
    assert "w7" in authors
    assert "Ann" not in authors
    refused = cfray.run("export", job.path, "--to", tmp_path / "records").ended_with(2)
    assert "was made of frames" in refused.err


@pytest.mark.parametrize("file_format", ["jsonl", "json"])
def test_records_come_back_as_json(cfray, finished, tmp_path, file_format):
    exported(cfray, finished, tmp_path / "out", "--format", file_format)
    files = [path for path in (tmp_path / "out").iterdir() if path.name.startswith("part-")]
    records = []
    for path in files:
        # only a newline ends a line
        lines = path.read_bytes().decode().split("\n")[:-1]
        records += (
            json.loads(path.read_bytes()) if file_format == "json" else map(json.loads, lines)
        )
    expected = {record["id"]: record for record in objects()}
    found = {record["id"]: record for record in records}
    assert len(records) == len(expected)
    assert {key: as_float32(record) for key, record in found.items()} == {
        key: as_float32(record) for key, record in expected.items()
    }
    assert all(
        type(found[key]["price"]) is type(record["price"]) for key, record in expected.items()
    )


def as_float32(record: dict) -> dict:
    vector = record.get("vector")
    return {**record, "vector": None if vector is None else np.float32(vector).tolist()}


def test_records_come_back_as_csv(cfray, finished, tmp_path):
    exported(cfray, finished, tmp_path / "out", "--format", "csv")
    (path,) = (tmp_path / "out").glob("part-*.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    expected = {record["id"]: record for record in objects()}
    assert {row["id"] for row in rows} == expected.keys()
    for row in rows:
        record = expected[row["id"]]
        assert row["body"] == record.get("body", "")
        assert json.loads(row["meta"]) == record["meta"]
        assert row["big"] == str(record["big"])
        assert row["price"] == repr(record["price"])
        assert np.float32(json.loads(row["vector"] or "[]")).tolist() == record.get("vector", [])


def test_a_csv_of_one_column_has_a_line_for_each_record(cfray, finished, tmp_path):
    exported(cfray, finished, tmp_path / "out", "--format", "csv", "--columns", "nothing")
    (path,) = (tmp_path / "out").glob("part-*.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        assert [row["nothing"] for row in csv.DictReader(stream)] == [""] * 120


def test_records_come_back_as_markdown(cfray, finished, tmp_path):
    exported(cfray, finished, tmp_path / "out", "--format", "markdown")
    expected = {record["id"]: record for record in objects()}
    found = {}
    for path in (tmp_path / "out").rglob("*.md"):
        front, _, text = path.read_bytes().removeprefix(b"---\n").partition(b"\n---\n")
        fields = yaml.safe_load(front)
        has_text = not fields.pop("cfray.no_text", False)
        found[fields["id"]] = fields
        assert (text.decode() if has_text else None) == expected[fields["id"]].get("body")
    assert {key: as_float32(record) for key, record in found.items()} == {
        key: as_float32(record) for key, record in expected.items()
    }


@pytest.fixture(scope="module")
def typed(module_cfray, tmp_path_factory) -> tuple[Job, pa.Table]:
    """Migrate a Parquet file with a column of each type that Parquet and cfray carry."""
    folder = tmp_path_factory.mktemp("typed")
    columns = {"id": pa.array([f"r{number}" for number in range(9)])}
    for number, kind in enumerate(LEAVES):
        table = pa.table({"x": make_array(kind, 9, number)})
        try:
            pq.write_table(table, folder / "x.parquet")
            columns[f"c{number}"] = pq.read_table(folder / "x.parquet").column(0).combine_chunks()
        except (pa.ArrowException, OSError):
            continue
    (folder / "x.parquet").unlink()
    table = pa.table(columns)
    pq.write_table(table, folder / "typed.parquet")
    body = {
        "name": "typed",
        "source": {"kind": "parquet", "uri": "./typed.parquet"},
        "target": {"uri": "typed.lance"},
    }
    job = runs.write_job(folder, body)
    module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    return job, pq.read_table(folder / "typed.parquet")


@pytest.mark.parametrize("file_format", ["parquet", "arrow"])
def test_columns_of_every_type_come_back(cfray, typed, tmp_path, file_format):
    job, table = typed
    report = exported(cfray, job, tmp_path / "out", "--format", file_format)
    (path,) = (tmp_path / "out").glob("part-*")
    if file_format == "parquet":
        again = pq.read_table(path)
    else:
        with ipc.open_file(path) as reader:
            again = reader.read_all()
    assert set(again.column_names) == set(table.column_names)
    for name in table.column_names:
        if name in report["lost"]:
            continue
        kind = table.column(name).type
        # of these the plan says that the storage alone is carried
        is_named = isinstance(kind, pa.FixedShapeTensorType | pa.OpaqueType)
        if file_format == "arrow" and not is_named:
            assert again.column(name).type == table.column(name).type
        both = (plain_values(t.column(name).combine_chunks()) for t in (again, table))
        assert repr(next(both)) == repr(next(both)), name
    assert len(report["lost"]) < 4


@pytest.mark.parametrize("form", ["text", "base64", "columns", "none"])
def test_vectors_are_written_as_asked(cfray, finished, tmp_path, form):
    exported(cfray, finished, tmp_path / "out", "--vectors", form, "--columns", "id,vector")
    (path,) = (tmp_path / "out").glob("part-*.parquet")
    expected = {record["id"]: record.get("vector") for record in objects()}
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == len(expected)
    for row in rows:
        vector = expected[row.pop("id")]
        if form == "none":
            assert row == {}
        elif form == "columns":
            assert list(row) == [f"vector_{number}" for number in range(WIDTH)]
            assert list(row.values()) == (vector or [None] * WIDTH)
        elif vector is None:
            assert row == {"vector": None}
        elif form == "text":
            assert np.float32(json.loads(row["vector"])).tolist() == vector
        else:
            assert np.frombuffer(base64.b64decode(row["vector"]), "<f4").tolist() == vector


def test_a_condition_and_folders(cfray, finished, tmp_path):
    out = tmp_path / "out"
    report = exported(
        cfray, finished, out, "--format", "jsonl", "--by-collection", "--where", "author > 'w5'"
    )
    expected = [record for record in objects() if record["meta"]["by"] > "w5"]
    assert report["rows"] == len(expected)
    by_folder = {
        path.parent.relative_to(out).as_posix(): {
            json.loads(line)["id"] for line in path.read_text().split("\n")[:-1]
        }
        for path in out.rglob("part-*.jsonl")
    }
    # no name leads out of the folder
    folders = {"a/b": "a/b", "..": "%2E%2E", "": "%00", "c d": "c d"}
    for shelf, folder in folders.items():
        ids = {record["id"] for record in expected if record["shelf"] == shelf}
        assert by_folder[folder] == ids


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "nonsense >"], "--where cannot be read"),
        (["--columns", "id,titel"], "there is no field titel"),
        (["--format", "xlsx"], "--format xlsx is unknown"),
        (["--format", "jsonl", "--vectors", "columns"], "needs a format with columns"),
        (["--format", "lance", "--by-collection"], "has no folder for each collection"),
    ],
)
def test_what_cannot_be_is_refused(cfray, finished, tmp_path, options, said):
    out = tmp_path / "out"
    refused = cfray.run("export", finished.path, "--to", out, *options).ended_with(2)
    assert said in refused.err
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_taken_is_refused(cfray, finished, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    refused = cfray.run("export", finished.path, "--to", out).ended_with(2)
    assert "something is at" in refused.err
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]
    shutil.rmtree(out)
    first = exported(cfray, finished, out)
    again = exported(cfray, finished, out)
    assert again["verdict"] == f"nothing to do: {first['verdict']}"
    refused = cfray.run("export", finished.path, "--to", out, "--vectors", "none").ended_with(2)
    assert "another export is at" in refused.err


@pytest.mark.parametrize("file_format", ["jsonl", "lance"])
def test_an_interrupted_export_goes_on(cfray, finished, tmp_path, file_format):
    out = tmp_path / "out"
    arguments = ["export", finished.path, "--to", out, "--format", file_format]
    killed = cfray.start(*arguments, CFRAY_FAIL_AT="part exported:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    assert not (out / "cfray-export.json").exists()
    other = cfray.run("export", finished.path, "--to", out, "--format", "csv").ended_with(2)
    assert "another export" in other.err
    report = cfray.run(*arguments, "--json").ended_with(0).document()
    assert report["rows"] == 120
    assert not Path(f"{out}.cfray").exists()
    manifest = json.loads((out / "cfray-export.json").read_text())
    if file_format == "lance":
        assert lance.dataset(str(out)).count_rows() == 120
    else:
        names = {path.name for path in out.iterdir()} - {"cfray-export.json"}
        assert names == {item["file"]["path"] for item in manifest["files"]}
        (path,) = out.glob("part-*")
        assert len(path.read_text().split("\n")) == 121
    assert math.isclose(manifest["rows"], 120)
