"""Records of a table: where its columns are in them, and the schema of several tables together."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cfray.records.record import VARIANT, variant_field
from cfray.sources.base import Collection
from cfray.sources.postgres.types import Column


def assemble(columns: Sequence[Column], arrays: Sequence[pa.Array], rows: int) -> pa.RecordBatch:
    """Put columns where they are in the record.

    Args:
        columns: what they are.
        arrays: their values.
        rows: how many records there are, also where there is no column.
    """
    fields: list[pa.Field] = []
    placed: list[pa.Array] = []
    vectors: dict[str, pa.Array] = {}
    for column, array in zip(columns, arrays, strict=True):
        if len(column.path) > 1:
            vectors[column.path[1]] = array
            continue
        name = column.path[0]
        is_variant = array.type.equals(VARIANT)
        fields.append(variant_field(name) if is_variant else pa.field(name, array.type))
        placed.append(array)
    if vectors:
        children = [pa.field(name, array.type) for name, array in vectors.items()]
        fields.append(pa.field("vectors", pa.struct(children)))
        placed.append(pa.StructArray.from_arrays(list(vectors.values()), fields=children))
    if not fields:
        # rows without any column are rows all the same
        return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    return pa.RecordBatch.from_arrays(placed, schema=pa.schema(fields))


def record_schema(columns: Sequence[Column]) -> pa.Schema:
    """Give the schema that records of these columns have."""
    return assemble(columns, [pa.nulls(0, column.arrow) for column in columns], 0).schema


def merge_schemas(tables: Sequence[tuple[str, Sequence[Column]]]) -> tuple[pa.Schema, list[str]]:
    """Put the fields of all tables together, and name those that have several types.

    Args:
        tables: name and columns of each.

    Returns:
        the schema, in which the first type of a field counts; a note for each further type.
    """
    fields: dict[str, tuple[pa.Field, str]] = {}
    notes = []
    for name, columns in tables:
        for field in record_schema(columns):
            known, first_name = fields.setdefault(field.name, (field, name))
            if known.type.equals(field.type):
                continue
            if field.name == "vectors":
                children = {child.name: child for child in [*field.type, *known.type]}
                merged = pa.field(field.name, pa.struct(list(children.values())))
                fields[field.name] = (merged, first_name)
                continue
            notes.append(
                f"{field.name} is {known.type} in {first_name} and {field.type} in {name}: the "
                "first is recorded as its type, and each record of another type keeps its own"
            )
    return pa.schema([field for field, _ in fields.values()]), notes


def common_references(collections: Sequence[Collection]) -> dict[str, str]:
    """Give the references that all tables that have them declare alike."""
    targets_by_path: dict[str, set[str]] = {}
    for collection in collections:
        for path, target in collection.references.items():
            targets_by_path.setdefault(path, set()).add(target)
    return {path: targets.pop() for path, targets in targets_by_path.items() if len(targets) == 1}
