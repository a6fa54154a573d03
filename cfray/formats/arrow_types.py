"""The types that rows have behind the door of every Arrow source.

Arrow lays the same values out in many ways: views, dictionaries, run-end encoding, narrow decimals,
extension types.  Few of its functions know them all, so none of them comes further than this door:
``normal_type`` says which type stands for each, and ``normal_arrays`` makes the arrays.  The name
of the source's type travels as metadata of the field, for the dataset records that name; so does
what the normal type does not carry.  A name that two columns share is numbered, for a rule that
names it would silently mean one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import pyarrow as pa
from pyarrow import types as kinds

from cfray.errors import ConfigError
from cfray.records import values
from cfray.records.names import unique_names
from cfray.records.record import VARIANT, variant_field
from cfray.records.vector_values import is_vector_type

#: Metadata of a normal field: the name of the type that the source's column has.
_SOURCE_TYPE = b"cfray.type"
#: Metadata of a normal field: what its values do not carry of the source's.
_LOSS = b"cfray.lossy"
#: Metadata of a normal field: the name that the source's column has, with others.
_SHARED_NAME = b"cfray.name"
#: Metadata that pyarrow leaves on the field of an extension type that it does not know.
_UNKNOWN_EXTENSION = b"ARROW:extension:name"


def normal_schema(schema: pa.Schema) -> pa.Schema:
    """Give the schema that the records of a file with this schema have.

    The metadata that the file's writer left on the schema and its fields is dropped.

    Raises:
        ConfigError: names a column in whose time zone this machine cannot write instants.
    """
    return _normal_schema(_Known(schema.serialize().to_pybytes(), schema))


@dataclasses.dataclass(frozen=True)
class _Known:
    """A schema that can be looked up: by its bytes, for schemas do not compare their metadata."""

    content: bytes
    schema: pa.Schema = dataclasses.field(compare=False)


# Working a schema out takes half a millisecond; looking it up, some microseconds.
@lru_cache(maxsize=256)
def _normal_schema(known: _Known) -> pa.Schema:
    for column in known.schema:
        _check_time_zones(column.name, column.type)
    return pa.schema(_normal_fields(list(known.schema)))


def _check_time_zones(name: str, kind: pa.DataType) -> None:
    """Refuse a column whose time zone this machine does not know, for its texts depend on it."""
    if kinds.is_timestamp(kind) and kind.tz:
        try:
            values.time_zone(kind.tz)
        except ConfigError as error:
            raise ConfigError(f"column {name}: {error.what}", error.remedy) from error
    for inner in _inner_types(kind):
        _check_time_zones(name, inner)


def normal_type(kind: pa.DataType) -> pa.DataType:
    """Give the type that stands for a type behind the door; most types stand for themselves.

    A union, and whatever holds one, becomes a variant, for no other type keeps both numbers and
    texts apart.  A UUID in a list or a map becomes its text, for pyarrow 26.0.1 cannot filter lists
    of an extension type.
    """
    if holds_union(kind):
        return VARIANT
    for test, stand_in in _STAND_INS:
        if test(kind):
            return stand_in(kind)
    if not kinds.is_nested(kind):
        return kind
    children = _normal_fields(child_fields(kind))
    if not kinds.is_struct(kind):
        children = list(map(_with_uuid_texts, children))
    normal = _with_children(_list_of_view(kind), children)
    return kind if normal.equals(kind) else normal


def holds_union(kind: pa.DataType) -> bool:
    """Tell whether a type is a union or holds one at any depth."""
    return kinds.is_union(kind) or any(map(holds_union, _inner_types(kind)))


def child_fields(kind: pa.DataType) -> list[pa.Field]:
    """List the fields of a nested type: of a map, the keys' and the values'."""
    if kinds.is_map(kind):
        return [kind.key_field, kind.item_field]
    return [kind.field(index) for index in range(kind.num_fields)]


def source_type_name(field: pa.Field) -> str | None:
    """Name the type that a field has at its source; None where it is the field's own."""
    name = (field.metadata or {}).get(_SOURCE_TYPE)
    return None if name is None else name.decode()


def loss_of(field: pa.Field) -> str | None:
    """Say what a record does not carry of a column; None if it carries all."""
    reason = (field.metadata or {}).get(_LOSS)
    return values.lossy_reason(field.type) if reason is None else reason.decode()


def shared_names(schema: pa.Schema) -> dict[str, list[str]]:
    """List the names that several columns share in the source: dotted name -> names here."""
    shared: dict[str, list[str]] = {}
    for name, field in _all_fields("", list(schema)):
        original = (field.metadata or {}).get(_SHARED_NAME)
        if original is not None:
            prefix = name.removesuffix(field.name)
            shared.setdefault(prefix + original.decode(), []).append(name)
    return shared


def _all_fields(prefix: str, fields: Sequence[pa.Field]) -> Iterator[tuple[str, pa.Field]]:
    for field in fields:
        yield prefix + field.name, field
        if kinds.is_nested(field.type):
            yield from _all_fields(f"{prefix}{field.name}.", child_fields(field.type))


