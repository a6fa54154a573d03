"""What a Weaviate collection declares: its properties, its references, its vector indexes.

The definition is the JSON that ``GET /v1/schema`` answers; a property of a type that is not
known here is refused, never guessed.

Source: https://docs.weaviate.io/weaviate/config-refs/collections
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

from cfray.errors import SourceError
from cfray.records.record import canonical
from cfray.sources.base import Collection, Metric

#: A gRPC message of the vendor's package, which ships no types.
Message: TypeAlias = Any

_METRICS: dict[str, Metric] = {"cosine": "cosine", "l2-squared": "l2", "dot": "dot"}
#: Types of properties that are read.
_PROPERTY_TYPES = {
    *("text", "string", "int", "number", "boolean", "date", "uuid", "object"),
    *("text[]", "string[]", "int[]", "number[]", "boolean[]", "date[]", "uuid[]", "object[]"),
    *("blob", "blobHash", "geoCoordinates", "phoneNumber"),
}
#: Name of the index that stands for the record's column ``vector``.
_DEFAULT_INDEX = "default"


@dataclass(frozen=True)
class Property:
    """A property that is no reference, and the properties nested in an object's."""

    name: str
    type: str
    nested: tuple[Property, ...] = ()


@dataclass(frozen=True)
class VectorIndex:
    """A vector index.

    Attributes:
        target_name: its name in requests; empty for the unnamed index of old collections.
        metric: None for a metric that Lance does not have.
        is_multi: whether an object has several vectors in it.
    """

    target_name: str
    metric: Metric | None
    is_multi: bool


@dataclass(frozen=True)
class Definition:
    """A collection's definition, as far as reading needs it.

    Attributes:
        references: property -> the collections it may point into.
        vectors: name behind ``vectors.`` -> index; the name "" is the column ``vector``.
        has_tenants: whether its objects are divided among tenants.
    """

    name: str
    properties: tuple[Property, ...]
    references: dict[str, tuple[str, ...]]
    vectors: dict[str, VectorIndex]
    has_tenants: bool

    @property
    def time_keys(self) -> tuple[str, str]:
        """Name the keys of an object's creation and update time; never those of a property."""
        property_names = {declared.name for declared in self.properties} | set(self.references)
        keys = ["_creation_time", "_update_time"]
        while property_names & set(keys):
            keys = [f"_{key}" for key in keys]
        return keys[0], keys[1]


def parse_definition(definition: Mapping[str, Any]) -> Definition:
    """Read a collection's definition as REST gives it.

    Raises:
        SourceError: a property is of a type that is not known here.
    """
    name = str(definition["class"])
    properties, references = [], {}
    for declared in definition.get("properties") or []:
        # names of types begin with a lower-case letter, names of collections never do
        if declared["dataType"][0][:1].isupper():
            references[declared["name"]] = tuple(declared["dataType"])
        else:
            properties.append(_parse_property(name, declared))
    indexes = dict(definition.get("vectorConfig") or {})
    if definition.get("vectorIndexType"):
        indexes[""] = definition
    vectors = {
        column_of_index(target_name): _parse_index(target_name, index)
        for target_name, index in sorted(indexes.items())
    }
    tenancy = definition.get("multiTenancyConfig") or {}
    return Definition(
        name, tuple(properties), references, vectors, has_tenants=bool(tenancy.get("enabled"))
    )


def column_of_index(index_name: str) -> str:
    """Give the name of an index's column: "", which is ``vector``, for the default index."""
    return "" if index_name == _DEFAULT_INDEX else index_name


def index_of_column(column: str) -> str:
    """Give the name of the index of a column, as definitions and exports write it."""
    return column or _DEFAULT_INDEX


def _parse_property(parent: str, declared: Mapping[str, Any]) -> Property:
    path, property_type = f"{parent}.{declared['name']}", declared["dataType"][0]
    if property_type not in _PROPERTY_TYPES:
        raise SourceError(
            f"{path} is of type {property_type}, which is not known here",
            "leave the collection out of source.collections",
        )
    nested = declared.get("nestedProperties") or []
    return Property(
        declared["name"], property_type, tuple(_parse_property(path, child) for child in nested)
    )


def _parse_index(target_name: str, index: Mapping[str, Any]) -> VectorIndex:
    config = index.get("vectorIndexConfig") or {}
    if index.get("vectorIndexType") == "dynamic":
        config = config | (config.get("hnsw") or {})
    is_multi = bool((config.get("multivector") or {}).get("enabled"))
    return VectorIndex(target_name, _METRICS.get(str(config.get("distance"))), is_multi)


def property_request(collection: Definition, protocol: ModuleType) -> Message:
    """Name every property in a request: a blob comes only if it is named.

    References come over REST, because gRPC leaves out those whose target does not exist.
    """
    messages = protocol.search_get_pb2

    def object_requests(properties: Sequence[Property]) -> list[Message]:
        return [
            messages.ObjectPropertiesRequest(
                prop_name=declared.name,
                primitive_properties=plain_names(declared.nested),
                object_properties=object_requests(declared.nested),
            )
            for declared in properties
            if declared.nested
        ]

    def plain_names(properties: Sequence[Property]) -> list[str]:
        return [declared.name for declared in properties if not declared.nested]

    return messages.PropertiesRequest(
        non_ref_properties=plain_names(collection.properties),
        object_properties=object_requests(collection.properties),
    )


def describe_collection(
    name: str,
    rows: int | None,
    definition: Mapping[str, Any],
    widths: Mapping[str, int],
    aliases: Mapping[str, Sequence[str]],
) -> Collection:
    """Describe a collection or tenant; its definition is carried over unabridged.

    Args:
        name: of the source collection.
        rows: counted.
        definition: as REST gives it.
        widths: width of each vector that was seen.
        aliases: collection -> its aliases.
    """
    collection = parse_definition(definition)
    facts = {"class": canonical(definition)}
    if collection_aliases := aliases.get(collection.name):
        facts["aliases"] = ", ".join(sorted(collection_aliases))
    main_index = collection.vectors.get("")
    named_vectors = {
        column: (widths[column], index.metric)
        for column, index in collection.vectors.items()
        if column and not index.is_multi and column in widths
    }
    return Collection(
        name,
        rows,
        widths.get("") if main_index else None,
        main_index.metric if main_index else None,
        named_vectors,
        facts,
    )


def reference_targets(
    definitions: Mapping[str, Mapping[str, Any]], read: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Say where references point: path of the field -> source collection.

    Args:
        definitions: every collection of the server, as REST gives it.
        read: (collection, tenant) of what is read.  A reference stays inside its tenant, so with
            several tenants it has no single target.
    """
    tenants = {tenant for _, tenant in read if tenant}
    targets_by_path: dict[str, set[str]] = {}
    for name in sorted({name for name, _ in read}):
        for field, targets in parse_definition(definitions[name]).references.items():
            for target in targets:
                path = f"{field}.{target}" if len(targets) > 1 else field
                tenancy = definitions.get(target, {}).get("multiTenancyConfig") or {}
                if not tenancy.get("enabled"):
                    targets_by_path.setdefault(path, set()).add(target)
                elif len(tenants) == 1:
                    targets_by_path.setdefault(path, set()).add(f"{target}/{next(iter(tenants))}")
    return {path: targets.pop() for path, targets in targets_by_path.items() if len(targets) == 1}
