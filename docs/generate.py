# ruff: noqa: INP001  # a tool beside the pages, not a package that is installed
"""Write the reference pages from the code: job file, JSON schema, commands.

The pages are generated so that a key, a default or an option cannot change without its
documentation; ``tests/test_docs.py`` compares them with the code.  Run ``make docs``.  A key's
description is the ``#:`` comment above the field in the code; keys whose name says it all there
are described here.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from cfray.cli import app
from cfray.embedders import spec as embedding_spec
from cfray.job import mapping as mapping_spec
from cfray.job.spec import KINDS, STORES, Index, JobSpec, Limits, Parity, Target, VectorIndexSpec
from cfray.runtime.credentials import Secret
from cfray.sources.dynamodb.settings import VectorAttribute

FOLDER = Path(__file__).parent / "reference"
_MIB = 2**20

#: What the code's own comments leave out, by the class that declares the key.
DESCRIPTIONS = {
    "Source.kind": "The kind of source; it decides which other keys are known.",
    "FileSource.uri": "A file, a folder (read recursively) or a glob; relative to the job file.",
    "Lance.uri": "Folder of the Lance dataset; relative to the job file.",
    "Lance.version": "Version of the dataset to read; default: the latest when the plan is made.",
    "RemoteSource.api_key": "Where the credential is; it is read on the machine that uses it.",
    "Pinecone.api_key": "Where the API key is.",
    "Qdrant.grpc_port": "Port of Qdrant's gRPC API.",
    "Chroma.tenant": "Chroma's tenant.",
    "Milvus.database": "The Milvus database; one job reads one database.",
    "JobSpec.name": "Name of the job; part of every uuid that the job makes.",
    "JobSpec.source": "What is read: see the sections [source](#source-file-kinds) below.",
    "JobSpec.mapping": "Which source fields become which columns.",
    "JobSpec.embedding": "What becomes of the vectors.",
    "JobSpec.target": "Where the dataset goes.",
    "JobSpec.index": "Which indexes the target gets.",
    "JobSpec.parity": "How searches in the target are compared with those in the source.",
    "JobSpec.limits": "What a run may cost before it stops.",
    "JobSpec.strict": "Refuse the run (exit code 2) where the plan names anything lossy.",
    "Target.uri": "Folder of the Lance dataset: a local path, or an s3://, gs://, az:// or "
    "hdfs:// URI; relative to the job file.",
    "Index.vector": "The index of the column `vector`.",
    "Index.text": "Columns with a full-text index.",
    "Index.scalar": "Columns with a scalar index.",
    "VectorIndexSpec.type": "Kind of the vector index; `auto`: none below 50,000 rows, else IVF_RQ "
    "where 8 divides the dimension, else IVF_SQ.",
    "VectorIndexSpec.metric": "Distance of the index; default: the metric of the source's index, "
    "else cosine.",
    "Limits.max_document": "A record of more bytes than this goes to quarantine.",
    "Rules.id": "The record's id: a field, the first present of several, or a composite `key`.",
    "Rules.text_content": "The document's text.",
    "Rules.title": "The title; default: the first line of the text (80 characters), else the id.",
    "Rules.version": "Version of the document, MAJOR.MINOR.PATCH.",
    "Rules.context": "The column `context`: free text about the document.",
    "Rules.uri": "The column `uri`.",
    "Rules.local_path": "The column `local_path`.",
    "Rules.cid": "The column `cid`: a content id.",
    "Rules.collection": "The collection of the row; default: the source collection, else the "
    "job's name.",
    "Rules.position": "Position of the document within its collection, an integer of at least 0.",
    "Rules.author": "The author.",
    "Rules.contributors": "Contributors: a list of texts, or one text.",
    "Rules.tags": "Tags: a list of texts, or one text.",
    "Rules.created_at": "When the document was made; the column has the day in UTC, "
    "custom_metadata the full value.",
    "Rules.updated_at": "When the document was changed; stored as `created_at` is.",
    "Rules.status": "The column `status`.",
    "Rules.source_file": "The column `source_file`; default: `$file`, the path of the record's "
    "file below `source.uri`.",
    "Rules.raw_data": "Bytes of the document's file; needs `raw_data_type`.",
    "Rules.raw_data_type": "MIME type of `raw_data`.",
    "Rules.relationships": "References to other records, rewritten to their uuids.",
    "Mapping.on_duplicate": "Of two records with the same id the first stays: put the others into "
    "quarantine, or end the run.",
    "RelationshipRule.type": "Kind of the relationship, as ContextFrame names it.",
    "RelationshipRule.to": "Field that holds the other record's id, or a list of ids.",
    "RelationshipRule.collection": "Source collection of the other record, where it is another.",
    "Embedding.policy": "`keep`: the source's vectors, unchanged. `regenerate`: a model makes "
    "them. `remap`: a fitted map makes them from the source's vectors.",
    "Embedding.engine": "What runs the model.",
    "Embedding.on_long_text": "A text of more tokens than the model takes: cut it (counted), "
    "average the vectors of its chunks, or put the record into quarantine.",
    "Embedding.chunk": "Cut long documents into chunk frames, each with a vector.",
    "Embedding.remap": "How the map is learned and judged.",
    "Embedding.reduce": "Make the vectors narrower.",
    "Embedding.expect": "Check which model the stored vectors are from.",
    "Embedding.query_prompt": "Text before each query; default: what the model's own "
    "configuration says.",
    "Endpoint.tokens_per_minute": "Tokens a minute of all workers together; default: no budget.",
    "Endpoint.url": "Address of the server, without a credential.",
    "Endpoint.api": "`openai`: `POST {url}/embeddings`. `tei`: `POST {url}/embed`.",
    "Endpoint.api_key": "Where the credential is.",
    "Endpoint.ca_file": "Certificates to trust, PEM.",
    "Chunk.tokens": "Documents of more tokens than this are cut; tokens of one chunk.",
    "Chunk.overlap": "Tokens that a chunk repeats of the chunk before it; at most half of "
    "`tokens`.",
    "Reduce.method": "`truncate` cuts the vectors, `pca` learns a projection.",
    "Reduce.dimension": "Width of the vectors afterwards.",
    "Column.of": "What the column holds a vector of.",
    "Column.dtype": "Width of a number.",
    "Expect.model": "A folder, or an installed package that carries a model.",
    "Expect.sample": "Records that are embedded and compared.",
    "Actors.min": "Actors that stay up.",
    "Actors.max": "Actors at most.",
    "Secret.env": "Name of the environment variable that holds the credential.",
    "Secret.file": "File that holds the credential; relative to the job file.",
    "Const.const": "The text.",
    "Template.template": "A text with source fields in braces: `{first} {last}`.",
    "LiteralPath.path": "The names of a path, level by level; a name may hold a dot.",
    "Key.key": "The fields of a composite id, in order.",
}

_BYTES = {
    "type": "string",
    "pattern": r"^\s*[0-9.]+\s*(([KMGTkmgt][iI]?)?[bB])?\s*$",
    "description": "a size with a unit: 256MiB, 1.5 GB",
}
_SHARE = {"type": "string", "pattern": r"^\s*[0-9.]+\s*%\s*$", "description": "a share: 1%"}


class _Schema(GenerateJsonSchema):
    """Pydantic's schema, plus the spellings that validators accept before the type is checked."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        """Add what the validator turns into the type: ``256MiB``, ``1%``, a lone mapping."""
        inner = super().function_before_schema(schema)
        text = _accepted_text(schema["function"]["function"])
        if text is not None:
            return {"anyOf": [inner, text]}
        if inner.get("type") == "array":
            return {"anyOf": [inner, inner["items"]]}
        return inner


