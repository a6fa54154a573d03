"""What a Weaviate collection declares: its properties, its references, its vector indexes.

Source: https://docs.weaviate.io/weaviate/config-refs/collections
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from cfray.errors import SourceError
from cfray.records.record import canonical
from cfray.sources.base import Collection, Metric

_METRICS: dict[str, Metric] = {"cosine": "cosine", "l2-squared": "l2", "dot": "dot"}
#: Types of properties that are read, with and without "[]" as the server knows them.
_KNOWN = {
    "text", "string", "int", "number", "boolean", "date", "uuid", "blob", "blobHash", "geoCoordinates", "phoneNumber", "object",
    "text[]", "string[]", "int[]", "number[]", "boolean[]", "date[]", "uuid[]", "object[]",
}  # fmt: skip


@dataclass(frozen=True)
class Property:
    """A property that is no reference: its type, and what an object's own properties are."""

    name: str
    type: str
    nested: tuple[Property, ...] = ()


@dataclass(frozen=True)
class Vector:
    """A vector index: its name on the wire (empty for the unnamed one of old collections)."""

    wire: str
    metric: Metric | None
    multi: bool


@dataclass(frozen=True)
class Declared:
    """A collection's definition, as far as reading needs it.

    Attributes:
        references: property -> the collections it may point into.
        vectors: name behind ``vectors.`` -> index; the name "" is the column ``vector``.
    """

    name: str
    properties: tuple[Property, ...]
    references: dict[str, tuple[str, ...]]
    vectors: dict[str, Vector]
    tenants: bool
    wakes: bool

    @property
    def times(self) -> tuple[str, str]:
        """Name the keys of an object's own two instants; never those of a property."""
        names = {one.name for one in self.properties} | set(self.references)
        pair = ["_creation_time", "_update_time"]
        while names & set(pair):
            pair = [f"_{name}" for name in pair]
        return pair[0], pair[1]


def declared(definition: Mapping[str, Any]) -> Declared:
    """Read a collection's definition as REST gives it.

    Raises:
        SourceError: a property of a type that is not known here.
    """
    name = str(definition["class"])
    properties, references = [], {}
    for one in definition.get("properties") or []:
        if one["dataType"][0][:1].isupper():  # types are lower-case, collections never
            references[one["name"]] = tuple(one["dataType"])
        else:
            properties.append(_property(name, one))
    indexes = dict(definition.get("vectorConfig") or {})
    if definition.get("vectorIndexType"):
        indexes[""] = definition
    vectors = {
        ("" if wire == "default" else wire): _vector(wire, each)
        for wire, each in sorted(indexes.items())
    }
    tenancy = definition.get("multiTenancyConfig") or {}
    return Declared(
        name,
        tuple(properties),
        references,
        vectors,
        bool(tenancy.get("enabled")),
        bool(tenancy.get("autoTenantActivation")),
    )


def _property(inside: str, one: Mapping[str, Any]) -> Property:
    kind = one["dataType"][0]
    if kind not in _KNOWN:
        raise SourceError(
            f"{inside}.{one['name']} is of type {kind}, which is not known here",
            "leave the collection out of source.collections",
        )
    return Property(
        one["name"],
        kind,
        tuple(
            _property(f"{inside}.{one['name']}", each) for each in one.get("nestedProperties") or []
        ),
    )


def _vector(wire: str, index: Mapping[str, Any]) -> Vector:
    config = index.get("vectorIndexConfig") or {}
    if index.get("vectorIndexType") == "dynamic":
        config = config | (config.get("hnsw") or {})
    multi = bool((config.get("multivector") or {}).get("enabled"))
    return Vector(wire, _METRICS.get(str(config.get("distance"))), multi)


def asked_for(collection: Declared, proto: ModuleType) -> Any:
    """Name every property: blobs come only by name.

    References come over REST, because here those without a target are lost.
    """
    wire = proto.search_get_pb2

    def of(properties: Sequence[Property]) -> dict[str, Any]:
        objects = [
            wire.ObjectPropertiesRequest(prop_name=one.name, **nested(one.nested))
            for one in properties
            if one.nested
        ]
        return {"object_properties": objects}

    def nested(properties: Sequence[Property]) -> dict[str, Any]:
        return {
            "primitive_properties": [one.name for one in properties if not one.nested],
            **of(properties),
        }

    plain = [one.name for one in collection.properties if not one.nested]
    return wire.PropertiesRequest(non_ref_properties=plain, **of(collection.properties))


def told(
    full: str,
    rows: int | None,
    definition: Mapping[str, Any],
    known: Mapping[str, int],
    aliases: Mapping[str, Sequence[str]],
) -> Collection:
    """Say what is worth carrying over of a collection or tenant: all of the definition.

    Args:
        full: its name.
        rows: counted.
        definition: as REST gives it.
        known: width of each vector that was seen.
        aliases: collection -> its aliases.
    """
    collection = declared(definition)
    facts = {"class": canonical(definition)}
    if names := aliases.get(collection.name):
        facts["aliases"] = ", ".join(sorted(names))
    main = collection.vectors.get("")
    named = {
        name: (known[name], one.metric)
        for name, one in collection.vectors.items()
        if name and not one.multi and name in known
    }
    return Collection(
        full, rows, known.get("") if main else None, main.metric if main else None, named, facts
    )


def references(
    definitions: Mapping[str, Mapping[str, Any]], read: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Say where references point: path of the field -> source collection.

    Args:
        definitions: every collection of the server, as REST gives it.
        read: (collection, tenant) of what is read; a reference stays inside its tenant, so with
            several it has no one target.
    """
    tenants = {tenant for _, tenant in read if tenant}
    found: dict[str, set[str]] = {}
    for name in sorted({name for name, _ in read}):
        for field, targets in declared(definitions[name]).references.items():
            for target in targets:
                path = f"{field}.{target}" if len(targets) > 1 else field
                inside = (definitions.get(target, {}).get("multiTenancyConfig") or {}).get(
                    "enabled"
                )
                if not inside or len(tenants) == 1:
                    found.setdefault(path, set()).add(
                        f"{target}/{next(iter(tenants))}" if inside else target
                    )
    return {path: one.pop() for path, one in found.items() if len(one) == 1}
