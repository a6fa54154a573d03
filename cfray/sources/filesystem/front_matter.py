"""The block of YAML or TOML in front of a Markdown document, as values of JSON.

YAML's core schema is read, where only ``true`` and ``false`` are booleans; a date stays the text
that it is, and so does a number that would be written otherwise, such as the code ``0042``, the
version ``1.10`` and the hash ``12e3``.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
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
        values = _read_block(match["block"], is_toml=text.startswith("+"))
        plain = _plain(values) if isinstance(values, dict) else None
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        return FrontMatter(text, problem=problem)
    except (LookupError, TypeError, AttributeError):  # PyYAML's, for example of !!bool maybe
        return FrontMatter(text, problem="a value that is not what its tag says")
    if not isinstance(plain, dict):
        # a rule (---) at the beginning of the text
        return FrontMatter(text)
    return FrontMatter(text[match.end() :], plain)


def _read_block(block: str, *, is_toml: bool) -> object:
    if not block.strip():
        return {}
    return _read_toml(block) if is_toml else _read_yaml(block)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which may make a document of any size, and without repeated keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("an alias (*name), which is not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(self.construct_object(key_node, deep=True))
            if key in mapping:
                raise ValueError(f"the key {key} stands there twice")
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


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


def _read_float(text: str) -> float | str:
    """Read a number; a text that no float gives back stays one.

    An exponent may be written in several ways, but 12e3 is a text to YAML 1.1, and often a hash.
    """
    number = float(text)
    if repr(number) == text:
        return number
    is_exponential = "." in text and "e" in text.lower()
    # in this order, for Decimal refuses the largest exponents
    is_exact = math.isfinite(number) and number and Decimal(text) == Decimal(repr(number))
    return number if is_exponential and is_exact else text


def _read_yaml_float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    return _read_float(str(loader.construct_scalar(node)))


_Loader.add_constructor("tag:yaml.org,2002:float", _read_yaml_float)


def _read_yaml(block: str) -> object:
    return yaml.load(block, _Loader)  # noqa: S506  # a SafeLoader


def _read_toml(block: str) -> object:
    return tomllib.loads(block.replace("\r\n", "\n"), parse_float=_read_float)


def _plain(value: object) -> object:
    """Turn what YAML and TOML hold into values of JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes | set | tuple):
        raise ValueError(f"a value of type {type(value).__name__}, which is not read")  # noqa: TRY004
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
    """Write a key as it stands in the record.

    Raises:
        ValueError: it is no text, number, boolean or null.
    """
    if isinstance(key, bool) or key is None:
        return {None: "null", True: "true", False: "false"}[key]
    if not isinstance(key, str | int | float):
        raise ValueError(f"a key of type {type(key).__name__}, which is not read")  # noqa: TRY004
    return _joined(str(key))