def _accepted_text(validator: Any) -> dict[str, str] | None:
    """Try the validator: which texts does it turn into a number?"""
    for example, accepted in (("1KiB", _BYTES), ("1%", _SHARE)):
        try:
            if isinstance(validator(example), int | float):
                return accepted
        except (ValueError, TypeError):
            continue
    return None


def schema() -> dict[str, Any]:
    """Give the JSON schema of a job file, each key with its description."""
    body = JobSpec.model_json_schema(schema_generator=_Schema)
    for name, model in models().items():
        section = body if name == "JobSpec" else body["$defs"][name]
        section["description"] = plain(inspect.getdoc(model) or "")
        for key, value in section["properties"].items():
            value.pop("title", None)
            value["description"] = description(model, key)
        if name in {model.__name__ for model in KINDS.values()}:
            section["required"] = ["kind", *section.get("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cfray job file",
        **{key: value for key, value in body.items() if key != "title"},
    }


def models() -> dict[str, type[BaseModel]]:
    """Name every model that a job file is made of."""
    modules = (mapping_spec, embedding_spec)
    nested = [
        member
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, BaseModel) and member.__module__ == module.__name__
    ]
    known = [JobSpec, Target, Index, VectorIndexSpec, Parity, Limits, Secret, VectorAttribute]
    known += [*KINDS.values(), *nested]
    return {model.__name__: model for model in known}


