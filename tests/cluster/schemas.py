"""A manifest held against the schema that Kubernetes would hold it against, unknown fields refused.

The API server prunes or refuses a field that no schema knows; here it is an error.  The rules in
CEL and the checks of KubeRay's operator are not part of a schema.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "cluster/kuberay").glob("*.yaml"))
#: Maps whose keys are the user's own: any key is right.
FREE = {
    *("labels", "annotations", "matchLabels", "data", "rayStartParams", "requests", "limits"),
    *("nodeSelector",),
}


def documents(path: Path) -> list[dict[str, Any]]:
    """Read the documents of a manifest."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    """Make a JSON schema of a definition: of its stored version, unknown fields refused."""
    (version,) = (item for item in definition["spec"]["versions"] if item["storage"])
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["apiVersion"] = {
        "const": f"{definition['spec']['group']}/{version['name']}"
    }
    schema["properties"]["metadata"] = {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47},
            "namespace": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    return schema


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    has_open_fields = schema.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in schema and not has_open_fields:
        schema.setdefault("additionalProperties", False)
    if schema.pop("nullable", False) and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return {
        key: {name: _strict(field) for name, field in value.items()}
        if key == "properties"
        else _strict(value)
        for key, value in schema.items()
        if not key.startswith("x-") and key != "default"
    }


def faults(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """List what is wrong with a document."""
    return [
        f"{'/'.join(map(str, error.path))}: {error.message[:200]}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def misspelt(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the document once for each of its fields, that field misspelt."""
    for path in _fields(document, ()):
        changed = copy.deepcopy(document)
        parent = changed
        for step in path[:-1]:
            parent = parent[step]
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        yield "/".join(map(str, path)), changed


def _fields(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    is_free = bool(path) and (path[-1] in FREE or path == ("spec", "metadata"))
    if isinstance(value, dict) and not is_free:
        for key, item in value.items():
            yield (*path, key)
            yield from _fields(item, (*path, key))
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _fields(item, (*path, number))
