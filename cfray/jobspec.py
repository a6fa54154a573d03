"""JobSpec: one YAML file that says what moves where, validated before anything starts.

The union of sources below is the registry: there is no other.  Every default
is written here or in the model it belongs to, once.  Secrets are named in a
job file, never held.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PrivateAttr, ValidationError

from cfray import filesystems
from cfray.errors import ConfigError
from cfray.mapping import Mapping, RelationshipRule, Strict
from cfray.sources.arrow import Arrow
from cfray.sources.base import ByteSize
from cfray.sources.csv import Csv
from cfray.sources.json import JsonFile
from cfray.sources.jsonl import JsonLines
from cfray.sources.lance import Lance
from cfray.sources.parquet import Parquet

AnySource = Annotated[Parquet | JsonLines | JsonFile | Csv | Arrow | Lance, Field(discriminator="kind")]

#: Every kind of source, by the word the job file uses.
KINDS: dict[str, type[BaseModel]] = {str(model.model_fields["kind"].default): model for model in (Parquet, JsonLines, JsonFile, Csv, Arrow, Lance)}

#: Keys that decide what the rows of the target are; a resume must agree on them.
FINGERPRINTED = ("name", "source", "mapping", "embedding")


class Embedding(Strict):
    """What becomes of the vectors."""

    policy: Literal["keep"] = "keep"
    #: zero: readable by every ContextFrame client (contextframe.md, "A null vector breaks it").
    missing_vector: Literal["zero", "null", "quarantine"] = "zero"
    #: Width of the column where no vector is mapped; 1 is the smallest column a client can read.
    dimension: Annotated[int, Field(ge=1, le=65_536)] | None = None


class Target(Strict):
    """Where the dataset goes."""

    uri: str = Field(min_length=1)


VectorIndex = Literal["auto", "none", "IVF_RQ", "IVF_FLAT", "IVF_SQ", "IVF_PQ", "IVF_HNSW_SQ"]


class VectorIndexSpec(Strict):
    """The vector index: ``auto`` is none below 50,000 rows, else IVF_RQ (dimension divides by 8) or IVF_SQ (``engine.md`` 4.1)."""

    type: VectorIndex = "auto"
    metric: Literal["cosine", "l2", "dot"] | None = None
    #: Sub-vectors of IVF_PQ, which requires them; default: dimension / 8 where that divides.
    num_sub_vectors: int | None = Field(default=None, ge=1)


class Index(Strict):
    """Which indexes the target gets."""

    vector: VectorIndexSpec = VectorIndexSpec()
    text: list[Literal["text_content", "title", "context"]] = Field(default=["text_content"])
    scalar: list[Literal["uuid", "collection", "record_type", "status", "author", "tags", "position", "created_at", "updated_at"]] = Field(
        default=["uuid", "collection"]
    )


def _share(value: object) -> object:
    """Read ``1%`` or ``0.01`` as a share, a whole number as a count."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is neither a share like 1% nor a number of records")  # noqa: TRY004  # pydantic turns ValueError into its finding
    return value


def _positive(value: float) -> float:
    if value < 0:
        raise ValueError("must not be negative")
    return value