def description(model: type[BaseModel], key: str) -> str:
    """Give what a key means: its ``#:`` comment, its field's description, or the text above.

    Raises:
        LookupError: none of them describes the key.
    """
    # a key that is a word of Python's, like ``as``, is the alias of a field
    key = next((name for name, item in model.model_fields.items() if item.alias == key), key)
    if text := model.model_fields[key].description:
        return plain(text)
    for base in model.__mro__:
        if base is BaseModel:
            break
        text = _comments(base).get(key) or DESCRIPTIONS.get(f"{base.__name__}.{key}")
        if text:
            return plain(text)
    raise LookupError(f"no description of {model.__name__}.{key}: write a #: comment above it")


@functools.cache
def _comments(model: type) -> dict[str, str]:
    """Collect the ``#:`` comments above the fields of a class."""
    comments: dict[str, str] = {}
    lines: list[str] = []
    for line in inspect.getsource(model).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            lines.append(text.removeprefix("#:").strip())
        elif (match := re.match(r"    (\w+):", line)) and lines:
            comments[match.group(1)] = " ".join(lines)
            lines = []
        else:
            lines = []
    return comments


def plain(text: str) -> str:
    """Write a docstring's text as Markdown in one line."""
    return " ".join(text.replace("``", "`").split())


def reference(body: dict[str, Any]) -> str:
    """Write the page of the job file."""
    sections = [_HEAD, _section("The job file", "JobSpec", body)]
    sections.append("## source: file kinds\n")
    sections += [
        _section(f"source: {kind}", model.__name__, body, level=3)
        for kind, model in KINDS.items()
        if kind not in STORES
    ]
    sections.append("## source: vector databases\n")
    sections += [
        _section(f"source: {kind}", KINDS[kind].__name__, body, level=3) for kind in STORES
    ]
    sections += [_section(title, name, body) for title, name in _SECTIONS.items()]
    return "\n".join(sections)


_SECTIONS = {
    "mapping": "Mapping",
    "mapping: a constant": "Const",
    "mapping: a template": "Template",
    "mapping: a field": "LiteralPath",
    "mapping: a vector": "VectorRule",
    "mapping: a composite id": "Key",
    "mapping.relationships": "RelationshipRule",
    "mapping.cases": "Case",
    "mapping.cases: a condition": "Condition",
    "embedding": "Embedding",
    "embedding.endpoint": "Endpoint",
    "embedding.chunk": "Chunk",
    "embedding.remap": "Remap",
    "embedding.reduce": "Reduce",
    "embedding.columns": "Column",
    "embedding.expect": "Expect",
    "embedding.actors": "Actors",
    "target": "Target",
    "index": "Index",
    "index.vector": "VectorIndexSpec",
    "parity": "Parity",
    "limits": "Limits",
    "a vector attribute of dynamodb": "VectorAttribute",
    "a credential": "Secret",
}

#: What stands before the description of a section.
_NOTES = {
    "LiteralPath": "A field of the source is a text: its name, or a dotted path such as `meta.by`. "
    "Where a name holds a dot, write `{path: [meta.by]}`. ",
}

_HEAD = """# Reference: the job file

`make docs` writes this page from the code; edit the code, not the page.

A job file is one YAML mapping. Unknown keys are refused with the nearest known key. Relative
paths are relative to the job file. The keys `name`, `source`, `mapping` and `embedding` form the
fingerprint of the job, except credentials, time-outs and rates: a target belongs to one
fingerprint, and `cfray migrate` refuses another fingerprint by name (exit code 2).

An editor that knows YAML schemas completes the keys with this first line in the job file
(the path is relative to the job file):

```yaml
# yaml-language-server: $schema=../docs/reference/job.schema.json
```

In the tables, *required* means that the key has no default; `-` means that the key may be left
out and has no value then.
"""


