"""What Milvus declares of a collection, and what becomes of its fields.

The schema fixes each column's type before the first record is read.  A field of
a type that is not read here refuses the collection: nothing is left out that
the server would give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import canonical
from cfray.sources.base import Collection, Metric

#: Messages of the protocol: ``schema_pb2.CollectionSchema`` and the like, which ship no types.
Message: TypeAlias = Any

#: Kind of a dense vector field -> (type in a reply, Arrow type of an element, numbers that an
#: element holds).
DENSE = {
    "FloatVector": ("<f4", pa.float32(), 1),
    "Float16Vector": ("<f2", pa.float16(), 1),
    "BFloat16Vector": ("<u2", pa.float32(), 1),
    "Int8Vector": ("i1", pa.int8(), 1),
    "BinaryVector": ("u1", pa.uint8(), 8),
}
#: Kind of a scalar -> (where a reply has it, Arrow's name of it).
SCALARS = {
    "Bool": ("bool_data", "bool"),
    "Int8": ("int_data", "int8"),
    "Int16": ("int_data", "int16"),
    "Int32": ("int_data", "int32"),
    "Int64": ("long_data", "int64"),
    "Float": ("float_data", "float"),
    "Double": ("double_data", "double"),
    "VarChar": ("string_data", "string"),
}
#: Functions whose output the server computes at insert and gives in no query.
_INDEX_ONLY = ("BM25", "MinHash")


@dataclass(frozen=True, slots=True)
class Field:
    """A field as the collection declares it.

    Attributes:
        name: its own.
        kind: the protocol's word: ``VarChar``, ``FloatVector``.
        element: kind of an array's elements.
        dimension: of a dense vector, in numbers (bits, for a binary one).
    """

    name: str
    kind: str
    element: str = ""
    dimension: int = 0

    @property
    def is_dense(self) -> bool:
        """Tell whether it is a vector of one width."""
        return self.kind in DENSE

    @property
    def is_numbers(self) -> bool:
        """Tell whether it is a dense vector of numbers, not bits."""
        return self.is_dense and self.kind != "BinaryVector"

    @property
    def words(self) -> str:
        """Write its type in one line: ``FloatVector(384)``, ``Array<Int8>``."""
        if self.kind == "Array":
            return f"Array<{self.element}>"
        return f"{self.kind}({self.dimension})" if self.dimension else self.kind

    @property
    def arrow(self) -> pa.DataType:
        """Give the type of a dense vector's column."""
        _, element, packed = DENSE[self.kind]
        return pa.list_(element, self.dimension // packed)


@dataclass(frozen=True, slots=True)
class MilvusSchema:
    """A collection's fields, by what becomes of them.

    Attributes:
        primary: the record's id.
        vectors: name of a record's vector ("" for the one called ``vector``) -> field.
        statics: the other declared fields.
        dynamic: whether records may have further keys.
        left_out: fields that only the server's index has.
    """

    primary: Field
    vectors: Mapping[str, Field]
    statics: tuple[Field, ...]
    dynamic: bool
    left_out: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """Tell whether primary keys are strings."""
        return self.primary.kind == "VarChar"


def layout(schema: Message, collection: str) -> MilvusSchema:
    """Read a declared schema.

    Raises:
        SourceError: a field of a type that is not read here.
    """
    from pymilvus.grpc_gen import schema_pb2 as protocol

    computed = {
        name
        for one in schema.functions
        if protocol.FunctionType.Name(one.type) in _INDEX_ONLY
        for name in one.output_field_names
    }
    fields = [
        _field(one, protocol.DataType.Name)
        for one in schema.fields
        if one.name not in computed and not one.is_dynamic
    ]
    known = {*SCALARS, *DENSE, "SparseFloatVector", "JSON", "Array"}
    strange = [
        f"{one.name} ({one.kind})"
        for one in fields
        if one.kind not in known or (one.kind == "Array" and one.element not in SCALARS)
    ]
    strange += [f"{one.name} (ArrayOfStruct)" for one in schema.struct_array_fields]
    if strange:
        raise SourceError(
            f"collection {collection} has fields of types that are not read: {', '.join(strange)}",
            "leave the collection out with source.collections, or copy those fields elsewhere first",
        )
    (primary,) = (
        _field(one, protocol.DataType.Name) for one in schema.fields if one.is_primary_key
    )
    vectors = [one for one in fields if one.is_dense or one.kind == "SparseFloatVector"]
    alone = len(vectors) == 1 and vectors[0].kind == "FloatVector"
    return MilvusSchema(
        primary,
        {"" if alone else one.name: one for one in vectors},
        tuple(one for one in fields if one not in vectors and one != primary),
        bool(schema.enable_dynamic_field),
        tuple(sorted(computed)),
    )


def _field(declared: Message, name_of: Callable[[int], str]) -> Field:
    params = {pair.key: pair.value for pair in declared.type_params}
    element = name_of(declared.element_type) if declared.element_type else ""
    return Field(declared.name, name_of(declared.data_type), element, int(params.get("dim", 0)))


@dataclass(frozen=True, slots=True)
class Told:
    """What the server says of a collection.

    Attributes:
        name: in its database.
        described: the declared schema and what is beside it (``DescribeCollectionResponse``).
        layout: the same, by what becomes of its fields.
        partitions: those that a user made and the default one, sorted; (None,) where that is alone,
            or where the server spreads records by a key.
    """

    name: str
    described: Message
    layout: MilvusSchema
    partitions: tuple[str | None, ...]


def spreads(described: Message) -> str | None:
    """Give the field by which the server spreads records over partitions that no query can name."""
    return next((field.name for field in described.schema.fields if field.is_partition_key), None)


def collection(
    shown: str, one: Told, rows: int, indexes: Mapping[str, dict[str, str]]
) -> Collection:
    """Say what is worth keeping of a collection.

    Args:
        shown: its name as a source collection.
        one: what the server says of it.
        rows: counted.
        indexes: field -> parameters of its index.
    """
    dense = {
        name: (field.dimension, metric(indexes.get(field.name, {})))
        for name, field in one.layout.vectors.items()
        if field.is_numbers
    }
    own = dense.pop("", (None, None))
    return Collection(shown, rows, own[0], own[1], dense, _facts(one, indexes))


def metric(index: Mapping[str, str]) -> Metric | None:
    """Give an index's metric by Lance's name."""
    known: dict[str, Metric] = {"COSINE": "cosine", "L2": "l2", "IP": "dot"}
    return known.get(index.get("metric_type", "").upper())


def _facts(one: Told, indexes: Mapping[str, dict[str, str]]) -> dict[str, str]:
    from pymilvus.grpc_gen import common_pb2, schema_pb2

    schema = one.described.schema
    told = one.layout
    fields = [told.primary, *told.vectors.values(), *told.statics]
    functions = {
        function.name: [
            schema_pb2.FunctionType.Name(function.type),
            list(function.input_field_names),
            list(function.output_field_names),
        ]
        for function in schema.functions
    }
    found: dict[str, object] = {
        "primary_field": told.primary.name,
        "fields": {field.name: field.words for field in fields},
        "nullable": [field.name for field in schema.fields if field.nullable],
        "indexes": dict(indexes),
        "functions": functions,
        "computed_by_the_server": list(told.left_out),
        "partition_key": spreads(one.described),
        "partitions": [name for name in one.partitions if name is not None],
        "aliases": sorted(one.described.aliases),
        "properties": {pair.key: pair.value for pair in one.described.properties},
        "description": schema.description,
        "consistency_level": common_pb2.ConsistencyLevel.Name(one.described.consistency_level),
        "dynamic_field": told.dynamic,
        "auto_id": any(field.autoID for field in schema.fields),
        "shards": one.described.shards_num,
    }
    return {
        name: value if isinstance(value, str) else canonical(value)
        for name, value in found.items()
        if value or value is False
    }


def notes(shown: str, one: Told, beyond: int) -> list[str]:
    """Say what an operator should know of a collection.

    Args:
        shown: its name as a source collection.
        one: what the server says of it.
        beyond: rows that it counts and gives in no query.
    """
    found = []
    if beyond > 0:
        found.append(
            f"{shown}: {beyond} rows have the primary key of another one; queries give one row a key, the others will be quarantined"
        )
    if one.layout.left_out:
        found.append(
            f"{shown}: {', '.join(one.layout.left_out)} is computed by the server for its index and not given; it is left out"
        )
    return found
