"""What is damaged in a target is named and put right, whichever kind of file it came from.

Parquet has its tests in ``test_against_source.py``.  ``make test`` damages many rows at once;
``make prove`` does each kind of damage by itself.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import lance
import numpy as np
import pyarrow as pa
import pytest
import yaml

from tests.scenarios import damages, runs
from tests.scenarios.damages import NothingToDamage
from tests.scenarios.runs import Job

ROWS, DIMENSION, FILES = 300, 8, 3
#: Bytes of a text whose ``raw_data`` Lance puts into a file of its own.
LARGE = 100_000
SPEC = Path(__file__).parents[2] / "jobs/specs/filesystem.yaml"
MAPPING = {**runs.MAPPING, "raw_data": "body", "raw_data_type": {"const": "text/plain"}}
#: What the rows of a kind lack: typed columns and CSV do not tell a null from a missing value, XML
#: has neither nulls nor numbers, documents have no vectors.
IMPOSSIBLE = {
    **{kind: {damages.make_a_null_missing} for kind in ("arrow", "csv", "delta", "lance")},
    "xml": {damages.make_a_null_missing, damages.make_a_number_a_text},
    "filesystem": {damages.swap_two_vectors},
}


def parts() -> list[pa.Table]:
    """Make the rows of each file; the first texts are large."""
    rng = np.random.default_rng(7)
    tables = []
    for part in range(FILES):
        columns = runs.columns(part * ROWS // FILES, ROWS // FILES, DIMENSION, rng)
        columns["body"][0] *= LARGE // len(columns["body"][0]) + 1
        tables.append(runs.table(columns))
    return tables


def write_csv(path: Path, table: pa.Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.schema.names)
        writer.writeheader()
        for row in table.to_pylist():
            writer.writerow(row | {"embedding": json.dumps(row["embedding"])})


def write_json(path: Path, table: pa.Table) -> None:
    path.write_text(json.dumps(table.to_pylist()), "utf-8")


def write_jsonl(path: Path, table: pa.Table) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()), "utf-8")


def write_xml(path: Path, table: pa.Table) -> None:
    """Write a row as an element of elements; a null has none."""
    with path.open("w", encoding="utf-8") as file:
        file.write("<rows>")
        for row in table.to_pylist():
            fields = {
                name: json.dumps(value) if name == "embedding" else str(value)
                for name, value in row.items()
                if value is not None
            }
            inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fields.items())
            file.write(f"<row>{inner}</row>\n")
        file.write("</rows>")


def write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {
    "arrow": write_arrow,
    "csv": write_csv,
    "json": write_json,
    "jsonl": write_jsonl,
    "xml": write_xml,
}


def lance_body(folder: Path) -> dict[str, Any]:
    table = pa.concat_tables(parts())
    lance.write_dataset(table, folder / "export.lance", max_rows_per_file=ROWS // FILES)
    return {"kind": "lance", "uri": "./export.lance"}


def delta_body(folder: Path) -> dict[str, Any]:
    from deltalake import write_deltalake

    for table in parts():
        write_deltalake(folder / "export.delta", table, mode="append")
    return {"kind": "delta", "uri": "./export.delta"}


def files_body(kind: str, folder: Path) -> dict[str, Any]:
    (folder / "export").mkdir()
    for number, table in enumerate(parts()):
        WRITERS[kind](folder / "export" / f"part-{number}.{kind}", table)
    typed = {"types": {"embedding": "list<float>", "score": "double", "year": "int64"}}
    return {"kind": kind, "uri": "./export", **(typed if kind == "csv" else {})}


def tree_body(folder: Path) -> dict[str, Any]:
    """Write a tree of notes; the bytes of each file are kept, too."""
    for number in range(40):
        path = folder / "notes" / str(number % 4) / f"{number:02}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        year = f"year: {1990 + number}\nnothing: null\n"
        text = f"# Note {number}\n{number} of tea\n" * (6_000 if number % 20 == 7 else 1)
        path.write_text(f"---\n{year}---\n{text}")
    body = yaml.safe_load(SPEC.read_text())
    source = {"kind": "filesystem", "uri": "./notes", "raw": "all", "shard_bytes": 60_000}
    return body | {"source": source}


def body_of(kind: str, folder: Path) -> dict[str, Any]:
    """Write an export of a kind, and give the body of its job."""
    if kind == "filesystem":
        return tree_body(folder)
    whole = {"delta": delta_body, "lance": lance_body}
    source = whole[kind](folder) if kind in whole else files_body(kind, folder)
    # of the smallest size a shard is a file, or a part of one
    return {"name": "articles", "source": {**source, "shard_bytes": 1}, "mapping": MAPPING}


@pytest.fixture(scope="module", params=[*WRITERS, "delta", "lance", "filesystem"])
def finished(request, module_cfray, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("finished")
    body = {**body_of(request.param, folder), "target": {"uri": "out.lance"}}
    job = runs.write_job(folder, body)
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    return runs.copied(finished, tmp_path)


@pytest.mark.prove(elsewhere=("csv", "delta", "filesystem"))
def test_damaged_rows_are_named_and_repaired_at_once(cfray, finished, job, record_property):
    left_out = damages.check_found_and_repaired_together(cfray, finished, job)
    for damage, reason in left_out.items():
        record_property(f"no {damage.__name__}", reason)
    assert set(left_out) == IMPOSSIBLE.get(finished.body["source"]["kind"], set())


@pytest.mark.prove
@pytest.mark.parametrize(
    "damage",
    [*damages.OF_ROWS, *damages.OF_FILES],
    ids=lambda damage: damage.__name__,
)
def test_each_damage_is_named_and_repaired(cfray, finished, job, damage):
    try:
        damages.check_found_and_repaired_alone(cfray, finished, job, damage)
    except NothingToDamage as reason:
        pytest.skip(f"{finished.body['source']['kind']}: {reason}")
