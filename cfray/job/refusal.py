"""Say in one message what is wrong with a job file: file, line, key, what to write instead.

No message shows a text of the file that may be a secret: nothing that stands where a credential
should be named, nothing under an unknown key, and no long text at all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from cfray.errors import ConfigError
from cfray.job.keys import KeyLocation, known_keys, locate, secret_keys
from cfray.job.spec import KINDS
from cfray.job.yaml_file import key_lines

#: Faults that one message names.
_MOST_FAULTS = 5
#: Characters of a wrong value that a message shows; the keys of common services have 20 or more.
_LONGEST_SHOWN = 16
#: How the names of keys end that would hold a credential, in letters alone.
_SECRET_NAME = re.compile(
    r"(apikey|accesskey|secretkey|token|jwt|secret|password|passwd|pwd|credentials?|authorization)$"
)
#: The key of a vector's rule that names a form (``VectorRule``); a wrong form is no wrong rule.
_FORM = "as"
_NAME_SECRET = "{env: NAME} or {file: PATH}"  # noqa: S105  # how a secret is named


def refuse(error: ValidationError, path: Path | None = None) -> NoReturn:
    """Turn what pydantic found in a job into one message.

    Args:
        error: of pydantic's.
        path: of the job file; None: the job was described in Python.

    Raises:
        ConfigError: always; it has no cause, for pydantic's error quotes the file.
    """
    lines = {} if path is None else key_lines(path)
    faults: list[tuple[tuple[str, ...], str]] = []
    wrong_forms: set[tuple[str, ...]] = set()
    for item in error.errors():
        location = locate(item["loc"])
        keys, sentence = location.keys, _sentence(item, location)
        if item["type"] == "extra_forbidden" and not location.is_secret:
            if keys[-1:] == (str(item["loc"][-1]),):
                continue  # another form of the rule knows the key
            keys = (*keys, str(item["loc"][-1]))
        elif item["type"] == "literal_error" and keys[-1:] == (_FORM,):
            wrong_forms.add(keys[:-1])
        elif keys[:1] == ("mapping",) and location.branch not in (None, "[key]"):
            # A rule has several forms, and pydantic says what is wrong for each of them.
            if location.branch != "str":
                continue
            keys, sentence = keys[: location.branch_depth], _wrong_rule(item["input"])
        faults.append((keys, f"{_line(lines, keys)}{'.'.join(keys) or 'job'}: {sentence}"))
    # what leads to a wrong form is a rule all the same
    right_rules = {form[:depth] for form in wrong_forms for depth in range(len(form) + 1)}
    unique = list(dict.fromkeys(text for keys, text in faults if keys not in right_rules))
    raise ConfigError(
        f"{'the job' if path is None else path}: " + "; ".join(unique[:_MOST_FAULTS]),
        f"correct the job{'' if path is None else ' file'}; nothing was created",
    ) from None


def _line(lines: dict[str, int], keys: Sequence[str]) -> str:
    """Name the line of a key, or of the nearest section around it that the file has."""
    for depth in range(len(keys), 0, -1):
        line = lines.get(".".join(keys[:depth]))
        if line is not None:
            return f"line {line}, "
    return ""


def _sentence(item: Any, location: KeyLocation) -> str:  # an ErrorDetails of pydantic's
    """Say what is wrong at a place of the file."""
    kind = item["type"]
    if location.is_secret:
        return f"does not name where the credential is; write {_NAME_SECRET}"
    if kind == "extra_forbidden":
        return _unknown_key(str(item["loc"][-1]), location)
    if kind == "union_tag_invalid":
        tag = str(item["ctx"].get("tag"))
        return f"no source kind{_quoted(tag)}; {_suggestion(tag, KINDS)}known: {', '.join(KINDS)}"
    sentences = {
        "union_tag_not_found": f"source.kind is missing; known: {', '.join(KINDS)}",
        "missing": "is missing",
    }
    return sentences.get(kind) or _wrong_value(str(item["msg"]), item.get("input"))


def _wrong_value(message: str, value: object) -> str:
    """Say what pydantic or a validator says of a value, which is shown where it is short."""
    message = message.removeprefix("Value error, ")
    for text in _texts(value):
        if not _may_be_shown(text) and "://" not in text:
            message = message.replace(repr(text), "the value").replace(text, "the value")
    if isinstance(value, dict | list) or "://" in str(value) or not _may_be_shown(value):
        return message
    return f"{message} (it is {value!r})"


def _texts(value: object) -> Iterator[str]:
    """List the texts of a parsed section."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _texts(item))


def _unknown_key(name: str, location: KeyLocation) -> str:
    """Say that a key is not known, and which keys are."""
    keys, secrets = known_keys(location.models), secret_keys(location.models)
    twins = difflib.get_close_matches(name, keys, n=1, cutoff=0.85)
    if _SECRET_NAME.search(re.sub(r"[^a-z]", "", name.lower())) and set(twins) <= set(secrets):
        if secrets:
            return f"unknown key; name the credential with {secrets[0]}: {_NAME_SECRET}"
        return (
            "unknown key; a job file never holds a credential: a source or an endpoint names its "
            f"credential with api_key: {_NAME_SECRET}"
        )
    nearest = _suggestion(name, keys).strip()
    return f"unknown key; {nearest or 'known here: ' + ', '.join(keys)}"


def _wrong_rule(rule: object) -> str:
    """Say which forms a rule of the mapping has."""
    if rule is None:
        return (
            "is empty; write the name of a field, or {key: [names]} for an id of several fields "
            "(of files, $file may be one of them)"
        )
    name = str(next(iter(rule))) if isinstance(rule, dict) and rule else ""
    return (
        f"is no rule; {_suggestion(name, ('path', 'const', 'template', 'key'))}write a field's "
        "name, a list of names, {path: [names]}, {const: text}, {template: text} or, for an id, "
        "{key: [names]}, for a vector, {path: name, as: form}, as far as this key allows"
    )


def _suggestion(word: str, words: Iterable[str]) -> str:
    """Ask whether the nearest of some words was meant; empty where none is near."""
    nearest = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"did you mean {nearest[0]}? " if nearest else ""


def _may_be_shown(value: object) -> bool:
    return not isinstance(value, str) or len(value) <= _LONGEST_SHOWN


def _quoted(text: str) -> str:
    return f" {text!r}" if _may_be_shown(text) else ""
