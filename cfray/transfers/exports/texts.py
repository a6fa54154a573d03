"""Rows as texts: each a JSON object, or each cell as CSV has it."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from cfray.records.record import canonical, is_variant, variant_texts, variant_types
from cfray.records.values import json_texts, metadata_texts


def json_objects(rows: pa.RecordBatch, *, with_nulls: bool) -> pa.StringArray:
    """Write each row as a JSON object.

    Args:
        rows: columns of any type, and of variants.
        with_nulls: write a null of a column that holds no variants; else the key is left out.
    """
    members = [
        _members(field, column, with_nulls=with_nulls)
        for field, column in zip(rows.schema, rows.columns, strict=True)
    ]
    if not members:
        return pa.repeat(pa.scalar("{}"), rows.num_rows)
    joined = pc.binary_join_element_wise(*members, ",", null_handling="skip")
    return pc.binary_join_element_wise("{", joined, "}", "")


def _members(field: pa.Field, column: pa.Array, *, with_nulls: bool) -> pa.StringArray:
    name = canonical(field.name) + ":"
    if is_variant(field):
        texts = variant_json(column)
    else:
        texts = json_texts(column)
        if with_nulls:
            texts = pc.fill_null(texts, "null")
    return pc.binary_join_element_wise(name, texts, "")


def variant_json(column: pa.StructArray) -> pa.StringArray:
    """Write variants as JSON; null where the key is missing."""
    texts, kinds = variant_texts(column), variant_types(column)
    is_string = pc.fill_null(pc.equal(kinds, "string"), fill_value=False)
    return pc.if_else(is_string, json_texts(texts), texts)


def unquoted(texts: pa.StringArray, may_be_quoted: pa.BooleanArray) -> pa.StringArray:
    """Take the quotes off those JSON texts that are strings."""
    is_quoted = pc.fill_null(pc.and_(may_be_quoted, pc.starts_with(texts, '"')), fill_value=False)
    if not pc.any(is_quoted).as_py():
        return texts
    quoted = pc.if_else(is_quoted, texts, None).to_pylist()
    plain = [None if text is None else json.loads(text) for text in quoted]
    return pc.if_else(is_quoted, pa.array(plain, pa.string()), texts)


def csv_cells(column: pa.Array, field: pa.Field) -> pa.StringArray:
    """Write values as the cells of a CSV file: null gives null, which is written as nothing."""
    if is_variant(field):
        kinds = variant_types(column)
        is_value = pc.fill_null(pc.not_equal(kinds, "null"), fill_value=False)
        texts = pc.if_else(is_value, variant_texts(column), None)
        return unquoted(texts, pc.not_equal(kinds, "string"))
    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    may_be_quoted = pa.repeat(pa.scalar(not is_text), len(column))
    return unquoted(metadata_texts(column), may_be_quoted)
