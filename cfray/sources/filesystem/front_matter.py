"""The block of YAML or TOML in front of a Markdown document, as values of JSON.

YAML's core schema is read, where only ``true`` and ``false`` are booleans; a date stays the text
that it is, and so does a number that would be written otherwise, such as the code ``0042`` and the
version ``1.10``.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

import yaml

_YAML = re.compile(
    r"---[ \t]*\r?\n(?P<block>.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_TOML = re.compile(
    r"\+\+\+[ \t]*\r?\n(?P<block>.*?)^\+\+\+[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
#: Characters of a block that is read; a longer one is no front matter.
_MOST = 64 * 1024


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """A document and what stands in front of it.

    Attributes:
        values: parsed JSON; empty where there is no front matter.
        body: the text behind it; the whole text where there is none, or it cannot be read.
        problem: why it cannot be read; empty where it can.
    """

    body: str
    values: dict[str, object] = field(default_factory=dict)
    problem: str = ""


def split(text: str) -> FrontMatter:
    """Split a document into its front matter and its text."""
    match = _YAML.match(text[: _MOST * 2]) or _TOML.match(text[: _MOST * 2])
    if match is None or len(match["block"]) > _MOST:
        return FrontMatter(text)
    try:
        values = _read_toml(match["block"]) if text.startswith("+") else _read_yaml(match["block"])
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        return FrontMatter(text, problem=problem)
    if not isinstance(values, dict):
        # a rule (---) at the beginning of the text
        return FrontMatter(text)
    try:
        plain = _plain(values)
    except ValueError as error:
        return FrontMatter(text, problem=str(error))
    assert isinstance(plain, dict)
    return FrontMatter(text[match.end() :], plain)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which may make a document of any size, and without repeated keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("an alias (*name), which is not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise ValueError(f"the key {repeated[0]} stands there twice")
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("int", r"0|-?[1-9][0-9]*", "-0123456789"),
    (
        "float",
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first)
    )


def _read_float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    """Read also 1e5, which PyYAML leaves a text; a text that no float gives back stays one."""
    text = str(loader.construct_scalar(node))
    return float(text) if "e" in text.lower() or repr(float(text)) == text else text


_Loader.add_constructor("tag:yaml.org,2002:float", _read_float)


def _read_yaml(block: str) -> object:
    return yaml.load(block, _Loader)  # noqa: S506  # a SafeLoader


def _read_toml(block: str) -> object:
    return tomllib.loads(block.replace("\r\n", "\n"))


def _plain(value: object) -> object:
    """Turn what YAML and TOML hold into values of JSON."""
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes | set | tuple):
        raise ValueError(f"a value of type {type(value).__name__}, which is not read")  # noqa: TRY004
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return _joined(value)
    return value


def _joined(text: str) -> str:
    """Join the halves of surrogate pairs, which JSON writes for characters beyond U+FFFF.

    Raises:
        ValueError: there is a half alone, which is no text.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _key(key: object) -> str:
    if isinstance(key, bool) or key is None:
        return {None: "null", True: "true", False: "false"}[key]
    return _joined(str(key))