def _normal_fields(fields: Sequence[pa.Field]) -> list[pa.Field]:
    names = unique_names([field.name for field in fields])
    return [_normal_field(field, name) for field, name in zip(fields, names, strict=True)]


def _with_uuid_texts(field: pa.Field) -> pa.Field:
    """Give a field of a normal type with texts in place of UUIDs, at any depth."""
    kind = field.type
    if isinstance(kind, pa.UuidType):
        return field.with_type(pa.string())
    if not kinds.is_nested(kind):
        return field
    changed = _with_children(kind, list(map(_with_uuid_texts, child_fields(kind))))
    return field if changed.equals(kind) else field.with_type(changed)


def _normal_field(field: pa.Field, name: str) -> pa.Field:
    kind = normal_type(field.type)
    source_type = _unique_type(field.type)
    metadata: dict[bytes, bytes] = {}
    source_name = values.type_name(source_type)
    # The column of a further vector is made by the name that is recorded of its type.
    if source_name != values.type_name(kind) and not is_vector_type(kind):
        metadata[_SOURCE_TYPE] = source_name.encode()
    loss = values.lossy_reason(source_type) or _unknown_extension(field)
    if loss is not None:
        metadata[_LOSS] = loss.encode()
    if name != field.name:
        metadata[_SHARED_NAME] = field.name.encode()
    if kind is VARIANT:
        return variant_field(name).with_metadata(variant_field(name).metadata | metadata)
    # Arrow has no field of nulls that may not be null.
    return pa.field(name, kind, field.nullable or kinds.is_null(kind), metadata or None)


def _unknown_extension(field: pa.Field) -> str | None:
    """Say that pyarrow does not know the extension type of a column, or of a field in it."""
    name = (field.metadata or {}).get(_UNKNOWN_EXTENSION)
    if name is not None:
        storage = values.type_name(field.type)
        return (
            f"extension<{name.decode(errors='replace')}>: its values are kept as {storage}, the "
            "extension type is not"
        )
    if not kinds.is_nested(field.type) or kinds.is_union(field.type):
        return None
    reasons = map(_unknown_extension, child_fields(field.type))
    return next((reason for reason in reasons if reason), None)


def _inner_types(kind: pa.DataType) -> list[pa.DataType]:
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return [kind.value_type]
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    return [field.type for field in child_fields(kind)] if kinds.is_nested(kind) else []


def _unique_type(kind: pa.DataType) -> pa.DataType:
    """Give a type whose structs repeat no field name, and which is otherwise the same."""
    if kinds.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _unique_type(kind.value_type), kind.ordered)
    if kinds.is_run_end_encoded(kind):
        return pa.run_end_encoded(kind.run_end_type, _unique_type(kind.value_type))
    if not kinds.is_nested(kind) or kinds.is_union(kind):
        return kind
    fields = child_fields(kind)
    names = unique_names([field.name for field in fields])
    return _with_children(
        kind,
        [
            pa.field(name, _unique_type(field.type), field.nullable, field.metadata)
            for name, field in zip(names, fields, strict=True)
        ],
    )


def _list_of_view(kind: pa.DataType) -> pa.DataType:
    """Give the list type that a list view is made into; other types stay."""
    if kinds.is_list_view(kind):
        return pa.list_(kind.value_field)
    return pa.large_list(kind.value_field) if kinds.is_large_list_view(kind) else kind


def _with_children(kind: pa.DataType, fields: list[pa.Field]) -> pa.DataType:
    """Give a nested type with other fields in place of its own."""
    return next(make(kind, fields) for test, make in _NESTED if test(kind))


_Test = Callable[[pa.DataType], bool]
_STAND_INS: tuple[tuple[_Test, Callable[[pa.DataType], pa.DataType]], ...] = (
    (kinds.is_string_view, lambda _: pa.string()),
    (kinds.is_binary_view, lambda _: pa.binary()),
    (kinds.is_dictionary, lambda kind: normal_type(kind.value_type)),
    (kinds.is_run_end_encoded, lambda kind: normal_type(kind.value_type)),
    (kinds.is_decimal32, lambda kind: pa.decimal128(kind.precision, kind.scale)),
    (kinds.is_decimal64, lambda kind: pa.decimal128(kind.precision, kind.scale)),
    (lambda kind: isinstance(kind, pa.UuidType), lambda kind: kind),
    (
        lambda kind: isinstance(kind, pa.BaseExtensionType),
        lambda kind: normal_type(kind.storage_type),
    ),
)
_NESTED: tuple[tuple[_Test, Callable[[pa.DataType, list[pa.Field]], pa.DataType]], ...] = (
    (kinds.is_struct, lambda _, fields: pa.struct(fields)),
    (kinds.is_map, lambda kind, fields: pa.map_(*fields, keys_sorted=kind.keys_sorted)),
    (kinds.is_fixed_size_list, lambda kind, fields: pa.list_(fields[0], kind.list_size)),
    (kinds.is_large_list, lambda _, fields: pa.large_list(fields[0])),
    (kinds.is_list_view, lambda _, fields: pa.list_view(fields[0])),
    (kinds.is_large_list_view, lambda _, fields: pa.large_list_view(fields[0])),
    (kinds.is_list, lambda _, fields: pa.list_(fields[0])),
)
