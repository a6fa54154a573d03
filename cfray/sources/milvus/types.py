"""Milvus's columnar replies as batches of records.

A reply holds one column for each field.  The bytes of vectors are taken from it as they came;
pymilvus's rows make a Python float of every number.  The keys beside the declared fields
(``$meta``) become further keys of the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.errors import SourceError
from cfray.formats import points
from cfray.formats.columns import interleave, split_by_bytes
from cfray.formats.jsontext import InexactJson, parse_json
from cfray.records.record import (
    VARIANT,
    Reject,
    Typed,
    canonical,
    number_text,
    variant_array,
    variant_field,
)
from cfray.sources.milvus.schema import SCALARS, CollectionInfo, Field, Message, MilvusSchema
from cfray.sources.milvus.vectors import vector_column

T = TypeVar("T")

#: The field of dynamic keys, and the record's key for its partition.
DYNAMIC, PARTITION = "$meta", "$partition"
#: Keys that every record has for something else.
_RESERVED_KEYS = ("id", "vector", "vectors")
#: Kinds whose lists parsed JSON calls by the same name.
_JSON_KINDS = ("Bool", "Int64", "Double", "VarChar")


#: Row number -> why the row cannot become a record, and the content that cannot be kept.
Reasons = dict[int, tuple[str, bytes]]


def keys_of(reply: Message, primary: str) -> list[int | str]:
    """Give the primary keys of a reply."""
    for column in reply.fields_data:
        if column.field_name == primary:
            return list(column.scalars.long_data.data) or list(column.scalars.string_data.data)
    return []


def build_records(
    reply: Message,
    collection: CollectionInfo,
    source_collection: str,
    partition: str | None,
    batch_bytes: int,
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn a reply into batches, and a Reject for each row whose JSON cannot be kept.

    Args:
        reply: to a query of all fields.
        collection: what is declared.
        source_collection: its name in rejects.
        partition: the partition of the records, where it is worth recording.
        batch_bytes: bytes that a batch aims at.

    Raises:
        SourceError: the reply lacks a declared field, which was not loaded.
    """
    schema = collection.schema
    columns = {column.field_name: column for column in reply.fields_data}
    _check_all_loaded(schema, columns, source_collection)
    keys = keys_of(reply, schema.primary.name)
    reasons: Reasons = {}
    static_columns = {
        field.name: static_column(field, columns[field.name], reasons)
        for field in schema.static_fields
    }
    if partition is not None:
        static_columns[PARTITION] = variant_array([partition] * len(keys))
    dynamic_keys: list[object] = [{}] * len(keys)
    if schema.is_dynamic:
        dynamic_keys = _parse_json_column(DYNAMIC, columns[DYNAMIC], reasons)
    vectors = {
        name: vector_column(field, columns[field.name], len(keys))
        for name, field in schema.vectors.items()
    }
    ids = pa.array(keys, pa.string() if schema.has_text_keys else pa.int64())
    records = join_columns(ids, vectors, dynamic_keys, static_columns)
    for item in _separate_rejects(records, keys, reasons, source_collection):
        if isinstance(item, Reject):
            yield item
        else:
            yield from split_by_bytes(item, batch_bytes)


def _check_all_loaded(
    schema: MilvusSchema, columns: Mapping[str, Message], source_collection: str
) -> None:
    names = [field.name for field in schema.fields] + [DYNAMIC] * schema.is_dynamic
    missing = [name for name in names if name not in columns]
    if missing:
        raise SourceError(
            f"collection {source_collection} was loaded without its fields {', '.join(missing)}",
            "release it and load all of it, then run again",
        )


