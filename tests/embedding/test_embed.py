"""What stops an embedding before its swap, and what an earlier command learned for it."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedding import embed
from cfray.embedding.learn_map import judge_again
from cfray.errors import ConfigError, LimitReached, ProofFailed, TargetError
from cfray.planning.plan import with_other_vectors
from cfray.remap.maps import Map
from cfray.target.exact_vectors import ExactVectors
from tests.embedding.small_targets import copy_target, job_of

WORDS = " ".join(f"word{number}" for number in range(30))


def test_a_document_counts_once_however_many_of_its_chunks_are_refused(tmp_path):
    records = [{"id": "a", "body": WORDS}, {"id": "b", "body": "tea"}]
    small = copy_target(tmp_path, [records], chunk={"tokens": 8})
    job = small.job.model_copy(
        update={"limits": small.job.limits.model_copy(update={"max_quarantined": 1})}
    )
    run, task = small.run(job), small.second_line().task
    rows = small.rows()
    chunks = [row_id for row_id, row in rows.items() if row["x_chunk_of"] is not None]
    assert len(chunks) > 1
    embed._check_limit(run, task, dict.fromkeys(chunks, "why"))
    with pytest.raises(LimitReached, match="refused 2 records"):
        embed._check_limit(run, task, dict.fromkeys(rows, "why"))


def test_a_map_is_held_to_the_quality_that_is_asked_for_now(tmp_path):
    small = copy_target(tmp_path, [[{"id": "a", "body": "tea", "vector": [1.0, 2.0]}]], "remap")
    run, gate = small.run(), {"lower": 0.85, "rows": 1, "min_quality": 0.8, "forced": False}
    recipe = replace(small.second_line(map="f" * 64).task.recipe, gate=gate)

    def asking_for(quality):
        return job_of(small.job.target.uri, "remap", remap={"min_quality": quality})

    judged = judge_again(run.report, asking_for(0.7), recipe, force=False)
    assert (judged.gate["min_quality"], judged.gate["forced"]) == (0.7, False)
    with pytest.raises(ProofFailed, match=r"min_quality is 0\.9; no vector was changed"):
        judge_again(run.report, asking_for(0.9), recipe, force=False)
    assert judge_again(run.report, asking_for(0.9), recipe, force=True).gate["forced"]
    tasks = [replace(small.second_line().task, recipe=one) for one in (recipe, judged)]
    assert tasks[0].scratch == tasks[1].scratch, "the gate changes no vector"


def test_what_was_copied_in_one_width_is_not_taken_for_another(tmp_path):
    small = copy_target(tmp_path, [[{"id": "a", "body": "tea", "vector": [1.0, 2.0]}]], "keep")
    columns = {"half": {"of": "vector", "dtype": "float16"}}
    job = job_of(small.job.target.uri, "keep", columns=columns, dimension=5)
    with pytest.raises(ConfigError, match="dimension is 5, and what was copied is 2 wide"):
        with_other_vectors(job, small.plan)
    job = job_of(small.job.target.uri, "keep", columns=columns, dimension=2)
    assert with_other_vectors(job, small.plan).fingerprint == job.fingerprint


def test_a_recipe_that_was_learned_and_is_damaged_is_named(tmp_path):
    small = copy_target(tmp_path, [[{"id": "a", "body": "tea"}]])
    run, recipe = small.run(), small.second_line().task.recipe
    for data in (b"", recipe.to_json().encode()[:40], b"[]", json.dumps({"policy": 1}).encode()):
        run.state.scratch.publish("embed-0001-f.json", data)
        with pytest.raises(TargetError, match=r"embed-0001-f\.json") as damaged:
            embed._saved_recipe(run, "embed-0001-f.json")
        assert "learns anew" in damaged.value.remedy
    run.state.scratch.publish("embed-0001-f.json", recipe.to_json().encode())
    assert embed._saved_recipe(run, "embed-0001-f.json") == recipe
    assert embed._saved_recipe(run, "other.json") is None


def test_a_map_that_is_damaged_before_a_vector_was_made_with_it_is_learned_anew(tmp_path):
    small = copy_target(tmp_path, [[{"id": "a", "body": "tea", "vector": [1.0, 2.0]}]], "remap")
    run, maps = small.run(), small.state.maps
    fitted = Map("affine", {"matrix": np.eye(2, 6, dtype=np.float32)})
    recipe = replace(small.second_line().task.recipe, map=fitted.id)
    run.state.scratch.publish("r.json", recipe.to_json().encode())
    maps.publish(f"{fitted.id}.safetensors", fitted.to_bytes())
    assert embed._saved_recipe(run, "r.json") is None, "its pairs are missing"
    ExactVectors.save(small.state, fitted.id, pa.array(["u" * 36]), np.ones((1, 6), np.float32))
    assert embed._saved_recipe(run, "r.json") == recipe
    maps.publish(f"{fitted.id}.safetensors", fitted.to_bytes()[:-1])
    assert embed._saved_recipe(run, "r.json") is None
    assert f"{fitted.id}.safetensors is damaged" in run.report.notes[-1]
