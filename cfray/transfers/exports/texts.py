"""Rows as texts: each a JSON object, or each cell as CSV has it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.rule_reader import plain_texts
from cfray.records.plain import texts_of_variants
from cfray.records.record import canonical, is_variant, variant_texts, variant_types
from cfray.records.values import json_texts
from cfray.records.vector_values import is_vector_type


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
    # an empty text behind the members, for pyarrow 26.0.1 leaves out a row that is null in all
    members.append(pa.repeat(pa.scalar(""), rows.num_rows))
    joined = pc.binary_join_element_wise(*members, ",", null_handling="skip")
    joined = pc.utf8_rtrim(joined, ",")
    return pc.binary_join_element_wise("{", joined, "}", "")


def _members(field: pa.Field, column: pa.Array, *, with_nulls: bool) -> pa.StringArray:
    name = canonical(field.name) + ":"
    if is_variant(field):
        texts = variant_json(column)
    else:
        texts = vector_json(column)
        if with_nulls:
            texts = pc.fill_null(texts, "null")
    return pc.binary_join_element_wise(name, texts, "")


def vector_json(column: pa.Array) -> pa.StringArray:
    """Write lists of numbers as JSON; null where there is none.

    Most readers read a number as a float64.  A float32 whose shortest digits would be rounded to
    its neighbour that way is written with those of the float64.
    """
    if not is_vector_type(column.type):
        return json_texts(column)  # a sparse vector, or a list of vectors
    numbers = column.flatten()
    if not numbers.type.equals(pa.float32()) or numbers.null_count:
        return json_texts(column)
    doubles = json_texts(numbers).cast(pa.float64())
    is_other = pc.not_equal(doubles.cast(pa.float32(), safe=False), numbers)
    if not pc.any(is_other, min_count=0).as_py():
        return json_texts(column)
    exact = json_texts(numbers.cast(pa.float64()))
    texts = pc.if_else(is_other, exact, json_texts(numbers))
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")
    written = pc.binary_join_element_wise("[", joined, "]", "")
    return pc.if_else(column.is_valid(), written, None)


def variant_json(column: pa.StructArray) -> pa.StringArray:
    """Write variants as JSON; null where the key is missing."""
    texts, kinds = variant_texts(column), variant_types(column)
    is_string = pc.fill_null(pc.equal(kinds, "string"), fill_value=False)
    return pc.if_else(is_string, json_texts(texts), texts)


def csv_cells(column: pa.Array, field: pa.Field) -> pa.StringArray:
    """Write values as the cells of a CSV file: null gives null, which is written as nothing."""
    if is_variant(field):
        return texts_of_variants(column)
    return vector_json(column) if is_vector_type(column.type) else plain_texts(column)
