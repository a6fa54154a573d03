"""No message about a job file shows a text that may be a secret.

A literal credential is refused at every key that takes the name of a credential, however it is
written, and the message says how to name it.  A canary stands for the secret.
"""

import traceback

import pytest
import yaml
from pydantic import BaseModel

from cfray import cli
from cfray.errors import ConfigError
from cfray.job.file import read_job
from cfray.job.keys import alternatives
from cfray.job.spec import KINDS, JobSpec
from cfray.runtime.credentials import Secret

#: A key as long as those of common services, and a password as short as bad ones.
KEY, PASSWORD = "sk-canary-0123456789abcdef", "cAnArY1"
CREDENTIAL_SYNTAX = "{env: NAME} or {file: PATH}"
SECTIONS = [
    ("source",),
    ("embedding", "endpoint"),
    ("embedding",),
    ("target",),
    ("mapping",),
    ("index",),
    ("limits",),
    (),
]
MISSPELT_KEYS = ["apikey", "api-key", "API_KEY", "token", "password", "secret", "Authorization"]
LITERAL_FORMS = {
    "a text": lambda secret: secret,
    "a list": lambda secret: [secret],
    "a key": lambda secret: {secret: None},
    "in place of a variable's name": lambda secret: {"env": f"{secret}-x"},
    "under a wrong key": lambda secret: {"environment": secret},
    "beside a name": lambda secret: {"env": "NAME", "file": secret},
    "beside a wrong key": lambda secret: {"env": "NAME", "value": secret},
}
BROKEN_YAML = {
    "a quote that never ends": 'api_key: "{}',
    "a bracket that never ends": "api_key: {{{}",
    "an alias": "api_key: *{}",
    "a tag": "api_key: !{} x",
    "a tag with a handle": "api_key: !{}!x y",
    "a directive": "%{} x\n---\nname: x",
    "a character that begins nothing": "api_key: @{}",
    "a colon too many": "api_key: {}: x",
    "a tab": "\tapi_key: {}",
    "an escape": 'api_key: "\\{}"',
    "a key twice": "api_key: {0}\napi_key: {0}",
    "no date": "name: 2026-13-45\napi_key: {}",
    "no mapping": "{}",
    "a list": "- {}",
}


def job_with(key_path, value, kind="qdrant"):
    """Make a job that is right except for the value at one path of keys."""
    uri = {"uri": "./export"} if "url" not in KINDS[kind].model_fields else {"url": "http://h"}
    job = {"name": "n", "source": {"kind": kind, **uri}, "target": {"uri": "./out.lance"}}
    if key_path[:1] == ("embedding",):
        job["embedding"] = {"policy": "regenerate"}
    if key_path[:2] == ("embedding", "endpoint"):
        job["embedding"]["endpoint"] = {"url": "http://h", "model": "m"}
    set_value(job, key_path, value)
    return job


def set_value(section, key_path, value):
    """Write a value at a path of keys, with the sections and lists that lead to it."""
    key, *further_keys = key_path
    inner_value = value if not further_keys else [] if further_keys[0] == 0 else {}
    if isinstance(section, list):
        section.append(inner_value)
    elif not further_keys:
        section[key] = value
    else:
        inner_value = section.setdefault(key, inner_value)
    if further_keys:
        set_value(inner_value, further_keys, value)


