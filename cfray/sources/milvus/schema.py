"""What Milvus declares of a collection, and what becomes of its fields.

The schema fixes each column's type before the first record is read.  A field of a type that
is not read here refuses the collection: no field that the server would give is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from cfray.errors import SourceError

#: Messages of the protocol: ``schema_pb2.CollectionSchema`` and the like, which ship no types.
Message: TypeAlias = Any


class DenseKind(NamedTuple):
    """How a kind of dense vector is stored.

    Attributes:
        reply_type: numpy's code of an element in a reply.
        element: Arrow type of an element of the column.
        packed: numbers that an element holds.
    """

    reply_type: str
    element: pa.DataType
    packed: int


class ScalarKind(NamedTuple):
    """How a kind of scalar is stored.

    Attributes:
        reply_field: the field of a reply that holds its values.
        arrow_name: Arrow's name of the type.
    """

    reply_field: str
    arrow_name: str


#: Kind of a dense vector field, in the protocol's words.
DENSE = {
    "FloatVector": DenseKind("<f4", pa.float32(), 1),
    "Float16Vector": DenseKind("<f2", pa.float16(), 1),
    "BFloat16Vector": DenseKind("<u2", pa.float32(), 1),
    "Int8Vector": DenseKind("i1", pa.int8(), 1),
    "BinaryVector": DenseKind("u1", pa.uint8(), 8),
}
#: Kind of a scalar field, in the protocol's words.
SCALARS = {
    "Bool": ScalarKind("bool_data", "bool"),
    "Int8": ScalarKind("int_data", "int8"),
    "Int16": ScalarKind("int_data", "int16"),
    "Int32": ScalarKind("int_data", "int32"),
    "Int64": ScalarKind("long_data", "int64"),
    "Float": ScalarKind("float_data", "float"),
    "Double": ScalarKind("double_data", "double"),
    "VarChar": ScalarKind("string_data", "string"),
}
#: Functions whose output the server computes at insert and gives in no query.
_INDEX_ONLY_FUNCTIONS = ("BM25", "MinHash")


@dataclass(frozen=True, slots=True)
class Field:
    """A field as the collection declares it.

    Attributes:
        name: of the field.
        kind: its type in the protocol's words: ``VarChar``, ``FloatVector``.
        element: kind of an array's elements.
        dimension: of a dense vector, in numbers (bits, for a binary vector).
    """

    name: str
    kind: str
    element: str = ""
    dimension: int = 0

    @property
    def is_vector(self) -> bool:
        """Tell whether it is a vector, dense or sparse."""
        return self.is_dense or self.kind == "SparseFloatVector"

    @property
    def is_dense(self) -> bool:
        """Tell whether it is a vector of a fixed width."""
        return self.kind in DENSE

    @property
    def is_numbers(self) -> bool:
        """Tell whether it is a dense vector of numbers, not bits."""
        return self.is_dense and self.kind != "BinaryVector"

    @property
    def is_readable(self) -> bool:
        """Tell whether its type is read here."""
        if self.kind == "Array":
            return self.element in SCALARS
        return self.is_vector or self.kind in SCALARS or self.kind == "JSON"

    @property
    def type_text(self) -> str:
        """Write its type in one line: ``FloatVector(384)``, ``Array<Int8>``."""
        if self.kind == "Array":
            return f"Array<{self.element}>"
        return f"{self.kind}({self.dimension})" if self.dimension else self.kind

    @property
    def arrow(self) -> pa.DataType:
        """Give the type of a dense vector's column."""
        dense = DENSE[self.kind]
        return pa.list_(dense.element, self.dimension // dense.packed)


@dataclass(frozen=True, slots=True)
class MilvusSchema:
    """A collection's fields, by what becomes of them.

    Attributes:
        primary: the record's id.
        vectors: name of a record's vector ("" for the column ``vector``) -> field.
        static_fields: the other declared fields.
        is_dynamic: whether records may have further keys.
        index_only: fields that only the server's index has, and no query gives.
    """

    primary: Field
    vectors: Mapping[str, Field]
    static_fields: tuple[Field, ...]
    is_dynamic: bool
    index_only: tuple[str, ...]

    @property
    def has_text_keys(self) -> bool:
        """Tell whether primary keys are strings."""
        return self.primary.kind == "VarChar"

    @property
    def fields(self) -> list[Field]:
        """Give all declared fields that a query gives."""
        return [self.primary, *self.vectors.values(), *self.static_fields]


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What the server says of a collection.

    Attributes:
        name: in its database.
        description: the declared schema and what is beside it (``DescribeCollectionResponse``).
        schema: the declared schema, by what becomes of the fields.
        partitions: those that a user created and the default partition, sorted; (None,) where the
            default partition is alone, or where the server spreads records by a key.
    """

    name: str
    description: Message
    schema: MilvusSchema
    partitions: tuple[str | None, ...]


def parse_schema(schema: Message, collection: str) -> MilvusSchema:
    """Read a declared schema.

    Raises:
        SourceError: a field is of a type that is not read here.
    """
    from pymilvus.grpc_gen import schema_pb2

    index_only = _index_only_fields(schema)
    type_name = schema_pb2.DataType.Name
    fields = [
        _parse_field(declared, type_name)
        for declared in schema.fields
        if declared.name not in index_only and not declared.is_dynamic
    ]
    unreadable = [f"{field.name} ({field.kind})" for field in fields if not field.is_readable]
    unreadable += [f"{field.name} (ArrayOfStruct)" for field in schema.struct_array_fields]
    if unreadable:
        raise SourceError(
            f"collection {collection} has fields of types that are not read: "
            f"{', '.join(unreadable)}",
            "leave the collection out with source.collections, "
            "or copy those fields elsewhere first",
        )
    (primary,) = (
        _parse_field(declared, type_name) for declared in schema.fields if declared.is_primary_key
    )
    vectors = [field for field in fields if field.is_vector]
    return MilvusSchema(
        primary,
        {"" if is_main_vector(field, vectors) else field.name: field for field in vectors},
        tuple(field for field in fields if field not in vectors and field != primary),
        is_dynamic=bool(schema.enable_dynamic_field),
        index_only=tuple(sorted(index_only)),
    )


def _index_only_fields(schema: Message) -> set[str]:
    """Name the fields that a function computes for the index alone, so that no query gives them.

    Milvus Lite (2.5.1) marks the field and does not list the function; of all functions only BM25
    makes a sparse vector.
    """
    from pymilvus.grpc_gen import schema_pb2

    outputs = {
        name: schema_pb2.FunctionType.Name(function.type)
        for function in schema.functions
        for name in function.output_field_names
    }
    unlisted = {
        declared.name
        for declared in schema.fields
        if declared.is_function_output
        and declared.name not in outputs
        and declared.data_type == schema_pb2.DataType.SparseFloatVector
    }
    return unlisted | {name for name, kind in outputs.items() if kind in _INDEX_ONLY_FUNCTIONS}


def is_main_vector(field: Field, vectors: list[Field]) -> bool:
    """Tell whether a field is the column ``vector``: the only vector, and one of floats."""
    return vectors == [field] and field.kind == "FloatVector"


def _parse_field(declared: Message, type_name: Callable[[int], str]) -> Field:
    params = {pair.key: pair.value for pair in declared.type_params}
    element = type_name(declared.element_type) if declared.element_type else ""
    return Field(declared.name, type_name(declared.data_type), element, int(params.get("dim", 0)))


def partition_key_field(description: Message) -> str | None:
    """Give the field by which the server spreads records over partitions that no query can name."""
    fields = description.schema.fields
    return next((field.name for field in fields if field.is_partition_key), None)
