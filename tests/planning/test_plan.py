"""What a run plans, and what ``cfray plan`` adds to it."""

import json
from dataclasses import replace

import pytest

from cfray.errors import ConfigError
from cfray.job.file import read_job
from cfray.planning.plan import make_plan, preview
from cfray.sources.base import Session
from cfray.sources.session import SourceSession
from tests.scenarios import runs


@pytest.fixture
def job(tmp_path):
    """Give a job whose sample has notes of each kind; half of the references dangle."""
    (tmp_path / "notes.jsonl").write_text(
        "\n".join(
            json.dumps({"id": str(n), "vector": [n, 0.1] if n else [], "up": str(n * 2)})
            for n in range(10)
        )
    )
    body = {
        "name": "notes",
        "source": {"kind": "jsonl", "uri": "notes.jsonl"},
        "mapping": {
            "title": "headline",
            "vector": "vector",
            "relationships": [{"type": "parent", "to": "up"}],
        },
        "index": {"vector": {"metric": "l2"}},
        "target": {"uri": "out.lance"},
    }
    return read_job(runs.write_job(tmp_path, body).path)


def planned(job, tmp_path, session=None):
    (tmp_path / "scratch").mkdir(exist_ok=True)
    with SourceSession(job.source) as opened:
        return make_plan(job, str(tmp_path / "scratch"), session or opened)


def test_a_further_vector_that_no_record_has_is_refused(job, tmp_path):
    vectors = job.mapping.model_copy(update={"vectors": {"second": "other"}})
    named = job.model_copy(update={"mapping": vectors})
    with pytest.raises(ConfigError, match=r"mapping.vectors.second: the source has no field other"):
        planned(named, tmp_path)


def test_a_target_in_the_folder_that_the_source_reads_is_refused(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.md").write_text("a")
    body = {
        "name": "inside",
        "source": {"kind": "filesystem", "uri": "tree"},
        "embedding": {"missing_vector": "zero", "dimension": 1},
        "target": {"uri": "tree/out.lance"},
    }
    inside = read_job(runs.write_job(tmp_path, body).path)
    for plan in (preview, lambda job: planned(job, tmp_path)):
        with pytest.raises(ConfigError, match="lies in the folder") as refused:
            plan(inside)
        assert "out.lance/ and out.lance.cfray/, by source.exclude" in refused.value.remedy
    assert not (tmp_path / "tree/out.lance.cfray").exists()


def test_a_run_plans_what_the_preview_showed_and_leaves_out_what_it_counts_itself(job, tmp_path):
    shown, _ = preview(job)
    plan = planned(job, tmp_path)
    assert replace(plan, notes=()) == replace(shown, notes=())
    assert shown.notes[: len(plan.notes)] == plan.notes
    (reference_note,) = shown.notes[len(plan.notes) :]
    assert "5 of 10 references" in reference_note
    notes = " ".join(plan.notes)
    for note in (
        "mapping.title: no record of the sample has headline",
        "1 of 10 sampled records have an empty vector",
        "metric l2 with missing_vector: zero",
        "vectors of the sample: lengths 1.005 to 9.001, 10.0% zero or missing",
    ):
        assert note in notes


def test_a_session_that_is_a_snapshot_makes_the_plan_say_so(job, tmp_path):
    assert planned(job, tmp_path).consistency == "pinned files"
    assert planned(job, tmp_path, Session(consistency="snapshot")).consistency == "snapshot"