def key_paths(model, prefix=()):
    """List every path of keys in the models of the job file; a free name is called ``name``."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for annotation in alternatives(field.annotation):
            yield from inner_key_paths(annotation, (*prefix, name))


def inner_key_paths(annotation, prefix):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if prefix != ("source",):
            yield from key_paths(annotation, prefix)
    elif getattr(annotation, "__origin__", None) in (list, dict):
        element = 0 if annotation.__origin__ is list else "name"
        yield (*prefix, element)
        for item_annotation in alternatives(annotation.__args__[-1]):
            yield from inner_key_paths(item_annotation, (*prefix, element))


def refusal(folder, job):
    """Give the message about a job file and the traceback of a program, or None if it is right."""
    path = folder / "job.yaml"
    path.write_text(job if isinstance(job, str) else yaml.safe_dump(job), "utf-8")
    try:
        read_job(path)
    except ConfigError as error:
        return str(error), traceback.format_exc()
    return None


def test_the_places_are_those_of_the_job_file():
    paths = set(key_paths(JobSpec))
    assert {
        ("name",),
        ("limits", "workers"),
        ("mapping", "relationships", 0, "to"),
        ("mapping", "vectors", "name"),
        ("embedding", "columns", "name", "of"),
        ("embedding", "endpoint", "api_key", "env"),
    } <= paths
    assert ("api_key",) in set(key_paths(KINDS["qdrant"]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_shows_a_key_that_stands_at_any_place_of_the_file(tmp_path, kind):
    paths_to_test = [("source", *key_path) for key_path in key_paths(KINDS[kind])]
    if kind == "qdrant":
        paths_to_test += key_paths(JobSpec)
    refusals = {
        key_path: texts
        for key_path in paths_to_test
        for value in (KEY, [KEY], {"x": KEY})
        if (texts := refusal(tmp_path, job_with(key_path, value, kind))) is not None
    }
    assert len(refusals) > len(paths_to_test) // 2
    assert [key_path for key_path, texts in refusals.items() if KEY in "".join(texts)] == []


@pytest.mark.parametrize("form", LITERAL_FORMS)
@pytest.mark.parametrize("secret", [KEY, PASSWORD, "12345678"])
def test_a_literal_credential_is_refused_and_not_shown(tmp_path, form, secret):
    credentials = [
        ("source", "api_key"),
        ("embedding", "endpoint", "api_key"),
    ]
    for key_path in credentials:
        message, traceback_text = refusal(tmp_path, job_with(key_path, LITERAL_FORMS[form](secret)))
        assert secret not in message + traceback_text
        assert f"{'.'.join(key_path)}: " in message
        assert "line " in message
        assert CREDENTIAL_SYNTAX in message


def test_every_place_of_a_credential_refuses_a_literal_one(tmp_path):
    credentials = [
        (kind, ("source", name))
        for kind, model in KINDS.items()
        for name, field in model.model_fields.items()
        if Secret in alternatives(field.annotation)
    ]
    assert len(credentials) >= 5
    for kind, key_path in credentials:
        message, traceback_text = refusal(tmp_path, job_with(key_path, PASSWORD, kind))
        assert PASSWORD not in message + traceback_text
        assert CREDENTIAL_SYNTAX in message


@pytest.mark.parametrize("name", MISSPELT_KEYS)
@pytest.mark.parametrize("kind", ["qdrant", "parquet"])
def test_a_misspelt_key_of_a_credential_says_how_to_name_it(tmp_path, name, kind):
    for section in SECTIONS:
        for value in (PASSWORD, {"env": PASSWORD}, [PASSWORD]):
            message, traceback_text = refusal(tmp_path, job_with((*section, name), value, kind))
            assert PASSWORD not in message + traceback_text
            assert f"{'.'.join((*section, name))}: unknown key" in message
            assert CREDENTIAL_SYNTAX in message
            assert "did you mean" not in message, (
                "the nearest key, such as timeout, is no credential"
            )


@pytest.mark.parametrize("fault", BROKEN_YAML)
@pytest.mark.parametrize("secret", [KEY, PASSWORD])
def test_the_message_about_a_file_that_is_no_yaml_does_not_quote_it(tmp_path, fault, secret):
    message, traceback_text = refusal(
        tmp_path, "name: articles\n" + BROKEN_YAML[fault].format(secret)
    )
    assert secret not in message + traceback_text
    assert "job.yaml" in message
    if fault not in ("no date", "no mapping"):
        assert "line " in message


def test_the_command_line_shows_no_literal_key_either(tmp_path, capfd, monkeypatch):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_with(("source", "api_key"), KEY)), "utf-8")
    for options in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", ["cfray", "plan", str(path), *options])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        output = capfd.readouterr()
        assert exit_info.value.code == 2
        assert KEY not in output.out + output.err
        assert CREDENTIAL_SYNTAX in output.out + output.err


def test_a_short_wrong_value_is_still_shown(tmp_path):
    job = job_with(("limits", "workers"), "many")
    assert "'many'" in refusal(tmp_path, job)[0]
