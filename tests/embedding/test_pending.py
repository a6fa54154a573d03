"""Whether the vectors that a job asks for are still to be made, and for whom that may still change.

Targets of an earlier version, which made the vectors while it copied, are as it left them: the
recipe and the columns are there from the start, and no entry of the ledger says so.
"""

from dataclasses import replace

import pytest

from cfray.embedders.recipe import RECIPE_KEY, Recipe
from cfray.embedding.pending import (
    CHECK,
    check_complete,
    check_made_by_two_lines,
    report_vectors,
    vectors_are_pending,
)
from cfray.embedding.vectors import target_schema
from cfray.errors import ConfigError, LedgerMismatch
from cfray.joining.headers import write_headers
from cfray.proving.progress_state import stage_of
from cfray.runs import check_agreement
from cfray.target.creation import create_target
from tests.embedding.letters import DIMENSION, IDENTITY
from tests.embedding.small_targets import SmallTarget, copy_target, job_of

SHARDS = [
    [
        {"id": "a", "body": "tea at six", "vector": [0.6, 0.8]},
        {"id": "b", "body": "a seat", "vector": [1.0, 0.0]},
    ]
]
COLUMNS = {"half": {"of": "vector", "dtype": "float16"}}
TRUNCATE = {"method": "truncate", "dimension": 1}
#: Policy and further keys of ``embedding`` -> what an earlier version's recipe said when it was
#: done.
MAKING = {
    "reduce": ("keep", {"reduce": TRUNCATE}, Recipe("keep", 1, reduction="truncate")),
    "pca": (
        "keep",
        {"reduce": {"method": "pca", "dimension": 1}},
        Recipe("keep", 1, reduction="f" * 64),
    ),
    "columns": ("keep", {"columns": COLUMNS}, Recipe("keep", 2)),
    "regenerate": ("regenerate", {}, Recipe("regenerate", DIMENSION, IDENTITY)),
    "remap": ("remap", {}, Recipe("remap", DIMENSION, IDENTITY, map="f" * 64)),
}


def is_pending(small, job=None):
    target = small.target
    return vectors_are_pending(job or small.job, small.plan, target, target.ledger())


def copied(folder, name):
    """Copy records for a job that makes vectors."""
    policy, options, _ = MAKING[name]
    return copy_target(folder, SHARDS, policy, **options)


def one_line_target(folder, name, shards=()):
    """Make an empty target as an earlier version did, which planned so many shards."""
    new = copied(folder / "new", name)
    _, _, recipe = MAKING[name]
    policy, options, _ = MAKING[name]
    job = job_of(str(folder / "t.lance"), policy, **options)
    shape = replace(new.plan.shape, dimension=recipe.dimension)
    schema = target_schema(job, shape, recipe)
    metadata = {RECIPE_KEY: recipe.to_json()}
    target = create_target(job.target.uri, schema, metadata, job.fingerprint)
    plan = replace(new.plan, shards=list(shards), shape=shape, recipe=recipe, fingerprint="")
    small = SmallTarget(job, plan, target)
    small.state.save_jobs([{"fingerprint": job.fingerprint, "agreed": job.agreed}])
    small.state.save_plan(plan)
    return small


def changed(small, **embedding):
    """Give the job of a target with another section ``embedding``."""
    return small.job.model_copy(
        update={"embedding": small.job.embedding.model_copy(update=embedding)}
    )


def test_kept_vectors_are_there_with_the_copy(tmp_path):
    small = copy_target(tmp_path, SHARDS, "keep")
    assert not is_pending(small)
    run = small.run()
    check_complete(run)
    assert stage_of(run) == "copied", "the headers are missing"
    write_headers(run)
    assert stage_of(small.run()) == "complete"


@pytest.mark.parametrize("name", MAKING)
def test_a_copied_target_awaits_its_vectors(tmp_path, name):
    small = copied(tmp_path, name)
    assert is_pending(small)
    run = small.run()
    assert stage_of(run) == "copied"
    report_vectors(run)
    assert [(check.name, check.status) for check in run.report.checks] == [(CHECK, "fail")]
    with pytest.raises(ConfigError, match="vectors are still to be made"):
        check_complete(run)


