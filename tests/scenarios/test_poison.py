"""Every bad row of an export is set aside with its reason, and every good row comes in.

A repaired row comes in once.
"""

from __future__ import annotations

import base64
import json
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.scenarios import runs
from tests.scenarios.runs import Job

ROWS, DIMENSION = 6_000, 8
LONG = 3_000  # bytes; ordinary documents have about 600


@dataclass(frozen=True)
class Case:
    """One way for a row to be bad: what becomes of it, and the reason that quarantine must give."""

    name: str
    spoil: Callable[[dict[str, Any]], Any]
    reason: str


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda row: {key: value for key, value in row.items() if key != name}


def having(name: str, value: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda row: {**row, name: value(row)}


def vector_with(number: float) -> Callable[[dict[str, Any]], Any]:
    return having("embedding", lambda row: [*row["embedding"][:-1], number])


CASES = (
    Case("no id", without("id"), "no id"),
    Case("null id", having("id", lambda row: None), "no id"),
    Case("float id", having("id", lambda row: row["number"] + 0.5), "cannot be an id"),
    Case("nested id", having("id", lambda row: {"a": row["number"]}), "cannot be an id"),
    Case(
        "wrong width",
        having("embedding", lambda row: row["embedding"][1:]),
        f"{DIMENSION - 1} numbers",
    ),
    Case("no vector", without("embedding"), "no vector"),
    Case("NaN", vector_with(float("nan")), "NaN"),
    Case("infinity", vector_with(float("-inf")), "NaN or an infinite"),
    Case(
        "invalid UTF-8",
        lambda row: json.dumps({**row, "title": "caf?"}).encode().replace(b"?", b"\xe9"),
        "UTF-8",
    ),
    Case("no JSON", lambda row: json.dumps(row).encode()[:-1], "line"),
    Case("no object", lambda row: json.dumps([row]).encode(), "no object"),
    Case("long document", having("body", lambda row: row["body"] * 6), "max_document"),
    Case("same identity", having("id", lambda row: "doc-0000001"), "same identity"),
)
EACH = 1_000  # one row in so many is bad, for each case


def row_of(number: int, vectors: np.ndarray) -> dict[str, Any]:
    body = f"{number} " + " ".join(
        runs.WORDS[(number * step) % len(runs.WORDS)] for step in range(100)
    )
    return {
        "id": f"doc-{number:07d}", "other_id": f"other-{number:07d}", "number": number, "title": f"Title {number}", "body": body,
        "embedding": [float(value) for value in vectors[number]],
    }  # fmt: skip


def poisoned(cases: Sequence[Case]) -> tuple[list[Any], dict[int, Case]]:
    """Make the rows, and say which are bad; a row that is no JSON is bytes."""
    vectors = np.random.default_rng(11).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    rows: list[Any] = [row_of(number, vectors) for number in range(ROWS)]
    bad = {}
    for start in range(0, ROWS, EACH):
        for row, case in enumerate(cases):
            number = start + 17 + row * 61
            rows[number] = case.spoil(rows[number])
            if isinstance(rows[number], dict) and (number // EACH) % 2:
                rows[number].pop(
                    "other_id"
                )  # so that every second one of them cannot be repaired with it
            bad[number] = case
    return rows, bad


def number_in(content: Any) -> int:
    """Find out which row an entry of the quarantine is about."""
    if isinstance(content, dict) and "base64" in content:
        content = base64.b64decode(content["base64"]).decode(errors="replace")
    if isinstance(content, dict) and "custom_metadata" in content:
        content = {entry["key"]: entry["value"] for entry in content["custom_metadata"]}
    if isinstance(content, dict):
        return int(content["number"])
    return int(re.search(r"doc-(\d{7})", content)[1])


def check_quarantine(entries: list[dict[str, Any]], bad: dict[int, Case]) -> None:
    """Check that every bad row is there once, with a fitting reason, and no other one."""
    assert sorted(number_in(entry["content"]) for entry in entries) == sorted(bad)
    for entry in entries:
        case = bad[number_in(entry["content"])]
        assert case.reason in entry["reason"], f"{case.name}: {entry['reason']}"
        assert entry["position"]
        assert entry["stage"] in ("read", "convert", "commit")


def check_counts(job: Job, bad: int) -> None:
    counts = job.report()["counts"]
    assert (counts["read"], counts["quarantined"]) == (ROWS, bad)
    assert counts["read"] == counts["staged"] + counts["quarantined"]


def texts(target: str) -> dict[str, str]:
    """Read the text of every document by its original id."""
    documents = (
        lance.dataset(target)
        .to_table(columns=["text_content", "custom_metadata"], filter="record_type = 'document'")
        .to_pylist()
    )
    pairs = [
        (
            next(
                entry["value"] for entry in row["custom_metadata"] if entry["key"] == "original_id"
            ),
            row["text_content"],
        )
        for row in documents
    ]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


MAPPING = {"id": "id", "text_content": "body", "title": "title", "vector": "embedding"}
LIMITS = {"max_quarantined": "2%", "max_document": LONG}


@pytest.fixture
def jsonl(tmp_path) -> tuple[Job, list[Any], dict[int, Case]]:
    rows, bad = poisoned(CASES)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    body = {
        "name": "poisoned",
        "source": {"kind": "jsonl", "uri": "rows.jsonl", "shard_bytes": "1MiB"},
        "mapping": MAPPING,
        "embedding": {"missing_vector": "quarantine"},
        "limits": LIMITS,
        "target": {"uri": "out.lance"},
    }
    return runs.write_job(tmp_path, body), rows, bad


def test_bad_rows_are_set_aside_and_the_repaired_ones_come_in_once(cfray, jsonl):
    job, rows, bad = jsonl
    cfray.run("migrate", job.path).ended_with(3)
    check_quarantine(runs.quarantined(cfray, job), bad)
    check_counts(job, len(bad))
    good = {row["id"]: row["body"] for number, row in enumerate(rows) if number not in bad}
    assert texts(job.target) == good

    corrected = job.changed(
        mapping={**MAPPING, "id": ["id", "other_id"]},
        embedding={"missing_vector": "zero"},
        limits={**LIMITS, "max_document": "1MiB"},
    )
    repaired = {
        number: named(rows[number])
        for number, case in bad.items()
        if is_repaired(case, rows[number])
    }
    unrepaired = {number: case for number, case in bad.items() if number not in repaired}
    expected = good | {name: rows[number]["body"] for number, name in repaired.items()}
    killed = cfray.start("quarantine", "replay", corrected.path)
    runs.until(
        lambda: killed.ended or any(name.startswith("replay-") for name in runs.receipts(job)),
        "the repaired rows are staged",
    )
    assert killed.kill().code == -signal.SIGKILL  # just before their commit or just behind it
    killed = cfray.start("quarantine", "replay", corrected.path, CFRAY_FAIL_AT="replay:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    for _ in range(2):  # the second time there is nothing left to bring in
        cfray.run("quarantine", "replay", corrected.path).ended_with(3)
        assert texts(job.target) == expected
        check_quarantine(runs.quarantined(cfray, corrected), unrepaired)
        check_counts(job, len(unrepaired))
    names = runs.uuids(job.target)
    assert len(names) == len(set(names)) == len(expected) + 2

    for accepted in (job, corrected):
        cfray.run("migrate", accepted.path).ended_with(3)
        assert texts(job.target) == expected
    before = lance.dataset(job.target).version
    other = corrected.changed(mapping={**MAPPING, "id": ["id", "other_id"], "title": "number"})
    refused = cfray.run("migrate", other.path).ended_with(2)
    assert "mapping.title" in refused.err
    assert "remedy" in refused.err
    refused = cfray.run("quarantine", "replay", corrected.changed(name="another").path).ended_with(
        2
    )
    assert 'name: was "poisoned", is "another"' in refused.err
    assert lance.dataset(job.target).version == before


def is_repaired(case: Case, row: Any) -> bool:
    return case.name in ("no vector", "long document") or (
        case.name.endswith(" id") and "other_id" in row
    )


def named(row: dict[str, Any]) -> str:
    return row["id"] if isinstance(row.get("id"), str) else row["other_id"]


#: What a table can hold of it, by kind; a CSV decoder has its own words for an invalid byte.
REASONS = {
    case.name: case.reason
    for case in CASES
    if case.name in ("wrong width", "NaN", "infinity", "long document", "same identity")
}
TABLE_REASONS = {
    "csv": {**REASONS, "no id": "no id", "invalid UTF-8": "utf-8"},
    "parquet": {**REASONS, "null id": "no id", "invalid UTF-8": "UTF-8"},
}


def write_csv(path: Path, rows: list[Any]) -> None:
    """Write rows as CSV, vectors as JSON texts; a row of bytes keeps its invalid byte."""
    lines = [b"id,number,title,body,embedding"]
    for row in rows:
        values = row if isinstance(row, dict) else json.loads(row.decode("latin-1"))
        line = ",".join(
            [
                str(values.get("id") or ""),
                str(values["number"]),
                values["title"],
                values["body"],
                f'"{json.dumps(values["embedding"])}"',
            ]
        )
        lines.append(line.encode("latin-1"))
    path.write_bytes(b"\n".join(lines) + b"\n")


def write_parquet(path: Path, rows: list[Any]) -> None:
    """Write rows as Parquet; a string column takes bytes that are no UTF-8 if it is not told."""
    values = [row if isinstance(row, dict) else json.loads(row.decode("latin-1")) for row in rows]
    titles = pa.array([row["title"].encode("latin-1") for row in values], pa.binary()).view(
        pa.string()
    )
    columns = {
        "id": pa.array([row["id"] for row in values], pa.string()),
        "number": pa.array([row["number"] for row in values]),
        "title": titles,
        "body": pa.array([row["body"] for row in values]),
        "embedding": pa.array([row["embedding"] for row in values], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), path, row_group_size=1_500)


@pytest.mark.parametrize(("kind", "write"), [("csv", write_csv), ("parquet", write_parquet)])
def test_tables_are_poisoned_in_their_own_ways_and_the_limit_stops_a_run_resumably(
    cfray, tmp_path, kind, write
):
    reasons = TABLE_REASONS[kind]
    rows, bad = poisoned(
        [Case(case.name, case.spoil, reasons[case.name]) for case in CASES if case.name in reasons]
    )
    write(tmp_path / f"rows.{kind}", rows)
    body = {
        "name": "poisoned",
        "source": {"kind": kind, "uri": f"rows.{kind}", "shard_bytes": "1MiB"},
        "mapping": MAPPING,
        "limits": {**LIMITS, "max_quarantined": len(bad) - 1},
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    stopped = cfray.run("migrate", job.path, "--json").ended_with(1)
    assert "limits.max_quarantined" in stopped.err
    assert "run the same command again" in stopped.err
    assert job.report()["exit_code"] == stopped.document()["exit_code"] == 1
    cfray.run(
        "migrate", job.changed(limits={**LIMITS, "max_quarantined": len(bad)}).path
    ).ended_with(3)
    check_quarantine(runs.quarantined(cfray, job), bad)
    check_counts(job, len(bad))
    assert texts(job.target) == {
        row["id"]: row["body"] for number, row in enumerate(rows) if number not in bad
    }


def test_a_run_that_must_not_meet_a_second_record_of_one_identity_fails_and_removes_nothing(
    cfray, tmp_path
):
    rows, bad = poisoned([case for case in CASES if case.name == "same identity"])
    write_csv(tmp_path / "rows.csv", rows)
    body = {
        "name": "poisoned",
        "source": {"kind": "csv", "uri": "rows.csv"},
        "mapping": {**MAPPING, "on_duplicate": "error"},
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    stopped = cfray.run("migrate", job.path).ended_with(1)
    assert "on_duplicate" in stopped.err
    assert f"{len(bad)} records" in stopped.err
    assert lance.dataset(job.target).count_rows() == ROWS
    assert job.report()["exit_code"] == 1
