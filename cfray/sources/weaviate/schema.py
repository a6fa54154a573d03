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

from cfray.errors import CannotFilter, CannotSearchWords, SourceError
from cfray.sources.base import FieldEquals, Metric

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
        distance: as Weaviate calls it; empty where the definition names none.
        is_multi: whether an object has several vectors in it.
    """

    target_name: str
    distance: str
    is_multi: bool

    @property
    def metric(self) -> Metric | None:
        """Give the distance as Lance calls it; None for a distance that Lance does not have."""
        return _METRICS.get(self.distance)


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


def check_exact(definition: Mapping[str, Any], where: FieldEquals) -> None:
    """Refuse a condition that Weaviate would compare word by word, or without upper and lower case.

    Raises:
        CannotFilter: the property is no text whose index holds it as one token.
    """
    for declared in definition.get("properties") or []:
        is_text = declared["dataType"] == ["text"] and declared.get("tokenization") == "field"
        if declared["name"] == where.name and is_text and declared.get("indexFilterable", True):
            return
    raise CannotFilter(
        f"Weaviate does not compare {where.name} of {definition['class']} exactly: that needs a "
        "filterable text with tokenization field",
        "compare such searches by hand",
    )


def check_searchable(definition: Mapping[str, Any], name: str) -> None:
    """Refuse a property of which Weaviate keeps no words.

    Raises:
        CannotSearchWords: the property is no text, or has no inverted index for BM25.
    """
    for declared in definition.get("properties") or []:
        is_text = declared["dataType"] in (["text"], ["text[]"])
        if declared["name"] == name and is_text and declared.get("indexSearchable", True):
            return
    raise CannotSearchWords(
        f"{name} of {definition['class']} is not searched by words",
        "compare such searches by hand",
    )


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
    vectors = {}
    for target_name, index in sorted(indexes.items()):
        parsed = _parse_index(target_name, index)
        vectors[column_of_index(target_name, is_multi=parsed.is_multi)] = parsed
    return Definition(
        name, tuple(properties), references, vectors, has_tenants=has_tenants(definition)
    )


def has_tenants(definition: Mapping[str, Any]) -> bool:
    """Tell whether a collection's objects are divided among tenants."""
    return bool((definition.get("multiTenancyConfig") or {}).get("enabled"))


def column_of_index(index_name: str, *, is_multi: bool) -> str:
    """Give the name of an index's column: "", which is ``vector``, for the default index.

    An index that has several vectors for each object is no record's primary vector, whatever its
    name.  The server takes no ``default`` beside an unnamed index.
    """
    return "" if index_name == _DEFAULT_INDEX and not is_multi else index_name


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
    return VectorIndex(target_name, str(config.get("distance") or ""), is_multi)


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