@pytest.mark.parametrize("name", ["reduce", "columns", "regenerate"])
def test_the_swap_makes_it_complete(tmp_path, name):
    small = copied(tmp_path, name)
    small.second_line().run()
    assert not is_pending(small)
    run = small.run()
    check_complete(run)
    report_vectors(run)
    assert [(check.name, check.status) for check in run.report.checks] == [(CHECK, "pass")]


@pytest.mark.parametrize("name", MAKING)
def test_an_earlier_version_made_the_vectors_while_it_copied(tmp_path, name):
    small = one_line_target(tmp_path, name)
    assert not is_pending(small)
    check_complete(small.run())
    check_made_by_two_lines(small.job, small.plan, small.target, small.target.ledger())


@pytest.mark.parametrize("name", MAKING)
def test_an_unfinished_copy_of_an_earlier_version_is_refused_by_name(tmp_path, name):
    shards = copied(tmp_path / "other", name).plan.shards
    small = one_line_target(tmp_path, name, shards)
    with pytest.raises(LedgerMismatch, match="made its vectors while it copied") as refusal:
        check_made_by_two_lines(small.job, small.plan, small.target, small.target.ledger())
    assert "--restart" in refusal.value.remedy


@pytest.mark.parametrize("name", MAKING)
def test_an_unfinished_copy_of_this_version_goes_on(tmp_path, name):
    small = copied(tmp_path, name)
    plan = replace(small.plan, shards=[*small.plan.shards, *small.plan.shards])
    check_made_by_two_lines(small.job, plan, small.target, small.target.ledger())


def test_a_projection_that_an_earlier_version_never_learned_is_refused(tmp_path):
    shards = copied(tmp_path / "other", "pca").plan.shards
    small = one_line_target(tmp_path, "pca", shards)
    recipe = Recipe("keep", 1)  # learned before the first shard, and the run was killed before
    schema = small.dataset.schema.with_metadata(None)
    uri = str(tmp_path / "unlearned.lance")
    metadata = {RECIPE_KEY: recipe.to_json()}
    target = create_target(uri, schema, metadata, small.job.fingerprint)
    with pytest.raises(LedgerMismatch, match="made its vectors while it copied"):
        check_made_by_two_lines(small.job, small.plan, target, target.ledger())


def test_another_embedding_may_come_before_the_swap(tmp_path):
    small = copied(tmp_path, "remap")
    for other in (
        changed(small, policy="keep", endpoint=None),
        changed(small, policy="regenerate"),
        changed(small, missing_vector="null"),
    ):
        check_agreement(other, small.target.ledger(), before_swap=True)
        assert is_pending(small, other), "the swap makes the target accept it"
        with pytest.raises(LedgerMismatch, match="embedding"):
            check_agreement(other, small.target.ledger())


def test_the_swap_binds_the_embedding(tmp_path):
    small = copied(tmp_path, "regenerate")
    small.second_line().run()
    with pytest.raises(LedgerMismatch, match="embedding"):
        check_agreement(
            changed(small, missing_vector="null"), small.target.ledger(), before_swap=True
        )


def test_what_the_copy_left_out_cannot_be_asked_for(tmp_path):
    small = copied(tmp_path, "regenerate")
    with pytest.raises(LedgerMismatch, match="copied without the source's vectors"):
        check_agreement(
            changed(small, policy="keep", endpoint=None), small.target.ledger(), before_swap=True
        )


@pytest.mark.parametrize("name", MAKING)
def test_vectors_that_an_earlier_version_made_bind_its_embedding(tmp_path, name):
    small = one_line_target(tmp_path, name)
    with pytest.raises(LedgerMismatch, match="embedding"):
        check_agreement(
            changed(small, missing_vector="null"), small.target.ledger(), before_swap=True
        )


def test_a_replay_with_another_mapping_finds_a_complete_target(tmp_path):
    small = copy_target(tmp_path, SHARDS, "keep")
    mapping = small.job.mapping.model_copy(update={"author": "body"})
    other = small.job.model_copy(update={"mapping": mapping})
    assert other.fingerprint != small.job.fingerprint
    assert not is_pending(small, other)
    check_complete(small.run(other))
