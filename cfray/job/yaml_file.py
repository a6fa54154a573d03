"""YAML files: read one that holds a mapping, and find the line of each key.

A message about a file that is not YAML names the line and never quotes it, because the line may
hold a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cfray.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds something else than a mapping.
    """
    if path.is_dir() or re.match(r"[a-z0-9]+:/[^/]", str(path)):
        raise ConfigError(
            f"{path} is an address, and this command takes a job file",
            "give the path of the job file that made the target",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the job file {path}: {error}",
            "give the path of a job file; `cfray inspect` drafts one",
        ) from error
    try:
        data = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        # Neither the error nor its traceback goes on: both quote the file.
        raise ConfigError(
            f"{path} is not YAML: {_describe(error)}", "correct the line that is named"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} holds no job: a mapping with name, source and target is expected",
            "see jobs/specs for runnable examples",
        )
    return data


def key_lines(path: Path) -> dict[str, int]:
    """Find the line of each dotted key of a YAML file; items of lists are named by their number."""
    lines: dict[str, int] = {}

    def walk(node: yaml.Node, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}.{key.value}" if prefix else str(key.value)
                lines[name] = key.start_mark.line + 1
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                name = f"{prefix}.{number}"
                lines[name] = value.start_mark.line + 1
                walk(value, name)

    tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if tree is not None:
        walk(tree, "")
    return lines


class _KeyError(yaml.MarkedYAMLError):
    """A key of a mapping is refused; the message may name the key."""


class _UniqueKeys(yaml.SafeLoader):
    """Refuse the second of two equal keys: YAML's own loader silently keeps the last.

    Keys are texts, whatever YAML takes them for.
    """


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _KeyError(
                problem="a key must be a word, not a list or a mapping", problem_mark=key.start_mark
            )
        if key.value in seen:
            raise _KeyError(
                problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
            )
        seen.add(key.value)
    # A key is the word that stands there: ``null``, ``no`` and ``1`` are names, too.
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

#: A quoted word of three letters or more in a message of PyYAML's, which may come from the file
#: (the name of an alias or of a tag); words in angle brackets are PyYAML's names for tokens.
_QUOTED_WORD = re.compile(r"""(['"])(?!<)(?:\\.|(?!\1).){3,}\1""")


def _describe(error: Exception) -> str:
    """Say what is wrong and where, without a word of the file's text but its keys."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position} is a control character"
    if not isinstance(error, yaml.MarkedYAMLError):
        return "a value is no date, time or number although it looks like one; put it in quotes"
    problem = error.problem or error.context or "it cannot be parsed"
    if not isinstance(error, _KeyError):
        problem = _QUOTED_WORD.sub("a word", problem)
    mark = error.problem_mark or error.context_mark
    return problem if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