def _section(title: str, name: str, body: dict[str, Any], level: int = 2) -> str:
    section = body if name == "JobSpec" else body["$defs"][name]
    lines = [f"{'#' * level} {title}\n"]
    if name != "JobSpec":
        lines.append(_NOTES.get(name, "") + section["description"].rstrip(".") + ".\n")
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        default = _default(value, required=key in section.get("required", []))
        cells = (f"`{key}`", _type(value), default, value["description"].replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _default(value: dict[str, Any], *, required: bool) -> str:
    default = value.get("default")
    if required or "const" in value:
        return "*required*"
    if default is None:
        return "-"
    if default in ({}, []):
        return "empty"
    if isinstance(default, dict):  # of a section: its table has the defaults
        values = {key: item for key, item in default.items() if item is not None}
        return f"`{_yaml(values)}`" if len(values) == 1 else "its defaults"
    if _BYTES in value.get("anyOf", []) and isinstance(default, int) and default % _MIB == 0:
        return f"`{default // _MIB}MiB`"
    return f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return value if isinstance(value, str) and value else json.dumps(value)


def _type(value: dict[str, Any]) -> str:
    """Write a schema's type in words."""
    options = value.get("anyOf") or ([] if "discriminator" in value else value.get("oneOf"))
    if options:
        return _alternatives(options)
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        if name == "Rules":
            return "keys of [mapping](#mapping) down to `relationships`"
        title = next(title for title, model in _SECTIONS.items() if model == name)
        return f"[{title.removeprefix('mapping: ')}](#{slug(title)})"
    if value in (_BYTES, _SHARE):
        return "a size such as `256MiB`" if value == _BYTES else "a share such as `1%`"
    constants = [value["const"]] if "const" in value else value.get("enum", [])
    return " or ".join(f"`{constant}`" for constant in constants) or _plain_type(value)


def _alternatives(options: list[dict[str, Any]]) -> str:
    """Join types by ``or``; a text or a path is a field, and a list of something stands last."""
    words = [_type(option) for option in options if option.get("type") != "null"]
    field = next((text for text in words if "#mapping-a-field" in text), None)
    if field is not None and "text" in words:
        words.remove("text")
    lists = [text for text in words if text.startswith("list of")]
    return " or ".join(dict.fromkeys([text for text in words if text not in lists] + lists))


def _plain_type(value: dict[str, Any]) -> str:
    kind = value.get("type")
    if "discriminator" in value:
        return "section"
    if kind == "array":
        return (
            f"list of ({items})"
            if " or " in (items := _type(value["items"]))
            else f"list of {items}"
        )
    if kind == "object":
        items = value.get("additionalProperties") or next(
            iter(value.get("patternProperties", {"": {}}).values())
        )
        return f"mapping of name to {_type(items)}"
    names = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
    return names.get(str(kind), "any") + _range(value)


def _range(value: dict[str, Any]) -> str:
    low = value.get("minimum", value.get("ge"))
    parts = [f"at least {low:,}"] if low else []
    if "exclusiveMinimum" in value:
        parts.append(f"above {value['exclusiveMinimum']:,}")
    if "maximum" in value:
        parts.append(f"at most {value['maximum']:,}")
    return f", {', '.join(parts)}" if parts else ""


def slug(title: str) -> str:
    """Give the anchor of a heading, as Git hosts make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def commands() -> str:
    """Write the page of the commands."""
    lines = [_COMMANDS_HEAD]
    for name, command in sorted(leaves(typer.main.get_command(app))):
        parameters = [item for item in command.params if item.name != "help"]
        arguments = " ".join(item.name.upper() for item in parameters if _is_argument(item))
        lines += [f"## {name}\n", plain(command.help or "") + "\n"]
        lines += [f"```sh\ncfray {name} {arguments} [options]\n```\n"]
        lines += ["| argument or option | meaning | default |", "|---|---|---|"]
        lines += [*map(_parameter_row, parameters), ""]
    return "\n".join(lines)


def _parameter_row(parameter: Any) -> str:
    label = parameter.name.upper() if _is_argument(parameter) else ", ".join(parameter.opts)
    meaning = plain(parameter.help or "").replace("|", "\\|")
    default = parameter.default
    if parameter.required:
        shown = "*required*"
    else:
        shown = "-" if default in (None, False) or callable(default) else f"`{default}`"
    return f"| `{label}` | {meaning} | {shown} |"


_COMMANDS_HEAD = """# Reference: the commands

`make docs` writes this page from the code; edit the code, not the page.

Every command takes `--json`: stdout carries exactly one JSON document and stderr everything else.
[Exit codes](../exit-codes.md) lists what a command's exit code means.
"""


def leaves(command: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """List the commands below a group, each with its words."""
    children = getattr(command, "commands", None)
    if children is None:
        return [(prefix.strip(), command)]
    return [leaf for name, child in children.items() for leaf in leaves(child, f"{prefix} {name}")]


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def pages() -> dict[Path, str]:
    """Give every generated file with its text."""
    body = schema()
    return {
        FOLDER / "job-file.md": reference(body),
        FOLDER / "job.schema.json": json.dumps(body, indent=1, ensure_ascii=False) + "\n",
        FOLDER / "commands.md": commands(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