def join_columns(
    ids: pa.Array,
    vectors: Mapping[str, pa.Array],
    dynamic_keys: Sequence[object],
    declared_columns: Mapping[str, pa.StructArray],
) -> pa.RecordBatch:
    """Put the parts of records together; no two of their keys get the same name.

    A declared field named like a column of every record becomes ``fields.<name>``.  A dynamic key
    named like any other column becomes ``$meta.<key>`` (servers refuse one that is named like a
    declared field, files may hold one).
    """
    declared = {
        points.unreserved_name(name, _RESERVED_KEYS, "fields"): column
        for name, column in declared_columns.items()
    }
    payload = [content if isinstance(content, dict) else {} for content in dynamic_keys]
    names = {
        key: points.unreserved_name(key, {*declared, PARTITION}, DYNAMIC)
        for key in {key for content in payload for key in content}
    }
    if any(key != name for key, name in names.items()):
        payload = [{names[key]: value for key, value in content.items()} for content in payload]
    records = points.build_batch(ids, vectors, payload, payload_name=DYNAMIC)
    for name, column in declared.items():
        records = records.append_column(variant_field(name), column)
    return records


def _separate_rejects(
    records: pa.RecordBatch, keys: Sequence[int | str], reasons: Reasons, source_collection: str
) -> Iterator[pa.RecordBatch | Reject]:
    """Give the good records, and each reject where its row stood."""
    good_rows = [row for row in range(len(keys)) if row not in reasons]
    if reasons:
        records = records.take(pa.array(good_rows, pa.int64()))
    rejected = (
        (row, Reject(reason, f"{source_collection}: {canonical(keys[row])}", content))
        for row, (reason, content) in sorted(reasons.items())
    )
    return interleave(good_rows, records, rejected)


def static_column(field: Field, column: Message, reasons: Reasons) -> pa.StructArray:
    """Give a declared field as a column of variants; a null is a null, never a missing key."""
    if field.kind == "JSON":
        return variant_array(_parse_json_column(field.name, column, reasons))
    if field.kind == "Array":
        arrays = [_array_value(field.element, cell) for cell in column.scalars.array_data.data]
        return variant_array(_insert_nulls(column, arrays))
    reply_field, arrow_name = SCALARS[field.kind]
    values = _scalar_texts(field.kind, getattr(column.scalars, reply_field).data)
    texts = pa.array(_insert_nulls(column, values), pa.string())
    types = pc.if_else(texts.is_valid(), arrow_name, "null")
    numbers = pa.nulls(len(texts), VARIANT.field("numbers").type)
    return pa.StructArray.from_arrays(
        [types, texts.fill_null("null"), numbers], fields=list(VARIANT)
    )


def _insert_nulls(column: Message, values: Sequence[T]) -> Sequence[T | None]:
    """Put None where a nullable field is null.

    Some servers leave such cells out, others send a value that means nothing.
    """
    if not column.valid_data:
        return values
    is_valid = list(column.valid_data)
    if len(values) < len(is_valid):
        present = iter(values)
        return [next(present) if valid else None for valid in is_valid]
    return [value if valid else None for value, valid in zip(values, is_valid, strict=True)]


def _scalar_texts(kind: str, values: Sequence[Any]) -> list[str]:
    """Write scalars as canonical JSON, strings as they are."""
    if kind == "VarChar":
        return list(values)
    if kind == "Bool":
        return ["true" if value else "false" for value in values]
    if kind in ("Float", "Double"):
        return [number_text(value) for value in _python_numbers(kind, values)]
    return list(map(str, values))


def _array_value(element: str, cell: Message) -> object:
    """Give an array with its type, unless parsed JSON would show the same type."""
    reply_field, arrow_name = SCALARS[element]
    values = _python_numbers(element, getattr(cell, reply_field).data)
    return values if element in _JSON_KINDS else Typed(f"list<{arrow_name}>", values)


def _python_numbers(kind: str, values: Sequence[Any]) -> list[Any]:
    """Give values as Python has them; a float32 as the float with its shortest text."""
    if kind == "Float":
        return [float(str(value)) for value in np.array(values, np.float32)]
    return list(values)


def _parse_json_column(name: str, column: Message, reasons: Reasons) -> list[object]:
    values: list[object] = []
    for row, text in enumerate(_insert_nulls(column, column.scalars.json_data.data)):
        try:
            values.append(None if text is None else parse_json(text))
        except InexactJson as error:
            values.append(None)
            reasons[row] = f"field {name}: {error}", bytes(text or b"")
    return values
