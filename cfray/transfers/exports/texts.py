"""Rows as texts: each a JSON object, or each cell as CSV has it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.rule_reader import plain_texts
from cfray.records.plain import texts_of_variants
from cfray.records.record import canonical, is_variant, variant_texts, variant_types
from cfray.records.values import json_texts


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


def csv_cells(column: pa.Array, field: pa.Field) -> pa.StringArray:
    """Write values as the cells of a CSV file: null gives null, which is written as nothing."""
    return texts_of_variants(column) if is_variant(field) else plain_texts(column)