class Limits(Strict):
    """What a run may cost before it stops; nothing here changes a row."""

    #: A share of the records (a float or 1%) or their number (an integer).
    max_quarantined: Annotated[int | float, BeforeValidator(_share), AfterValidator(_positive)] = 0.01
    max_document: ByteSize = 128 * 2**20
    #: Memory of one worker task that Ray reserves; ``auto``: shared out by Ray.
    memory: Literal["auto"] | ByteSize = "auto"
    #: Worker tasks at once; ``auto``: one a core of the cluster.
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class JobSpec(Strict):
    """One migration, as the job file says it; locations are absolute."""

    name: str = Field(min_length=1)
    source: AnySource
    mapping: Mapping = Mapping()
    embedding: Embedding = Embedding()
    target: Target
    index: Index = Index()
    limits: Limits = Limits()
    strict: bool = False
    #: What a resume must agree on, with locations as the job file writes them.
    _agreed: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def agreed(self) -> dict[str, Any]:
        """Give the part of the job file that the fingerprint is made of (parsed JSON)."""
        return self._agreed

    @property
    def fingerprint(self) -> str:
        """Give the SHA-256 of ``agreed`` as canonical JSON."""
        return hashlib.sha256(json.dumps(self._agreed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_job(path: Path) -> JobSpec:
    """Read and validate a job file.

    Raises:
        ConfigError: unreadable, not YAML, an unknown key, a wrong type; names file, key and remedy.
    """
    data = read_yaml(path)
    try:
        job = JobSpec.model_validate(data)
    except ValidationError as error:
        _refuse(error, path, data)
    # written out with its defaults, so that a default that changes between versions is noticed, too
    agreed = job.model_dump(mode="json", include=set(FINGERPRINTED))
    base = path.resolve().parent
    located = job.model_copy(
        update={
            "source": job.source.model_copy(update={"uri": filesystems.absolute(job.source.uri, base)}),
            "target": Target(uri=filesystems.absolute(job.target.uri, base).rstrip("/")),
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
        raise ConfigError(f"cannot read the job file {path}: {error}", "give the path of a job file; `cfray inspect` drafts one") from error
    try:
        data = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  # a SafeLoader that also refuses duplicate keys
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {str(error).replace('<unicode string>', path.name)}", "correct the line that is named") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no job: a mapping with name, source and target is expected", "see jobs/specs for runnable examples")
    return data


class _UniqueKeys(yaml.SafeLoader):
    """YAML's loader keeps the last of two equal keys in silence; this one refuses."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a word, not a list or a mapping", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _refuse(error: ValidationError, path: Path, data: dict[str, Any] | None = None) -> NoReturn:
    """Turn pydantic's findings into one message: file, line, key, what is wrong, nearest known key."""
    lines = _key_lines(path)
    kind = str(source.get("kind")) if isinstance(source := (data or {}).get("source"), dict) else ""
    told: list[str] = []
    for item in error.errors():
        place = [str(step) for step in item["loc"] if not _is_branch(step)]
        sentence = _sentence(item, place, kind)
        form = next((depth for depth, step in enumerate(item["loc"]) if _is_form(step)), None)
        if item["loc"][0] == "mapping" and form is not None:  # a rule has several forms, and pydantic tells what is wrong for each of them
            if item["loc"][form] != "str":
                continue
            place, sentence = [str(step) for step in item["loc"][:form]], _no_rule(item["input"])
        key = ".".join(place)
        line = next((lines[".".join(place[:depth])] for depth in range(len(place), 0, -1) if ".".join(place[:depth]) in lines), None)
        where = f"line {line}, " if line else ""
        told.append(f"{where}{key or 'job'}: {sentence}")
    unique = list(dict.fromkeys(told))
    raise ConfigError(f"{path}: " + "; ".join(unique[:5]), "correct the job file; nothing was created") from None


_BRANCHES = {"str", "int", "float", "Const", "Template", "Literally", "Key", "constrained-int", *KINDS}


def _is_branch(step: int | str) -> bool:
    """Tell pydantic's own names for the branches of a union from keys of the job file."""
    if isinstance(step, int):
        return False
    return step in _BRANCHES or step.startswith(("list[", "function-", "literal[", "union["))


def _is_form(step: int | str) -> bool:
    """Tell pydantic's names for the forms a mapping's rule may have."""
    return isinstance(step, str) and (step in {"str", "Const", "Template", "Literally", "Key"} or step.startswith("list["))


def _no_rule(given: object) -> str:
    near = difflib.get_close_matches(str(next(iter(given))), ("path", "const", "template", "key"), n=1) if isinstance(given, dict) and given else []
    forms = (
        "a field's name, a list of names, {path: [names]}, {const: text}, {template: text} or, for an id, {key: [names]}, as far as this key allows"
    )
    return f"is no rule; {f'did you mean {near[0]}? ' if near else ''}write {forms}"


def _sentence(item: Any, place: list[str], source_kind: str) -> str:  # pydantic's ErrorDetails
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_keys(place[:-1], source_kind)
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        return "unknown key" + (f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}")
    if kind == "union_tag_invalid":
        given = str(item["ctx"].get("tag"))
        near = difflib.get_close_matches(given, KINDS, n=1, cutoff=0.5)
        return f"no source kind {given!r}; " + (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(KINDS)}"
    if kind == "union_tag_not_found":
        return f"source.kind is missing; known: {', '.join(KINDS)}"
    if kind == "missing":
        return "is missing"
    shown = item.get("input")
    value = "" if isinstance(shown, dict | list) else f" (it is {shown!r})"
    return str(item["msg"]).removeprefix("Value error, ") + value


def _known_keys(place: list[str], source_kind: str) -> list[str]:
    """List the keys the model at a place of the job file knows."""
    models: dict[str, type[BaseModel]] = {
        "": JobSpec,
        "mapping": Mapping,
        "embedding": Embedding,
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


def changed_keys(before: object, after: object, prefix: str = "") -> list[str]:
    """Name the keys in which two parsed jobs differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [line for key in keys for line in changed_keys(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key)]
    return [] if before == after else [f"{prefix}: was {json.dumps(before)}, is {json.dumps(after)}"]
