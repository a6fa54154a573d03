"""Read a job file, and say in one message what is wrong with it: file, line, key, remedy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError

from cfray.embedders.spec import Chunk, Embedding, Endpoint, Expect, Reduce, Remap
from cfray.errors import ConfigError
from cfray.job.mapping import Mapping, RelationshipRule
from cfray.job.spec import FINGERPRINTED, KINDS, Index, JobSpec, Limits, Target, VectorIndexSpec
from cfray.runtime import filesystems


def read_job(path: Path) -> JobSpec:
    """Read and validate a job file.

    Raises:
        ConfigError: unreadable, not YAML, an unknown key, a wrong type; names file, key and remedy.
    """
    data = read_yaml(path)
    try:
        job = JobSpec.model_validate(data)
    except ValidationError as error:
        refuse(error, path, data)
    # written out with its defaults, so that a default that changes between versions is noticed, too
    agreed = job.model_dump(mode="json", include=set(FINGERPRINTED))
    agreed["embedding"] = job.embedding.agreed()
    agreed["source"] = {
        key: value
        for key, value in agreed["source"].items()
        if key not in job.source.unfingerprinted
    }
    base = path.resolve().parent
    target = Target(uri=filesystems.absolute(job.target.uri, base).rstrip("/"))
    located = job.model_copy(
        update={
            "source": job.source.located(base),
            "embedding": job.embedding.located(base),
            "target": target,
        }
    )
    located._agreed = agreed  # noqa: SLF001  # a private attribute of this very model
    return located


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: no such file, not YAML, or something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the job file {path}: {error}",
            "give the path of a job file; `cfray inspect` drafts one",
        ) from error
    try:
        data = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader that also refuses duplicate keys
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path} is not YAML: {str(error).replace('<unicode string>', path.name)}",
            "correct the line that is named",
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} holds no job: a mapping with name, source and target is expected",
            "see jobs/specs for runnable examples",
        )
    return data


class _UniqueKeys(yaml.SafeLoader):
    """YAML's loader keeps the last of two equal keys in silence; this one refuses."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a key must be a word, not a list or a mapping", problem_mark=key.start_mark
            )
        if key.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
            )
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def refuse(error: ValidationError, path: Path, data: dict[str, Any] | None = None) -> NoReturn:
    """Turn pydantic's findings into one message.

    File, line, key, what is wrong, nearest known key.
    """
    lines = _key_lines(path)
    kind = str(source.get("kind")) if isinstance(source := (data or {}).get("source"), dict) else ""
    told: list[str] = []
    for item in error.errors():
        place = [str(step) for step in item["loc"] if not _is_branch(step)]
        sentence = _sentence(item, place, kind)
        form = next((depth for depth, step in enumerate(item["loc"]) if _is_form(step)), None)
        if (
            item["loc"][0] == "mapping" and form is not None
        ):  # a rule has several forms, and pydantic tells what is wrong for each of them
            if item["loc"][form] != "str":
                continue
            place, sentence = [str(step) for step in item["loc"][:form]], _no_rule(item["input"])
        key = ".".join(place)
        line = next(
            (
                lines[".".join(place[:depth])]
                for depth in range(len(place), 0, -1)
                if ".".join(place[:depth]) in lines
            ),
            None,
        )
        where = f"line {line}, " if line else ""
        told.append(f"{where}{key or 'job'}: {sentence}")
    unique = list(dict.fromkeys(told))
    raise ConfigError(
        f"{path}: " + "; ".join(unique[:5]), "correct the job file; nothing was created"
    ) from None


_BRANCHES = {
    "str",
    "int",
    "float",
    "Const",
    "Template",
    "Literally",
    "Key",
    "constrained-int",
    *KINDS,
}


def _is_branch(step: int | str) -> bool:
    """Tell pydantic's own names for the branches of a union from keys of the job file."""
    if isinstance(step, int):
        return False
    return step in _BRANCHES or step.startswith(("list[", "function-", "literal[", "union["))


def _is_form(step: int | str) -> bool:
    """Tell pydantic's names for the forms a mapping's rule may have."""
    return isinstance(step, str) and (
        step in {"str", "Const", "Template", "Literally", "Key"} or step.startswith("list[")
    )


def _no_rule(given: object) -> str:
    near = (
        difflib.get_close_matches(str(next(iter(given))), ("path", "const", "template", "key"), n=1)
        if isinstance(given, dict) and given
        else []
    )
    forms = "a field's name, a list of names, {path: [names]}, {const: text}, {template: text} or, for an id, {key: [names]}, as far as this key allows"
    return f"is no rule; {f'did you mean {near[0]}? ' if near else ''}write {forms}"


def _sentence(item: Any, place: list[str], source_kind: str) -> str:  # pydantic's ErrorDetails
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_keys(place[:-1], source_kind)
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        return "unknown key" + (
            f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
        )
    if kind == "union_tag_invalid":
        given = str(item["ctx"].get("tag"))
        near = difflib.get_close_matches(given, KINDS, n=1, cutoff=0.5)
        return (
            f"no source kind {given!r}; "
            + (f"did you mean {near[0]}? " if near else "")
            + f"known: {', '.join(KINDS)}"
        )
    if kind == "union_tag_not_found":
        return f"source.kind is missing; known: {', '.join(KINDS)}"
    if kind == "missing":
        return "is missing"
    shown = item.get("input")
    value = (
        "" if isinstance(shown, dict | list) or "://" in str(shown) else f" (it is {shown!r})"
    )  # an address may hold a secret
    return str(item["msg"]).removeprefix("Value error, ") + value


def _known_keys(place: list[str], source_kind: str) -> list[str]:
    """List the keys the model at a place of the job file knows."""
    models: dict[str, type[BaseModel]] = {
        "": JobSpec,
        "mapping": Mapping,
        "embedding": Embedding,
        "embedding.endpoint": Endpoint,
        "embedding.chunk": Chunk,
        "embedding.remap": Remap,
        "embedding.reduce": Reduce,
        "embedding.expect": Expect,
        "target": Target,
        "index": Index,
        "index.vector": VectorIndexSpec,
        "limits": Limits,
        "mapping.relationships": RelationshipRule,
        "source": KINDS.get(source_kind, JobSpec),
    }
    key = ".".join(step for step in place if not step.isdigit())
    return sorted(models[key].model_fields) if key in models else []


def _key_lines(path: Path) -> dict[str, int]:
    """Find the line of each dotted key of a YAML file."""
    lines: dict[str, int] = {}

    def walk(node: yaml.Node, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}.{key.value}" if prefix else str(key.value)
                lines[name] = key.start_mark.line + 1
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                name = f"{prefix}.{place}"
                lines[name] = value.start_mark.line + 1
                walk(value, name)

    tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if tree is not None:
        walk(tree, "")
    return lines
