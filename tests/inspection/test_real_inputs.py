"""What ``cfray inspect`` drafts of real inputs runs unedited and is what a person would write.

Each input is built with its real writer, drafted, and planned in process.  Of a few the whole
migration is run.
"""

from __future__ import annotations

import re

import pytest

from cfray.errors import CfrayError
from cfray.inspection import source as inspection
from cfray.job.file import read_job
from cfray.job.mapping import Key, VectorRule, as_path, dotted
from cfray.planning.plan import preview
from tests.testbeds import real_csv, real_folders, real_json, real_tables
from tests.testbeds.real_inputs import Case, Refusal

CASES = {
    case.name: case
    for module in (real_tables, real_csv, real_json, real_folders)
    for case in vars(module).values()
    if isinstance(case, Case)
}
INPUTS = [
    pytest.param(case, given, id=f"{name}-{given}")
    for name, case in CASES.items()
    for given in case.inputs
]


def build(case, folder):
    """Build a case; skip it where its writer is not installed."""
    if case.missing:
        pytest.skip(f"{case.name} needs {', '.join(case.missing)}")
    (folder / case.name).mkdir()
    case.build(folder / case.name)
    return folder / case.name


def written(rule):
    """Write a rule as an answer does."""
    if rule is None:
        return ""
    if isinstance(rule, Key):
        return "+".join(dotted(as_path(part)) for part in rule.key)
    form = f":{rule.form}" if isinstance(rule, VectorRule) else ""
    return dotted(as_path(rule)) + form


def chosen(job):
    """Say what a job file chooses, as an answer does."""
    mapping = job.mapping
    return {
        "kind": job.source.kind,
        "id": written(mapping.id),
        "text": written(mapping.text_content),
        "title": written(mapping.title),
        "vector": written(mapping.vector),
        "vectors": tuple(map(written, mapping.vectors.values())),
    }


def answered(answer):
    """Say what a person would choose."""
    return {
        "kind": answer.kind,
        "id": answer.id,
        "text": answer.text,
        "title": answer.title,
        "vector": answer.vector,
        "vectors": answer.vectors,
    }


@pytest.mark.parametrize(("case", "given"), INPUTS)
def test_the_draft_is_what_a_person_would_write_and_its_plan_loses_nothing(case, given, tmp_path):
    source = build(case, tmp_path) / given
    expected = case.inputs[given]
    out = tmp_path / "job.yaml"
    if isinstance(expected, Refusal):
        with pytest.raises(CfrayError) as refused:
            inspection.draft_all(str(source), out)
        for pattern in expected.patterns:
            assert re.search(pattern, str(refused.value)), refused.value
        return
    answers = expected if isinstance(expected, tuple) else (expected,)
    drafts = inspection.draft_all(str(source), out)
    assert [draft.label for draft in drafts] == [answer.label for answer in answers]
    for draft, answer in zip(drafts, answers, strict=True):
        check(draft, answer, out)


def check(draft, answer, out):
    """Compare a draft with an answer, and plan it."""
    out.write_text(draft.text)
    if not answer.id:
        assert "  id:   # FILL THIS IN" in draft.text
        with pytest.raises(CfrayError, match=r"mapping\.id"):
            read_job(out)
        return
    job = read_job(out)
    assert chosen(job) == answered(answer), draft.text
    for key, value in answer.source.items():
        assert getattr(job.source, key) == value, draft.text
    _, forecast = preview(job)
    assert forecast.quarantined.total() == answer.quarantined, forecast.quarantined
    assert forecast.duplicates == 0
    limit = job.limits.max_quarantined
    assert forecast.quarantined.total() <= limit * forecast.sampled


def test_a_draft_is_the_same_every_time(tmp_path):
    source = build(CASES["papers"], tmp_path)
    drafts = {inspection.draft(str(source), tmp_path / "job.yaml").text for _ in range(3)}
    assert len(drafts) == 1


@pytest.mark.parametrize(
    ("name", "given", "records"),
    [
        ("polars_ipc_bad_row", ".", 23),
        ("vector_bytes", ".", 20),
        ("index_level_parts", ".", 3000),
        ("csv_backslash", "part-00000.csv", 20),
        ("openai_batch", "batch.jsonl", 20),
        ("json_wrapper", "columns.json", 20),
    ],
)
def test_the_draft_migrates_unedited(name, given, records, cfray, tmp_path):
    out = tmp_path / "job.yaml"
    cfray.run("inspect", build(CASES[name], tmp_path) / given, "--out", out).ended_with(0)
    exit_code = 3 if CASES[name].inputs[given].quarantined else 0
    ended = cfray.run("migrate", out, "--json").ended_with(exit_code)
    assert ended.document()["counts"]["frames"] == records
