"""What the mapping of an index declares: vectors, values whose type JSON does not show, joins.

A plan keeps an index's schema in each of its shards, so that every page has the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from cfray.errors import SourceError
from cfray.sources.base import Json, Metric

#: The number type of a vector's elements.
Element: TypeAlias = Literal["float", "byte", "bit"]
_ARROW_TYPES = {"float": pa.float32(), "byte": pa.int8(), "bit": pa.uint8()}
#: Types of fields whose values are JSON texts; the record keeps the name of the type.
_TEXT_TYPES = {"date": "date", "date_nanos": "date", "binary": "binary", "ip": "ip"}


@dataclass(frozen=True, slots=True)
class VectorField:
    """A vector that a mapping declares.

    Attributes:
        path: dotted path of the field in a document.
        width: of the vector: numbers, or for bits bytes; 0 where the mapping does not say.
        element: type of its numbers.
        metric: that Lance's indexes know, too.
        is_multi: whether a document has a list of vectors there.
        nested: path of the nested objects that the field is in; empty where it is in none.
    """

    path: str
    width: int
    element: Element = "float"
    metric: Metric | None = None
    is_multi: bool = False
    nested: str = ""

    def arrow_type(self) -> pa.DataType:
        """Give the Arrow type of one vector."""
        return pa.list_(_ARROW_TYPES[self.element], self.width)

    def to_json(self) -> dict[str, Json]:
        """Write the field into a shard's ``where``."""
        return {
            "path": self.path,
            "width": self.width,
            "element": self.element,
            "is_multi": self.is_multi,
            "nested": self.nested,
        }

    def exists_query(self) -> dict[str, Json]:
        """Write the query that finds the documents that have the vector."""
        exists: dict[str, Json] = {"exists": {"field": self.path}}
        return {"nested": {"path": self.nested, "query": exists}} if self.nested else exists


#: A product's reader of what a mapping declares of one field; None where it is no vector.
ParseVector = Callable[[str, Mapping[str, Any]], VectorField | None]


@dataclass(frozen=True, slots=True)
class IndexSchema:
    """What the records of an index are made of.

    Attributes:
        vectors: name of the record's column -> the vector in it: "" is the column ``vector``.
        inner_vectors: vectors within objects, which stay where they are in the record.
        types: name of a field of a document -> the type that is recorded for its values.
    """

    vectors: Mapping[str, VectorField]
    inner_vectors: tuple[VectorField, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Write the schema into a shard's ``where``."""
        return {
            "vectors": {name: vector.to_json() for name, vector in self.vectors.items()},
            "inner_vectors": [vector.to_json() for vector in self.inner_vectors],
            "types": dict(self.types),
        }

    @classmethod
    def from_json(cls, data: Any) -> IndexSchema:
        """Read the schema from a shard's ``where``."""
        return cls(
            {name: VectorField(**vector) for name, vector in data["vectors"].items()},
            tuple(VectorField(**vector) for vector in data["inner_vectors"]),
            data["types"],
        )


NO_SCHEMA = IndexSchema({})


def parse_schema(mapping: Mapping[str, Any], parse_vector: ParseVector) -> IndexSchema:
    """Read a mapping; the only vector of floats is the column ``vector``, others have names."""
    top: list[VectorField] = []
    inner: list[VectorField] = []
    types: dict[str, str] = {}
    for path, declared, nested_path in walk_fields(mapping):
        vector = parse_vector(path, declared)
        if vector is None:
            if "." not in path and (recorded := _TEXT_TYPES.get(str(declared.get("type")))):
                types[path] = recorded
        elif "." in path:
            inner.append(replace(vector, nested=nested_path))
        else:
            top.append(vector)
    main = next((vector for vector in top if vector.path == "vector"), None)
    if main is None and len(top) == 1 and _is_plain(top[0]):
        main = top[0]
    vectors = {"" if vector is main else vector.path: vector for vector in top}
    return IndexSchema(vectors, tuple(inner), types)


def _is_plain(vector: VectorField) -> bool:
    return vector.element == "float" and not vector.is_multi


def walk_fields(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Give the path, the declaration and the innermost nested path of every field."""
    yield from _walk(mapping.get("properties") or {}, "", "")


def _walk(
    properties: Mapping[str, Any], above: str, nested: str
) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for name, declared in sorted(properties.items()):
        path = f"{above}{name}"
        yield path, declared, nested
        inside = path if declared.get("type") == "nested" else nested
        yield from _walk(declared.get("properties") or {}, f"{path}.", inside)


def join_paths(mapping: Mapping[str, Any]) -> list[str]:
    """Give the paths under which documents name their parents: those of join fields."""
    return [
        f"{path}.parent"
        for path, declared, _ in walk_fields(mapping)
        if declared.get("type") == "join"
    ]


def check_has_source(address: str, index: str, mapping: Mapping[str, Any], mode: str) -> None:
    """Refuse an index that keeps no documents.

    Raises:
        SourceError: ``_source`` is disabled.
    """
    source = mapping.get("_source") or {}
    if source.get("enabled") is False or source.get("mode") == "disabled" or mode == "disabled":
        raise SourceError(
            f"{address} keeps no documents of the index {index}: its mapping disables _source, so "
            "only what is searched is there, and nothing can give the documents back",
            "read the system that the index was filled from, or leave the index out of "
            "source.collections",
        )


def unread_fields(
    index: str, mapping: Mapping[str, Any], restored: Collection[str]
) -> Iterator[str]:
    """Say which fields a mapping leaves out of the documents that the server keeps.

    Args:
        index: name of the index.
        mapping: parsed JSON.
        restored: fields that the server puts back.
    """
    source = mapping.get("_source") or {}
    for key in ("excludes", "includes"):
        listed = source.get(key) or []
        if names := [name for name in listed if key == "includes" or name not in restored]:
            verb = "leaves out" if key == "excludes" else "keeps nothing but"
            yield (
                f"{index}: its mapping {verb} {', '.join(map(str, names))} of _source: what is "
                "left out was indexed and cannot be read"
            )
