"""The keys of a job file are the fields of its models, so that no section can be forgotten."""

import pytest
from pydantic import BaseModel

from cfray.job.keys import alternatives, known_keys, locate, secret_keys
from cfray.job.spec import KINDS, JobSpec
from tests.job.test_secrets import job_with, key_paths, refusal


def sections():
    """List every section that may have keys of its own, and the models that it may be."""
    for path in {key_path[:-1] for key_path in key_paths(JobSpec)}:
        models = locate(path).models
        if models and not locate(path).is_secret:
            yield path, models


@pytest.mark.parametrize(
    "section",
    [
        ("mapping",),
        ("mapping", "relationships", 0),
        ("embedding", "chunk"),
        ("embedding", "columns", "name"),
        ("embedding", "actors"),
        ("index", "vector"),
        ("target",),
        (),
    ],
    ids=str,
)
def test_every_section_is_known(section):
    assert section in dict(sections())


@pytest.mark.parametrize(("section", "models"), sorted(sections(), key=str), ids=str)
def test_a_misspelt_key_of_any_section_names_the_nearest_or_all_known(tmp_path, section, models):
    keys = [name for name in known_keys(models) if name not in ("key", "path", "const", "template")]
    for key in keys:
        message = refusal(tmp_path, job_with((*section, f"{key}x"), 1))
        if section[:1] == ("source",):
            continue
        assert f"did you mean {key}?" in message[0] or "is no rule" in message[0], message[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_key_of_every_source_names_the_nearest(tmp_path, kind):
    for key in KINDS[kind].model_fields:
        message, _ = refusal(tmp_path, job_with(("source", f"{key}x"), 1, kind))
        assert f"did you mean {key}?" in message


def test_steps_that_are_no_keys_are_branches():
    location = locate(("mapping", "text_content", "list[union[str,LiteralPath]]", 0, "str"))
    assert location.keys == ("mapping", "text_content", "0")
    assert (location.branch, location.branch_depth) == ("list[union[str,LiteralPath]]", 2)
    assert locate(("source", "qdrant", "url")).keys == ("source", "url")


@pytest.mark.parametrize("name", ["str", "Const", "parquet", "list"])
def test_a_free_name_that_looks_like_a_branch_is_a_key(tmp_path, name):
    assert locate(("mapping", "vectors", name, "str")).keys == ("mapping", "vectors", name)
    message, _ = refusal(tmp_path, job_with(("embedding", "columns", name), {"of": "body"}))
    assert f"embedding.columns.{name}.of: " in message


def test_nothing_is_located_below_a_credential():
    location = locate(("source", "qdrant", "api_key", "sk-123"))
    assert (location.keys, location.is_secret) == (("source", "api_key"), True)
    assert secret_keys([KINDS["qdrant"]]) == ["api_key"]


def test_a_name_that_a_column_cannot_have_is_refused(tmp_path):
    message, _ = refusal(tmp_path, job_with(("mapping", "vectors", "a-b"), "v"))
    assert "mapping.vectors.a-b: " in message


def test_the_models_of_a_union_are_its_alternatives():
    models = list(alternatives(JobSpec.model_fields["source"].annotation))
    assert set(models) == set(KINDS.values())
    assert all(issubclass(model, BaseModel) for model in models)
