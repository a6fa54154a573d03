"""No message about a job file shows a text that may be a secret.

A literal credential is refused where one should be named, wherever that is and however it is
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

#: As long as the keys of common services, and as short as a bad password.
KEY, PASSWORD = "sk-canary-0123456789abcdef", "cAnArY1"
HOW_TO_NAME_IT = "{env: NAME} or {file: PATH}"
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
MISSPELT = ["apikey", "api-key", "API_KEY", "token", "password", "secret", "Authorization"]
FORMS = {
    "a text": lambda secret: secret,
    "a list": lambda secret: [secret],
    "a key": lambda secret: {secret: None},
    "in place of a variable's name": lambda secret: {"env": f"{secret}-x"},
    "under a wrong key": lambda secret: {"environment": secret},
    "beside a name": lambda secret: {"env": "NAME", "file": secret},
    "beside a wrong key": lambda secret: {"env": "NAME", "value": secret},
}
BROKEN = {
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


def job_with(place, value, kind="qdrant"):
    """Make a job that is right but for one place."""
    uri = {"uri": "./export"} if "url" not in KINDS[kind].model_fields else {"url": "http://h"}
    job = {"name": "n", "source": {"kind": kind, **uri}, "target": {"uri": "./out.lance"}}
    if place[:1] == ("embedding",):
        job["embedding"] = {"policy": "regenerate"}
    if place[:2] == ("embedding", "endpoint"):
        job["embedding"]["endpoint"] = {"url": "http://h", "model": "m"}
    put(job, place, value)
    return job


def put(section, place, value):
    """Write a value at a place of a job, with the sections and lists that lead there."""
    key, *further = place
    inner = value if not further else [] if further[0] == 0 else {}
    if isinstance(section, list):
        section.append(inner)
    elif not further:
        section[key] = value
    else:
        inner = section.setdefault(key, inner)
    if further:
        put(inner, further, value)


def places(model, path=()):
    """List every place that the models of the job file know; free names are called ``name``."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        for kind in alternatives(field.annotation):
            yield from inner_places(kind, (*path, name))


def inner_places(kind, path):
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if path != ("source",):
            yield from places(kind, path)
    elif getattr(kind, "__origin__", None) in (list, dict):
        step = 0 if kind.__origin__ is list else "name"
        yield (*path, step)
        for inner in alternatives(kind.__args__[-1]):
            yield from inner_places(inner, (*path, step))


def refusal(folder, job):
    """Give the message about a job file and the traceback that a program shows; None if it is right."""
    path = folder / "job.yaml"
    path.write_text(job if isinstance(job, str) else yaml.safe_dump(job), "utf-8")
    try:
        read_job(path)
    except ConfigError as error:
        return str(error), traceback.format_exc()
    return None


def test_the_places_are_those_of_the_job_file():
    known = set(places(JobSpec))
    assert {
        ("name",),
        ("limits", "workers"),
        ("mapping", "relationships", 0, "to"),
        ("mapping", "vectors", "name"),
        ("embedding", "columns", "name", "of"),
        ("embedding", "endpoint", "api_key", "env"),
    } <= known
    assert ("api_key",) in set(places(KINDS["qdrant"]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_shows_a_key_that_stands_at_any_place_of_the_file(tmp_path, kind):
    everywhere = [("source", *place) for place in places(KINDS[kind])]
    if kind == "qdrant":
        everywhere += places(JobSpec)
    refusals = {
        place: told
        for place in everywhere
        for value in (KEY, [KEY], {"x": KEY})
        if (told := refusal(tmp_path, job_with(place, value, kind))) is not None
    }
    assert len(refusals) > len(everywhere) // 2
    assert [place for place, texts in refusals.items() if KEY in "".join(texts)] == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [KEY, PASSWORD, "12345678"])
def test_a_literal_credential_is_refused_and_not_shown(tmp_path, form, secret):
    credentials = [
        ("source", "api_key"),
        ("embedding", "endpoint", "api_key"),
    ]
    for place in credentials:
        message, shown = refusal(tmp_path, job_with(place, FORMS[form](secret)))
        assert secret not in message + shown
        assert f"{'.'.join(place)}: " in message
        assert "line " in message
        assert HOW_TO_NAME_IT in message


def test_every_place_of_a_credential_refuses_a_literal_one(tmp_path):
    credentials = [
        (kind, ("source", name))
        for kind, model in KINDS.items()
        for name, field in model.model_fields.items()
        if Secret in alternatives(field.annotation)
    ]
    assert len(credentials) >= 5
    for kind, place in credentials:
        message, shown = refusal(tmp_path, job_with(place, PASSWORD, kind))
        assert PASSWORD not in message + shown
        assert HOW_TO_NAME_IT in message


@pytest.mark.parametrize("name", MISSPELT)
@pytest.mark.parametrize("kind", ["qdrant", "parquet"])
def test_a_misspelt_key_of_a_credential_says_how_to_name_it(tmp_path, name, kind):
    for section in SECTIONS:
        for value in (PASSWORD, {"env": PASSWORD}, [PASSWORD]):
            message, shown = refusal(tmp_path, job_with((*section, name), value, kind))
            assert PASSWORD not in message + shown
            assert f"{'.'.join((*section, name))}: unknown key" in message
            assert HOW_TO_NAME_IT in message
            assert "did you mean" not in message, "a timeout is no token"


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("secret", [KEY, PASSWORD])
def test_what_is_said_of_a_file_that_is_no_yaml_does_not_quote_it(tmp_path, fault, secret):
    message, shown = refusal(tmp_path, "name: articles\n" + BROKEN[fault].format(secret))
    assert secret not in message + shown
    assert "job.yaml" in message
    if fault not in ("no date", "no mapping"):
        assert "line " in message


def test_the_command_line_shows_no_literal_key_either(tmp_path, capfd, monkeypatch):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_with(("source", "api_key"), KEY)), "utf-8")
    for options in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", ["cfray", "plan", str(path), *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capfd.readouterr()
        assert ended.value.code == 2
        assert KEY not in shown.out + shown.err
        assert HOW_TO_NAME_IT in shown.out + shown.err


def test_a_short_wrong_value_is_still_shown(tmp_path):
    job = job_with(("limits", "workers"), "many")
    assert "'many'" in refusal(tmp_path, job)[0]
